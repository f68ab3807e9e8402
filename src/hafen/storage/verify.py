"""Whether what is on disk is what its digest and its recipe say: a blob, the files of a layer. Reads only; any thread.

A layer's digest is over its tar, of which the recipe holds the headers: reading it back proves the contents alone. So
the headers are compared with the files as well, and the directory may hold nothing that the tar does not bring.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from hafen.errors import HafenError
from hafen.kernel import fs
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage import compression, tarformat
from hafen.storage.archive import Reader, Source
from hafen.storage.content import ContentStore, hashed
from hafen.storage.extract import OPAQUE_MARK, WHITEOUT_PREFIX, XATTRS, normalise
from hafen.storage.recipe import reassemble
from hafen.storage.tarformat import Entry

Read = Callable[[int], None]
"""Is told the number of bytes that were read."""

_TYPES = {
    tarformat.FILE: stat.S_IFREG, tarformat.DIRECTORY: stat.S_IFDIR, tarformat.SYMLINK: stat.S_IFLNK,
    tarformat.CHAR: stat.S_IFCHR, tarformat.BLOCKDEV: stat.S_IFBLK, tarformat.FIFO: stat.S_IFIFO,
}  # fmt: skip
_ACCESS_LIST = "system.posix_acl_access"  # its mask takes the place of the group's permissions


def blob(content: ContentStore, digest: Digest, read: Read) -> str | None:
    """What is wrong with a blob; None for nothing."""
    hasher = digests.new(digests.algorithm_of(digest))
    try:
        for chunk in content.chunks(digest):
            hasher.update(chunk)
            read(len(chunk))
    except HafenError as error:
        return error.message
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    found = digests.finish(hasher, digests.algorithm_of(digest))
    return None if found == digest else f"its bytes have the digest {found}"


def compressed(content: ContentStore, digest: Digest, diff_id: str, read: Read) -> str | None:
    """What is wrong with a blob that is to be a layer, compressed."""
    hasher = digests.new()
    try:
        for chunk in compression.decompressed(_counted(content.chunks(digest), read)):
            hasher.update(chunk)
    except HafenError as error:
        return error.message
    found = digests.finish(hasher)
    return None if found == diff_id else f"it holds the layer {found}, not {diff_id}"


def layer(recipe: bytes, directory: str, diff_id: str, *, whole: bool, read: Read) -> tuple[str | None, int]:
    """What is wrong with a layer's files (`<n>/fs`), and the bytes that the layer brings.

    `whole`: the directory holds the files of this layer and no others, as all drivers but vfs have it.
    """
    hasher = digests.new()
    members = _Members()
    size = 0
    try:
        chunks = hashed(_counted(reassemble(recipe, directory), read), hasher)
        for item in Reader(Source(chunks), require_end=False):
            members.add(item)
            size += item.stored if item.type == tarformat.FILE else 0
        for _ in chunks:
            pass
        found = digests.finish(hasher)
        if found != diff_id:
            return f"its files have the digest {found}", size
        return members.problem(directory, whole), size
    except HafenError as error:
        return error.message.removeprefix("layer is damaged: "), size
    except OSError as error:
        return f"{error.filename or directory} cannot be read: {error.strerror}", size


def _counted(chunks: Iterable[bytes], read: Read) -> Iterator[bytes]:
    for chunk in chunks:
        read(len(chunk))
        yield chunk


class _Members:
    """What a layer's directory is to hold, by path: the last member of each name, with what it needs above it."""

    def __init__(self) -> None:
        self._expected: dict[str, Entry | None] = {"": None}  # None: a directory that is implied, or a whiteout

    def add(self, item: Entry) -> None:
        path = normalise(item.name)
        head, _, base = path.rpartition("/")
        if base == OPAQUE_MARK:
            self._above(head)
        elif base.startswith(WHITEOUT_PREFIX):
            self._above(head)
            self._expected.setdefault(f"{head}/{base[len(WHITEOUT_PREFIX) :]}".lstrip("/"), None)
            self._expected.setdefault(path, None)  # of `import`, where such a name means nothing
        else:
            before = self._expected.get(path)
            if before is not None and before.type == tarformat.DIRECTORY and item.type != tarformat.DIRECTORY:
                below = f"{path}/"
                self._expected = {name: one for name, one in self._expected.items() if not name.startswith(below)}
            self._above(head)
            self._expected[path] = item

    def _above(self, head: str) -> None:
        while head and head not in self._expected:
            self._expected[head] = None
            head = head.rpartition("/")[0]

    def problem(self, directory: str, whole: bool) -> str | None:
        """The first difference from the directory."""
        for path, item in self._expected.items():
            wrong = None if item is None else _difference(f"{directory}/{path}" if path else directory, item)
            if wrong is not None:
                return f"/{path} {wrong}"
        stranger = next(_strangers(directory, self._expected), None) if whole else None
        return None if stranger is None else f"/{stranger} is none of its files"


def _strangers(directory: str, expected: dict[str, Entry | None]) -> Iterator[str]:
    pending = [""]
    while pending:
        above = pending.pop()
        with os.scandir(f"{directory}/{above}") as entries:
            for entry in entries:
                path = f"{above}/{entry.name}" if above else entry.name
                if path not in expected:
                    yield path
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _difference(path: str, item: Entry) -> str | None:
    try:
        status = os.lstat(path)
    except OSError:
        return "is missing"
    if item.type == tarformat.LINK:
        return None  # its header says nothing of the file
    if stat.S_IFMT(status.st_mode) != _TYPES.get(item.type, stat.S_IFREG):
        return "is missing" if fs.is_whiteout(status) else "is of another type"
    if (status.st_uid, status.st_gid) != (item.uid, item.gid):
        return f"belongs to {status.st_uid}:{status.st_gid}, not to {item.uid}:{item.gid}"
    if item.type == tarformat.SYMLINK:
        return None if os.readlink(path) == item.linkname else "leads to another place"
    mode = stat.S_IMODE(status.st_mode)
    if mode != item.mode & 0o7777 and _ACCESS_LIST not in item.xattrs:
        return f"has the mode {mode:04o}, not {item.mode & 0o7777:04o}"
    if item.type == tarformat.FILE and status.st_size != item.size:
        return f"has {status.st_size} bytes, not {item.size}"
    if item.type in (tarformat.CHAR, tarformat.BLOCKDEV) and status.st_rdev != os.makedev(item.major, item.minor):
        return "is another device"
    return _attribute_difference(path, item) if item.type in (tarformat.FILE, tarformat.DIRECTORY) else None


def _attribute_difference(path: str, item: Entry) -> str | None:
    for name, value in item.xattrs.items():
        if not name.startswith(XATTRS):
            continue
        try:
            if os.getxattr(path, name, follow_symlinks=False) != value:
                return f"has another {name}"
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # such a file system has none of them
                return f"has no {name}"
    return None
