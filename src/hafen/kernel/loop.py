"""Loop devices: a file as a block device that goes away by itself with its last user (loop(4))."""

import errno
import fcntl
import os
import struct

from hafen.kernel.libc import oserror_of

# linux/loop.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
_MAJOR = 7
_CONFIG = struct.Struct("=II5QIIII64s64s32s2Q8Q")  # struct loop_config with its loop_info64
_ATTEMPTS = 16  # another process may take the free device that we were told of


def attach(path: str, *, readonly: bool = False) -> tuple[int, str]:
    """(descriptor, /dev/loopN) of a device that stands for the file `path`: the one that has it already, or a new one
    that is detached when its last user, mount or descriptor, is gone. Needs Linux 5.8."""
    known = _attached(os.path.realpath(path))
    if known:
        return os.open(known, os.O_RDONLY | os.O_CLOEXEC), known
    access = os.O_RDONLY if readonly else os.O_RDWR
    file = os.open(path, access | os.O_CLOEXEC)
    try:
        return _configure(file, path, access)
    finally:
        os.close(file)


def _configure(file: int, path: str, access: int) -> tuple[int, str]:
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if access == os.O_RDONLY else 0)
    name = os.fsencode(path)[:63]
    config = _CONFIG.pack(file, 0, *(0,) * 5, 0, 0, 0, flags, name, b"", b"", *(0,) * 10)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            device = _node(number)
            fd = os.open(device, access | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, LOOP_CONFIGURE, config)
                return fd, device
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
        raise oserror_of(errno.EBUSY, "LOOP_CONFIGURE", path)
    finally:
        os.close(control)


def _node(number: int) -> str:
    """The device's node, made where no udev does."""
    device = f"/dev/loop{number}"
    if not os.path.exists(device):
        os.mknod(device, 0o60660, os.makedev(_MAJOR, number))
    return device


def _attached(path: str) -> str:
    """The device of this file; two at once would write over each other. Empty where there is none."""
    for name in os.listdir("/sys/block"):
        if name.startswith("loop"):
            try:
                with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                    if file.read().rstrip("\n") == path:
                        return f"/dev/{name}"
            except OSError:
                continue  # not attached to anything
    return ""
