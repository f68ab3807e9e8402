"""Copies of volumes while they are made: the directory that is being filled, and who is paused for it.

    directory       <volumes>/.work/<id>, which nobody sees
    intent          a row, with the place where the directory is to come and who is about to be paused
    fill
    done            one transaction: the directory is renamed to its place, its row comes, the intent goes

A removal goes the other way: one transaction takes the row and leaves the intent, then the files are renamed to
`.work` and deleted.

What a start of the engine finds is decided by the intent alone: while it is there, no transaction was committed that
made the place anybody's. If its directory is still in `.work`, what lies in the place is not ours; if not, it is what
was renamed and never came to be, or was to be removed, and goes. Then all of `.work` goes, and paused containers go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from hafen.engine.pausing import Pauser
from hafen.engine.records import Container
from hafen.engine.volumeholds import Holds
from hafen.errors import Conflict, HafenError, System
from hafen.spec.lifecycle import State
from hafen.spec.mounts import MountPoint
from hafen.storage import treedelete
from hafen.storage.database import Database

log = logging.getLogger(__name__)

_WORK = ".work"
_ASIDE = ".aside"


class Work(msgspec.Struct, frozen=True):
    """`place` is a path below that of all volumes, empty where nothing comes to be; `paused` are ids of containers."""

    place: str = ""
    paused: list[str] = []


@dataclass(slots=True)
class Job:
    """One copy in the making; `path` is an empty directory."""

    id: str
    path: str
    work: Work

    @property
    def inside(self) -> str:
        """The directory, relative to that of all volumes."""
        return os.path.join(_WORK, self.id)


class VolumeWork:
    """All copies that are being made; loop thread only."""

    def __init__(self, database: Database, root: str, pauser: Pauser, holds: Holds, new_id: Callable[[], str]) -> None:
        self._database = database
        self._root = root
        self._pauser = pauser
        self._holds = holds
        self._pauses: Counter[str] = Counter()  # copies that each container is paused for
        self._new_id = new_id

    @asynccontextmanager
    async def job(self, place: str = "") -> AsyncIterator[Job]:
        """A directory to fill. What is still in it at the end is deleted."""
        job = self._new(place)
        try:
            os.makedirs(job.path, 0o700)
            _sync(os.path.dirname(job.path))
            with self._database.transaction(durable=True):
                self._insert(job)
            yield job
        finally:
            await self._end(job)

    def put(self, job: Job) -> None:
        """Rename the directory to its place: the last part of the transaction that writes its row, and undone with it.
        System where something is there that is no empty directory."""
        place = os.path.join(self._root, job.work.place)
        try:
            os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
            os.rename(job.path, place)
            self._database.if_undone(lambda: os.rename(place, job.path))
            _sync(os.path.dirname(place))
        except OSError as error:
            raise System(f"rename {job.path} {place}: {(error.strerror or str(error)).lower()}") from error
        self._database.execute("DELETE FROM volume_work WHERE id = ?", (job.id,))

    def set_aside(self, job: Job) -> None:
        """Clear a place that no row knows: an engine of before has left it so."""
        with suppress(FileNotFoundError):
            os.rename(os.path.join(self._root, job.work.place), job.path + _ASIDE)

    async def remove(self, place: str, forget: Callable[[], object]) -> None:
        """Delete what is in the place; `forget` deletes its row, in a transaction with the intent."""
        job = self._new(place)
        with self._database.transaction(durable=True):
            self._insert(job)
            forget()
        os.makedirs(os.path.dirname(job.path), 0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            os.rename(os.path.join(self._root, place), job.path)  # the place is free for others from here on
        await self._end(job)

    def _new(self, place: str) -> Job:
        identity = self._new_id()
        return Job(identity, os.path.join(self._root, _WORK, identity), Work(place))

    def _insert(self, job: Job) -> None:
        encoded = msgspec.json.encode(job.work)
        self._database.execute("INSERT INTO volume_work (id, record) VALUES (?, ?)", (job.id, encoded))

    async def _end(self, job: Job) -> None:
        """The intent first: without it, what is in `.work` is nobody's, and without that a place would be taken for
        ours."""
        with self._database.transaction(durable=False):
            self._database.execute("DELETE FROM volume_work WHERE id = ?", (job.id,))
        for path in (job.path, job.path + _ASIDE):
            await asyncio.to_thread(treedelete.delete, path)

    def users(self, volume: str) -> list[Container]:
        """The containers, running or not, that have it."""
        return [one for one in self._pauser.containers if _points(one, volume)]

    def writers(self, volume: str) -> list[Container]:
        """Those of them that can write to it."""
        return [one for one in self.users(volume) if any(point.rw for point in _points(one, volume))]

    def is_written(self, volume: str) -> bool:
        """Whether a container that can write to it runs, is paused or is about to start."""
        return any(one.alive or one.lock.locked() for one in self.writers(volume))

    async def wait_started(self, volume: str) -> None:
        """Until no container that has it is about to start, or to do anything else."""
        while locked := [one for one in self.users(volume) if one.lock.locked()]:
            async with locked[0].lock:
                pass

    @asynccontextmanager
    async def still(self, job: Job, volume: str, live: bool) -> AsyncIterator[None]:
        """Nobody writes to the volume meanwhile, unless `live`: containers that run are paused, those that are to start
        wait. System where one cannot be paused; Conflict, at the end, where one went on in spite of it."""
        if live:
            yield
            return
        paused: list[Container] = []
        marks: dict[Container, int] = {}
        try:
            await self._pause_writers(job, volume, paused)
            with self._holds.hold(volume):  # no wait has come in between: none of them runs
                marks = {one: one.transits for one in self.writers(volume) if one.status.state is State.PAUSED}
                yield
                for container, transits in marks.items():
                    if container.transits != transits:
                        raise Conflict(
                            f"container {container.name} was paused for the copy, and somebody has let it go on or "
                            "ended it; a live copy does without"
                        )
        finally:
            await self._release(paused, marks)
            self._note(job, [])

    async def _pause_writers(self, job: Job, volume: str, paused: list[Container]) -> None:
        """Until none of them runs or is about to; `paused` gets those that are to go on when this copy is made."""
        while True:
            for container in self.writers(volume):
                if container.status.state is State.PAUSED and self._pauses[container.id] and container not in paused:
                    self._share(job, container, paused)  # it is paused for another copy, too
            awake = [one for one in self.writers(volume) if one.lock.locked() or one.status.state is State.RUNNING]
            if not awake:
                return
            for container in awake:
                async with container.lock:
                    if container.status.state is not State.RUNNING:
                        continue
                    self._share(job, container, paused)
                    if not await self._pauser.pause(container) and container.status.state is State.RUNNING:
                        raise System(f"container {container.name} cannot be paused; a live copy does without")

    def _share(self, job: Job, container: Container, paused: list[Container]) -> None:
        if container not in paused:
            paused.append(container)
            self._pauses[container.id] += 1
        self._note(job, [one.id for one in paused])

    async def _release(self, paused: list[Container], marks: dict[Container, int]) -> None:
        """Those that wait for no other copy go on, but for those with which somebody has done something else."""
        for container in paused:
            async with container.lock:
                self._pauses -= Counter((container.id,))
                if not self._pauses[container.id] and marks.get(container, container.transits) == container.transits:
                    await self._resume(container)

    async def _resume(self, container: Container) -> None:
        try:
            await self._pauser.resume(container)
        except HafenError as error:
            log.error("container %s stays paused: %s", container.id, error.message)

    def _note(self, job: Job, paused: list[str]) -> None:
        job.work = Work(job.work.place, paused)
        with self._database.transaction(durable=False):
            self._database.execute(
                "UPDATE volume_work SET record = ? WHERE id = ?", (msgspec.json.encode(job.work), job.id)
            )

    async def recover(self) -> None:
        """Undo what a crash cut short; containers are connected again by now."""
        for identity, record in self._database.query("SELECT id, record FROM volume_work"):
            assert isinstance(record, bytes)
            work = msgspec.json.decode(record, type=Work)
            for one in work.paused:
                if (container := self._pauser.containers.lookup(one)) is not None:
                    await self._resume(container)
            log.warning("a copy of a volume was cut short; what there is of it goes")
            await asyncio.to_thread(self._clear, str(identity), work.place)
            self._database.execute("DELETE FROM volume_work WHERE id = ?", (identity,))
        await asyncio.to_thread(_sweep, os.path.join(self._root, _WORK))

    def _clear(self, identity: str, inside: str) -> None:
        """Delete what is in the place of an intent, where its directory has come to be there."""
        if not inside or os.path.lexists(os.path.join(self._root, _WORK, identity)):
            return
        place = os.path.join(self._root, inside)
        treedelete.delete(place)
        with suppress(OSError):
            os.rmdir(os.path.dirname(place))  # of a volume that has nothing else


def _sweep(directory: str) -> None:
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            treedelete.delete(os.path.join(directory, name))


def _sync(directory: str) -> None:
    """What was made or renamed in it is on disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _points(container: Container, volume: str) -> list[MountPoint]:
    return [point for point in container.record.mounts if point.type == "volume" and point.name == volume]
