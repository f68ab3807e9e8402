"""Copy a tree of files with all that belongs to them: owners, modes, times, xattrs, ACLs, hard links, holes.

Blocks are shared where the file system can (reflink), so that a copy takes no room; else they are copied, and what is a
hole stays one. Sockets are left out: they are nothing without who listens on them. So is what goes away while it is
copied, where somebody writes meanwhile; each file is opened once, as `pack` does it and for its reasons.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from hafen.kernel import consts, fs

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_BUFFER = 1 << 20
_OBJECT = consts.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy(source: int, target: int) -> None:
    """What is in the directory `source` into the empty directory `target`, and its own attributes too; descriptors."""
    _Copy(target).directory(source, target)


def segments(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what a file of `size` bytes has that is no hole (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            return
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if start < end:
            yield start, end - start


class _Copy:
    """One copy; `_links` are the first names of files with several, relative to `root`."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._links: dict[tuple[int, int], str] = {}

    def directory(self, source: int, target: int, path: str = "") -> None:
        for name in os.listdir(source):
            with suppress(FileNotFoundError), ExitStack() as undo:  # it has gone meanwhile
                found = os.open(name, _OBJECT, dir_fd=source)
                undo.callback(os.close, found)
                self._entry(found, target, name, f"{path}/{name}" if path else name)
        copy_attributes(source, target, os.fstat(source))

    def _entry(self, found: int, target: int, name: str, path: str) -> None:
        status = os.fstat(found)
        if not stat.S_ISDIR(status.st_mode):
            if not self._linked(status, target, name, path):
                _copy_file(found, target, name, status)
            return
        with ExitStack() as undo:
            inner_source = fs.reopen(found, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, inner_source)
            os.mkdir(name, 0o700, dir_fd=target)
            inner_target = os.open(name, _DIRECTORY, dir_fd=target)
            undo.callback(os.close, inner_target)
            self.directory(inner_source, inner_target, path)

    def _linked(self, status: os.stat_result, target: int, name: str, path: str) -> bool:
        """Whether it is another name of a file that has been copied."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        try:
            fs.link_beneath(self._root, first, target, name)
        except FileNotFoundError:
            return False  # a socket's
        return True


def _copy_file(found: int, target: int, name: str, status: os.stat_result) -> None:
    mode = stat.S_IFMT(status.st_mode)
    if mode == stat.S_IFREG:
        reading = fs.reopen(found, os.O_RDONLY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            writing = os.open(name, flags, 0o600, dir_fd=target)
            try:
                if not fs.reflink(writing, reading):
                    _copy_content(reading, writing, status.st_size)
                copy_attributes(reading, writing, status)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        return
    if mode == stat.S_IFLNK:
        os.symlink(os.readlink("", dir_fd=found), name, dir_fd=target)
    elif mode == stat.S_IFSOCK:
        return
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        fs.chmod_entry(target, name, stat.S_IMODE(status.st_mode))
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_content(reading: int, writing: int, size: int) -> None:
    for start, length in segments(reading, size):
        offset, end = start, start + length
        os.lseek(writing, start, os.SEEK_SET)
        while offset < end and (count := os.sendfile(writing, reading, offset, min(_BUFFER, end - offset))):
            offset += count
    os.ftruncate(writing, size)


def copy_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Owner, mode, xattrs and times; `status` is the source's. An xattr for which the target's file system (NFS, CIFS)
    has no place is left out, as Docker does."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name, value in fs.xattrs(source).items():
        if not name.startswith("trusted.overlay."):
            try:
                os.setxattr(target, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
