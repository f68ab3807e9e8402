"""Heads of answers as bytes; pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

SERVER: Final = f"Hafen/{version('hafen')} (linux)"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

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


class Heads:
    """Heads of one application's answers: `common` headers come first in each."""

    def __init__(self, *common: Header) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in common)
        self._common = f"{lines}Server: {SERVER}\r\nDate: "
        self._starts = {status.value: self._start(status.value, status.phrase) for status in HTTPStatus}

    def _start(self, status: int, phrase: str) -> str:
        return f"HTTP/1.1 {status} {phrase}\r\n{self._common}"

    def head(self, status: int, headers: Sequence[Header], phrase: str = "") -> bytes:
        """Status line and headers; a phrase only where clients expect another than the standard's."""
        lines = "".join([f"\r\n{name}: {value}" for name, value in headers])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError(f"line break in a header: {lines!r}")
        start = self._start(status, phrase) if phrase else self._starts[status]
        return f"{start}{_date()}{lines}\r\n\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; RFC 9112, section 7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)
