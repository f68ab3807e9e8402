"""Fill a new volume with what the image has in its place; runs in a thread."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from hafen.kernel import fs
from hafen.storage.snapshot import Tree

_BUFFER = 1 << 20


def copy_up(tree: Tree, places: Sequence[tuple[str, str]]) -> None:
    """Copy directories of the container's root, as (path inside, directory outside), with owners, modes and xattrs.

    A path that the image has not, or that is no directory, leaves the volume empty.
    """
    root = tree.open_root(readonly=True)
    try:
        for inside, outside in places:
            try:
                source = fs.open_in_root(root, inside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            target = os.open(outside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _copy_directory(source, target)
            finally:
                os.close(source)
                os.close(target)
    finally:
        os.close(root)


def _copy_directory(source: int, target: int) -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner_source, inner_target = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_directory(inner_source, inner_target)
            finally:
                os.close(inner_source)
                os.close(inner_target)
        else:
            _copy_file(source, target, name, status)
    _copy_attributes(source, target, os.fstat(source))


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    mode = stat.S_IFMT(status.st_mode)
    if mode == stat.S_IFREG:
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        reading = os.open(name, os.O_RDONLY | flags, dir_fd=source)
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=target)
        try:
            if not fs.reflink(writing, reading):
                while os.sendfile(writing, reading, None, _BUFFER):
                    pass
            _copy_attributes(reading, writing, status)
        finally:
            os.close(reading)
            os.close(writing)
        return
    if mode == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif mode == stat.S_IFSOCK:
        return
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_attributes(source: int, target: int, status: os.stat_result) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name, value in fs.xattrs(source).items():
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
