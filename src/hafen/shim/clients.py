"""One attached client: its bounded backlog, what it types, and how its session ends.

A client must never stop a container for long, nor lose bytes for being merely slow. So: while it takes bytes, a full
backlog (BACKLOG) holds the container's output back, as a pipe would. One that takes nothing for STALL seconds (a
paged `less`, a suspended terminal) no longer does: what it misses goes to an unlinked file, up to SPILL bytes, and it
gets all of it when it reads again. Only a full file and still no progress closes the client. One that hangs up is
noticed at once. (Docker stops the container for as long as such a client likes.)
"""

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable

from hafen.shim.detach import DetachScanner
from hafen.shim.loop import GONE, READ, WRITE, Loop, Timer
from hafen.shim.protocol import Client
from hafen.spec import stdcopy

BACKLOG = 1 << 20
SPILL = 64 << 20
STALL = 2.0  # seconds
READ_SIZE = 64 << 10


class AttachedClient:
    """`on_input(data)` gets what it types, `on_input_end()` its half-close, `on_done(self)` follows its end.

    `on_room()` is called when a full backlog has room again.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, wishes: Client, *, scan: bool, spill_directory: str,
        on_input: Callable[[bytes], None], on_input_end: Callable[["AttachedClient"], None],
        on_room: Callable[[], None], on_done: Callable[["AttachedClient"], None],
    ) -> None:  # fmt: skip
        self.number = wishes.client
        self.wishes = wishes
        self.reason = ""
        self._loop = loop
        self._sock = sock
        self._scanner = DetachScanner(wishes.detach_keys.encode("latin-1") if scan else b"")
        self._spill_directory = spill_directory
        self._on_input = on_input
        self._on_input_end = on_input_end
        self._on_room = on_room
        self._on_done = on_done
        self._backlog: deque[memoryview] = deque()
        self._backlog_size = 0
        self._spill = -1
        self._spill_start = self._spill_end = 0
        self._was_full = False
        self._progress = 0.0
        self._stall: Timer | None = None
        self._ending: str | None = None
        self._reading = True
        self._input_paused = False
        self._unread_hangup = False
        self._held = False
        self._mask = READ
        sock.setblocking(False)
        loop.add(sock.fileno(), READ, self._ready)

    def begin(self) -> None:
        """Pass on what was read before the socket came here."""
        if self.wishes.prefix:
            self._typed(self.wishes.prefix.encode("latin-1"))

    def hold(self) -> None:
        """Nothing is sent before `release`: somebody else still writes what comes first."""
        self._held = True

    def release(self) -> None:
        self._held = False
        if not self.done:
            self._flush()

    @property
    def held(self) -> bool:
        return self._held and not self.done

    @property
    def full(self) -> bool:
        """Whether it has so much to take that output is to be held back."""
        if self._spill < 0:
            return self._backlog_size >= BACKLOG
        return self._spill_end - self._spill_start >= SPILL

    @property
    def done(self) -> bool:
        return self._sock.fileno() < 0

    def wants(self, stream: int) -> bool:
        return self.wishes.stderr if stream == stdcopy.STDERR else self.wishes.stdout

    def write(self, stream: int, data: bytes) -> None:
        """Output for it. Never blocks; check `full` afterwards."""
        if self.done or self._ending is not None:
            return
        parts: list[bytes] = [stdcopy.header(stream, len(data)), data] if self.wishes.multiplexed else [data]
        if self._backlog_size or self._spill >= 0 or self._held:
            self._append(b"".join(parts))
            return
        size = sum(map(len, parts))
        try:
            sent = self._sock.sendmsg(parts, (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._finish("gone")
            return
        self._progress = time.monotonic()
        if sent < size:
            self._append(memoryview(b"".join(parts))[sent:])

    def end(self, reason: str) -> None:
        """No more output comes: close when it has taken everything."""
        if self.done:
            return
        self._ending = reason
        if not (self._backlog_size or self._held):
            self._finish(reason)

    def detach(self, reason: str) -> None:
        """Close now."""
        self._finish(reason)

    def pause_input(self, paused: bool) -> None:
        """Whether what it types finds no room at present."""
        if self.done or paused == self._input_paused:
            return
        self._input_paused = paused
        if self._unread_hangup:
            self._unread_hangup = False
            self._loop.add(self._sock.fileno(), self._mask, self._ready)
        self._update()

    def _append(self, data: bytes | memoryview) -> None:
        if self._spill >= 0:
            self._spill_write(data)
        else:
            self._backlog.append(memoryview(data))
            self._backlog_size += len(data)
        if self.full:
            self._was_full = True
        if self.full and self._stall is None:
            self._stall = self._loop.after(STALL, self._check_stall)
        self._update()

    def _check_stall(self) -> None:
        self._stall = None
        if self.done or not self.full:
            return
        if time.monotonic() - self._progress < STALL:
            self._stall = self._loop.after(STALL, self._check_stall)
        elif self._spill >= 0:
            self._finish("stalled")
        else:
            try:
                self._spill = os.open(self._spill_directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError:  # no space, no such feature: it has had its chance
                self._finish("stalled")
                return
            self._spill_start = self._spill_end = 0
            self._room()

    def _spill_write(self, data: bytes | memoryview) -> None:
        try:
            while len(data):
                written = os.pwrite(self._spill, data, self._spill_end)
                self._spill_end += written
                data = data[written:]
        except OSError:
            self._finish("stalled")

    def _refill(self) -> None:
        """Move the oldest of the spill file to the memory backlog; the file ends when it is read."""
        while self._spill >= 0 and self._backlog_size < BACKLOG // 2:
            data = os.pread(self._spill, 256 << 10, self._spill_start)
            if not data:
                os.close(self._spill)
                self._spill = -1
                return
            self._spill_start += len(data)
            self._backlog.append(memoryview(data))
            self._backlog_size += len(data)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        if mask & READ and not self.done:
            self._read(hung_up=bool(mask & GONE))
        elif mask & GONE and not self.done:
            if self._input_paused and self._reading and self.wishes.stdin:
                self._unread_hangup = True  # it has typed, and gone: what it typed still counts
                self._loop.remove(self._sock.fileno())
            else:
                self._finish("gone")

    def _flush(self) -> None:
        try:
            while self._backlog:
                first = self._backlog[0]
                sent = self._sock.send(first, socket.MSG_NOSIGNAL)
                self._progress = time.monotonic()
                self._backlog_size -= sent
                if sent < len(first):
                    self._backlog[0] = first[sent:]
                    break
                self._backlog.popleft()
                self._refill()
        except BlockingIOError:
            pass
        except OSError:
            self._finish("gone")
            return
        if self._ending is not None and not self._backlog:
            self._finish(self._ending)
            return
        if self._was_full and not self.full:
            self._room()
        self._update()

    def _room(self) -> None:
        self._was_full = False
        self._on_room()

    def _read(self, *, hung_up: bool) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            self._finish("gone")
            return
        if data:
            self._typed(data)
            return
        if hung_up:
            self._finish("gone")
            return
        self._reading = False  # a half-close: `docker run` without -i sends one at once
        self._update()
        if self.wishes.stdin:
            if rest := self._scanner.rest():
                self._on_input(rest)
            self._on_input_end(self)

    def _typed(self, data: bytes) -> None:
        if not self.wishes.stdin or self._ending is not None:
            return
        passed, detached = self._scanner.feed(data)
        if passed:
            self._on_input(passed)
        if detached:
            self._finish("detach")

    def _update(self) -> None:
        if self.done:
            return
        mask = (READ if self._reading and not self._input_paused else 0) | (
            WRITE if self._backlog_size and not self._held else 0
        )
        if mask != self._mask and not self._unread_hangup:
            self._mask = mask
            self._loop.change(self._sock.fileno(), mask)

    def _finish(self, reason: str) -> None:
        if self.done:
            return
        self.reason = reason
        self._loop.remove(self._sock.fileno())
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # whoever handed it over may still hold a copy
            while self._sock.recv(READ_SIZE):  # closing over unread input would reset the peer, unix(7)
                pass
        except OSError:  # ENOTCONN: it hung up first; EAGAIN: nothing is left
            pass
        self._sock.close()
        self._backlog.clear()
        self._backlog_size = 0
        if self._spill >= 0:
            os.close(self._spill)
            self._spill = -1
        if self._stall is not None:
            self._stall.cancel()
        self._on_done(self)
