"""WebSocket attach (RFC 6455): messages on the client's side, a socket pair with plain bytes on the session's.

As Docker's: what is typed is the payload of whatever frames come, output goes out as one message per piece, binary
from API 1.28 on and text before, and nothing says which stream it is from. Bytes move only as fast as the other side
takes them. A client's Close, like its going away, hangs the session up; the end of the session is Close 1000.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import socket
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from hafen.api import response
from hafen.api.message import HijackReply, Request
from hafen.engine.services import Session
from hafen.errors import InvalidArgument

PIECE: Final = 1 << 16  # bytes
LINGER: Final = 0.5  # seconds a client has to answer our Close

_UTF8 = codecs.getincrementaldecoder("utf-8")
_log = logging.getLogger(__name__)


def answer(request: Request, session: Session) -> HijackReply:
    """The end of the opening handshake; InvalidArgument where the client began none (texts: golang.org/x/net)."""
    headers = request.headers
    upgrades = headers.get("upgrade", "").lower() == "websocket" and "upgrade" in headers.get("connection", "").lower()
    if not upgrades:
        raise InvalidArgument("not websocket protocol")
    if headers.get("sec-websocket-version") != "13":
        raise InvalidArgument("missing or bad WebSocket Version")
    key = headers.get("sec-websocket-key", "")
    if not key:
        raise InvalidArgument("mismatch challenge/response")
    head = response.HEADS.head(
        101,
        (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", generate_accept_token(key.encode("latin-1")).decode()),
        ),
    )
    return HijackReply(_WebSocketSession(session, text=request.version < (1, 28)), head)


class _WebSocketSession:
    """A session behind a WebSocket; see `services.Session`."""

    def __init__(self, session: Session, text: bool) -> None:
        self._session = session
        self._text = text

    @property
    def tty(self) -> bool:
        return self._session.tty

    def abandon(self) -> None:
        self._session.abandon()

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._session.run(theirs))
            await self._relay(sock, ours, prefix)

    async def _relay(self, sock: socket.socket, ours: socket.socket, prefix: bytes) -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=PIECE)
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(sock=ours, limit=PIECE)
            try:
                client = _Client(reader, writer, self._text)
                inbound = asyncio.ensure_future(client.inbound(inner_writer, prefix))
                outbound = asyncio.ensure_future(client.outbound(inner_reader))
                try:
                    await asyncio.wait((inbound, outbound), return_when=asyncio.FIRST_COMPLETED)
                    if outbound.done():
                        await asyncio.wait((inbound,), timeout=LINGER)
                finally:
                    inbound.cancel()
                    outbound.cancel()
                    for ended in await asyncio.gather(inbound, outbound, return_exceptions=True):
                        if isinstance(ended, OSError):
                            _log.debug("WebSocket client ended: %s", ended)
                        elif isinstance(ended, Exception):
                            raise ended
            finally:
                inner_writer.transport.abort()
        finally:
            writer.close()


class _Client:
    """The client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = Connection(ConnectionType.SERVER)
        # Output need not be UTF-8, a text message must be.
        self._decoder: codecs.IncrementalDecoder | None = _UTF8("replace") if text else None

    async def inbound(self, session: asyncio.StreamWriter, data: bytes) -> None:
        """Client to session, until the client says that it ends, or does."""
        while True:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    session.write(event.data)
                elif isinstance(event, TextMessage):
                    session.write(event.data.encode())
                elif isinstance(event, Ping):
                    await self._send(event.response())
                elif isinstance(event, CloseConnection):  # theirs, or what is wrong with their frame
                    await self._close(event.code)
                    return
            await session.drain()
            data = await self._reader.read(PIECE)
            if not data:
                await self._close(CloseReason.NORMAL_CLOSURE)
                return

    async def outbound(self, session: asyncio.StreamReader) -> None:
        """Session to client, to the session's end."""
        while data := await session.read(PIECE):
            await self._send(TextMessage(self._decoder.decode(data)) if self._decoder else BytesMessage(data))
        await self._close(CloseReason.NORMAL_CLOSURE)

    async def _close(self, code: int) -> None:
        if code == CloseReason.NO_STATUS_RCVD:  # never sent; RFC 6455, section 7.4.1
            code = CloseReason.NORMAL_CLOSURE
        if self._connection.state is ConnectionState.REMOTE_CLOSING:
            await self._write(self._connection.send(CloseConnection(code)))
        else:
            await self._send(CloseConnection(code))

    async def _send(self, event: Event) -> None:
        if self._connection.state is ConnectionState.OPEN:  # else one of us has said Close: nothing follows it
            await self._write(self._connection.send(event))

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
