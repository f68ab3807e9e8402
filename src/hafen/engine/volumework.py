"""Copies of volumes while they are made: the directory that is being filled, and who is paused for it.

    intent          a row, with the ids of the containers that are about to be paused
    fill            <volumes>/.work/<id>, which nobody sees
    done            one transaction: the directory is renamed to its place, its row comes, the intent goes

What a start of the engine finds of intents a crash cut short: the directory goes, the containers go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from hafen.engine.pausing import Pauser
from hafen.engine.records import Container
from hafen.errors import HafenError, System
from hafen.spec.lifecycle import State
from hafen.storage.database import Database
from hafen.storage.volumes import data_directory

log = logging.getLogger(__name__)

_WORK = ".work"


class Work(msgspec.Struct, frozen=True):
    """`creates` is the volume that comes to be, empty where none does; `paused` are ids of containers."""

    creates: str = ""
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

    def __init__(self, database: Database, root: str, pauser: Pauser, new_id: Callable[[], str]) -> None:
        self._database = database
        self._root = root
        self._pauser = pauser
        self._new_id = new_id

    @asynccontextmanager
    async def job(self, creates: str = "") -> AsyncIterator[Job]:
        """A directory to fill. What is still in it at the end is deleted."""
        identity = self._new_id()
        job = Job(identity, os.path.join(self._root, _WORK, identity), Work(creates))
        with self._database.transaction(durable=True):
            encoded = msgspec.json.encode(job.work)
            self._database.execute("INSERT INTO volume_work (id, record) VALUES (?, ?)", (job.id, encoded))
        try:
            os.makedirs(job.path, 0o700)
            yield job
        finally:
            await asyncio.to_thread(shutil.rmtree, job.path, True)
            with self._database.transaction(durable=False):
                self.finish(job)

    def finish(self, job: Job) -> None:
        """The intent goes: part of the transaction that puts the directory in its place."""
        self._database.execute("DELETE FROM volume_work WHERE id = ?", (job.id,))

    def writers(self, volume: str) -> list[Container]:
        """The running containers that can write to it."""
        return [one for one in self._pauser.containers if _writes(one, volume)]

    @asynccontextmanager
    async def still(self, job: Job, volume: str, live: bool) -> AsyncIterator[None]:
        """The running containers that can write to the volume are paused meanwhile, unless `live`. System where one
        cannot be."""
        users = [] if live else self.writers(volume)
        if not users:
            yield
            return
        self._note(job, Work(job.work.creates, [one.id for one in users]))
        try:
            for container in users:
                async with container.lock:
                    if not await self._pauser.pause(container) and container.status.state is State.RUNNING:
                        raise System(f"container {container.name} cannot be paused; a live copy does without")
            yield
        finally:
            await self._resume(users)
            self._note(job, Work(job.work.creates))

    async def _resume(self, users: list[Container]) -> None:
        for container in users:
            async with container.lock:
                try:
                    await self._pauser.resume(container)
                except HafenError as error:
                    log.error("container %s stays paused: %s", container.id, error.message)

    def _note(self, job: Job, work: Work) -> None:
        job.work = work
        with self._database.transaction(durable=False):
            self._database.execute(
                "UPDATE volume_work SET record = ? WHERE id = ?", (msgspec.json.encode(work), job.id)
            )

    async def recover(self) -> None:
        """Undo what a crash cut short; containers are connected again by now."""
        for identity, record in self._database.query("SELECT id, record FROM volume_work"):
            assert isinstance(record, bytes)
            work = msgspec.json.decode(record, type=Work)
            found = [self._pauser.containers.lookup(one) for one in work.paused]
            await self._resume([container for container in found if container is not None])
            log.warning("a copy of a volume was cut short; what there is of it goes")
            leftovers = [os.path.join(self._root, _WORK, str(identity))]
            if work.creates and self._database.row("SELECT 1 FROM volumes WHERE name = ?", (work.creates,)) is None:
                leftovers.append(os.path.dirname(data_directory(self._root, work.creates)))
            for path in leftovers:
                await asyncio.to_thread(shutil.rmtree, path, True)
            self._database.execute("DELETE FROM volume_work WHERE id = ?", (identity,))


def _writes(container: Container, volume: str) -> bool:
    if container.status.state is not State.RUNNING:
        return False
    return any(point.type == "volume" and point.name == volume and point.rw for point in container.record.mounts)
