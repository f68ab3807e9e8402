"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go reads them; pure.

https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def of(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL; None to go straight."""
    parts = urlsplit(url)
    names = ("HTTPS_PROXY", "https_proxy") if parts.scheme == "https" else ("HTTP_PROXY", "http_proxy")
    proxy = next((environ[name] for name in names if environ.get(name)), "")
    host = parts.hostname or ""
    if not proxy or host == "localhost" or _excluded(host, parts.netloc.rpartition(":")[2], environ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _excluded(host: str, port: str, environ: Mapping[str, str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None and address.is_loopback:
        return True
    for entry in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").lower().split(","):
        entry = entry.strip()
        if entry == "*":
            return True
        name, colon, wanted = entry.rpartition(":")
        if colon and wanted.isdigit() and "]" not in wanted and name.count(":") == 0:
            if port != wanted:
                continue
            entry = name
        if entry and _covers(entry, host.lower(), address):
            return True
    return False


def _covers(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    entry = entry.removeprefix("*")
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")
