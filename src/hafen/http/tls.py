"""TLS before the plain server: records on one side, a socket pair on the other.

asyncio's own TLS transport cannot half-close, which `docker exec -i` needs, and has no descriptor to hand to a session.
The end of the client's TLS stream (close_notify) ends one direction of the pair; the end of its TCP stream means that
the client has gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Final

HANDSHAKE_TIMEOUT: Final = 30.0  # seconds
LINGER: Final = 0.5  # seconds a client has to read the last of an answer
PIECE: Final = 1 << 17  # bytes; a record holds 2^14, and the loop's part is small against eight

_log = logging.getLogger(__name__)

Own = Callable[[Coroutine[object, object, None]], object]


def relay(context: ssl.SSLContext, inner: Callable[[], asyncio.BaseProtocol], own: Own) -> asyncio.BaseProtocol:
    """The protocol of one TLS client, behind which `inner` makes the protocol that speaks in clear."""

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own(_serve(_Tls(context, reader, writer), inner))

    return asyncio.StreamReaderProtocol(asyncio.StreamReader(PIECE), connected)


class _Tls:
    """One TLS stream over a TCP stream."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
            await self._writer.drain()

    async def _fill(self) -> None:
        data = await self._reader.read(PIECE)
        if not data:
            raise ConnectionResetError("the client ended without close_notify")
        self._incoming.write(data)

    async def handshake(self) -> None:
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                return await self._flush()

    async def read(self) -> bytes:
        """What the client sent; empty once it has said that it sends no more."""
        while True:
            try:
                return self._object.read(PIECE)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()  # a key update is answered
                await self._fill()

    async def write(self, data: memoryview) -> None:
        self._object.write(data)
        await self._flush()

    async def write_eof(self) -> None:
        try:
            self._object.unwrap()
        except ssl.SSLWantReadError:
            pass  # ours is sent; the client's own close_notify may never come
        await self._flush()
        self._writer.write_eof()

    async def wait_tcp_end(self) -> None:
        while await self._reader.read(PIECE):
            pass

    def close(self) -> None:
        self._writer.close()


async def _serve(client: _Tls, inner: Callable[[], asyncio.BaseProtocol]) -> None:
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await client.handshake()
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(inner, theirs)
            async with asyncio.TaskGroup() as tasks:
                inbound = tasks.create_task(_inbound(client, ours))
                await _outbound(client, ours)
                await asyncio.wait((inbound,), timeout=LINGER)
                inbound.cancel()
    except* (ssl.SSLError, OSError) as group:  # TimeoutError is an OSError
        _log.debug("TLS client ended: %s", group.exceptions)
    finally:
        client.close()


async def _inbound(client: _Tls, sock: socket.socket) -> None:
    """Client to server; raises where the client goes away, and never ends before."""
    loop = asyncio.get_running_loop()
    while data := await client.read():
        try:
            await loop.sock_sendall(sock, data)
        except OSError:
            break  # the server wants no more of it; what it has said is still on its way
    else:
        sock.shutdown(socket.SHUT_WR)
    await client.wait_tcp_end()
    raise ConnectionResetError("the client has gone")


async def _outbound(client: _Tls, sock: socket.socket) -> None:
    """Server to client, to the end of what the server says."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(PIECE))
    while size := await loop.sock_recv_into(sock, buffer):
        await client.write(buffer[:size])
    await client.write_eof()
