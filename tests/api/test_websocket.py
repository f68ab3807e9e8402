"""WebSocket attach: payloads in, messages out, and every way in which such a connection ends."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from tests.api.serving import Client, FakeSession, ask, client, fake, request, serving
from tests.api.test_hijack import Attaching

TARGET = "/containers/x/attach/ws?stream=1&stdin=1&stdout=1"
HANDSHAKE = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec_websocket_version": "13",
    "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",  # RFC 6455, section 1.3
}


class WebSocket:
    """A client behind the opening handshake."""

    def __init__(self, one: Client) -> None:
        self.one = one
        self.protocol = Connection(ConnectionType.CLIENT)
        self.events: list[Event] = []

    def send(self, *events: Event) -> None:
        self.one.send(b"".join(self.protocol.send(event) for event in events))

    async def next(self) -> Event:
        while not self.events:
            data = await self.one.reader.read(1 << 16)
            assert data, "the connection ended without Close"
            self.protocol.receive_data(data)
            self.events += self.protocol.events()
        return self.events.pop(0)

    async def messages_to_close(self) -> bytes:
        """All payloads up to a Close 1000, after which the connection has to end."""
        found = b""
        while not isinstance(event := await self.next(), CloseConnection):
            assert isinstance(event, BytesMessage)
            found += event.data
        assert event.code == 1000
        assert await self.one.reader.read() == b""
        return found


@asynccontextmanager
async def websocket(session: FakeSession, version: str = "1.47", behind: bytes = b"") -> AsyncIterator[WebSocket]:
    async with serving(fake(attach=Attaching(session))) as path, client(path) as one:
        one.send(request("GET", f"/v{version}{TARGET}", **HANDSHAKE) + behind)
        status, headers = await one.head()
        assert status == 101
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        yield WebSocket(one)


@pytest.mark.parametrize(("version", "message"), [("1.28", BytesMessage(b"ready\n")), ("1.27", TextMessage("ready\n"))])
async def test_the_version_decides_between_binary_and_text(version: str, message: Event) -> None:
    async with websocket(FakeSession(), version) as ws:
        assert await ws.next() == message


async def test_text_messages_are_utf_8_whatever_the_output_is() -> None:
    async with websocket(FakeSession(says=b"\xc3\xa9\xff!"), "1.27") as ws:
        event = await ws.next()
        assert isinstance(event, TextMessage)
        assert event.data == "é\ufffd!"


async def test_payloads_of_all_kinds_of_messages_are_the_input() -> None:
    session = FakeSession()
    early = Connection(ConnectionType.CLIENT).send(BytesMessage(b"early "))
    async with websocket(session, behind=early) as ws:
        assert await ws.next() == BytesMessage(b"ready\n")
        ws.send(BytesMessage(b"one ", message_finished=False), Ping(b"?"), BytesMessage(b"two "), TextMessage("thrée"))
        ws.send(Pong(b"unasked"))
        assert await ws.next() == Pong(b"?")
        ws.send(CloseConnection(1000, "bye"))
        assert await ws.messages_to_close() == b""
        await asyncio.wait_for(session.ended.wait(), 5)
    assert bytes(session.received) == "early one two thrée".encode()


async def test_the_end_of_the_session_is_close_1000() -> None:
    class Short(FakeSession):
        async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
            sock.sendall(b"x" * 200_000)
            sock.close()

    async with websocket(Short()) as ws:
        assert await ws.messages_to_close() == b"x" * 200_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x02um", 1002),  # a client's frames are masked
        (b"\x83\x80\0\0\0\0", 1002),  # no such opcode
        (b"\x89\xfe\0\x80\0\0\0\0", 1002),  # a Ping of 128 bytes
        (b"\x81\x81\0\0\0\0\xff", 1007),  # text that is none
    ],
)
async def test_broken_frames_are_answered_with_their_code(data: bytes, code: int) -> None:
    session = FakeSession()
    async with websocket(session) as ws:
        assert await ws.next() == BytesMessage(b"ready\n")
        ws.one.send(data)
        event = await ws.next()
        assert isinstance(event, CloseConnection)
        assert event.code == code
        await asyncio.wait_for(session.ended.wait(), 5)


async def test_a_frame_of_any_length_passes_as_it_comes() -> None:
    session = FakeSession()
    async with websocket(session) as ws:
        ws.one.send(b"\x82\xff\0\0\1\0\0\0\0\0" + b"\0\0\0\0" + b"begun")  # of a tebibyte
        ws.one.close()
        await asyncio.wait_for(session.ended.wait(), 5)
    assert bytes(session.received) == b"begun"


async def test_a_client_that_vanishes_ends_the_session() -> None:
    session = FakeSession()
    async with websocket(session) as ws:
        await ws.next()
        ws.one.writer.transport.abort()
        await asyncio.wait_for(session.ended.wait(), 5)


async def test_a_client_that_does_not_read_holds_its_session_back() -> None:
    """Some hundred kilobytes of sockets and buffers fill; then the session's own socket takes no more."""

    class Chatty(FakeSession):
        sent = 0

        async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
            loop = asyncio.get_running_loop()
            sock.setblocking(False)
            try:
                while True:
                    async with asyncio.timeout(0.5):
                        await loop.sock_sendall(sock, b"x" * 65536)
                    self.sent += 65536
            except TimeoutError:
                self.ended.set()
            finally:
                sock.close()

    session = Chatty()
    async with serving(fake(attach=Attaching(session))) as path, client(path) as one:
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio.WriteTransport lacks it
        one.send(request("GET", TARGET, **HANDSHAKE))
        await asyncio.wait_for(session.ended.wait(), 10)
        assert 0 < session.sent < 2 << 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"upgrade": "tcp"}, "not websocket protocol"),
        ({"connection": "close"}, "not websocket protocol"),
        ({"sec_websocket_version": "8"}, "missing or bad WebSocket Version"),
        ({"sec_websocket_key": ""}, "mismatch challenge/response"),
    ],
)
async def test_what_is_no_handshake_is_refused(changed: dict[str, str], message: str) -> None:
    session = FakeSession()
    async with serving(fake(attach=Attaching(session))) as path:
        got = await ask(path, "GET", TARGET, **{**HANDSHAKE, **changed})
        assert (got.status, got.message) == (400, message)
        assert session.abandoned.is_set()


async def test_an_unknown_container_is_told_before_the_handshake() -> None:
    async with serving(fake(attach=Attaching(FakeSession()))) as path:
        got = await ask(path, "GET", "/containers/none/attach/ws", **HANDSHAKE)
        assert (got.status, got.message) == (404, "No such container: none")
