"""Hands a container's output to a remote log driver, in a process of its own: there everything may block.

worker -> sender    for each chunk: length (u32), stream (u8), ns since the epoch (u64), bytes; end: no more is to come
sender -> worker    first `+`, or `-` and why a connection is not to be had; then the number of bytes that are done
                    with, all in all (u64), after each that it has read

A remote end that is slow or away is felt as Docker lets it be felt: in blocking mode the container waits in write(2);
with `mode=non-blocking` at most `max-buffer-size` is kept, and whole lines are left out.
"""

import os
import signal
import socket
import struct
import time
from collections.abc import Callable

from hafen.errors import HafenError, Unavailable
from hafen.logs.driver import LogSender, LogWriter
from hafen.logs.lines import LONGEST, Lines
from hafen.logs.options import Options, parse_size
from hafen.shim.fork import fork
from hafen.shim.loop import READ, WRITE, Loop
from hafen.shim.reaper import Reaper

_CHUNK = struct.Struct("<IBQ")
_DONE = struct.Struct("<Q")
_READ_SIZE = 256 << 10
_BACKLOG = 64 << 10  # beyond what the socket holds
_RING = 1_000_000  # moby daemon/logger/ring.go
_IDLE = 30.0  # seconds after which a connection may be given up to sleep
_PATIENCE = 10.0  # seconds that a sender has after the container's end (moby: loggerCloseTimeout)


class Forwarder:
    """A LogWriter that writes to a copy and to a sender. `on_room` is called when `full` ends, `on_done` at the end."""

    def __init__(self, loop: Loop, reaper: Reaper, copy: LogWriter, sender: LogSender, options: Options) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self.on_done: Callable[[], None] = lambda: None
        self._loop = loop
        self._reaper = reaper
        self._copy = copy
        self._sender = sender
        self._limit: int | None = None
        if options.get("mode") == "non-blocking":
            self._limit = parse_size(options["max-buffer-size"]) if "max-buffer-size" in options else _RING
        self._socket: socket.socket | None = None
        self._pid = 0
        self._pending = bytearray()
        self._answer = b""
        self._sent = self._done = 0
        self._inside: dict[int, bool] = {}  # whether what was passed on ends within a line
        self._tails: dict[int, bytes] = {}  # unfinished lines, where lines may be left out
        self._last = time.monotonic()
        self._closing = False

    def open(self) -> None:
        """Wait until there is a connection. Unavailable, with Docker's text."""
        ours = self._start(check=True)
        ours.setblocking(True)
        answer = ours.recv(4096)
        ours.setblocking(False)
        if answer[:1] != b"+":
            self._drop()
            raise Unavailable(f"failed to initialize logging driver: {answer[1:].decode(errors='replace')}")
        self._answer = answer[1:]

    def write(self, stream: int, data: bytes, at: int) -> None:
        self._copy.write(stream, data, at)
        if self._limit is not None:
            data = self._admitted(stream, data, at)
        if data:
            self._pass_on(stream, data, at)

    @property
    def full(self) -> bool:
        return self._limit is None and len(self._pending) >= _BACKLOG

    @property
    def resting(self) -> bool:
        idle = self._socket is None or (
            self._done == self._sent and not any(self._inside.values()) and time.monotonic() - self._last > _IDLE
        )
        return idle and not any(self._tails.values()) and self._copy.resting

    @property
    def busy(self) -> bool:
        """After `close`: whether something is still to be sent."""
        return self._pid != 0

    def close(self) -> None:
        self._copy.close()
        for stream, tail in self._tails.items():
            if tail:
                self._pass_on(stream, tail, time.time_ns())
        self._closing = True
        if self._pid:
            pid = self._pid
            self._loop.after(_PATIENCE, lambda: os.kill(pid, signal.SIGKILL) if self._pid == pid else None)
            self._flush()

    def _admitted(self, stream: int, data: bytes, at: int) -> bytes:
        """What of it is passed on where only so much may wait: whole lines, or the pieces of one that is very long."""
        assert self._limit is not None
        data = self._tails.pop(stream, b"") + data
        end = data.rfind(b"\n") + 1
        if len(data) - end < LONGEST:
            self._tails[stream] = data[end:]
            data = data[:end]
        if not self._pending or len(self._pending) + len(data) <= self._limit:
            return data
        if self._inside.get(stream):
            self._pass_on(stream, b"\n", at)
        return b""

    def _pass_on(self, stream: int, data: bytes, at: int) -> None:
        if self._socket is None:
            self._start(check=False)
        self._inside[stream] = not data.endswith(b"\n")
        self._last = time.monotonic()
        self._pending += _CHUNK.pack(len(data), stream, at)
        self._pending += data
        self._sent += len(data)
        self._flush()

    def _start(self, check: bool) -> socket.socket:
        ours, theirs = socket.socketpair()
        end = theirs.detach()
        self._pid = pid = fork(lambda: _send_all(socket.socket(fileno=end), self._sender, check), {end})
        os.close(end)
        self._reaper.watch(pid, lambda _: self._ended(pid))
        ours.setblocking(False)
        self._socket = ours
        self._sent = self._done = 0
        self._answer = b""
        self._loop.add(ours.fileno(), READ, self._ready)
        return ours

    def _ready(self, mask: int) -> None:
        assert self._socket is not None
        if mask & ~WRITE:
            try:
                answer = self._socket.recv(4096)
            except BlockingIOError:
                return
            except ConnectionError:
                answer = b""
            if not answer:  # it has ended, or was killed; with the next chunk another one starts
                self._drop()
                return
            self._answer += answer
            whole = len(self._answer) // _DONE.size * _DONE.size
            if whole:
                (self._done,) = _DONE.unpack(self._answer[whole - _DONE.size : whole])
                self._answer = self._answer[whole:]
        if mask & WRITE:
            self._flush()

    def _flush(self) -> None:
        if self._socket is None:
            return
        was_full = self.full
        try:
            while self._pending:
                del self._pending[: self._socket.send(memoryview(self._pending)[:_READ_SIZE])]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE
            self._drop()
        else:
            if self._closing:
                self._socket.shutdown(socket.SHUT_WR)
        if self._socket is not None:
            self._loop.change(self._socket.fileno(), READ | WRITE if self._pending else READ)
        if was_full and not self.full:
            self.on_room()

    def _drop(self) -> None:
        """What it has not taken is lost, but the container goes on."""
        if self._socket is not None:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None
        was_full = self.full
        self._pending.clear()
        self._inside.clear()
        if was_full:
            self.on_room()

    def _ended(self, pid: int) -> None:
        if self._pid != pid:  # another one has started already
            return
        self._pid = 0
        if self._closing:
            self.on_done()


def _send_all(theirs: socket.socket, sender: LogSender, check: bool) -> None:
    """The sender's whole life."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        if check:
            sender.open()
            theirs.send(b"+")
    except (OSError, HafenError) as error:
        theirs.send(b"-" + str(error).encode())
        return
    lines = Lines()
    done = 0
    data = b""
    while more := theirs.recv(_READ_SIZE):
        data += more
        position = 0
        while len(data) - position >= _CHUNK.size:
            length, stream, at = _CHUNK.unpack_from(data, position)
            begin = position + _CHUNK.size
            if len(data) < begin + length:
                break
            for line in lines.feed(stream, data[begin : begin + length], at):
                sender.send(line)
            position = begin + length
            done += length
        data = data[position:]
        if position:
            theirs.send(_DONE.pack(done))
    for line in lines.finish(time.time_ns()):
        sender.send(line)
    sender.close()
