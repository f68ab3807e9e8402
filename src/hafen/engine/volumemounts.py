"""Who uses a volume, and its mount: there with its first user, gone with its last.

A plain local volume is its directory and takes no part in this. All others are mounted once for all their users.
Before a mount the row says so (`mountpoint` is not NULL), so that an engine that starts after a crash knows what may
be mounted: what living containers use is theirs, the rest is unmounted.

`release` cannot wait, for it is called when a container exits; the unmount follows as a task. Between the two another
container may come: the task looks again, under the volume's lock, whether anybody is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from hafen.engine.scope import Scope
from hafen.engine.volumerecords import VolumeRecord
from hafen.errors import HafenError, System
from hafen.storage.database import Database
from hafen.storage.volumes import Drivers, VolumeDriver

log = logging.getLogger(__name__)

T = TypeVar("T")

# A server that is away holds a mount's thread for minutes. These threads are the volumes' own, so that nothing else
# of the engine has to wait for them.
_THREADS = 16


@dataclass(slots=True)
class _Use:
    """`mountpoint` is None where it is not mounted."""

    users: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    mountpoint: str | None = None


class VolumeMounts:
    """Mounts of volumes; loop thread only, drivers are called in threads."""

    def __init__(self, database: Database, drivers: Drivers, scope: Scope) -> None:
        self._database = database
        self._drivers = drivers
        self._scope = scope
        self._uses: dict[str, _Use] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="volumes")

    def close(self) -> None:
        """Nothing is waited for: a mount that hangs would hold the engine."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """A call of a driver that may block. OSError becomes System."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        except OSError as error:
            raise System(f"{error.filename or 'volume driver'}: {error.strerror or error}") from error

    async def driver(self, record: VolumeRecord) -> VolumeDriver:
        """Errors: as `find`'s, where its plug-in is away."""
        own = self._own(record)
        return await self.in_thread(self._drivers.find, record.driver) if own is None else own

    def _own(self, record: VolumeRecord) -> VolumeDriver | None:
        """Its driver, where that is part of the engine."""
        return next((one for one in self._drivers.built_in() if one.name == record.driver), None)

    def mountpoint(self, record: VolumeRecord) -> str:
        """Where it is, as far as is known without asking anybody."""
        use = self._uses.get(record.name)
        if use is not None and use.mountpoint:
            return use.mountpoint
        own = self._own(record)
        return "" if own is None else own.path(record.volume)

    async def mount(self, record: VolumeRecord, user: str) -> str:
        """The path at which `user` (a container's id) has the volume until `release`. Errors: the driver's."""
        own = self._own(record)
        if own is not None and not own.needs_mount(record.volume):
            return own.mount(record.volume)
        use = self._uses.setdefault(record.name, _Use())
        use.users.add(user)
        try:
            async with use.lock:
                if use.mountpoint is None:
                    use.mountpoint = await self._mount(record)
                return use.mountpoint
        except BaseException:
            self.release(record, user)
            raise

    async def _mount(self, record: VolumeRecord) -> str:
        driver = await self.driver(record)
        self._note(record.name, "")
        try:
            mountpoint = await self.in_thread(driver.mount, record.volume)
        except HafenError:
            self._note(record.name, None)
            raise
        self._note(record.name, mountpoint)
        return mountpoint

    def release(self, record: VolumeRecord, user: str) -> None:
        """It is used no more; harmless where it was not. The last one's leaving unmounts it, soon."""
        use = self._uses.get(record.name)
        if use is None or user not in use.users:
            return
        use.users.discard(user)
        if not use.users:
            self._scope.start(self._unmount(record, use), f"unmount volume {record.name}")

    @asynccontextmanager
    async def mounted(self, record: VolumeRecord, user: str) -> AsyncIterator[str]:
        """The volume's path for the time of a piece of work; `user` is a name for that."""
        path = await self.mount(record, user)
        try:
            yield path
        finally:
            self.release(record, user)

    async def settle(self, record: VolumeRecord) -> None:
        """Wait until it is unmounted, if nobody uses it."""
        use = self._uses.get(record.name)
        if use is not None:
            await self._unmount(record, use)

    async def _unmount(self, record: VolumeRecord, use: _Use) -> None:
        async with use.lock:
            if use.users or use.mountpoint is None:
                return
            try:
                driver = await self.driver(record)
                await self.in_thread(driver.unmount, record.volume)
            except HafenError as error:
                log.warning("volume %s stays mounted: %s", record.name, error.message)
                return
            use.mountpoint = None
            self._note(record.name, None)

    def _note(self, name: str, mountpoint: str | None) -> None:
        with self._database.transaction(durable=False):
            self._database.execute("UPDATE volumes SET mountpoint = ? WHERE name = ?", (mountpoint, name))

    def recover(self, records: Iterable[VolumeRecord], users: Mapping[str, Iterable[str]]) -> None:
        """After a start: `users` are the living containers of each volume. What was mounted for others goes."""
        mounted = self._database.query("SELECT name, mountpoint FROM volumes WHERE mountpoint IS NOT NULL")
        by_name = {record.name: record for record in records}
        for name, mountpoint in mounted:
            record = by_name.get(str(name))
            if record is None:
                continue
            use = _Use(set(users.get(record.name, ())), mountpoint=str(mountpoint))
            self._uses[record.name] = use
            if not use.users:
                self._scope.start(self._unmount(record, use), f"unmount volume {record.name}")

    def forget(self, name: str) -> None:
        """It has been removed."""
        self._uses.pop(name, None)
