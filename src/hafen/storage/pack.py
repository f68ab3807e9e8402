"""Files of a directory as members of an archive: the reading half of what `extract` writes."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from hafen.errors import Corrupt
from hafen.storage import archive, tarformat, treecopy
from hafen.storage.tarformat import Entry

_READ = 1 << 20
_MOST_SEGMENTS = 100_000  # a file in more pieces than a reader should have to keep is written whole
# What travels: the user's own attributes, capabilities and ACLs. `trusted.overlay.*` and security labels are local.
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
_KINDS = {
    stat.S_IFREG: tarformat.FILE,
    stat.S_IFDIR: tarformat.DIRECTORY,
    stat.S_IFLNK: tarformat.SYMLINK,
    stat.S_IFCHR: tarformat.CHAR,
    stat.S_IFBLK: tarformat.BLOCKDEV,
    stat.S_IFIFO: tarformat.FIFO,
}


class Packer:
    """Turns paths below the directory `root` (a descriptor) into tar. Remembers hard links: the first path carries
    the content, later ones link to it. Never follows a symbolic link. `sparse`: holes stay holes (GNU's pax format
    1.0); layers do without, for others would not get the same bytes."""

    def __init__(self, root: int, *, nanoseconds: bool = False, sparse: bool = False) -> None:
        self._root = root
        self._nanoseconds = nanoseconds
        self._sparse = sparse
        self._links: dict[tuple[int, int], str] = {}

    def member(self, path: str, name: str | None = None) -> Iterator[bytes]:
        """The member for `path` (relative to the root), called `name` in the archive. Sockets are left out."""
        status = os.stat(path or ".", dir_fd=self._root, follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        called = path if name is None else name
        item = Entry(
            called, kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, 0, status.st_mtime_ns,
        )  # fmt: skip
        if kind == tarformat.DIRECTORY:
            if not called.endswith("/"):
                item = item._replace(name=called + "/")
        elif kind == tarformat.SYMLINK:
            item = item._replace(linkname=os.readlink(path, dir_fd=self._root))
        elif status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), called)
            if first != called:
                yield from archive.member(item._replace(type=tarformat.LINK, linkname=first))
                return
        if kind in (tarformat.CHAR, tarformat.BLOCKDEV):
            item = item._replace(major=os.major(status.st_rdev), minor=os.minor(status.st_rdev))
        if kind == tarformat.FILE:
            try:
                yield from self._file(path, item)
            except FileNotFoundError:  # it has gone: its other names have to carry the content
                self._links.pop((status.st_dev, status.st_ino), None)
                raise
        else:
            if kind == tarformat.DIRECTORY:
                item = item._replace(xattrs=self._directory_xattrs(path))
            yield from archive.member(item, nanoseconds=self._nanoseconds)

    def _file(self, path: str, item: Entry) -> Iterator[bytes]:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._root)
        try:
            # Of the open file: another one may have taken the name meanwhile.
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Corrupt(f"file {path!r} was replaced while it was read")
            item = item._replace(size=status.st_size, xattrs=_xattrs(descriptor))
            content = _contents(descriptor, status.st_size)
            if self._sparse and status.st_blocks * 512 < status.st_size:
                segments = tuple(treecopy.segments(descriptor, status.st_size))
                if len(segments) <= _MOST_SEGMENTS:
                    item, content = item._replace(segments=segments), _pieces(descriptor, segments)
            yield from archive.member(item, content, nanoseconds=self._nanoseconds)
        finally:
            os.close(descriptor)

    def _directory_xattrs(self, path: str) -> dict[str, bytes]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path or ".", flags, dir_fd=self._root)
        try:
            return _xattrs(descriptor)
        finally:
            os.close(descriptor)


def _xattrs(descriptor: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(descriptor)
    except OSError:
        return {}  # a file system without them
    # A name with "=" cannot be told from its value in a pax record.
    wanted = (name for name in sorted(names) if name.startswith(_XATTRS) and "=" not in name)
    return {name: os.getxattr(descriptor, name) for name in wanted}


def _contents(descriptor: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes: a log file that grows while it is read is cut at what its header said, as GNU tar does;
    one that shrinks is filled with zeros."""
    left = size
    while left:
        data = os.read(descriptor, min(left, _READ))
        if not data:
            data = bytes(min(left, _READ))
        left -= len(data)
        yield data


def _pieces(descriptor: int, segments: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for offset, length in segments:
        os.lseek(descriptor, offset, os.SEEK_SET)
        yield from _contents(descriptor, length)


def walk(root: int, path: str = "", skip: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Every path below `path`, sorted within each directory, directories before what is in them. `skip` names
    directories' entries that are left out with all below them. A directory that goes away meanwhile has nothing."""
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return
    try:
        with os.scandir(descriptor) as entries:
            children = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    finally:
        os.close(descriptor)
    for name, directory in children:
        below = f"{path}/{name}" if path else name
        if skip is not None and skip(below):
            continue
        yield below
        if directory:
            yield from walk(root, below, skip)


def joined(chunks: Iterable[bytes], size: int = 1 << 18) -> Iterator[bytes]:
    """The same bytes in pieces of about `size`: headers of 512 bytes each are no unit to send."""
    pending: list[bytes] = []
    length = 0
    for chunk in chunks:
        pending.append(chunk)
        length += len(chunk)
        if length >= size:
            yield b"".join(pending)
            pending.clear()
            length = 0
    if pending:
        yield b"".join(pending)


def whole(root: int) -> Iterator[bytes]:
    """A directory with its own attributes, holes and all as one archive from which `extract` makes the same again.
    What goes away while it is read, where somebody writes meanwhile, is left out."""
    packer = Packer(root, nanoseconds=True, sparse=True)
    yield from packer.member("", "./")
    for path in walk(root):
        with suppress(FileNotFoundError):  # raised before the member's first block
            yield from packer.member(path)
    yield archive.end()


def tree(root: int, *, nanoseconds: bool = False, skip: Callable[[str], bool] | None = None) -> Iterator[bytes]:
    """A whole directory as one archive, reproducible: sorted, without names of users (`docker export`)."""
    packer = Packer(root, nanoseconds=nanoseconds)
    for path in walk(root, "", skip):
        yield from packer.member(path)
    yield archive.end()
