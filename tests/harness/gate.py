"""A gate in front of a file: whoever opens it stands still until the test lets him go on (fanotify(7)).

With it a test does something, or kills the engine, while the engine is in the middle of a copy or of counting files.
"""

import ctypes
import os
import select
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_FAN_CLASS_CONTENT, _FAN_CLOEXEC = 0x4, 0x1
_FAN_MARK_ADD = 0x1
_FAN_OPEN_PERM, _FAN_ONDIR = 0x00010000, 0x40000000
_FAN_ALLOW = 1
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_PATIENCE = 20


class Gate:
    """In front of one file or directory, for all processes; the test must not open it itself. The end of `with` lets
    everybody go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group = -1
        self._waiting: list[int] = []

    def __enter__(self) -> "Gate":
        self._group = _checked(_libc.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC, os.O_RDONLY | os.O_CLOEXEC))
        mask = ctypes.c_uint64(_FAN_OPEN_PERM | _FAN_ONDIR)
        _checked(_libc.fanotify_mark(self._group, _FAN_MARK_ADD, mask, _AT_FDCWD, os.fsencode(self.path)))
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def wait_reached(self) -> None:
        """Until somebody stands there."""
        assert select.select([self._group], [], [], _PATIENCE)[0], f"nobody has opened {self.path}"
        events = os.read(self._group, 4096)
        for offset in range(0, len(events), _EVENT.size):
            self._waiting.append(_EVENT.unpack_from(events, offset)[5])

    def admit(self) -> None:
        """Who came first goes on, the others wait."""
        fd = self._waiting.pop(0)
        os.write(self._group, struct.pack("=iI", fd, _FAN_ALLOW))
        os.close(fd)

    def open(self) -> None:
        """Nobody stands still here any more."""
        if self._group >= 0:
            os.close(self._group)  # which allows all that nobody has answered
            self._group = -1
        while self._waiting:
            os.close(self._waiting.pop())


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
