"""HTTP/1.1 over unix and TCP sockets: who listens, and who is connected.

`connection` speaks with one client; `tls` stands before it for TLS clients.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from types import TracebackType
from typing import Final, Self

from hafen.http import tls
from hafen.http.connection import Application, Connection

BACKLOG: Final = 1024


class Server:
    """Serves an application on any number of sockets for as long as its `async with` lasts.

    With `silence`, clients that say nothing for so many seconds when it is their turn are let go, or a little later.
    Leaving stops listening, gives requests in progress `grace` seconds, and cancels streams and the rest.
    """

    def __init__(self, application: Application, *, grace: float = 2.0, silence: float | None = None) -> None:
        self._application = application
        self._grace = grace
        self._silence = silence
        self._watch: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._silence is not None:
            self._watch = self._group.create_task(self._end_silence(self._silence))
        return self

    async def _end_silence(self, seconds: float) -> None:
        """One timer for all: one for each request would cost each a little."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(seconds / 4)
            for connection in tuple(self._connections):
                connection.end_silence(loop.time() - seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._watch is not None:
            self._watch.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in self._connections:
            connection.end()
        if self._tasks and error is None:
            await asyncio.wait(self._tasks, timeout=self._grace)
        for task in self._tasks:
            task.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        await self._group.__aexit__(kind, error, trace)
        return None

    async def listen(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """Serve a bound stream socket, unix or TCP, listening or not yet; with a context, TLS clients only."""

        def factory() -> asyncio.BaseProtocol:
            return tls.relay(context, self._connection, self._own) if context else self._connection()

        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            self._listeners.append(await loop.create_unix_server(factory, sock=sock, backlog=BACKLOG))
        else:
            self._listeners.append(await loop.create_server(factory, sock=sock, backlog=BACKLOG))

    def _connection(self) -> Connection:
        connection = Connection(self._application, self._own, self._connections.discard)
        self._connections.add(connection)
        return connection

    def _own(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run something that does not raise, for at most as long as the server."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
