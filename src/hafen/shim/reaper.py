"""Reap every child, also orphans that fall to us as their subreaper, and tell who asked for which."""

import os
import signal
from collections.abc import Callable

from hafen.shim.loop import READ, Loop

OnExit = Callable[[int], None]


class Reaper:
    """`watch` calls back with the exit code (128 + n for signal n), also for a child that was reaped before.

    The status of a child nobody watches is kept only between `expect` and `expected`: a process made by a set-up
    process can end before that has told its pid.
    """

    def __init__(self, loop: Loop) -> None:
        self._watched: dict[int, OnExit] = {}
        self._early: dict[int, int] = {}
        self._expecting = 0
        # A Python-level handler is needed for the wake-up descriptor to be written at all.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._wakeup, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        loop.add(self._wakeup, READ, self._woken)

    def expect(self) -> None:
        self._expecting += 1

    def expected(self) -> None:
        self._expecting -= 1
        if not self._expecting:
            self._early.clear()

    def watch(self, pid: int, on_exit: OnExit) -> None:
        code = self._early.pop(pid, None)
        if code is None:
            self._watched[pid] = on_exit
        else:
            on_exit(code)

    def reap(self) -> None:
        """Everything that has ended by now."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            on_exit = self._watched.pop(pid, None)
            if on_exit is not None:
                on_exit(code)
            elif self._expecting:
                self._early[pid] = code

    def _woken(self, _: int) -> None:
        try:
            os.read(self._wakeup, 4096)
        except BlockingIOError:
            pass
        self.reap()
