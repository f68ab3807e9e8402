"""The copying snapshotter: every snapshot is a whole tree of its own. Works on any file system, slow and large.

<root>/<n>/fs      the whole tree
<root>/<n>/kept    contents that only a layer's recipe needs
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hafen.errors import NotImplemented
from hafen.kernel import consts, fs, mount
from hafen.spec.runtime_config import RootMount
from hafen.storage import merge, treecopy
from hafen.storage.directories import DirectorySnapshots
from hafen.storage.overlay import describe_implied
from hafen.storage.snapshot import Change, ChangeKind, Usage


class VfsSnapshotter(DirectorySnapshots):
    """See `snapshot.Snapshotter`. `prepare` copies the parent: it takes as long as that is large."""

    name = "vfs"
    separate = False

    def layer_directories(self, key: str) -> list[str]:
        return [*self._own(self._row(key))]

    def prepare(self, key: str, parent: str | None) -> tuple[RootMount, ...]:
        self._absent(key)
        if parent is not None:
            self._committed(parent)
        number = next(self._numbers)
        try:
            self._fill(number, parent)
        except BaseException:
            self._delete_later(self._directory(number))
            raise
        self._insert(number, key, parent, "active", None)
        return self.mounts(key)

    def _fill(self, number: int, parent: str | None) -> None:
        directory = f"{self._directory(number)}/fs"
        os.makedirs(directory)
        if parent is not None:
            _copy(self._own(self._row(parent))[0], directory)

    def mounts(self, key: str) -> tuple[RootMount, ...]:
        row = self._row(key)
        return (RootMount("bind", self._own(row)[0], ("bind", "ro") if row.committed else ("bind",)),)

    def adopt(self, directory: str, parents: Sequence[str], implicit: Sequence[str]) -> str:
        if not parents:
            _plain(directory)
            return directory
        describe_implied(directory, parents, implicit)
        whole = f"{os.path.dirname(directory)}/whole"
        os.mkdir(whole, 0o755)
        _copy(parents[0], whole)
        _lay_over(directory, whole)
        shutil.rmtree(directory)
        os.rename(whole, directory)
        return directory

    def register_root(self, key: str, directories: Sequence[str]) -> None:
        raise NotImplemented("the vfs snapshotter would copy this machine's whole root; the host image needs overlayfs")

    def tree(self, key: str) -> "VfsTree":
        row = self._row(key)
        below = None if row.parent is None else self._own(self._row(row.parent))[0]
        return VfsTree(self._own(row)[0], below)


def _copy(source: str, target: str) -> None:
    with _opened(source) as reading, _opened(target) as writing:
        treecopy.copy(reading, writing)


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _plain(directory: str) -> None:
    """A layer with nothing below it: its whiteouts hide nothing."""
    with os.scandir(directory) as entries:
        for entry in list(entries):
            status = entry.stat(follow_symlinks=False)
            if fs.is_whiteout(status):
                os.unlink(entry.path)
            elif stat.S_ISDIR(status.st_mode):
                mtime = status.st_mtime_ns
                _plain(entry.path)
                os.utime(entry.path, ns=(mtime, mtime))


def _lay_over(layer: str, whole: str) -> None:
    """Move a layer directory's content onto a whole tree, doing what its marks say."""
    status = os.stat(layer)
    if merge.is_opaque(layer):
        for name in os.listdir(whole):
            _remove(f"{whole}/{name}")
    with os.scandir(layer) as entries:
        for entry in list(entries):
            below = f"{whole}/{entry.name}"
            own = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(own.st_mode):
                if not stat.S_ISDIR(_mode(below)):
                    _remove(below)
                    os.mkdir(below, 0o700)
                _lay_over(entry.path, below)
            elif fs.is_whiteout(own):
                _remove(below)
            else:
                _remove(below)
                os.rename(entry.path, below)
    with _opened(layer) as source, _opened(whole) as target:
        treecopy.copy_attributes(source, target, status)


def _mode(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _remove(path: str) -> None:
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    elif mode:
        os.unlink(path)


@dataclass(frozen=True, slots=True)
class VfsTree:
    """See `snapshot.Tree`."""

    own: str
    below: str | None

    def usage(self) -> Usage:
        return merge.usage(self.own)

    def open_changed(self) -> int:
        return os.open(self.own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_root(self, *, readonly: bool = True) -> int:
        descriptor = mount.bind_fd(self.own, recursive=False)
        if readonly:
            mount.mount_setattr(descriptor, set=consts.MOUNT_ATTR_RDONLY)
        return descriptor

    def place(self, path: str, link: str = "") -> None:
        merge.place(self.own, (self.own,), path, link)

    def changes(self) -> Iterator[Change]:
        root = os.open(self.own, consts.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield from _changes(self.below, root, "")
        finally:
            os.close(root)


def _changes(below: str | None, root: int, path: str) -> list[Change]:
    """Two whole trees compared by what `stat` tells, sorted by path; a directory counts as modified where something
    in it is. Who owns that at `root` may change it meanwhile; no link that is put into it is followed."""
    own = fs.open_directory_beneath(root, path[1:])
    if own is None:
        return []  # removed by the container meanwhile
    try:
        return list(_compared(below, root, own, path))
    finally:
        os.close(own)


def _compared(below: str | None, root: int, own: int, path: str) -> Iterator[Change]:
    """`own`: the directory `path`."""
    before = set(os.listdir(below)) if below is not None else set()
    for name in sorted(before | set(os.listdir(own))):
        here = f"{path}/{name}"
        old = merge.lstat(f"{below}/{name}") if name in before else None
        new = merge.lstat(name, own)
        if new is None:
            if old is not None:
                yield Change(ChangeKind.DELETED, here)
            continue
        inside: list[Change] = []
        if stat.S_ISDIR(new.st_mode):
            merged = old is not None and stat.S_ISDIR(old.st_mode)
            inside = _changes(f"{below}/{name}" if merged else None, root, here)
        if old is None:
            yield Change(ChangeKind.ADDED, here)
        elif inside or _differs(old, new) or _target(f"{below}/{name}", None, old) != _target(name, own, new):
            yield Change(ChangeKind.MODIFIED, here)
        yield from inside


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    return old.st_mtime_ns != new.st_mtime_ns or (stat.S_ISREG(new.st_mode) and old.st_size != new.st_size)


def _target(name: str, directory: int | None, status: os.stat_result) -> str:
    """Of a symbolic link; empty for everything else, and where it is none by now."""
    if not stat.S_ISLNK(status.st_mode):
        return ""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return ""
        raise
