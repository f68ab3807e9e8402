"""One HTTP/1.1 client: heads in, answers out, one message at a time; the only module that imports the HTTP library.

h11 reads heads and bodies, a fresh parser for each request; what answers look like is in `response`. One task per
connection handles its requests in order, and is cancelled when the client goes away.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Final, Protocol, cast

import h11

from hafen.errors import HafenError, InvalidArgument
from hafen.http import hijack, response
from hafen.http.message import Answer, Body, FileReply, Head, HijackReply, Reply, StreamReply
from hafen.http.streams import close

MAX_HEAD: Final = 1 << 20  # Go's default
HEAD_TIMEOUT: Final = 60.0  # seconds from a head's first byte to its last
READ_AHEAD: Final = 1 << 18  # bytes, of a body or of further requests, that are kept unread
MAX_DRAIN: Final = 1 << 18  # bytes of an unread body that are skipped to keep the connection; Go's figure
# Bytes of a file that sendfile(2) moves at a time. Without a bound one call goes on for as long as the client keeps up,
# and keeps everybody else waiting; and what is in flight to a client on the same machine is then out of the processor's
# caches before it is read: half a MiB at a time is more than twice as fast as 4.
FILE_PIECE: Final = 1 << 19
LINGER: Final = 0.5  # seconds that a client which still sends has to read an early answer; Go's figure
GONE_INTERVAL: Final = 1.0  # seconds between looks at a client that epoll does not watch any more

_log = logging.getLogger(__name__)

Own = Callable[[Coroutine[object, object, None]], "asyncio.Task[None]"]


class Application(Protocol):
    """Answers requests; what goes wrong is answered too, it raises only where it is cancelled."""

    @property
    def heads(self) -> response.Heads:
        """How the heads of its answers begin."""

    def refusal(self, status: int, message: str) -> Reply:
        """The answer to what is not a request at all."""

    async def __call__(self, head: Head, body: Body, own: Own) -> Answer: ...


class Connection(asyncio.Protocol):
    """The transport's side of one client, and the task that serves it."""

    def __init__(self, application: Application, own: Own, lost: Callable[[Connection], None]) -> None:
        self._application = application
        self._own = own
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._unread = 0  # bytes the parser was given since it last asked for more
        self._eof = False
        self._released = False  # the socket belongs to a session
        self._busy = False  # with a request, until its answer is out
        self._handling = False  # the application is at it
        self._last = False  # no request after this one
        self._discarding = False  # of what still comes nothing is wanted
        self._arrived: asyncio.Future[None] | None = None
        self._waiting_since = 0.0  # for that, on the loop's clock
        self._writable: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.task = self._own(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._parser.receive_data(data)
        self._unread += len(data)
        if self._unread > READ_AHEAD:
            self._transport.pause_reading()
            self._look_later()
        self._wake()

    def eof_received(self) -> bool:
        self._eof = True
        self._parser.receive_data(b"")
        self._wake()
        if self._busy:
            self._look()
        return True  # an answer can still be written

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch:
            self._watch.cancel()
        if not self._released:
            self.task.cancel()
        self._lost(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def end(self) -> None:
        """No more requests: at once where none is being worked on, else after it."""
        self._last = True
        if not self._handling:
            self.task.cancel()

    def end_silence(self, before: float) -> None:
        """Drop a client that has been waited for since then, for a request or the rest of one."""
        if self._arrived and not self._arrived.done() and not self._discarding and self._waiting_since < before:
            self._transport.abort()

    def abort(self) -> None:
        self._transport.abort()

    def _wake(self) -> None:
        if self._arrived and not self._arrived.done():
            self._arrived.set_result(None)

    # Has the client gone?

    def _look(self) -> None:
        """Drop a client that has gone; asyncio tells nothing more of one whose input has ended or is not read."""
        if self._released or self._transport.is_closing():
            return
        sock = self._transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        if poll.poll(0):  # POLLHUP or POLLERR, which are always reported: a unix peer has closed, a TCP peer has reset
            self._transport.abort()
        else:
            self._look_later()

    def _look_later(self) -> None:
        if self._watch:
            self._watch.cancel()
        self._watch = self._loop.call_later(GONE_INTERVAL, self._look_again)

    def _look_again(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if self._busy and self._eof and not self._released and sock.family != socket.AF_UNIX:
            # TCP cannot tell a client that has closed from one that sends no more; Go's server takes both for the end
            self._transport.abort()
        elif self._busy:
            self._look()

    # One request after the other

    async def _serve(self) -> None:
        try:
            while await self._one_request():
                self._next_parser()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, str(error))
        except InvalidArgument as error:  # the body before a hijack
            await self._refuse(400, error.message)
        except (ConnectionError, TimeoutError) as error:
            _log.debug("client dropped: %r", error)  # it has gone, or was too slow
        except Exception:  # noqa: BLE001 - the boundary of a connection
            _log.exception("connection handler failed")
        finally:
            if not self._released:
                self._transport.close()

    def _next_parser(self) -> None:
        rest, _ = self._parser.trailing_data
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._unread = len(rest)
        if rest:
            self._parser.receive_data(rest)
        if self._eof:
            self._parser.receive_data(b"")

    async def _one_request(self) -> bool:
        """Whether another request may follow on this connection."""
        event = await self._read_head()
        if event is None:
            return False
        self._busy = True
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            head = Head(event.method.decode("latin-1"), origin_form(event.target.decode("latin-1")), headers)
            keep = event.http_version >= b"1.1" and "close" not in headers.get("connection", "").lower()
            keep = keep and not {"content-length", "transfer-encoding"} <= headers.keys()  # RFC 9112, 6.1
            body = _Body(self, headers)
            if self._eof:
                self._look()
            self._handling = True
            answer = await self._application(head, body, self._own)
            self._handling = False
            if isinstance(answer, HijackReply):
                await self._hijack(answer, body)
                return False
            if isinstance(answer, StreamReply):
                body.ask()  # its pieces may come of the body, and a head of an answer ends the asking
            keep = keep and not body.unasked and not body.too_long and not self._last
            if isinstance(answer, StreamReply):
                await self._send_stream(answer, keep, chunked=event.http_version >= b"1.1")
            elif isinstance(answer, FileReply):
                await self._send_file(answer, keep)
            else:
                self._send(answer, keep, bodiless=head.method == "HEAD")
            await self._flush()
            return await self._drain(body) and keep
        finally:
            self._busy = self._handling = False

    async def _read_head(self) -> h11.Request | None:
        """The next request's head; None where the client has ended."""
        event = self._parser.next_event()
        if event is h11.NEED_DATA:
            if not self._unread:
                await self._more()  # idle: a client may keep a connection as long as it likes
                event = self._parser.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(HEAD_TIMEOUT):
                    while event is h11.NEED_DATA:
                        await self._more()
                        event = self._parser.next_event()
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("HTTP version not supported", 505)
        return event

    async def _more(self) -> None:
        """Wait until the parser has been given more, or the end."""
        self._unread = 0
        self._transport.resume_reading()
        self._arrived = self._loop.create_future()
        self._waiting_since = self._loop.time()
        try:
            await self._arrived
        finally:
            self._arrived = None

    def send_continue(self) -> None:
        self._transport.write(response.CONTINUE)

    async def next_body_event(self, expects: bool) -> bytes | None:
        """The next piece of the request's body; None at its end."""
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise InvalidArgument(f"invalid request body: {error}") from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return None
            if expects:
                self.send_continue()
                expects = False
            await self._more()

    # Answers

    def _send(self, reply: Reply, keep: bool, bodiless: bool = False) -> None:
        headers = list(reply.headers)
        if reply.content_type:
            headers.append(("Content-Type", reply.content_type))
        if reply.status not in (204, 304):
            headers.append(("Content-Length", str(len(reply.body) if reply.length is None else reply.length)))
        if not keep:
            headers.append(("Connection", "close"))
        head = self._application.heads.head(reply.status, headers)
        self._transport.write(head if bodiless or reply.status in (204, 304) else head + reply.body)

    async def _send_stream(self, reply: StreamReply, keep: bool, chunked: bool) -> None:
        headers = [*reply.headers, ("Content-Type", reply.content_type)]
        chunked = chunked and reply.length is None
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        if reply.length is not None:
            headers.append(("Content-Length", str(reply.length)))
        if not keep or not (chunked or reply.length is not None):
            headers.append(("Connection", "close"))
        left = reply.length
        try:
            self._transport.write(self._application.heads.head(reply.status, headers))
            async for piece in reply.chunks:
                if piece:
                    left = None if left is None else left - len(piece)
                    self._transport.write(response.chunk(piece) if chunked else piece)
                    await self._flush()
            if chunked:
                self._transport.write(response.LAST_CHUNK)
            if left:
                raise ConnectionAbortedError(f"a stream ended {left} bytes early")
        except HafenError as error:
            _log.warning("stream cut short: %s", error.message)
            raise ConnectionAbortedError(error.message) from error
        finally:
            await close(reply.chunks)

    async def _send_file(self, reply: FileReply, keep: bool) -> None:
        headers = [*reply.headers, ("Content-Type", reply.content_type), ("Content-Length", str(reply.length))]
        if not keep:
            headers.append(("Connection", "close"))
        with reply.file:
            self._transport.write(self._application.heads.head(reply.status, headers))
            sent = 0
            while sent < reply.length:
                if self._transport.is_closing():  # which the loop's sendfile takes for a programmer's mistake
                    raise ConnectionResetError("the client has gone")
                size = min(FILE_PIECE, reply.length - sent)
                moved = await self._loop.sendfile(self._transport, reply.file, reply.offset + sent, size)
                if not moved:
                    raise ConnectionAbortedError(f"a file ended {reply.length - sent} bytes early")
                sent += moved
                await asyncio.sleep(0)  # a client that is quick enough would leave nothing to wait for

    async def _flush(self) -> None:
        """Wait until the client has taken most of what was written."""
        if self._writable:
            await self._writable

    async def _refuse(self, status: int, message: str) -> None:
        self._send(self._application.refusal(status, message), keep=False)
        await self._linger()

    async def _drain(self, body: _Body) -> bool:
        """Skip what the client sends of a body that nobody wanted; False where that is too much."""
        if body.ended:
            return True
        if body.unasked:
            return False
        skipped = 0
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                while not body.broken and skipped <= MAX_DRAIN:
                    piece = await body.next()
                    if piece is None:
                        return True
                    skipped += len(piece)
        except InvalidArgument as error:
            _log.debug("rest of a body: %s", error.message)
        await self._linger()
        return False

    async def _linger(self) -> None:
        """Closing with unread input resets the connection, and the answer with it: let a client read it first."""
        self._discarding = True
        self._unread = 0
        self._transport.resume_reading()
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        if not self._eof:
            self._arrived = self._loop.create_future()
            await asyncio.wait((self._arrived,), timeout=LINGER)

    async def _hijack(self, reply: HijackReply, body: _Body) -> None:
        """Hand the connection to a session, with what was read beyond the request."""
        session = reply.session
        try:
            while not body.ended:
                await body.next()
            self._transport.pause_reading()
            self._transport.set_write_buffer_limits(0)
            self._transport.write(reply.head)
            await self._flush()
            sock = hijack.take_socket(self._transport)
        except BaseException:
            session.abandon()
            raise
        self._released = True
        prefix, _ = self._parser.trailing_data
        try:
            await hijack.wait_head_read(sock)
        except BaseException:
            sock.close()
            session.abandon()
            raise
        await session.run(sock, prefix)


def origin_form(target: str) -> str:
    """Path and query of a target that may have come as a whole URL (RFC 9112, 3.2.2)."""
    scheme, mark, rest = target.partition("://")
    if not mark or "/" in scheme:
        return target
    _, slash, path = rest.partition("/")
    return slash + path or "/"


class _Body:
    """A request's body, read from the connection on demand."""

    def __init__(self, connection: Connection, headers: dict[str, str]) -> None:
        self._connection = connection
        self._expects = headers.get("expect", "").lower() == "100-continue"
        chunked = "transfer-encoding" in headers
        self.length = None if chunked else int(headers.get("content-length", "0"))
        self._left = self.length or 0  # bytes announced and not read yet
        self.ended = self.length == 0
        self.broken = False  # cut short, or not what its framing says

    @property
    def unasked(self) -> bool:
        """The client still waits for `100 Continue`: it may send the body or not, the connection cannot be kept."""
        return self._expects and not self.ended

    @property
    def too_long(self) -> bool:
        """More is announced than is skipped to keep the connection: the client is told so in the answer's head."""
        return not self.ended and self._left > MAX_DRAIN

    def ask(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self.unasked:
            self._connection.send_continue()
            self._expects = False

    async def next(self) -> bytes | None:
        expects, self._expects = self._expects, False
        if self.ended:
            return None
        try:
            piece = await self._connection.next_body_event(expects)
        except InvalidArgument:
            self.broken = True
            raise
        self.ended = piece is None
        self._left -= len(piece or b"")
        return piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self.next()) is not None:
            yield piece

    async def read(self, limit: int) -> bytes:
        pieces, size = [], 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise InvalidArgument("http: request body too large")
        return b"".join(pieces)
