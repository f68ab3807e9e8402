"""Files of a directory as members of an archive: the reading half of what `extract` writes.

Who owns the files may change them meanwhile, a container above all. So each is opened once, by its last name in a
directory that is open itself, and not followed (O_PATH): what is told of it and what is read is that one object's,
and no link that somebody puts in the place of a directory leads anywhere (CVE-2018-15664). A device or a FIFO is
never opened for reading, which could wait or do something. What goes away while the rest is read is left out.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator

from hafen.kernel import consts, fs
from hafen.storage import archive, tarformat, treecopy
from hafen.storage.tarformat import Entry

_READ = 1 << 20
_LONGEST_PATH = 4096  # PATH_MAX; what is longer has no name, and bounds how many directories are open
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
_OBJECT = consts.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Packer:
    """Turns files into the members of one tar. Remembers hard links: the first name carries the content, later ones
    link to it. Sockets are left out. `sparse`: holes stay holes (GNU's pax format 1.0); layers do without, for others
    would not get the same bytes."""

    def __init__(self, *, nanoseconds: bool = False, sparse: bool = False) -> None:
        self._nanoseconds = nanoseconds
        self._sparse = sparse
        self._links: dict[tuple[int, int], str] = {}

    def member(self, directory: int, name: str, called: str) -> Iterator[bytes]:
        """The member for what has this name in a directory (a descriptor; "." is the directory itself). `called` is
        its path in the archive. FileNotFoundError before the first block where there is nothing."""
        found = os.open(name, _OBJECT, dir_fd=directory)
        try:
            status = os.fstat(found)
            if not stat.S_ISDIR(status.st_mode):
                yield from self._other(found, status, called)
                return
            opened = fs.reopen(found, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield from self._directory(opened, status, called)
            finally:
                os.close(opened)
        finally:
            os.close(found)

    def below(self, directory: int, prefix: str = "") -> Iterator[bytes]:
        """The members for all that is below a directory, sorted within each, directories before what is in them.
        `prefix` comes before their paths."""
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        pending = [(top, prefix, _names(top))]
        try:
            while pending:
                parent, prefix, names = pending[-1]
                name = next(names, None)
                if name is None:
                    pending.pop()
                    os.close(parent)
                    continue
                path = prefix + name
                if len(path) >= _LONGEST_PATH:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
                try:
                    found = os.open(name, _OBJECT, dir_fd=parent)
                except FileNotFoundError:
                    continue
                try:
                    status = os.fstat(found)
                    if not stat.S_ISDIR(status.st_mode):
                        yield from self._other(found, status, path)
                        continue
                    opened = fs.reopen(found, os.O_RDONLY | os.O_DIRECTORY)
                finally:
                    os.close(found)
                pending.append((opened, path + "/", _names(opened)))
                yield from self._directory(opened, status, path)
        finally:
            for opened, _, _ in pending:
                os.close(opened)

    def _directory(self, opened: int, status: os.stat_result, called: str) -> Iterator[bytes]:
        if not called.endswith("/"):
            called += "/"
        item = _entry(called, tarformat.DIRECTORY, status)._replace(xattrs=_xattrs(opened))
        return archive.member(item, nanoseconds=self._nanoseconds)

    def _other(self, found: int, status: os.stat_result, called: str) -> Iterator[bytes]:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        item = _entry(called, kind, status)
        if kind == tarformat.SYMLINK:
            item = item._replace(linkname=os.readlink("", dir_fd=found))
        elif status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), called)
            if first != called:
                yield from archive.member(item._replace(type=tarformat.LINK, linkname=first))
                return
        if kind == tarformat.FILE:
            yield from self._file(found, status, item)
            return
        if kind in (tarformat.CHAR, tarformat.BLOCKDEV):
            item = item._replace(major=os.major(status.st_rdev), minor=os.minor(status.st_rdev))
        yield from archive.member(item, nanoseconds=self._nanoseconds)

    def _file(self, found: int, status: os.stat_result, item: Entry) -> Iterator[bytes]:
        descriptor = fs.reopen(found, os.O_RDONLY)
        try:
            item = item._replace(size=status.st_size, xattrs=_xattrs(descriptor))
            content = _contents(descriptor, status.st_size)
            if self._sparse and status.st_blocks * 512 < status.st_size:
                segments = tuple(treecopy.segments(descriptor, status.st_size))
                if len(segments) <= _MOST_SEGMENTS:
                    item, content = item._replace(segments=segments), _pieces(descriptor, segments)
            yield from archive.member(item, content, nanoseconds=self._nanoseconds)
        finally:
            os.close(descriptor)


def _entry(called: str, kind: str, status: os.stat_result) -> Entry:
    return Entry(called, kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, 0, status.st_mtime_ns)


def _names(directory: int) -> Iterator[str]:
    return iter(sorted(os.listdir(directory)))


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
    """A directory with its own attributes, holes and all as one archive from which `extract` makes the same again."""
    packer = Packer(nanoseconds=True, sparse=True)
    yield from packer.member(root, ".", "./")
    yield from packer.below(root)
    yield archive.end()


def tree(root: int) -> Iterator[bytes]:
    """A whole directory as one archive, reproducible: sorted, without names of users (`docker export`)."""
    yield from Packer().below(root)
    yield archive.end()
