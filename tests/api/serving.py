"""The real server on a unix socket over services made of plain functions, and a client that speaks bytes."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from hafen.api.app import Api
from hafen.api.routes.table import router
from hafen.engine.services import Services
from hafen.http.server import Server


@dataclass
class FakeSession:
    """A session that keeps what the client sends and answers with `says`, then closes."""

    tty: bool = False
    says: bytes = b"ready\n"
    received: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        with sock:
            sock.setblocking(False)
            self.received += prefix
            await loop.sock_sendall(sock, self.says)
            while data := await loop.sock_recv(sock, 1 << 16):
                self.received += data
            with suppress(BrokenPipeError):  # who went away altogether is told nothing
                await loop.sock_sendall(sock, b"bye\n")
        self.ended.set()

    def abandon(self) -> None:
        self.abandoned.set()


def fake(**services: object) -> Services:
    """Services of which only some exist: `fake(listing=..., attach=...)`."""
    return cast(Services, SimpleNamespace(**services))


@asynccontextmanager
async def serving(services: Services, grace: float = 0.2) -> AsyncIterator[str]:
    """The socket's path of a server that serves them."""
    with tempfile.TemporaryDirectory(prefix="hafen-api-") as folder:
        path = f"{folder}/s"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            async with Server(Api(router(), services), grace=grace) as server:
                await server.listen(sock)
                yield path


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)

    @property
    def message(self) -> object:
        return cast("dict[str, object]", self.json())["message"]


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = text.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(status.split()[1]), headers

    async def answer(self, bodiless: bool = False) -> Answer:
        status, headers = await self.head()
        if bodiless or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self.chunks()])
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
        return Answer(status, headers, body)

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"

    async def request(self, method: str, target: str, body: bytes = b"", /, **headers: str) -> Answer:
        self.send(request(method, target, body, **headers))
        return await self.answer(bodiless=method == "HEAD")

    def close(self) -> None:
        self.writer.close()


def request(method: str, target: str, body: bytes = b"", /, **headers: str) -> bytes:
    """The bytes of a request; `content_type="x"` becomes `content-type: x`."""
    lines = [f"{method} {target} HTTP/1.1", "Host: docker"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def client(path: str) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def ask(path: str, method: str, target: str, body: bytes = b"", /, **headers: str) -> Answer:
    """One request on a connection of its own."""
    async with client(path) as one:
        return await one.request(method, target, body, **headers)
