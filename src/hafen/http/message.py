"""What an application is given of a request and what it answers; the connection reads the one and writes the other."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

Headers = Mapping[str, str]  # names in lower case


class Body(Protocol):
    """A request's body, read from the client only as fast as it is iterated."""

    @property
    def length(self) -> int | None:
        """Bytes announced; None where the body comes in chunks."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def read(self, limit: int) -> bytes:
        """All of it; InvalidArgument where it is longer than `limit` bytes."""


class Takeover(Protocol):
    """Who gets the connection itself, once the answer's head is out."""

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        """Owns the socket from now on; `prefix` is what was already read from it."""

    def abandon(self) -> None:
        """There will be no `run`."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request as it came: target is path and query, still percent-encoded."""

    method: str
    target: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `length` is what a HEAD is told where the body was not read for it; bytes."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None


@dataclass(frozen=True, slots=True)
class StreamReply:
    """An answer that goes on: the head is sent at once, then each chunk as it comes. The iterator is closed at the end,
    also where the client goes away. `length`, where it is known, is how many bytes come."""

    chunks: AsyncIterator[bytes]
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    length: int | None = None


@dataclass(frozen=True, slots=True)
class FileReply:
    """`length` bytes of a file from `offset` on, moved by the kernel (sendfile). The file is closed at the end."""

    file: BinaryIO
    offset: int
    length: int
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200


@dataclass(frozen=True, slots=True)
class HijackReply:
    """The connection itself is handed to a session, after the bytes of `head`."""

    session: Takeover
    head: bytes


Answer = Reply | StreamReply | FileReply | HijackReply
