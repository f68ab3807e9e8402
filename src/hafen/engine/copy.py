"""Archive get, put and stat inside a container, and export of its whole root.

A running container is reached through the root of its own mount namespace, so that its volumes and mounts are seen as
it sees them; a stopped one through a mount of its snapshot that is attached nowhere, with its volumes and binds in
their places. Paths are resolved by openat2(RESOLVE_IN_ROOT): no link leads out (CVE-2018-15664, CVE-2019-14271).
"""

from __future__ import annotations

import errno
import itertools
import os
import posixpath
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from hafen.engine.events import Events
from hafen.engine.feed import consume, produce
from hafen.engine.mounting import Mounting
from hafen.engine.records import Container, Containers, Record
from hafen.errors import InvalidArgument, NotFound, System
from hafen.kernel import fs
from hafen.runtime import identity
from hafen.spec import units
from hafen.spec.lifecycle import State
from hafen.spec.runtime_config import User
from hafen.spec.wire.container import PathStat
from hafen.storage import archive, compression, pack
from hafen.storage.archive import Reader, Source
from hafen.storage.extract import Extractor, Policy
from hafen.storage.snapshot import Snapshotter, Tree
from hafen.storage.tarformat import DIRECTORY, Entry

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Go's os.FileMode (io/fs/fs.go), which is what clients expect in the stat header.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_operations = itertools.count()  # each uses a stopped container's volumes for itself
_MOST_LINKS = 255  # as Go's filepath.EvalSymlinks
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that stands for a part of the container's tree: `path` is relative to the descriptor `root`;
    `refusal` says why nothing may be written there, empty where it may."""

    root: int
    path: str
    refusal: str


@dataclass(frozen=True, slots=True)
class View:
    """How a container's tree is reached: by its process's root, or by its snapshot with the mounts on top."""

    pid: int
    tree: Tree
    mounts: tuple[tuple[str, str, bool], ...]  # destination, source, read-only; longest destination first
    readonly: bool

    @contextmanager
    def place(self, path: str, *, write: bool = False, follow: bool = False) -> Iterator[Place]:
        """Where an absolute path of the container is; in a thread. `follow`: its last component may be a link."""
        with ExitStack() as undo:
            if self.pid:
                root = os.open(f"/proc/{self.pid}/root", _OPEN_DIRECTORY)
                undo.callback(os.close, root)
                yield Place(root, path, self._refusal(self._mounted(path)))
                return
            tree = self.tree.open_root(readonly=not write)
            undo.callback(os.close, tree)
            path = self._resolved(tree, path, follow=follow or write)
            mounted = self._mounted(path)
            if mounted is None:
                yield Place(tree, path, self._refusal(None))
                return
            destination, source, _ = mounted
            source, path = os.path.realpath(source), path[len(destination) :] or "/"
            if not os.path.isdir(source):  # a file: it is reached as a member of its directory
                source, base = os.path.split(source)
                path = "/" + base + path.rstrip("/")
            root = os.open(source, _OPEN_DIRECTORY)
            undo.callback(os.close, root)
            yield Place(root, path, self._refusal(mounted))

    def _refusal(self, mounted: tuple[str, str, bool] | None) -> str:
        if mounted is not None:
            return "mounted volume is marked read-only" if mounted[2] else ""
        return "container rootfs is marked read-only" if self.readonly else ""

    def _resolved(self, tree: int, path: str, *, follow: bool) -> str:
        """The path without symbolic links, for a container that does not run: what they lead to may be a mount, which
        the kernel does not know of. `follow`: the last component's too. What does not exist stays as it is."""
        left, done, links = [part for part in path.split("/") if part][::-1], "", 0
        while left:
            part = left.pop()
            if part == "..":
                done = posixpath.dirname(done).rstrip("/")
                continue
            candidate = f"{done}/{part}"
            target = self._link(tree, candidate) if left or follow else ""
            if not target:
                done = candidate
                continue
            links += 1
            if links > _MOST_LINKS:
                raise System("EvalSymlinks: too many links")
            if target.startswith("/"):
                done = ""
            left += [part for part in target.split("/") if part not in ("", ".")][::-1]
        return done or "/"

    def _link(self, tree: int, path: str) -> str:
        """What the symbolic link at this path says; empty where there is none."""
        mounted = self._mounted(path)
        root = tree if mounted is None else os.open(mounted[1], os.O_PATH | os.O_CLOEXEC)
        try:
            inside = path if mounted is None else path[len(mounted[0]) :]
            if not inside:
                return ""  # a mount's own root
            found = fs.open_in_root(root, inside, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return os.readlink("", dir_fd=found) if stat.S_ISLNK(os.fstat(found).st_mode) else ""
            finally:
                os.close(found)
        except OSError:
            return ""
        finally:
            if root != tree:
                os.close(root)

    def _mounted(self, path: str) -> tuple[str, str, bool] | None:
        for mounted in self.mounts:
            if path == mounted[0] or path.startswith(f"{mounted[0]}/"):
                return mounted
        return None


@dataclass(frozen=True, slots=True)
class Copier:
    """`Services.copy`."""

    containers: Containers
    snapshotter: Snapshotter
    mounting: Mounting
    events: Events

    async def stat(self, ref: str, path: str) -> PathStat:
        container = self.containers.find(ref)
        async with self._viewed(container) as view:
            with _explained(path, ref), view.place(_absolute(path), follow=_must_be_directory(path)) as place:
                return _stat(place, path)

    async def get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        found = await self.stat(ref, path)
        container = self.containers.find(ref)
        self.events.publish("container", "archive-path", container.id, container.event_attributes())
        return found, self._packed(container, path)

    async def _packed(self, container: Container, path: str) -> AsyncGenerator[bytes]:
        async with (
            self._viewed(container) as view,
            aclosing(produce(lambda: pack.joined(_packed(view, path)))) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def put(
        self,
        ref: str,
        path: str,
        archive: AsyncIterator[bytes],
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        container = self.containers.find(ref)
        user = container.record.config.user if copy_uid_gid else ""

        def work(view: View, chunks: Iterator[bytes]) -> None:
            with _explained(path, ref):
                owner = _owner(view, user) if user else None
                with view.place(_absolute(path), write=True) as place:
                    if place.refusal:
                        raise System(place.refusal)
                    _unpack(place, _Rules(_absolute(path), no_overwrite_dir_non_dir, owner), chunks)

        async with self._viewed(container) as view:
            await consume(archive, partial(work, view))
        self.events.publish("container", "extract-to-dir", container.id, container.event_attributes())

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        container = self.containers.find(ref)
        tree = self.snapshotter.tree(container.id)

        def packed() -> Iterator[bytes]:
            root = tree.open_root(readonly=True)
            try:
                yield from pack.tree(root)
                yield archive.end()
            finally:
                os.close(root)

        self.events.publish("container", "export", container.id, container.event_attributes())
        return produce(lambda: pack.joined(packed()))

    @asynccontextmanager
    async def _viewed(self, container: Container) -> AsyncIterator[View]:
        """The container's tree, with the volumes of a stopped one mounted meanwhile."""
        pid = container.status.pid if container.status.state in (State.RUNNING, State.PAUSED) else 0
        async with AsyncExitStack() as undo:
            volumes = await self._volumes(container.record, None if pid else undo)
            yield self._view(container, pid, volumes)

    async def _volumes(self, record: Record, undo: AsyncExitStack | None) -> dict[str, str]:
        """Paths of its volumes by destination; mounted until `undo`, where one is given."""
        volumes, found = self.mounting.volumes, {}
        user = f"copy {next(_operations)} of {record.id}"
        for point in record.mounts:
            if point.type == "volume" and not point.subpath:
                path = volumes.source(point.name)
                if undo is not None:
                    mounted = volumes.mounts.mounted(volumes.get(point.name), user)
                    path = await undo.enter_async_context(mounted)
                found[point.destination] = path
        return found

    def _view(self, container: Container, pid: int, volumes: Mapping[str, str]) -> View:
        record = container.record
        found = []
        for point in record.mounts:
            if point.destination in volumes:
                found.append((point.destination, volumes[point.destination], not point.rw))
            elif point.type == "bind" and os.path.lexists(point.source):
                found.append((point.destination, point.source, not point.rw))
        found.sort(key=lambda mounted: len(mounted[0]), reverse=True)
        return View(pid, self.snapshotter.tree(container.id), tuple(found), record.host_config.readonly_rootfs)


@contextmanager
def _explained(path: str, ref: str) -> Iterator[None]:
    """What the kernel says of a path, as Docker says it."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotFound(f"Could not find the file {path} in container {ref}") from error
        if error.errno == errno.EROFS:
            raise System("container rootfs is marked read-only") from error
        raise System(f"lstat {path}: {os.strerror(error.errno or 0).lower()}") from error


def _absolute(path: str) -> str:
    if "\0" in path:
        raise InvalidArgument("a path cannot contain a NUL byte")
    return posixpath.normpath("/" + path.lstrip("/"))


def _must_be_directory(path: str) -> bool:
    return path.endswith(("/", "/."))


def _open(place: Place, path: str, *, follow: bool) -> int:
    """The object at a place's path (O_PATH); its last component is followed only where asked."""
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    if _must_be_directory(path):
        flags |= os.O_DIRECTORY
    return fs.open_in_root(place.root, place.path, flags)


def _stat(place: Place, path: str) -> PathStat:
    descriptor = _open(place, path, follow=_must_be_directory(path))
    try:
        status = os.fstat(descriptor)
        target = ""
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink("", dir_fd=descriptor)
            target = posixpath.normpath(posixpath.join(posixpath.dirname(_absolute(path)), target))
    finally:
        os.close(descriptor)
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(status.st_mode), 0)
    for bit, go_bit in _GO_BITS:
        if status.st_mode & bit:
            mode |= go_bit
    return PathStat(
        name=_name(path), size=status.st_size, mode=mode,
        mtime=units.format_timestamp(status.st_mtime_ns) if status.st_mtime_ns > 0 else "1970-01-01T00:00:00Z",
        link_target=target,
    )  # fmt: skip


def _name(path: str) -> str:
    """Go's path.Base, which is `.` for what ends in `/.`."""
    return "." if path.endswith("/.") else posixpath.basename(path.rstrip("/")) or "/"


def _packed(view: View, path: str) -> Iterator[bytes]:
    """A tar of one path: a file under its name, a directory with all below it."""
    with view.place(_absolute(path), follow=_must_be_directory(path)) as place:
        descriptor = _open(place, path, follow=_must_be_directory(path))
        try:
            directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)
        name = _name(path)
        if directory:
            yield from _packed_directory(place, name)
        else:
            yield from _packed_file(place, name)
        yield archive.end()


def _packed_directory(place: Place, name: str) -> Iterator[bytes]:
    root = fs.open_in_root(place.root, place.path, _OPEN_DIRECTORY)
    try:
        packer = pack.Packer()
        prefix = "" if name == "/" else f"{name}/"
        yield from packer.member(root, ".", prefix or "./")
        yield from packer.below(root, prefix)
    finally:
        os.close(root)


def _packed_file(place: Place, name: str) -> Iterator[bytes]:
    parent, base = posixpath.split(place.path)
    root = fs.open_in_root(place.root, parent, _OPEN_DIRECTORY)
    try:
        yield from pack.Packer().member(root, base, name)
    finally:
        os.close(root)


@dataclass(frozen=True, slots=True)
class _Rules:
    """How an archive goes in: `path` is where, as the container sees it; `guarded`: a directory and something else do
    not replace each other; `owner` (uid, gid) of all of it, None for the archive's own."""

    path: str
    guarded: bool
    owner: tuple[int, int] | None


class _Incoming(Reader):
    """An archive's members as the rules make them."""

    def __init__(self, source: Source, root: int, rules: _Rules) -> None:
        super().__init__(source, require_end=False)
        self._root = root
        self._rules = rules

    def __iter__(self) -> Iterator[Entry]:
        for item in super().__iter__():
            item = item._replace(name=item.name.lstrip("/"))
            if self._rules.guarded:
                self._check(item)
            if self._rules.owner is not None:
                item = item._replace(uid=self._rules.owner[0], gid=self._rules.owner[1])
            yield item

    def _check(self, item: Entry) -> None:
        try:
            present = fs.open_in_root(self._root, item.name.rstrip("/"), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            directory = stat.S_ISDIR(os.fstat(present).st_mode)
        finally:
            os.close(present)
        where = self._rules.path
        name = posixpath.join(where, posixpath.normpath(item.name))
        if directory and item.type != DIRECTORY:
            raise System(f'cannot overwrite directory "{name}" with non-directory "{where}"')
        if not directory and item.type == DIRECTORY:
            raise System(f'cannot overwrite non-directory "{name}" with directory "{where}"')


def _owner(view: View, user: str) -> tuple[int, int]:
    """(uid, gid) of a container's user, by the container's own files."""
    with view.place("/") as place:
        found = identity.resolve(place.root, User(name=user))
    return found.uid, found.gid


def _unpack(place: Place, rules: _Rules, chunks: Iterator[bytes]) -> None:
    try:
        root = fs.open_in_root(place.root, place.path, _OPEN_DIRECTORY)
    except NotADirectoryError as error:
        raise System("extraction point is not a directory") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise System("EvalSymlinks: too many links") from error
        raise
    try:
        incoming = _Incoming(Source(compression.decompressed(chunks)), root, rules)
        with Extractor(f"/proc/self/fd/{root}", Policy()) as extractor:
            extractor.run(incoming)
    finally:
        os.close(root)
