"""The part of a shim that stays: parent of the container, and of a worker while there is work.

A process that runs Python writes to most of the pages it inherited (reference counts), and so pays for them. The
keeper runs almost nothing. All the shim's work is done by a worker that it forks (`hafen.shim.main`); one that has
had nothing to do for a while hands its descriptors and what it knows to the keeper, and ends. The keeper waits for
any of them, or for the container's end, and forks the next worker, which costs about a millisecond.

    worker -> keeper    "init <pid>"                       the container's first process, which is the keeper's child
                        "sleep <mask>,<mask>,...\\n<state>"  + descriptors; the worker ends. An empty mask: only keep it
    keeper -> worker    "exit <code>"                      the container's first process has ended: 128 + n for signal n

A worker that ends without `sleep` has finished, or was killed; either way the keeper ends, and the container with it.
"""

import os
import select
import signal
import socket
from typing import NamedTuple

from hafen.kernel import process
from hafen.kernel.cgroup import Hierarchy
from hafen.kernel.unix import receive_descriptors
from hafen.shim import main
from hafen.shim.fork import fork
from hafen.shim.protocol import MAX_DESCRIPTORS, MAX_MESSAGE


class Asleep(NamedTuple):
    """What a worker left."""

    state: bytes
    masks: list[bytes]
    descriptors: list[int]


def keep(link: int, hierarchy: Hierarchy) -> None:
    """The whole life of a shim; `link` is its first conversation with an engine."""
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_IGN)  # containers end first, and tell
    process.set_subreaper()
    keeper = _Keeper(hierarchy)
    left: Asleep | None = Asleep(b"", [], [link])
    while left is not None:
        left = keeper.work(left)
        if left is not None:
            keeper.wait(left)


class _Keeper:
    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._init = self._worker = 0
        self._open = True  # whether the worker holds its end of the conversation
        self._codes: dict[
            int, int
        ] = {}  # of the worker and the container's first process; of every child until that is known
        # A Python-level handler is needed for the wake-up descriptor to be written at all.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def work(self, left: Asleep) -> Asleep | None:
        """A worker's life; None where it was the last."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * MAX_MESSAGE)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)
        worker = fork(
            lambda: main.work(theirs, left.state, left.descriptors, self._hierarchy),
            {theirs.fileno(), *left.descriptors},
        )
        theirs.close()
        for descriptor in left.descriptors:
            os.close(descriptor)
        if not left.state:
            _forget_engine()
        with ours:
            self._tell(ours)
            return self._attend(worker, ours)

    def wait(self, left: Asleep) -> None:
        """Until there is work: a descriptor is ready, or the container has ended."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        for mask, descriptor in zip(left.masks, left.descriptors, strict=True):
            if mask:
                poll.register(descriptor, int(mask))
        while self._init not in self._codes:
            ready = poll.poll()
            if any(descriptor != self._ended for descriptor, _ in ready):
                return
            self._reap()

    def _attend(self, worker: int, ours: socket.socket) -> Asleep | None:
        self._worker, self._open = worker, True
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        poll.register(ours, select.POLLIN)
        left: Asleep | None = None
        while worker not in self._codes:
            for descriptor, _ in poll.poll():
                if descriptor == self._ended:
                    self._reap()
                    self._tell(ours)
                    continue
                left = self._receive(ours) or left
                if not self._open:
                    poll.unregister(ours)
        while self._open:  # what it said last
            left = self._receive(ours) or left
        return left if self._codes.pop(worker) == 0 else None

    def _receive(self, ours: socket.socket) -> Asleep | None:
        try:
            data, descriptors, _ = receive_descriptors(ours, MAX_MESSAGE, MAX_DESCRIPTORS)
        except ConnectionError:
            data, descriptors = b"", []
        self._open = bool(data)
        if data.startswith(b"sleep "):
            masks, _, state = data[6:].partition(b"\n")
            return Asleep(state, masks.split(b","), descriptors)
        if data:
            self._init = int(data[5:])
            self._tell(ours)
        return None

    def _tell(self, ours: socket.socket) -> None:
        code = self._codes.get(self._init)
        if code is not None:
            try:
                ours.send(b"exit %d" % code, socket.MSG_NOSIGNAL)
            except OSError:  # it has ended; the next one is told
                pass

    def _reap(self) -> None:
        try:
            os.read(self._ended, 4096)
        except BlockingIOError:
            pass
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                code = os.waitstatus_to_exitcode(status)
                if not self._init or pid in (self._init, self._worker):
                    self._codes[pid] = code if code >= 0 else 128 - code
        except ChildProcessError:
            pass


def _forget_engine() -> None:
    """Standard error is the engine's until there is a container, and must not be held open longer."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
