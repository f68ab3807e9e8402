"""Watch a directory for what is written into its files (inotify(7))."""

import ctypes
import os

from hafen.kernel import consts
from hafen.kernel.libc import oserror, system_call

_inotify_init1 = system_call("inotify_init1", ctypes.c_int)
_inotify_add_watch = system_call("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)

_WRITTEN = consts.IN_MODIFY | consts.IN_MOVED_TO | consts.IN_CREATE


def watch_directory(path: str) -> int:
    """A non-blocking descriptor that is readable when a file in `path` was written, made or renamed; caller closes."""
    fd = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise oserror("inotify_init1")
    if _inotify_add_watch(fd, os.fsencode(path), _WRITTEN) < 0:
        error = oserror("inotify_add_watch", path)
        os.close(fd)
        raise error
    return fd


def drain(fd: int) -> None:
    """Make the descriptor quiet until the next change; what the events say is of no use here."""
    try:
        while os.read(fd, 1 << 16):
            pass
    except BlockingIOError:
        pass
