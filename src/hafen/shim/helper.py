"""Work that takes long, beside the shim and when its container is quiet: compressing old logs."""

import os
import signal
from collections.abc import Callable

from hafen.shim.fork import fork
from hafen.shim.loop import Loop, Timer
from hafen.shim.reaper import Reaper

QUIET = 1.0  # seconds


class Helper:
    """One process at a time."""

    def __init__(self, loop: Loop, reaper: Reaper) -> None:
        self._loop = loop
        self._reaper = reaper
        self._pid = 0
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        return self._pid != 0 or self._timer is not None

    def start(self, work: Callable[[], None]) -> None:
        """Once nobody has asked for a moment: in a torrent of output, work on old files would be for nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.after(QUIET, lambda: self._fork(work))

    def end(self) -> None:
        """Whoever is told of the container's end may remove its files."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _fork(self, work: Callable[[], None]) -> None:
        self._timer = None
        if self._pid:
            self.start(work)
        else:
            self._pid = fork(work)
            self._reaper.watch(self._pid, self._ended)

    def _ended(self, _: int) -> None:
        self._pid = 0
