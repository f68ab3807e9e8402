"""Create the members of an archive below a directory, and nowhere else.

Every path is walked component by component from the root's descriptor with O_NOFOLLOW, so neither a name nor a link
made by an earlier member can lead out, whatever another process does meanwhile. An absolute name, also a hard link's
target, counts from the root, as every other engine reads it: kaniko writes them so. An archive with a `..`, a member
below a symbolic link, a hard link to what is not there, or a device where devices are not allowed is refused whole: the
caller throws the directory away. (CVE-2019-14271 and CVE-2018-15664 are what this prevents.)
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hafen.errors import Corrupt, Forbidden, HafenError, OutOfSpace, System
from hafen.kernel import fs
from hafen.storage import tarformat
from hafen.storage.archive import Reader
from hafen.storage.recipe import Recorder
from hafen.storage.snapshot import OPAQUE
from hafen.storage.tarformat import Entry

WHITEOUT_PREFIX = ".wh."
_META_PREFIX = ".wh..wh."
OPAQUE_MARK = ".wh..wh..opq"
_OPEN_DIRECTORIES = 64
_MAX_DEPTH = 500
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# What a foreign archive may set. `trusted.*` would let a layer speak overlayfs (redirects, metacopy); `security.*`
# other than capabilities belongs to this machine's policy.
XATTRS = ("user.", "security.capability", "system.posix_acl_")
_DEFAULT_ACL = "system.posix_acl_default"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an archive may do. `owners`: keep its numeric owners (else files belong to this process).
    `whiteouts`: it is a layer, `.wh.` names hide what is below. `devices`: it may bring device nodes.
    `replace`: what is there already gives way (else Corrupt)."""

    owners: bool = True
    whiteouts: bool = False
    devices: bool = True
    replace: bool = True


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was made: bytes of content, members, and directories that were needed but not described."""

    bytes: int
    entries: int
    implicit: tuple[str, ...]


def _umask() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def normalise(name: str, what: str = "archive member") -> str:
    """The name relative to the root, whether it begins there or not, "" for the root itself; Corrupt where it has a
    `..` in it."""
    if name.startswith("/"):
        name = name.lstrip("/")
    if "//" not in name and "./" not in name and not name.endswith((".", "/")):
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Corrupt(f"{what} {name!r} leads out of the archive's root")
    return "/".join(parts)


class Extractor:
    """Makes members below `root` (a directory's path); use as a context manager.

    `recorder` collects the recipe; `kept` is then the directory for what a later member displaces.
    """

    def __init__(self, root: str, policy: Policy, *, recorder: Recorder | None = None, kept: str | None = None) -> None:
        self._policy = policy
        self._recorder = recorder
        self._kept = kept
        self._kept_count = 0
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parents: OrderedDict[str, int] = OrderedDict()
        self._umask = _umask()
        self._owner = (os.geteuid(), os.getegid())
        # What directories get when all is there: their times, and the ACL that new files in them would inherit.
        self._directories: dict[str, tuple[int, bytes | None]] = {}
        self._implicit: dict[str, None] = {"": None}
        self._bytes = 0
        self._entries = 0

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._parents.values():
            os.close(descriptor)
        os.close(self._root)

    def run(self, reader: Reader) -> Extracted:
        """Make all members; then directories get their times. Errors name the member."""
        for item in reader:
            try:
                self._make(item, reader)
            except OSError as error:
                raise _translate(error, item) from error
            except HafenError:
                raise
            self._entries += 1
            if len(self._parents) > _OPEN_DIRECTORIES:
                self._trim()
        self._finish_directories()
        implicit = tuple(name for name in self._implicit if name not in self._directories)
        return Extracted(self._bytes, self._entries, implicit)

    def _make(self, item: Entry, reader: Reader) -> None:
        path = normalise(item.name)
        if "\0" in path or path.count("/") > _MAX_DEPTH or not item.name:
            raise Corrupt(f"archive member has an impossible name {item.name[:100]!r}")
        if not path:
            if item.type != tarformat.DIRECTORY:
                raise Corrupt(f"archive member {item.name!r} replaces the root")
            self._directory_attributes("", item)
            return
        head, _, base = path.rpartition("/")
        parent = self._parent(head)
        if self._policy.whiteouts and base.startswith(WHITEOUT_PREFIX):
            self._whiteout(parent, head, base)
            return
        if item.type == tarformat.FILE:
            self._file(parent, path, base, item, reader)
        elif item.type == tarformat.DIRECTORY:
            self._directory(parent, path, base, item)
        elif item.type == tarformat.SYMLINK:
            self._absent(parent, path, base)
            os.symlink(item.linkname, base, dir_fd=parent)
            self._link_attributes(parent, base, item)
        elif item.type == tarformat.LINK:
            self._hard_link(parent, path, base, item)
        else:
            self._node(parent, path, base, item)

    def _parent(self, head: str) -> int:
        """A descriptor of the directory, made where it is missing, never through a symbolic link."""
        found = self._parents.get(head)
        if found is not None:
            return found
        descriptor = self._root
        end = -1
        while end < len(head):
            start, end = end + 1, head.find("/", end + 1)
            end = len(head) if end < 0 else end
            path = head[:end]
            below = self._parents.get(path)
            if below is None and path:
                below = self._parents[path] = self._open_directory(descriptor, path, head[start:end])
            descriptor = self._root if below is None else below
        return descriptor

    def _open_directory(self, upper: int, path: str, base: str) -> int:
        try:
            return os.open(base, _DIRECTORY, dir_fd=upper)
        except FileNotFoundError:
            return self._implied(upper, path, base)
        except NotADirectoryError:
            mode = os.stat(base, dir_fd=upper, follow_symlinks=False).st_mode
            if not (self._policy.whiteouts and stat.S_ISCHR(mode) and self._is_whiteout(upper, base)):
                what = "a symbolic link" if stat.S_ISLNK(mode) else "not a directory"
                raise Corrupt(f"archive member below {path!r} is refused: that is {what}") from None
        os.unlink(base, dir_fd=upper)
        descriptor = self._implied(upper, path, base)
        self._mark_opaque(descriptor)
        return descriptor

    def _trim(self) -> None:
        """Close the directories opened first, between two members, when no descriptor is in use."""
        while len(self._parents) > _OPEN_DIRECTORIES:
            os.close(self._parents.popitem(last=False)[1])

    def _implied(self, upper: int, head: str, base: str) -> int:
        os.mkdir(base, 0o755, dir_fd=upper)
        self._implicit[head] = None
        return os.open(base, _DIRECTORY, dir_fd=upper)

    def _forget(self, path: str) -> None:
        """Descriptors at and below a path that goes away."""
        for name in [name for name in self._parents if name == path or name.startswith(path + "/")]:
            os.close(self._parents.pop(name))
        for table in (self._directories, self._implicit):
            for name in [name for name in table if name == path or name.startswith(path + "/")]:
                table.pop(name, None)

    def _absent(self, parent: int, path: str, base: str) -> None:
        """Make room for a member that is not a directory."""
        try:
            mode = os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if self._policy.whiteouts and stat.S_ISCHR(mode) and self._is_whiteout(parent, base):
            os.unlink(base, dir_fd=parent)
            return
        if not self._policy.replace:
            raise Corrupt(f"archive member {path!r} is there already")
        self._displace(parent, path, base, mode)

    def _displace(self, parent: int, path: str, base: str, mode: int) -> None:
        self._forget(path)
        if self._recorder is None or self._kept is None or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            remove_tree(parent, base)
            return
        os.makedirs(self._kept, 0o700, exist_ok=True)
        os.rename(base, f"{self._kept}/{self._kept_count}", src_dir_fd=parent)
        self._recorder.displaced(path, self._kept_count)
        self._kept_count += 1

    def _file(self, parent: int, path: str, base: str, item: Entry, reader: Reader) -> None:
        try:
            descriptor = os.open(base, _CREATE, item.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._absent(parent, path, base)
            descriptor = os.open(base, _CREATE, item.mode & 0o777, dir_fd=parent)
        try:
            if item.segments is None:
                for piece in reader.content():
                    written = os.write(descriptor, piece)
                    while written < len(piece):
                        written += os.write(descriptor, piece[written:])
                if self._recorder is not None and item.size:
                    self._recorder.content(path, 0, item.size)
            else:
                self._sparse(descriptor, path, item, reader)
            self._bytes += item.stored
            if (self._policy.owners and (item.uid, item.gid) != self._owner) or (
                self._policy.owners and self._setgid_seen
            ):
                os.fchown(descriptor, item.uid, item.gid)
            if item.mode & (self._umask | 0o7000):
                os.fchmod(descriptor, item.mode)
            if item.xattrs:
                self._set_xattrs(descriptor, item)
            os.utime(descriptor, ns=(item.mtime_ns, item.mtime_ns))
        finally:
            os.close(descriptor)

    _setgid_seen = False  # in such a directory new files take its group, so that even root's need fchown

    def _sparse(self, descriptor: int, path: str, item: Entry, reader: Reader) -> None:
        segments = iter(item.segments or ())
        offset, left = next(segments, (0, 0))
        for whole in reader.content():
            piece = whole
            while piece:
                if not left:
                    offset, left = next(segments)
                part = piece[:left]
                count = os.pwrite(descriptor, part, offset)
                if self._recorder is not None:
                    self._recorder.content(path, offset, count)
                offset, left, piece = offset + count, left - count, piece[count:]
        os.ftruncate(descriptor, item.size)

    def _directory(self, parent: int, path: str, base: str, item: Entry) -> None:
        try:
            os.mkdir(base, item.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            mode = os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                hidden = self._policy.whiteouts and stat.S_ISCHR(mode) and self._is_whiteout(parent, base)
                self._absent(parent, path, base)
                os.mkdir(base, item.mode & 0o777, dir_fd=parent)
                if hidden:
                    self._mark_opaque(self._parent(path))
        self._directory_attributes(path, item)

    def _directory_attributes(self, path: str, item: Entry) -> None:
        self._directories[path] = (item.mtime_ns, item.xattrs.get(_DEFAULT_ACL))
        if item.mode & stat.S_ISGID:
            self._setgid_seen = True
        with _opened(self._parent(path)) as descriptor:
            if self._policy.owners:
                os.fchown(descriptor, item.uid, item.gid)
            os.fchmod(descriptor, item.mode)
            if item.xattrs:
                self._set_xattrs(descriptor, item)

    def _finish_directories(self) -> None:
        # Deepest first does not matter: a directory's time changes by its own entries only, and all are there.
        for path, (mtime_ns, default_acl) in self._directories.items():
            if default_acl is not None:
                with _opened(self._parent(path)) as descriptor:
                    _set_xattr(descriptor, _DEFAULT_ACL, default_acl)
            os.utime(".", ns=(mtime_ns, mtime_ns), dir_fd=self._parent(path))
            self._trim()

    def _hard_link(self, parent: int, path: str, base: str, item: Entry) -> None:
        target = normalise(item.linkname, f"archive member {item.name!r}: hard link target")
        if target == path:
            raise Corrupt(f"archive member {item.name!r} is a hard link to itself")
        above, _, name = target.rpartition("/")
        if not name:
            raise Corrupt(f"archive member {item.name!r} is a hard link to the root")
        try:
            directory = self._existing(above)
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        except FileNotFoundError:
            raise Corrupt(f"archive member {item.name!r} is a hard link to {target!r}, which is not there") from None
        if stat.S_ISDIR(mode):
            raise Corrupt(f"archive member {item.name!r} is a hard link to the directory {target!r}")
        self._absent(parent, path, base)
        os.link(name, base, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)

    def _existing(self, head: str) -> int:
        """The directory's descriptor; FileNotFoundError where it is missing: a link's target makes no directories."""
        above = ""
        for part in head.split("/") if head else ():
            above_descriptor = self._parent(above)
            os.stat(part, dir_fd=above_descriptor, follow_symlinks=False)
            above = f"{above}/{part}" if above else part
        return self._parent(head)

    def _node(self, parent: int, path: str, base: str, item: Entry) -> None:
        if item.type == tarformat.FIFO:
            mode, device = stat.S_IFIFO, 0
        else:
            if not self._policy.devices:
                raise Forbidden(f"archive member {item.name!r} is a device node, which is not allowed here")
            mode = stat.S_IFCHR if item.type == tarformat.CHAR else stat.S_IFBLK
            device = os.makedev(item.major, item.minor)
            if mode == stat.S_IFCHR and device == 0:
                raise Corrupt(f"archive member {item.name!r} is a device 0/0, overlayfs' own mark of a deleted file")
        self._absent(parent, path, base)
        os.mknod(base, mode | (item.mode & 0o777), device, dir_fd=parent)
        self._link_attributes(parent, base, item)
        fs.chmod_entry(parent, base, item.mode)
        os.utime(base, ns=(item.mtime_ns, item.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _link_attributes(self, parent: int, base: str, item: Entry) -> None:
        if self._policy.owners and ((item.uid, item.gid) != self._owner or self._setgid_seen):
            os.chown(base, item.uid, item.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(base, ns=(item.mtime_ns, item.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _set_xattrs(self, descriptor: int, item: Entry) -> None:
        for name, value in item.xattrs.items():
            if name.startswith(XATTRS) and name != _DEFAULT_ACL:
                _set_xattr(descriptor, name, value)

    def _whiteout(self, parent: int, head: str, base: str) -> None:
        if base == OPAQUE_MARK:
            self._mark_opaque(parent)
            return
        if base.startswith(_META_PREFIX):
            return  # aufs kept its own records under such names; OCI image-spec, layer.md, has only the one above
        name = base[len(WHITEOUT_PREFIX) :]
        if name in ("", ".", ".."):
            raise Corrupt(f"archive member {base!r} is a whiteout of nothing")
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout speaks of the layers below only; what this layer brings stays, and hides them by itself,
            # unless it is a directory: then it must not merge with theirs.
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                self._mark_opaque(self._parent(f"{head}/{name}" if head else name))

    def _mark_opaque(self, descriptor: int) -> None:
        # An O_PATH descriptor has no fsetxattr; the magic link stands for the same directory.
        os.setxattr(f"/proc/self/fd/{descriptor}", OPAQUE, b"y")

    def _is_whiteout(self, parent: int, base: str) -> bool:
        return os.stat(base, dir_fd=parent, follow_symlinks=False).st_rdev == 0


@contextmanager
def _opened(directory: int) -> Iterator[int]:
    """An O_PATH descriptor's directory, for what needs more than its place."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _set_xattr(descriptor: int, name: str, value: bytes) -> None:
    """Left out where the file system has none."""
    try:
        os.setxattr(descriptor, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise


def remove_tree(parent: int, base: str) -> None:
    """Remove a file or a directory with all below it, never following a link."""
    try:
        os.unlink(base, dir_fd=parent)
        return
    except IsADirectoryError:
        pass
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for name in os.listdir(descriptor):
            remove_tree(descriptor, name)
    finally:
        os.close(descriptor)
    os.rmdir(base, dir_fd=parent)


def _translate(error: OSError, item: Entry) -> HafenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfSpace(f"no space left on device: while unpacking {item.name!r}")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL):
        return Corrupt(f"archive member {item.name!r} cannot be made: {os.strerror(error.errno)}")
    return System(f"archive member {item.name!r}: {error.strerror or error}")
