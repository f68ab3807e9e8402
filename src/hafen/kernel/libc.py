"""The one `CDLL`, system call numbers per architecture, and `oserror`.

Everything goes through syscall(2) by number: glibc lacks wrappers for many of these calls, and other C libraries
lack more. A wrapper declares its argument types once, with `system_call`, and raises `oserror` on -1.
"""

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import cast

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)

# name: (x86-64, arm64 and every other architecture with the generic table)
_NUMBERS: dict[str, tuple[int, int]] = {
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "fstatfs": (138, 44),
    "syncfs": (306, 267),
    "getdents64": (217, 61),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "quotactl_fd": (443, 443),
    "renameat2": (316, 276),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "statx": (332, 291),
    "umount2": (166, 39),
    "unshare": (272, 97),
}
_COLUMN = 0 if os.uname().machine == "x86_64" else 1


def number(name: str) -> int:
    """The number of the system call `name` on this architecture."""
    return _NUMBERS[name][_COLUMN]


def system_call(name: str, *argtypes: object, keep_gil: bool = False) -> Callable[..., int]:
    """A function that makes the system call `name` and returns its result, -1 on error (then `oserror` says why).

    `keep_gil` is for calls that must not be interleaved with another Python thread, such as clone3.
    """
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)  # type: ignore[arg-type]  # ctypes types
    if not keep_gil:
        return partial(prototype(("syscall", _libc)), number(name))
    function = _libc_with_gil["syscall"]  # subscription makes a new function object; an attribute would be shared
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long, *argtypes]  # type: ignore[list-item]  # ctypes types
    return cast(Callable[..., int], partial(function, number(name)))


def oserror(call: str, path: str | None = None) -> OSError:
    """The OSError for the call that just failed: errno, "call: strerror", path."""
    return oserror_of(ctypes.get_errno(), call, path)


def oserror_of(errno: int, call: str, path: str | None = None) -> OSError:
    """The same for an errno that is already in hand; Python picks the subclass (FileNotFoundError, ...)."""
    message = f"{call}: {os.strerror(errno)}"
    return OSError(errno, message) if path is None else OSError(errno, message, path)


def library(name: str) -> ctypes.CDLL:
    """A shared library of the system by its soname; OSError where it is not installed."""
    return ctypes.CDLL(name, use_errno=True)
