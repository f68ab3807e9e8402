"""Heads of answers as bytes; pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

from hafen.api import versions

SERVER: Final = f"Hafen/{version('hafen')} (linux)"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_COMMON: Final = (
    f"Api-Version: {versions.text(versions.NEWEST)}\r\n"
    f"Docker-Experimental: false\r\nOstype: linux\r\nServer: {SERVER}\r\nDate: "
)
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n{_COMMON}" for status in HTTPStatus}

Header = tuple[str, str]


class _Date:
    """The Date header's value, made once a second."""

    def __init__(self) -> None:
        self._second, self._text = 0, ""

    def __call__(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._text = now, formatdate(now, usegmt=True)
        return self._text


_date = _Date()


def head(status: int, headers: Sequence[Header]) -> bytes:
    """Status line and headers, those that every answer has before the given ones."""
    lines = "".join([f"\r\n{name}: {value}" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError(f"line break in a header: {lines!r}")
    return f"{_STATUS_LINES[status]}{_date()}{lines}\r\n\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; RFC 9112, section 7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def switching(content_type: str) -> bytes:
    """101 as Docker's clients expect it, up to the phrase."""
    return (
        f"HTTP/1.1 101 UPGRADED\r\n{_COMMON}{_date()}\r\nContent-Type: {content_type}\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    ).encode("latin-1")


def raw(content_type: str) -> bytes:
    """200 of a hijack without Upgrade: what follows is the stream itself, without any framing."""
    return f"HTTP/1.1 200 OK\r\n{_COMMON}{_date()}\r\nContent-Type: {content_type}\r\n\r\n".encode("latin-1")
