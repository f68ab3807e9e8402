"""How clients reach the registry: as its owner says, or as their requests do, also through a proxy that does TLS."""

from __future__ import annotations

import re
from typing import Final

from hafen.http.message import Headers

_HOST: Final = re.compile(r"[A-Za-z0-9._\-\[\]:]+", re.ASCII)


class Address:
    """`url` is the owner's word, without a slash at its end; empty where there is none."""

    def __init__(self, url: str, tls: bool) -> None:
        self._url = url
        self._scheme = "https" if tls else ""

    def base(self, headers: Headers) -> str:
        """A URL without a slash at its end, of a request with these headers; empty where nothing tells."""
        if self._url:
            return self._url
        host = headers.get("host", "")
        forwarded = headers.get("x-forwarded-proto", "")  # of a proxy that does TLS for us
        scheme = self._scheme or (forwarded if forwarded in ("http", "https") else "http")
        return f"{scheme}://{host}" if _HOST.fullmatch(host) else ""
