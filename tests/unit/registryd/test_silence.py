"""Clients that vanish, or say nothing more: their connections do not stay for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path

from hafen.http.message import Answer, Body, Head, Reply
from hafen.http.response import Heads
from hafen.http.server import Server
from hafen.http.sockets import tcp_socket
from tests.harness.ports import free_port
from tests.harness.registry import RegistryProcess

PATIENCE = 20.0  # seconds
HEAD = b"%s HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n"


def keepalive_timer(port: int) -> bool:
    """Whether the kernel asks the client of the one connection to this port whether it is there (proc_net_tcp.rst)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, timer, *_ = line.split()
        if int(local.partition(":")[2], 16) == port and state == "01":
            return timer.startswith("02:")
    raise AssertionError("there is no connection")


def test_the_kernel_asks_whether_a_client_is_still_there(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path) as process, closing(process.client()) as client:
        assert client("GET", "/v2/").status == 200
        assert keepalive_timer(process.port)


class Slow:
    """Reads a request's body, and answers when the test says so."""

    heads = Heads()

    def __init__(self) -> None:
        self.begun, self.ready = asyncio.Event(), asyncio.Event()

    def refusal(self, status: int, message: str) -> Reply:
        return Reply(status, message.encode())

    async def __call__(
        self, head: Head, body: Body, own: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
    ) -> Answer:
        async for _ in body:
            pass
        self.begun.set()
        await self.ready.wait()
        return Reply(200, b"done")


async def test_who_says_nothing_is_let_go_and_who_waits_for_us_is_not() -> None:
    port, application = free_port(), Slow()

    async def connected(data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        return reader, writer

    async with asyncio.timeout(PATIENCE), Server(application, silence=0.2) as server:
        await server.listen(tcp_socket(f"127.0.0.1:{port}"))
        waiting, writer = await connected(HEAD % (b"GET /", 0))
        await application.begun.wait()
        for data in (b"", HEAD % (b"PUT /", 10), HEAD % (b"PUT /", 10) + b"part"):
            silent, other = await connected(data)
            with closing(other):
                assert await silent.read() == b""  # its end, after longer than `waiting` has been silent by now
        application.ready.set()
        assert (await waiting.readuntil(b"done")).startswith(b"HTTP/1.1 200 ")
        writer.close()
