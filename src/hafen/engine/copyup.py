"""Fill empty volumes with what the image has in their place, as Docker does when a container is created."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack

from hafen.engine.records import Record
from hafen.engine.volumerecords import VolumeRecord
from hafen.engine.volumes import Volumes
from hafen.errors import HafenError
from hafen.kernel import fs
from hafen.spec.mounts import MountPoint
from hafen.storage import treecopy
from hafen.storage.snapshot import Tree
from hafen.storage.volumes import explained

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


async def fill(tree: Tree, record: Record, volumes: Volumes) -> None:
    """Every volume of a new container that may be filled. Errors: those of the volume's mount; OSError."""
    points = [point for point in record.mounts if point.type == "volume" and point.copy_up]
    if not points:
        return
    here: list[tuple[MountPoint, VolumeRecord]] = []
    mounted: list[tuple[MountPoint, VolumeRecord]] = []
    for point in points:
        volume = volumes.get(point.name)
        plain = volume.driver == "local" and not volume.options
        (here if plain else mounted).append((point, volume))
    places = [(point.destination, volumes.mounts.mountpoint(volume), point.subpath) for point, volume in here]
    places = [place for place in places if _is_empty(place[1], place[2])]
    wanted: set[str] = set()
    if mounted:
        wanted = await asyncio.to_thread(_directories, tree, [point.destination for point, _ in mounted])
    async with AsyncExitStack() as undo:
        for point, volume in mounted:
            if point.destination in wanted:
                try:
                    path = await undo.enter_async_context(volumes.mounts.mounted(volume, record.id))
                except HafenError as error:
                    source = volumes.mounts.mountpoint(volume)
                    raise explained(
                        error, f"failed to populate volume: error while mounting volume '{source}'"
                    ) from error
                places.append((point.destination, path, point.subpath))
        if places:
            await asyncio.to_thread(copy_up, tree, places)


def _directories(tree: Tree, paths: Sequence[str]) -> set[str]:
    """Those of the paths that are directories of the image."""
    root = tree.open_root(readonly=True)
    try:
        found = set()
        for path in paths:
            try:
                os.close(fs.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                continue
            found.add(path)
        return found
    finally:
        os.close(root)


def _is_empty(path: str, subpath: str) -> bool:
    """True also where it is not known yet: `copy_up` looks again."""
    if subpath:
        return True
    with os.scandir(path) as entries:
        return next(entries, None) is None


def copy_up(tree: Tree, places: Sequence[tuple[str, str, str]]) -> None:
    """Copy directories of the container's root, as (path inside, volume, path in the volume); runs in a thread.

    A path that the image has not, or that is no directory, leaves the volume empty; a volume that is not empty stays
    as it is.
    """
    root = tree.open_root(readonly=True)
    try:
        for inside, volume, subpath in places:
            source = _opened(root, inside)
            if source < 0:
                continue
            try:
                _fill(source, volume, subpath)
            finally:
                os.close(source)
    finally:
        os.close(root)


def _fill(source: int, volume: str, subpath: str) -> None:
    top = os.open(volume, _DIRECTORY)
    try:
        target = _opened(top, subpath or ".")
        if target < 0:
            return  # the start will say that it is not there
        try:
            if not os.listdir(target):
                treecopy.copy(source, target)
        finally:
            os.close(target)
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
