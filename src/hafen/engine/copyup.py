"""Fill empty volumes with what the image has in their place, as Docker does when a container is created.

A volume that is not empty stays as it is, so a copy must be whole or not be there:

    <volumes>/.filling/<volume>/new    is being filled; a failure or a crash deletes it
    <volumes>/.filling/<volume>/done   is whole: its entries are moved into the volume, after a crash by the next engine

The volume's directory itself stays: a container that runs may have it mounted. What lies on another file system (NFS, a
tmpfs) is filled in its place, and emptied again after a failure. One copy at a time goes into a volume.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from weakref import WeakValueDictionary

from hafen.engine.feed import in_thread
from hafen.engine.records import Container, Record
from hafen.engine.volumerecords import VolumeRecord
from hafen.engine.volumes import Volumes
from hafen.errors import HafenError
from hafen.kernel import fs
from hafen.spec.mounts import MountPoint
from hafen.storage import extract, treecopy, treedelete
from hafen.storage.snapshot import Snapshotter, Tree
from hafen.storage.volumes import data_directory, explained

log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CopyUp:
    """Copies into volumes; `root` is the directory of the local ones. Loop thread only."""

    def __init__(self, snapshotter: Snapshotter, volumes: Volumes, root: str) -> None:
        self._snapshotter = snapshotter
        self._volumes = volumes
        self._root = root
        self._filling = os.path.join(root, ".filling")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fill(self, record: Record) -> None:
        """Every volume of a new container that may be filled. Errors: those of the volume's mount; OSError."""
        tree = self._snapshotter.tree(record.id)
        for point in _points(record):
            lock = self._locks.setdefault(point.name, asyncio.Lock())
            async with lock:
                await self._fill(tree, record, point)

    async def _fill(self, tree: Tree, record: Record, point: MountPoint) -> None:
        volume = self._volumes.get(point.name)
        if volume.driver == "local" and not volume.options:
            path = self._volumes.mounts.mountpoint(volume)
            if point.subpath or not os.listdir(path):
                await in_thread(self._fill_plain, tree, point, path)
            return
        if not await asyncio.to_thread(_has, tree, point.destination):
            return
        path = await self._mount(volume, record)
        try:
            await in_thread(_fill_mounted, tree, point, path)
        finally:
            self._volumes.mounts.release(volume, f"fill {record.id}")

    async def _mount(self, volume: VolumeRecord, record: Record) -> str:
        try:
            return await self._volumes.mounts.mount(volume, f"fill {record.id}")
        except HafenError as error:
            source = self._volumes.mounts.mountpoint(volume)
            raise explained(error, f"failed to populate volume: error while mounting volume '{source}'") from error

    def _fill_plain(self, tree: Tree, point: MountPoint, path: str) -> None:
        with _ends(tree, point, path) as (source, target):
            if target < 0:
                return
            os.makedirs(self._filling, 0o700, exist_ok=True)
            if not self._is_beside(target):
                _fill_directly(source, target)
                return
            staging = os.path.join(self._filling, point.name)
            treedelete.delete(staging)
            os.makedirs(os.path.join(staging, "new"), 0o700)
            try:
                os.symlink(point.subpath or ".", os.path.join(staging, "into"))
                new = os.open(os.path.join(staging, "new"), _DIRECTORY)
                try:
                    treecopy.copy(source, new)
                finally:
                    os.close(new)
            except BaseException:
                treedelete.delete(staging)
                raise
            os.rename(os.path.join(staging, "new"), os.path.join(staging, "done"))
            _finish(staging, target)

    def _is_beside(self, target: int) -> bool:
        """Whether files can be moved into it: an administrator may have mounted a disk there."""
        filling = os.open(self._filling, _DIRECTORY)
        try:
            same_device = os.fstat(filling).st_dev == os.fstat(target).st_dev
            return same_device and fs.mount_id(filling) == fs.mount_id(target)
        finally:
            os.close(filling)

    async def recover(self, containers: Iterable[Container]) -> None:
        """Finish what a crash cut short. The containers that a copy was for are there: their rows came before."""
        again = await asyncio.to_thread(self._finish_all)
        for container in containers if again else ():
            if any(point.name in again for point in _points(container.record)):
                try:
                    await self.fill(container.record)
                except (HafenError, OSError) as error:
                    log.error("a volume of container %s stays empty: %s", container.id, error)

    def _finish_all(self) -> set[str]:
        """Names of the volumes into which nothing has come yet."""
        again = set()
        with suppress(FileNotFoundError):
            for name in os.listdir(self._filling):
                staging = os.path.join(self._filling, name)
                if not os.path.isdir(os.path.join(staging, "done")):
                    again.add(name)
                    treedelete.delete(staging)
                    continue
                target = _open_inside(data_directory(self._root, name), os.readlink(os.path.join(staging, "into")))
                if target < 0:
                    treedelete.delete(staging)
                    continue
                try:
                    _finish(staging, target)
                finally:
                    os.close(target)
        return again


def _points(record: Record) -> Iterator[MountPoint]:
    return (point for point in record.mounts if point.type == "volume" and point.copy_up)


def _finish(staging: str, target: int) -> None:
    """Move what is whole into the volume."""
    done = os.open(os.path.join(staging, "done"), _DIRECTORY)
    try:
        for name in os.listdir(done):
            with suppress(FileExistsError):  # of a container that has the volume and writes to it already
                fs.rename_new(done, name, target)
        treecopy.copy_attributes(done, target, os.fstat(done))
    finally:
        os.close(done)
    treedelete.delete(staging)


def _has(tree: Tree, path: str) -> bool:
    """Whether the image has a directory there."""
    root = tree.open_root(readonly=True)
    try:
        found = _opened(root, path)
        if found >= 0:
            os.close(found)
        return found >= 0
    finally:
        os.close(root)


def _fill_mounted(tree: Tree, point: MountPoint, path: str) -> None:
    with _ends(tree, point, path) as (source, target):
        if target >= 0:
            _fill_directly(source, target)


def _fill_directly(source: int, target: int) -> None:
    try:
        treecopy.copy(source, target)
    except BaseException as error:
        if not isinstance(error, FileExistsError):  # else somebody else fills it, and it is not ours to empty
            for name in os.listdir(source):
                with suppress(OSError):
                    extract.remove_tree(target, name)
        raise


@contextmanager
def _ends(tree: Tree, point: MountPoint, path: str) -> Iterator[tuple[int, int]]:
    """The image's directory and the volume's, at whose place in it; -1 where there is nothing to do: the image has
    none, or the volume is not empty, or has no such place, which the start will tell."""
    root = source = target = -1
    try:
        root = tree.open_root(readonly=True)
        source = _opened(root, point.destination)
        if source >= 0:
            target = _open_inside(path, point.subpath or ".")
        yield source, target if target >= 0 and not os.listdir(target) else -1
    finally:
        for descriptor in (root, source, target):
            if descriptor >= 0:
                os.close(descriptor)


def _open_inside(volume: str, path: str) -> int:
    try:
        top = os.open(volume, _DIRECTORY)
    except FileNotFoundError:
        return -1
    try:
        return _opened(top, path)
    finally:
        os.close(top)


def _opened(root: int, path: str) -> int:
    """A directory below `root`; -1 where there is none."""
    try:
        return fs.open_in_root(root, path, _DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return -1
        raise
