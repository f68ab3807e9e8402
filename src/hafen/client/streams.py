"""Carry a container's streams: our input to the engine, its frames or raw bytes to our output."""

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence

from hafen.client.dial import Stream
from hafen.client.engine import Hijacked
from hafen.client.transport import half_close
from hafen.errors import Unavailable

BUFFER = 1 << 18
HEADER = struct.Struct(">B3xL")  # Engine API, ContainerAttach: stream, three zeros, length of the payload
MAX_VECTORS = 512  # below IOV_MAX
SYSTEM_ERROR = 3  # stream number of an error that the engine tells in the middle of a stream


class DetachKeys:
    """Find the detach sequence in what is typed; a part of it is held back until it is decided."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to send on, whether the sequence is complete)."""
        passed = bytearray()
        for byte in data:
            if self._sequence and byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
                continue
            passed += self._sequence[: self._matched]
            self._matched = 0
            if self._sequence and byte == self._sequence[0]:
                self._matched = 1
            else:
                passed.append(byte)
        return bytes(passed), False


class Demultiplexer:
    """Write the payloads of stdio frames to the descriptors of their streams without gathering whole frames."""

    def __init__(self, outputs: dict[int, int]) -> None:
        self._outputs = outputs
        self._left = 0
        self._stream = 1
        self._error = b""

    def feed(self, data: memoryview) -> int:
        """Consume what can be consumed; the rest (part of a header) is to be presented again. Returns its length."""
        position, end = 0, len(data)
        run: list[memoryview] = []
        run_stream = self._stream
        while position < end:
            if not self._left:
                if end - position < HEADER.size:
                    break
                self._stream, self._left = HEADER.unpack_from(data, position)
                position += HEADER.size
                continue
            piece = data[position : position + self._left]
            if self._stream != run_stream or len(run) == MAX_VECTORS:
                self._write(run_stream, run)
                run, run_stream = [], self._stream
            run.append(piece)
            position += len(piece)
            self._left -= len(piece)
        self._write(run_stream, run)
        return end - position

    def _write(self, stream: int, pieces: list[memoryview]) -> None:
        if stream == SYSTEM_ERROR:
            self._error += b"".join(pieces)
            if not self._left:
                raise Unavailable(f"error from daemon in stream: {self._error.decode('utf-8', 'replace')}")
        elif (fd := self._outputs.get(stream)) is not None:
            write_all(fd, pieces)


def write_all(fd: int, pieces: Sequence[memoryview | bytes]) -> None:
    """All of it, whether or not whoever gave us the descriptor made it non-blocking."""
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        try:
            written = os.writev(fd, left)
        except BlockingIOError:
            select.select([], [fd], [])
            continue
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def receive(stream: Stream, prefix: bytes, sink: Callable[[memoryview], int]) -> None:
    """Read until the engine closes; `sink` returns how many bytes at the end it wants to see again."""
    buffer = bytearray(max(BUFFER, len(prefix)))
    view = memoryview(buffer)
    view[: len(prefix)] = prefix
    kept = sink(view[: len(prefix)]) if prefix else 0
    end = len(prefix)
    while True:
        view[:kept] = view[end - kept : end]
        try:
            count = stream.recv_into(view[kept:])
        except ConnectionResetError:
            return
        if not count:
            return
        end = kept + count
        kept = sink(view[:end])


class Session:
    """An attached container: carries its streams until it ends, the engine hangs up, or the user detaches."""

    def __init__(
        self,
        connection: Hijacked,
        *,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        tty: bool,
        detach_keys: bytes,
    ) -> None:
        self._connection = connection
        self._stdin = stdin
        self._outputs = {number: fd for number, fd in ((1, stdout), (2, stderr)) if fd is not None}
        self._tty = tty
        self._keys = DetachKeys(detach_keys if tty else b"")
        self.detached = False

    def run(self) -> None:
        """Output in this thread, which also takes the signals; input in one of its own that may stay blocked."""
        if self._stdin is not None:
            threading.Thread(target=self._send, args=(self._stdin,), daemon=True).start()
        try:
            if self._tty:
                receive(self._connection.stream, self._connection.prefix, self._raw)
            else:
                frames = Demultiplexer(self._outputs)
                receive(self._connection.stream, self._connection.prefix, frames.feed)
        finally:
            self._connection.close()

    def _raw(self, data: memoryview) -> int:
        fd = self._outputs.get(1)
        if fd is not None:
            write_all(fd, [data])
        return 0

    def _send(self, fd: int) -> None:
        stream = self._connection.stream
        try:
            while data := read_some(fd):
                data, self.detached = self._keys.feed(data)
                if data:
                    stream.sendall(data)
                if self.detached:
                    stream.shutdown(socket.SHUT_RDWR)
                    return
            half_close(stream)
        except OSError:
            pass  # the container has ended, or the engine has gone: the output side tells which


def read_some(fd: int) -> bytes:
    """Some input; nothing at its end."""
    while True:
        try:
            return os.read(fd, BUFFER)
        except BlockingIOError:
            select.select([fd], [], [])
