"""Copies of volumes, which Docker has not: export, import, clone, snapshots, restore.

A copy is what the volume was at one moment: the containers that write to it are paused by the cgroup freezer until it
is made. Where the file system shares blocks (btrfs, XFS: `reflink`) that is a moment; elsewhere it is as long as the
copying takes, unless it is asked for `live`, and then what is written meanwhile may be in the copy or not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TypeVar

from hafen.engine.feed import consume, in_thread, produce
from hafen.engine.volumerecords import VolumeRecord
from hafen.engine.volumes import Volumes
from hafen.engine.volumework import Job, VolumeWork
from hafen.errors import Conflict, InvalidArgument, NotFound, OutOfSpace, System
from hafen.kernel import fs
from hafen.spec import names, units
from hafen.spec.wire.volume import Volume, VolumeSnapshot
from hafen.storage import compression, pack, treecopy
from hafen.storage.archive import Limits, Reader, Source
from hafen.storage.database import Database
from hafen.storage.extract import Extractor, Policy
from hafen.storage.volumes import data_directory

T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A volume is the user's own, and may be large: what bounds an import is the disk.
_LIMITS = Limits(bytes=1 << 60, entries=1 << 40)


class VolumeCopies:
    """`Services.volume_copies`; loop thread only."""

    def __init__(
        self,
        database: Database,
        root: str,
        volumes: Volumes,
        work: VolumeWork,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._root = root
        self._volumes = volumes
        self._work = work
        self._clock = clock

    async def recover(self) -> None:
        """Undo what a crash cut short; containers are connected again by now."""
        await self._work.recover()

    async def export(self, name: str, live: bool = False) -> AsyncIterator[bytes]:
        """A tar archive of everything below the volume's root, and the root itself. NotFound before the first byte."""
        self._volumes.get(name)
        return self._exported(name, live)

    async def _exported(self, name: str, live: bool) -> AsyncGenerator[bytes]:
        """From a copy where somebody writes, so that containers are not paused for as long as a client reads."""
        async with AsyncExitStack() as undo:
            record = undo.enter_context(self._volumes.busy(name))
            job = await undo.enter_async_context(self._work.job())
            path = await undo.enter_async_context(self._volumes.mounts.mounted(record, f"copy {job.id}"))
            if not live and self._work.is_written(name):
                await self._copy(job, name, path, live)
                path, live = job.path, True
            writer = undo.enter_context(self._volumes.holds.watch(name))
            chunks = await undo.enter_async_context(aclosing(produce(lambda: pack.joined(_packed(path)))))
            async for chunk in chunks:
                _check_unwritten(name, live, writer)
                yield chunk
            _check_unwritten(name, live, writer)

    async def import_(self, name: str, archive: AsyncIterator[bytes], labels: dict[str, str] | None = None) -> Volume:
        """A new volume from an archive, compressed or not. Conflict where there is one of that name; Corrupt and
        OutOfSpace leave nothing."""
        self._check_new(name)
        async with self._work.job(data_directory("", name)) as job:
            await consume(archive, lambda chunks: _unpack(job.path, chunks))
            return await self._become(job, name, labels)

    async def clone(
        self, name: str, target: str, snapshot: str = "", live: bool = False, labels: dict[str, str] | None = None
    ) -> Volume:
        """A new local volume with what the volume, or one of its snapshots, has."""
        self._check_new(target)
        with self._volumes.busy(name) as record:
            async with self._work.job(data_directory("", target)) as job:
                if snapshot:
                    place = self._snapshot(name, snapshot)
                    with self._volumes.holds.busy(_place(name, snapshot)):
                        await _in_thread(_copy_tree, place, job.path)
                else:
                    async with self._volumes.mounts.mounted(record, f"copy {job.id}") as path:
                        await self._copy(job, name, path, live)
                return await self._become(job, target, labels)

    async def snapshots(self, name: str) -> list[VolumeSnapshot]:
        """Oldest first."""
        self._volumes.get(name)
        rows = self._database.query(
            "SELECT name, created_at FROM volume_snapshots WHERE volume = ? ORDER BY created_at, name", (name,)
        )
        return [VolumeSnapshot(str(snapshot), name, str(created)) for snapshot, created in rows]

    async def snapshot(self, name: str, snapshot: str = "", live: bool = False) -> VolumeSnapshot:
        """Keep what the volume has now, under a name that is its time where none is given."""
        with self._volumes.busy(name) as record:
            _check_kind(record)
            now = self._clock()
            created = units.format_timestamp(now)
            snapshot = snapshot or created.replace(":", "").replace(".", "_").rstrip("Z")
            names.check_volume_name(snapshot)
            self._check_new_snapshot(name, snapshot)
            async with self._work.job(_place(name, snapshot)) as job:
                await self._copy(job, name, data_directory(self._root, name), live)
                with self._database.transaction(durable=True):
                    self._check_new_snapshot(name, snapshot)  # nobody was faster
                    self._database.execute(
                        "INSERT INTO volume_snapshots (volume, name, created_at) VALUES (?, ?, ?)",
                        (name, snapshot, created),
                    )
                    self._work.set_aside(job)
                    self._work.put(job)
        return VolumeSnapshot(snapshot, name, created)

    async def remove_snapshot(self, name: str, snapshot: str) -> None:
        with self._volumes.busy(name):
            self._snapshot(name, snapshot)
            place = _place(name, snapshot)
            rows = "DELETE FROM volume_snapshots WHERE volume = ? AND name = ?"
            with self._volumes.holds.busy(place, alone=True):
                await self._work.remove(place, lambda: self._database.execute(rows, (name, snapshot)))

    async def restore(self, name: str, snapshot: str) -> None:
        """The volume has what it had then. Conflict while containers that use it run: they hold the files of now."""
        with self._volumes.busy(name, alone=True) as record:
            _check_kind(record)
            place = self._snapshot(name, snapshot)
            self._check_idle(name)
            async with self._work.job() as job:
                await _in_thread(_copy_tree, place, job.path)
                await self._work.wait_started(name)
                self._check_idle(name)  # none has started meanwhile, nor can before the next wait
                root = os.open(self._root, _DIRECTORY)
                try:
                    fs.exchange(root, data_directory("", name), job.inside)  # and the job deletes what was there
                finally:
                    os.close(root)

    def _check_new(self, name: str) -> None:
        names.check_volume_name(name)
        if self._volumes.find(name) is not None:
            raise Conflict(f"create {name}: there is a volume of that name already")
        directory = data_directory(self._root, name)
        with suppress(FileNotFoundError):
            if os.listdir(directory):
                raise Conflict(f"create {name}: {directory} has files, though there is no volume of that name")

    def _check_new_snapshot(self, name: str, snapshot: str) -> None:
        if self._has(name, snapshot):
            raise Conflict(f"snapshot {snapshot} of volume {name} exists already")

    def _check_idle(self, name: str) -> None:
        running = [container.name for container in self._work.users(name) if container.alive]
        if running:
            raise Conflict(f"restore {name}: running containers use the volume: {', '.join(running)}; stop them first")

    async def _copy(self, job: Job, name: str, path: str, live: bool) -> None:
        async with self._work.still(job, name, live):
            await _in_thread(_copy_tree, path, job.path)

    async def _become(self, job: Job, name: str, labels: dict[str, str] | None) -> Volume:
        """The job's directory is a volume from here on."""
        with self._database.transaction(durable=True):
            self._check_new(name)  # nobody was faster
            record, _ = self._volumes.ensure(name, "local", labels, None)
            self._work.put(job)  # over the empty directory
        return self._volumes.show(record)

    def _snapshot(self, name: str, snapshot: str) -> str:
        if not self._has(name, snapshot):
            raise NotFound(f"volume {name} has no snapshot {snapshot}")
        return os.path.join(self._root, _place(name, snapshot))

    def _has(self, name: str, snapshot: str) -> bool:
        found = self._database.row("SELECT 1 FROM volume_snapshots WHERE volume = ? AND name = ?", (name, snapshot))
        return found is not None


def _place(name: str, snapshot: str) -> str:
    """Beside the volume's directory, and gone with it; below that of all volumes."""
    return os.path.join(name, "snapshots", snapshot)


def _check_unwritten(name: str, live: bool, writer: asyncio.Event) -> None:
    if writer.is_set() and not live:
        raise Conflict(
            f"export {name}: a container that can write to the volume was started while it was read; once more, or live"
        )


def _check_kind(record: VolumeRecord) -> None:
    if record.driver != "local" or record.options:
        raise InvalidArgument(
            f"volume {record.name} is not a plain local one: it can be exported and cloned, but has no snapshots here"
        )


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    try:
        return await in_thread(function, *arguments)
    except OSError as error:
        if error.errno in treecopy.NO_ROOM:
            raise OutOfSpace(f"no space left on device: {error.filename or 'copying a volume'}") from error
        raise System(f"copying a volume: {error}") from error


def _copy_tree(source: str, target: str) -> None:
    """All of it, on disk when this returns."""
    reading, writing = os.open(source, _DIRECTORY), os.open(target, _DIRECTORY)
    try:
        treecopy.copy(reading, writing)
        fs.syncfs(writing)
    finally:
        os.close(reading)
        os.close(writing)


def _packed(path: str) -> Iterator[bytes]:
    root = os.open(path, _DIRECTORY)
    try:
        yield from pack.whole(root)
    finally:
        os.close(root)


def _unpack(path: str, chunks: Iterator[bytes]) -> None:
    reader = Reader(Source(compression.decompressed(chunks), _LIMITS.bytes), limits=_LIMITS)
    with Extractor(path, Policy()) as extractor:
        extractor.run(reader)
    root = os.open(path, _DIRECTORY)
    try:
        fs.syncfs(root)
    finally:
        os.close(root)
