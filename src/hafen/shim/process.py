"""One process that the shim keeps: the container's first, or an exec."""

import os
from collections.abc import Callable

from hafen.kernel import process, tty
from hafen.shim.clients import AttachedClient
from hafen.shim.loop import Loop
from hafen.shim.stdio import ProcessIO

DRAIN = 2.0  # seconds that a descendant which holds the output open can delay the end, as Docker's


class Process:
    """`exec_id` is empty for the container's first process. `on_end(self)` comes after the output's end."""

    def __init__(
        self, loop: Loop, exec_id: str, pid: int, pidfd: int, console: int, on_end: Callable[["Process"], None]
    ) -> None:
        self.exec_id = exec_id
        self.pid = pid
        self.code: int | None = None
        self.io: ProcessIO
        self._loop = loop
        self._pidfd = pidfd
        self._console = console
        self._on_end = on_end
        self._ended = False

    def descriptors(self) -> list[tuple[str, int]]:
        """For another process that takes over."""
        return [("pidfd", self._pidfd), *self.io.descriptors()]

    def exited(self, code: int) -> None:
        """It was reaped: take what it wrote last."""
        self.code = code
        self.io.drain()
        if self.io.drained:
            self.drained()
        else:
            self._loop.after(DRAIN, self.io.abandon)

    def drained(self) -> None:
        if self.code is not None and not self._ended:
            self._ended = True
            os.close(self._pidfd)
            self._on_end(self)

    def signal(self, signo: int) -> None:
        """ProcessLookupError where it has ended."""
        if self.code is not None:
            raise ProcessLookupError
        process.pidfd_send_signal(self._pidfd, signo)

    def resize(self, height: int, width: int) -> None:
        """Without a terminal there is nothing to do."""
        if self._console >= 0 and not self.io.drained:
            tty.set_window_size(self._console, height, width)

    def client_done(self, client: AttachedClient) -> None:
        self.io.client_done(client)
