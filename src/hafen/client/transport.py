"""HTTP/1.1 over a `Stream`: one request, one lazily read response, and the hijack of the raw connection."""

import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO

from hafen.errors import Unavailable

if TYPE_CHECKING:
    from hafen.client.dial import Stream

CHUNK = 1 << 18
MAX_HEAD = 1 << 18

Body = bytes | Iterable[bytes]


class Response:
    """Status and headers at once, the body as it is asked for. Header names are lower-case."""

    def __init__(self, connection: "Connection", status: int, headers: Mapping[str, str], has_body: bool) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._chunks = connection.body(headers) if has_body else iter(())
        self._finished = not has_body

    def __iter__(self) -> Iterator[bytes]:
        """The body in pieces as they arrive."""
        yield from self._chunks
        self._finished = True

    def read(self) -> bytes:
        return b"".join(self)

    def comes_within(self, seconds: float) -> bool:
        """Whether some of the body, or its end, is there in time."""
        return self._connection.readable_within(seconds)

    @property
    def reusable(self) -> bool:
        """The connection can carry another request."""
        return self._finished and self.headers.get("connection", "").lower() != "close"

    def close(self) -> None:
        """Leave the rest of the body unread: the server sees that nobody listens any more."""
        self._connection.close()


class Connection:
    """One connection and what was read from it beyond the last message."""

    def __init__(self, stream: "Stream") -> None:
        self.stream = stream
        self._buffer = b""

    def request(self, method: str, target: str, headers: Mapping[str, str], body: Body | None = None) -> Response:
        """Send one request; a server that answers before the whole body is sent is listened to."""
        lines = [f"{method} {target} HTTP/1.1", "Host: api.hafen"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            if body is None or isinstance(body, bytes):
                if body is not None or method != "GET":
                    lines.append(f"Content-Length: {len(body or b'')}")
                self.stream.sendall(_head(lines) + (body or b""))
            else:
                self._send_stream(lines, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a refused upload: the answer says why
        return self._response(method)

    def _send_stream(self, lines: list[str], body: Iterable[bytes]) -> None:
        self.stream.sendall(_head([*lines, "Transfer-Encoding: chunked"]))
        for chunk in body:
            if chunk:
                self.stream.sendall(b"%x\r\n" % len(chunk))
                self.stream.sendall(chunk)
                self.stream.sendall(b"\r\n")
        self.stream.sendall(b"0\r\n\r\n")

    def _response(self, method: str) -> Response:
        while True:
            status, headers = self._read_head()
            if status >= 200 or status == 101:
                break
        has_body = method != "HEAD" and status not in (101, 204, 304) and headers.get("content-length") != "0"
        return Response(self, status, headers, has_body)

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Unavailable("the engine's answer is not HTTP")
            self._buffer += self._receive("before it answered")
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Unavailable(f"the engine's answer is not HTTP: {first[:80]!r}")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(rest[:3]), headers

    def body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        """RFC 9112, section 6.3: chunked, then Content-Length, then until the connection closes."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunked()
        length = headers.get("content-length")
        return self._until_close() if length is None else self._exactly(int(length))

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().partition(b";")[0], 16)
            if size == 0:
                while self._line():
                    pass  # trailers
                return
            yield from self._exactly(size)
            self._line()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._buffer or self._receive("in the middle of its answer")
            piece, self._buffer = data[:size], data[size:]
            size -= len(piece)
            yield piece

    def _until_close(self) -> Iterator[bytes]:
        while data := self._buffer or self.stream.recv(CHUNK):
            self._buffer = b""
            yield data

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._buffer += self._receive("in the middle of its answer")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _receive(self, when: str) -> bytes:
        try:
            data = self.stream.recv(CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Unavailable(f"the engine closed the connection {when}")
        return data

    def readable_within(self, seconds: float) -> bool:
        return bool(self._buffer) or bool(select.select([self.stream.fileno()], [], [], seconds)[0])

    def detach(self) -> tuple["Stream", bytes]:
        """After an upgrade: the raw stream and the bytes that came with the response's head."""
        prefix, self._buffer = self._buffer, b""
        return self.stream, prefix

    def close(self) -> None:
        self.stream.close()


def file_body(file: BinaryIO) -> Iterator[bytes]:
    """A file's bytes in pieces that are cheap to send."""
    while chunk := file.read(CHUNK):
        yield chunk


def half_close(stream: "Stream") -> None:
    """No more input: the other direction stays open."""
    try:
        stream.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the engine has gone already; reading will tell


def _head(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
