"""The streams of one process: its output to the log and every attached client, what clients type to its input.

Each stream is a pipe, or all of them are a pseudo-terminal's master. Reads are large, as each costs a log record and
a frame per client.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable
from typing import Protocol

from hafen.shim.clients import AttachedClient
from hafen.shim.loop import READ, WRITE, Loop
from hafen.spec import stdcopy

READ_SIZE = 256 << 10
PIPE_SIZE = 1 << 20  # /proc/sys/fs/pipe-max-size; pages are only taken when filled
INPUT_BACKLOG = 256 << 10


class Sink(Protocol):
    """Where output is kept: a `logs.driver.LogWriter`, or nothing at all."""

    def write(self, stream: int, data: bytes, at: int) -> None:
        """`at` in nanoseconds since the epoch. Raises nothing."""

    @property
    def full(self) -> bool:
        """Whether the process has to wait; who makes the sink calls `ProcessIO.output_room` when that is over."""


def output_pipe() -> tuple[int, int]:
    """A large pipe; the read end, ours, does not block."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    _enlarge(ours)
    return ours, theirs


def input_pipe() -> tuple[int, int]:
    """A pipe; the write end, ours, does not block."""
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    return ours, theirs


def _enlarge(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # EPERM: over the user's limit of pipe buffers; 64 KiB work as well, only slower
        pass


class Input:
    """What is typed into a process: bounded, and closed once everything before was taken."""

    def __init__(self, loop: Loop, descriptor: int, on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = descriptor
        self._on_room = on_room
        self._pending = bytearray()
        self._closing = False
        loop.add(descriptor, 0, self._ready)

    @property
    def full(self) -> bool:
        return len(self._pending) >= INPUT_BACKLOG

    @property
    def resting(self) -> bool:
        return not self._pending and not self._closing

    def fileno(self) -> int:
        """-1 when it is closed."""
        return self._fd

    @property
    def open(self) -> bool:
        return self._fd >= 0 and not self._closing

    def write(self, data: bytes) -> None:
        if not self.open:
            return
        self._pending += data
        self._flush()

    def finish(self) -> None:
        """Close after what is pending."""
        self._closing = True
        self._flush()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._pending.clear()

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        else:  # the reader is gone
            self.close()
            self._on_room()

    def _flush(self) -> None:
        if self._fd < 0:
            return
        was_full = self.full
        try:
            while self._pending:
                del self._pending[: os.write(self._fd, memoryview(self._pending)[:65536])]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE; EIO where a terminal's last user is gone
            self.close()
        if self._fd >= 0:
            if self._closing and not self._pending:
                self.close()
            else:
                self._loop.change(self._fd, WRITE if self._pending else 0)
        if was_full and not self.full:
            self._on_room()


class ProcessIO:
    """All streams of one process and the clients attached to it.

    `on_drained()` is called when every output stream has ended. `outputs` are (descriptor, stream).
    """

    def __init__(
        self, loop: Loop, outputs: list[tuple[int, int]], stdin: int, *, terminal: bool, stdin_once: bool, sink: Sink,
        on_drained: Callable[[], None], on_client_done: Callable[[AttachedClient], None],
    ) -> None:  # fmt: skip
        self.terminal = terminal
        self.clients: list[AttachedClient] = []
        self._loop = loop
        self._outputs = dict(outputs)
        self._input = Input(loop, stdin, self._input_room) if stdin >= 0 else None
        self._stdin_once = stdin_once
        self._sink = sink
        self._on_drained = on_drained
        self._on_client_done = on_client_done
        self._held = False
        for descriptor, _ in outputs:
            loop.add(descriptor, READ, self._reader(descriptor))

    @property
    def drained(self) -> bool:
        return not self._outputs

    @property
    def resting(self) -> bool:
        """No client, and nothing that waits."""
        return not self.clients and not self._held and (self._input is None or self._input.resting)

    def descriptors(self) -> list[tuple[str, int]]:
        """For another process that takes over: what each is, and the descriptor."""
        found = [(f"output {stream}", descriptor) for descriptor, stream in self._outputs.items()]
        if self._input is not None and self._input.fileno() >= 0:
            found.append(("stdin", self._input.fileno()))
        return found

    def add(self, client: AttachedClient) -> None:
        self.clients.append(client)
        client.begin()
        if self.drained:
            client.end("exit")

    def typed(self, data: bytes) -> None:
        if self._input is not None:
            self._input.write(data)
            if self._input.full:
                for client in self.clients:
                    client.pause_input(True)

    def input_ended(self, client: AttachedClient) -> None:
        """A client's half-close: the end of the process's input if there is only ever one client, else of the session.

        As Docker does it: the input of a terminal has no end, so there it always is the session that ends.
        """
        if self._stdin_once and not self.terminal:
            if self._input is not None:
                self._input.finish()
        else:
            client.end("gone")

    def client_done(self, client: AttachedClient) -> None:
        if client in self.clients:
            self.clients.remove(client)
        if client.wishes.stdin and self._stdin_once and not self.terminal and self._input is not None:
            self._input.finish()
        self.output_room()
        self._on_client_done(client)

    def output_room(self) -> None:
        """Read on if no client is full any more, nor the log."""
        if self._held and not self._crowded():
            self._hold(False)

    def drain(self) -> None:
        """The process is gone: read what its pipes hold now, whether clients keep up or not, and close its input."""
        if self._held:
            self._hold(False)
        if self._input is not None:
            self._input.close()
        for descriptor in tuple(self._outputs):
            while descriptor in self._outputs and self._read(descriptor):
                pass

    def abandon(self) -> None:
        """Close outputs that someone else still holds open."""
        for descriptor in tuple(self._outputs):
            self._end(descriptor)

    def end_clients(self, reason: str) -> None:
        for client in tuple(self.clients):
            client.end(reason)

    def _reader(self, descriptor: int) -> Callable[[int], None]:
        return lambda _: self._pump(descriptor)

    def _pump(self, descriptor: int) -> None:
        if not self._held:  # else: an event that was already on its way
            self._read(descriptor)

    def _read(self, descriptor: int) -> bool:
        """Whether there was something."""
        stream = self._outputs[descriptor]
        try:
            data = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal without users
                raise
            data = b""
        if not data:
            self._end(descriptor)
            return False
        self._sink.write(stream, data, time.time_ns())
        for client in tuple(self.clients):
            if client.wants(stream):
                client.write(stream, data)
        if not self._held and self._crowded():
            self._hold(True)
        return True

    def _crowded(self) -> bool:
        return self._sink.full or any(client.full for client in self.clients)

    def _end(self, descriptor: int) -> None:
        del self._outputs[descriptor]
        self._loop.remove(descriptor)
        os.close(descriptor)
        if self.drained:
            self._on_drained()

    def _hold(self, held: bool) -> None:
        self._held = held
        for descriptor in self._outputs:
            if held:  # removed, as a mask of 0 would still report a hang-up, over and over
                self._loop.remove(descriptor)
            else:
                self._loop.add(descriptor, READ, self._reader(descriptor))

    def _input_room(self) -> None:
        for client in self.clients:
            client.pause_input(False)


def pipes(with_input: bool) -> tuple[list[tuple[int, int]], int, list[int]]:
    """For a process without a terminal: its outputs (descriptor, stream), our end of its input or -1, its own three."""
    out, their_out = output_pipe()
    err, their_err = output_pipe()
    if with_input:
        stdin, their_in = input_pipe()
    else:
        stdin, their_in = -1, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return [(out, stdcopy.STDOUT), (err, stdcopy.STDERR)], stdin, [their_in, their_out, their_err]
