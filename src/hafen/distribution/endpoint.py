"""Where a registry is: mirrors, insecure registries and per-host rules become an ordered list of endpoints.

    daemon.json   registry-mirrors        asked first for docker.io
                  insecure-registries     hosts and networks whose certificate is not verified, and plain HTTP
    certs.d/<host[:port]>/                *.crt, *.cert + *.key (see `tls`)
                          hosts.toml      mirrors of any registry, with another path where they want one; the format is
                                          containerd's (docs/hosts.md there), without `header`: what is written there
                                          and not known here is refused

Loopback is insecure by default, as in Docker.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass
from urllib.parse import urlsplit

from hafen.errors import InvalidArgument
from hafen.spec.reference import DEFAULT_DOMAIN

_HUB = "registry-1.docker.io"
_NO_HOST = re.compile(r"""[^-\w.~!$&'()*+,;=:<>"\[\]%\u0080-\U0010ffff]""", re.ASCII)  # Go's net/url
_KEYS = frozenset(("capabilities", "ca", "client", "skip_verify", "override_path"))
_HUB_NAMES = ("", "docker.io", "index.docker.io", _HUB)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator says of registries. `mirrors` are URLs, `insecure` hosts with or without port, or networks;
    `certificates` are directories like /etc/docker/certs.d."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`base` is the URL that `/<repository>/manifests/...` follows. Credentials are for the registry that was named,
    never for its mirrors. `resolve`: what a tag means is asked here too, not only for what has a digest. `authorities`
    and `clients` (certificate, key) are files that count here beside those of the host's directory."""

    base: str
    verify: bool = True
    mirror: bool = False
    resolve: bool = True
    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str | None], ...] = ()

    @property
    def origin(self) -> str:
        """`https://host:port`"""
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def host(self) -> str:
        return urlsplit(self.base).netloc


def domain_of(server: str) -> str:
    """The registry in a `serveraddress`, which may be a URL: `https://index.docker.io/v1/` is docker.io."""
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB_NAMES else host


def check_host(host: str) -> None:
    """InvalidArgument, in Go's words, where there can be no URL of this `host[:port]`."""
    url = f'parse "https://{host}"'
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            raise InvalidArgument(f"{url}: missing ']' in host")
        port = host[end + 1 :]
    else:
        port = ":" + host.rpartition(":")[2] if ":" in host else ""
    if port and not re.fullmatch(":[0-9]*", port):
        raise InvalidArgument(f'{url}: invalid port "{port}" after host')
    if wrong := _NO_HOST.search(host):
        raise InvalidArgument(f'{url}: invalid character "{wrong[0]}" in host name')
    try:
        urlsplit(f"//{host}")
    except ValueError as error:
        raise InvalidArgument(f"{url}: {error}") from error


def insecure(host: str, rules: Rules) -> bool:
    """Whether plain HTTP and unverified certificates are accepted from `host[:port]`; of names, see `lookup`."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or host in rules.insecure or name in rules.insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in networks(rules))


def networks(rules: Rules) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The insecure ones; ValueError where one is none."""
    return [ipaddress.ip_network(entry, strict=False) for entry in rules.insecure if "/" in entry]


def check(rules: Rules) -> None:
    """InvalidArgument where a rule makes no sense; when the engine starts."""
    for mirror in rules.mirrors:
        try:
            parts = urlsplit(mirror)
        except ValueError as error:
            raise InvalidArgument(f'invalid mirror: {error} in "{mirror}"') from error
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidArgument(f'invalid mirror: unsupported scheme "{parts.scheme}" in "{mirror}"')
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise InvalidArgument(f'invalid mirror: query, fragment or user in "{mirror}"')
    try:
        networks(rules)
    except ValueError as error:
        raise InvalidArgument(f"invalid insecure registry: {error}") from error
    for entry in rules.insecure:
        if "://" in entry:
            raise InvalidArgument(f"insecure registry {entry} should not contain '://'")


def endpoints(domain: str, rules: Rules) -> tuple[Endpoint, ...]:
    """In the order in which they are to be asked; the last ones are the registry itself. InvalidArgument where there
    can be no such host, or its hosts.toml makes no sense."""
    check_host(domain)
    found: list[Endpoint] = []
    if domain == DEFAULT_DOMAIN:
        for mirror in rules.mirrors:
            host = urlsplit(mirror).netloc
            found.append(Endpoint(f"{mirror.rstrip('/')}/v2", not insecure(host, rules), mirror=True))
    configured, server = _hosts_file(domain, rules)
    found += configured
    if server is not None:
        return (*found, server)
    host = _HUB if domain == DEFAULT_DOMAIN else domain
    if insecure(host, rules):
        return (*found, Endpoint(f"https://{host}/v2", False), Endpoint(f"http://{host}/v2", False))
    return (*found, Endpoint(f"https://{host}/v2"))


def _hosts_file(domain: str, rules: Rules) -> tuple[list[Endpoint], Endpoint | None]:
    """Mirrors, and the server where it is not the registry's own name, of the first hosts.toml there is."""
    for directory in rules.certificates:
        path = os.path.join(directory, domain, "hosts.toml")
        try:
            with open(path, "rb") as file:
                document = tomllib.load(file)
        except FileNotFoundError:
            continue
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgument(f"{path}: {error}") from error
        return _configured(path, domain, document, rules)
    return [], None


def _configured(
    path: str, domain: str, document: dict[str, object], rules: Rules
) -> tuple[list[Endpoint], Endpoint | None]:
    hosts, server = document.pop("host", {}), document.pop("server", None)
    if not isinstance(hosts, dict) or not all(isinstance(one, dict) for one in hosts.values()):
        raise InvalidArgument(f'{path}: "host" must be tables')
    mirrors = [_host(path, url, table, rules) for url, table in hosts.items() if _pulls(path, url, table)]
    if server is None and not document:
        return mirrors, None
    url = str(server or (_HUB if domain == DEFAULT_DOMAIN else domain))
    return mirrors, _host(path, url, document, rules, mirror=False)


def _pulls(path: str, url: str, table: dict[str, object]) -> bool:
    able = table.get("capabilities", ["pull", "resolve", "push"])
    if not isinstance(able, list):
        raise InvalidArgument(f"{path}: capabilities of {url!r} must be a list")
    return "pull" in able


def _host(path: str, url: str, table: dict[str, object], rules: Rules, mirror: bool = True) -> Endpoint:
    unknown = sorted(table.keys() - _KEYS)
    if unknown:
        raise InvalidArgument(f"{path}: {unknown[0]!r} of {url!r} is not supported")
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
    except ValueError as error:
        raise InvalidArgument(f"{path}: invalid host {url!r}") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidArgument(f"{path}: invalid host {url!r}")
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    if table.get("override_path") is not True and not parts.path.rstrip("/").endswith("/v2"):
        base += "/v2"
    verify = table.get("skip_verify") is not True and not insecure(parts.netloc, rules)
    able = table.get("capabilities", ["resolve"])
    resolve = not mirror or (isinstance(able, list) and "resolve" in able)
    folder = os.path.dirname(path)
    authorities = tuple(os.path.join(folder, one) for one in _paths(path, table.get("ca", [])))
    return Endpoint(base, verify, mirror, resolve, authorities, _clients(path, table.get("client", [])))


def _paths(path: str, value: object) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidArgument(f"{path}: {value!r} must be a path or a list of paths")
    return found


def _clients(path: str, value: object) -> tuple[tuple[str, str | None], ...]:
    """One file, several of them, or pairs of certificate and key."""
    folder = os.path.dirname(path)
    found: list[tuple[str, str | None]] = []
    for one in value if isinstance(value, list) else [value]:
        certificate, *keys = _paths(path, one) or [""]
        if not certificate or len(keys) > 1:
            raise InvalidArgument(f"{path}: {one!r} must be a certificate, or one and its key")
        found.append((os.path.join(folder, certificate), os.path.join(folder, keys[0]) if keys and keys[0] else None))
    return tuple(found)
