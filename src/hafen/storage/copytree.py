"""Copy a directory with everything in it: owners, modes, times, extended attributes, hard links, devices, holes.

Blocks are shared where the file system can (FICLONE), else copied inside the kernel (copy_file_range).
"""

import errno
import os
import stat

from hafen.kernel import fs

_STEP = 1 << 30


def copy_tree(source: str, target: str) -> None:
    """Make the existing directory `target` like `source`. Sockets are left out: they mean nothing in a copy."""
    links: dict[tuple[int, int], str] = {}
    _directory(source, target, links)


def _directory(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            path = f"{target}/{entry.name}"
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(path, 0o700)
                _directory(entry.path, path, links)
                continue
            if status.st_nlink > 1:
                first = links.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    os.link(first, path, follow_symlinks=False)
                    continue
            _entry(entry.path, path, status)
    copy_attributes(source, target, os.stat(source, follow_symlinks=False))


def _entry(source: str, target: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        _file(source, target, status.st_size)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISSOCK(mode):
        return
    else:
        os.mknod(target, stat.S_IFMT(mode) | 0o600, status.st_rdev)
    copy_attributes(source, target, status)


def copy_attributes(source: str, target: str, status: os.stat_result) -> None:
    """Owner, mode, extended attributes and times of one file; `status` is the source's."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    try:
        for name in os.listxattr(source, follow_symlinks=False):
            if not name.startswith("trusted.overlay."):
                os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _file(source: str, target: str, size: int) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if size and not fs.reflink(writer, reader):
                _data(reader, writer, size)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _data(reader: int, writer: int, size: int) -> None:
    """Copy what is not a hole."""
    position = 0
    while position < size:
        try:
            start = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole up to the end
        position = os.lseek(reader, start, os.SEEK_HOLE)
        while start < position:
            count = os.copy_file_range(reader, writer, min(position - start, _STEP), start, start)
            if not count:
                break
            start += count
    os.ftruncate(writer, size)
