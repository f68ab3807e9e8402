"""Paths that stay inside a root (openat2), xattrs by descriptor, whiteouts, reflinks, kinds of file systems.

openat2(2), fstatfs(2), xattr(7), ioctl_ficlone(2), the kernel's overlayfs.rst for whiteouts.
"""

import ctypes
import errno
import fcntl
import functools
import os
import posixpath
import stat
import struct
import sys
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

from hafen.kernel import consts
from hafen.kernel.libc import oserror, system_call


class _OpenHow(ctypes.Structure):
    """struct open_how, version 0 (24 bytes)."""

    _fields_ = [("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64)]


_openat2 = system_call("openat2", c_int, c_char_p, c_void_p, c_size_t)
_fstatfs = system_call("fstatfs", c_int, c_void_p)
_syncfs = system_call("syncfs", c_int)
_renameat2 = system_call("renameat2", c_int, c_char_p, c_int, c_char_p, c_uint)
_statx = system_call("statx", c_int, c_char_p, c_int, c_uint, c_void_p)
_CHUNK = 16384  # larger buffers are mapped and unmapped for each read
_RETRIES = 64  # openat2(2): EAGAIN when a rename or mount raced with ".." below a scoped root
_SYMLINKS = 40  # path_resolution(7)


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, *, resolve: int = 0) -> int:
    """A close-on-exec descriptor of `path` below `dirfd`, resolved under the RESOLVE_* restrictions."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    name, address = os.fsencode(path), ctypes.addressof(how)
    for _ in range(_RETRIES):
        fd = _openat2(dirfd, name, address, 24)
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise oserror("openat2", path)


def open_in_root(dirfd: int, path: str, flags: int = consts.O_PATH, mode: int = 0) -> int:
    """Open `path` as a process whose root is `dirfd` would: absolute links and ".." end at `dirfd`; no magic links."""
    return openat2(dirfd, path, flags, mode, resolve=consts.RESOLVE_IN_ROOT | consts.RESOLVE_NO_MAGICLINKS)


def open_beneath(dirfd: int, path: str, flags: int = consts.O_PATH, mode: int = 0) -> int:
    """Open `path` below `dirfd` on the same mount; whatever would lead out is an error, as is a symbolic link."""
    strict = consts.RESOLVE_BENEATH | consts.RESOLVE_NO_XDEV | consts.RESOLVE_NO_SYMLINKS
    return openat2(dirfd, path, flags, mode, resolve=strict)


def reopen(fd: int, flags: int) -> int:
    """A close-on-exec descriptor with these flags of the very object that `fd` (O_PATH) is, whatever has its name."""
    return os.open(str(fd), flags | os.O_CLOEXEC, dir_fd=_own_descriptors())


@functools.cache
def _own_descriptors() -> int:
    """/proc/self/fd, opened once: looking it up takes as long as opening a file."""
    return os.open("/proc/self/fd", consts.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


os.register_at_fork(after_in_child=_own_descriptors.cache_clear)  # it is the parent's


def chmod_entry(dirfd: int, name: str, mode: int) -> None:
    """Change the mode of what has this name in a directory; OSError where it is a symbolic link by now. (chmod(2) by
    name follows, and fchmodat2(2) is of Linux 6.6.)"""
    found = os.open(name, consts.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        os.chmod(f"/proc/self/fd/{found}", mode)
    finally:
        os.close(found)


def link_beneath(dirfd: int, path: str, directory: int, name: str) -> None:
    """Give the file `path` below `dirfd` another name; no link on the way to it is followed."""
    found = open_beneath(dirfd, path, consts.O_PATH | os.O_NOFOLLOW)
    try:
        os.link(f"/proc/self/fd/{found}", name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(found)


def open_directory_beneath(dirfd: int, path: str) -> int | None:
    """The directory `path` below `dirfd` for reading; None where it has gone, or one on the way is a link by now."""
    try:
        return open_beneath(dirfd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return None
        raise


def make_directories(dirfd: int, path: str, mode: int = 0o755, *, links: int = _SYMLINKS) -> int:
    """An O_PATH descriptor of the directory `path` inside the root `dirfd`, made with its parents where missing.

    A dangling link on the way is followed inside the root: an image's /var/run -> /run must not need /run to exist.
    """
    path = posixpath.normpath("/" + path.lstrip("/"))
    try:
        return open_in_root(dirfd, path, consts.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        if path == "/":
            raise
    head, name = posixpath.split(path)
    parent = make_directories(dirfd, head, mode, links=links)
    try:
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            target = _link_target(parent, name)
            if target is None or not links:
                raise
            return make_directories(dirfd, posixpath.join(head, target), mode, links=links - 1)
        return openat2(parent, name, consts.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    finally:
        os.close(parent)


def make_file(dirfd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of `path` inside the root `dirfd`, an empty file with its directories where missing."""
    try:
        return open_in_root(dirfd, path)
    except FileNotFoundError:
        pass
    head, name = posixpath.split(posixpath.normpath("/" + path.lstrip("/")))
    parent = make_directories(dirfd, head)
    try:
        target = _link_target(parent, name)
        if target is not None:  # dangling, or it would have been opened
            return make_file(dirfd, posixpath.join(head, target), mode)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent))
        return openat2(parent, name, consts.O_PATH | os.O_NOFOLLOW)
    finally:
        os.close(parent)


def _link_target(parent: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def read_in_root(dirfd: int, path: str, limit: int = 1 << 20) -> bytes:
    """The first `limit` bytes of the regular file `path` inside the root `dirfd`."""
    fd = open_in_root(dirfd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "open: not a regular file", path)
        chunks = []
        while limit > 0 and (chunk := os.read(fd, min(limit, _CHUNK))):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def filesystem_type(fd: int) -> int:
    """f_type of the file system that `fd` is on: one of linux/magic.h."""
    buffer = (ctypes.c_ulong * 32)()  # struct statfs is 120 bytes; f_type is its first word on both architectures
    if _fstatfs(fd, ctypes.addressof(buffer)) < 0:
        raise oserror("fstatfs")
    return int(buffer[0])


def mount_id(dirfd: int, path: str = "") -> int:
    """The id of the mount that `path` (empty: `dirfd` itself) is on, as in the first field of mountinfo."""
    buffer = ctypes.create_string_buffer(256)  # struct statx; stx_mnt_id is at 144
    flags = 0 if path else consts.AT_EMPTY_PATH
    if _statx(dirfd, os.fsencode(path), flags, consts.STATX_MNT_ID, ctypes.addressof(buffer)) < 0:
        raise oserror("statx", path)
    return int.from_bytes(buffer.raw[144:152], sys.byteorder)


def syncfs(fd: int) -> None:
    """Write out everything of the file system that `fd` is on, and report what failed since the last time."""
    if _syncfs(fd) < 0:
        raise oserror("syncfs")


def spread_directories(path: str) -> None:
    """Tell ext4 that the directories in the directory `path` have nothing to do with each other (chattr(1), attribute
    T), so that each gets a block group of its own. Elsewhere this does nothing.

    Together they share one, where making a file takes 0.3 ms instead of 0.01 after many were deleted: ext4 does not
    use an inode again for minutes and looks for a free one from the group's start (fs/ext4/ialloc.c, recently_deleted).
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if filesystem_type(fd) == consts.EXT4_SUPER_MAGIC:
            (flags,) = struct.unpack("i", fcntl.ioctl(fd, consts.FS_IOC_GETFLAGS, bytes(4)))
            fcntl.ioctl(fd, consts.FS_IOC_SETFLAGS, struct.pack("i", flags | consts.EXT4_TOPDIR_FL))
    except OSError:
        return  # not allowed to: only slower
    finally:
        os.close(fd)


def is_procfs_root(fd: int) -> bool:
    """Whether `fd` is the top of a real procfs, not a directory that someone mounted there (CVE-2019-16884)."""
    return filesystem_type(fd) == consts.PROC_SUPER_MAGIC and os.fstat(fd).st_ino == consts.PROC_ROOT_INO


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an overlay upper layer's entry says that the lower one is deleted: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def xattrs(fd: int) -> dict[str, bytes]:
    """All extended attributes of `fd` (not O_PATH); empty where the file system has none."""
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise


def reflink(destination: int, source: int) -> bool:
    """Share `source`'s blocks with `destination`; False where the file systems cannot."""
    try:
        fcntl.ioctl(destination, consts.FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            return False
        raise
    return True


def exchange(dirfd: int, one: str, other: str) -> None:
    """Swap two names of a directory atomically (renameat2(2), RENAME_EXCHANGE)."""
    if _renameat2(dirfd, os.fsencode(one), dirfd, os.fsencode(other), consts.RENAME_EXCHANGE) < 0:
        raise oserror("renameat2", one)


def rename_new(source: int, name: str, target: int) -> None:
    """Move an entry from one directory to another; FileExistsError where the name is taken (RENAME_NOREPLACE)."""
    if _renameat2(source, os.fsencode(name), target, os.fsencode(name), consts.RENAME_NOREPLACE) < 0:
        raise oserror("renameat2", name)


def duplicate(fd: int, lowest: int) -> int:
    """A close-on-exec copy of `fd` with the first free number from `lowest` on."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True
