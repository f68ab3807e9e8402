"""Volumes: create, list, inspect, remove, prune.

A volume is a row and what its driver keeps. Removal writes its intent first, lets the driver remove it, deletes the
row, then the files: `load` and `recover` finish what a crash cut short, and files that no intent covers are never
touched.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from hafen.engine.events import Events
from hafen.engine.volumeholds import Holds
from hafen.engine.volumemounts import VolumeMounts
from hafen.engine.volumerecords import ANONYMOUS_LABEL, PLAIN_REMOVAL, PROTECTED_LABEL, Removal, VolumeRecord
from hafen.errors import NOT_A_MANAGER, Conflict, HafenError, InvalidArgument, NotFound, System, Unavailable
from hafen.spec import names, units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.wire.volume import Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse, VolumeUsage
from hafen.storage.database import Database
from hafen.storage.volumes import Drivers, Found, VolumeDriver, explained, size_of

log = logging.getLogger(__name__)

_LIST_FILTERS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_FILTERS = frozenset(("all", "label", "label!"))


class Volumes:
    """All volumes; loop thread only. `users` tells the ids of the containers that have a volume among their mounts."""

    def __init__(
        self,
        database: Database,
        drivers: Drivers,
        mounts: VolumeMounts,
        events: Events,
        users: Callable[[str], list[str]],
        new_id: Callable[[], str],
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._drivers = drivers
        self.mounts = mounts
        self._events = events
        self._users = users
        self._new_id = new_id
        self._clock = clock
        self._records: dict[str, VolumeRecord] = {}
        self._removing: set[str] = set()
        self.holds = Holds()

    def load(self) -> None:
        """Read the rows; called once."""
        for name, record, removing in self._database.query("SELECT name, record, removing FROM volumes"):
            assert isinstance(name, str)
            assert isinstance(record, bytes)
            self._records[name] = msgspec.json.decode(record, type=VolumeRecord)
            if removing:
                self._removing.add(name)

    async def recover(self, users: Mapping[str, Iterable[str]]) -> None:
        """Finish what a crash cut short. `users` are the ids of the living containers of each volume."""
        self.mounts.recover(self._records.values(), users)
        for name in tuple(self._removing):
            try:
                await self._remove(self._records[name])
            except HafenError as error:
                log.warning("volume %s cannot be removed: %s", name, error.message)
        for found in self._drivers.find("local").list():
            if found.name not in self._records:  # a volume that was about to be made; what has files stays
                _take_back(found.mountpoint)

    def records(self) -> list[VolumeRecord]:
        return sorted(self._records.values(), key=lambda record: record.name)

    def names(self) -> frozenset[str]:
        """Of all volumes."""
        return frozenset(self._records)

    def directories(self) -> frozenset[str]:
        """Names of all directories that local volumes have, or had, or that somebody has put beside theirs."""
        return frozenset(found.name for found in self._drivers.find("local").list())

    def without_files(self) -> frozenset[str]:
        """Names of the local volumes whose directory is not there."""
        local = self._drivers.find("local")
        return frozenset(
            name for name, record in self._records.items() if record.driver == "local" and local.get(name) is None
        )

    def remake(self, name: str) -> None:
        """The directory of a local volume that has lost it."""
        self._drivers.find("local").create(self.get(name).volume)

    def get(self, name: str) -> VolumeRecord:
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def find(self, name: str) -> VolumeRecord | None:
        return self._records.get(name)

    @contextmanager
    def busy(self, name: str, alone: bool = False) -> Iterator[VolumeRecord]:
        """Something is done with the volume that a removal must not come into, nor anything else where `alone`."""
        record = self.get(name)
        if name in self._removing:
            raise Conflict(f"get {name}: the volume is being removed")
        with self.holds.busy(name, alone):
            yield record

    def users(self, name: str) -> list[str]:
        """Ids of the containers, running or not, that have it among their mounts."""
        return self._users(name)

    async def prepare(self, name: str, driver: str, options: Mapping[str, str] | None) -> tuple[str, str]:
        """What must be done before `ensure`, outside of any transaction: a driver that is no directory of ours makes
        the volume. Returns its name, a new one where it had none, and its driver. Errors: the driver's, and Conflict.
        """
        known = self._records.get(name) if name else None
        if name:
            names.check_volume_name(name)
        if not driver:
            driver = known.driver if known else await self._holder(name) if name else "local"
        name = name or self._new_id()
        try:
            found = await self._find(driver)
        except HafenError as error:
            raise explained(error, f"create {name}: error looking up volume plugin {driver}") from error
        if known is not None and known.driver != found.name:
            raise Conflict(
                f"create {name}: driver '{known.driver}' already has volume '{name}': volume name must be unique"
            )
        if known is None and not found.instant:
            wanted = VolumeRecord(name, "", options=dict(options or {}))
            try:
                if await self.mounts.in_thread(found.get, name) is None:
                    await self.mounts.in_thread(found.create, wanted.volume)
            except HafenError as error:
                raise explained(error, f"create {name}") from error
        return name, found.name

    async def _holder(self, name: str) -> str:
        """The driver of a volume that was not made here: a plug-in that knows it, else `local`."""
        for driver in await self._others():
            if await self.mounts.in_thread(driver.get, name) is not None:
                return driver.name
        return "local"

    def ensure(
        self, name: str, driver: str, labels: dict[str, str] | None, options: dict[str, str] | None,
        *, anonymous: bool = False,
    ) -> tuple[VolumeRecord, bool]:  # fmt: skip
        """The volume of that name, made where there was none (then the second value is true); after `prepare`.

        Part of the caller's transaction, and undone with it. A directory that is there already becomes the volume with
        all it has, as with Docker, and counts as not made: no undoing takes it away. Nor does it a plug-in's volume,
        which may be older than what is known of it here, unless its name is new.
        """
        if (known := self._records.get(name)) is not None:
            if name in self._removing:
                raise Conflict(f"create {name}: the volume is being removed")
            return known, False
        if anonymous:
            labels = {ANONYMOUS_LABEL: "", **(labels or {})}
        created = units.format_timestamp(self._clock() // 1_000_000_000 * 1_000_000_000)
        record = VolumeRecord(name, created, _sorted(labels), _sorted(options), driver)
        local = next((one for one in self._drivers.built_in() if one.name == driver), None)
        made = anonymous if local is None else self._make(local, record)
        self._database.execute("INSERT INTO volumes (name, record) VALUES (?, ?)", (name, msgspec.json.encode(record)))
        self._database.if_undone(lambda: self._records.__delitem__(name))
        self._records[name] = record
        self._events.publish("volume", "create", name, {"driver": record.driver})
        return record, made

    def _make(self, driver: VolumeDriver, record: VolumeRecord) -> bool:
        """The volume's directory; whether there was none."""
        made = driver.get(record.name) is None
        if made:
            self._database.if_undone(lambda: _take_back(driver.path(record.volume)))
        try:
            driver.create(record.volume)
        except (HafenError, OSError) as error:
            raise explained(_translated(error), f"create {record.name}") from error
        return made

    async def discard(self, records: Iterable[VolumeRecord]) -> None:
        """Volumes that plug-ins made for `ensure`, whose transaction was undone."""
        for record in records:
            driver = await self.mounts.driver(record)
            if not driver.instant:
                await self._call(driver, driver.remove, record)

    async def create(self, request: VolumeCreateRequest) -> Volume:
        if request.cluster_volume_spec is not None:
            raise Unavailable(NOT_A_MANAGER)  # such volumes are Swarm's
        name, driver = await self.prepare(request.name, request.driver, request.driver_opts)
        with self._database.transaction(durable=True):
            record, _ = self.ensure(name, driver, request.labels, request.driver_opts, anonymous=not request.name)
        return await self.inspect(record.name)

    async def inspect(self, name: str) -> Volume:
        record = self._records.get(name)
        if record is None:
            return await self._foreign(name)
        shown = self.show(record)
        if record.driver == "local":
            return shown
        try:
            driver = await self.mounts.driver(record)
        except HafenError as error:
            raise explained(error, f"get {name}: error looking up volume plugin {record.driver}") from error
        found = await self.mounts.in_thread(driver.get, name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return _shown(driver, found, shown)

    async def _foreign(self, name: str) -> Volume:
        """A volume that a plug-in knows and that was not made here."""
        for driver in await self._others():
            found = await self.mounts.in_thread(driver.get, name)
            if found is not None:
                return _shown(driver, found, Volume(name=name))
        raise NotFound(f"get {name}: no such volume")

    async def list(self, filters: Filters = NO_FILTERS) -> VolumeListResponse:
        filters.check(_LIST_FILTERS)
        dangling = filters.flag("dangling", False) if "dangling" in filters else None
        shown, warnings = await self._all()
        found = []
        for volume in sorted(shown, key=lambda volume: volume.name):
            if "name" in filters and not any(want in volume.name for want in filters.get("name")):
                continue
            if not filters.matches_any("driver", volume.driver) or not filters.matches_labels(volume.labels):
                continue
            if dangling is not None and dangling == bool(self._users(volume.name)):
                continue
            found.append(volume)
        return VolumeListResponse(volumes=found, warnings=[*warnings] or None)

    async def _all(self) -> tuple[Sequence[Volume], Sequence[str]]:
        """Those made here and those that plug-ins know of; and warnings about plug-ins that do not answer."""
        shown = {record.name: self.show(record) for record in self._records.values()}
        warnings = []
        for driver in await self._others():
            try:
                for found in await self.mounts.in_thread(driver.list):
                    shown[found.name] = _shown(driver, found, shown.get(found.name) or Volume(name=found.name))
            except HafenError as error:
                warnings.append(f"list volumes of {driver.name}: {error.message}")
        return list(shown.values()), warnings

    async def _others(self) -> Sequence[VolumeDriver]:
        """Drivers whose volumes are not all known here."""
        return [one for one in await self.mounts.in_thread(self._drivers.known) if not one.instant]

    async def driver_names(self) -> Sequence[str]:
        return [driver.name for driver in await self.mounts.in_thread(self._drivers.known)]

    async def remove(self, name: str, how: Removal = PLAIN_REMOVAL) -> None:
        """Conflict where containers have it, or where it is protected and `how` does not say otherwise."""
        record = self._records.get(name)
        if record is None:
            if how.force:
                return
            raise NotFound(f"get {name}: no such volume")
        users = self._users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        if name in self._removing or self.holds.is_busy(name):
            raise Conflict(f"remove {name}: the volume is being {'removed' if name in self._removing else 'copied'}")
        if record.protected and not how.unprotected:
            raise Conflict(
                f"remove {name}: the volume is protected by its label {PROTECTED_LABEL}; "
                "hafen volume rm --force-protected removes it"
            )
        if not how.dry_run:
            await self._remove(record, lost=how.force)

    async def remove_anonymous(self, candidates: Iterable[str]) -> None:
        """Remove those of the named volumes that are anonymous, not protected, and that no container uses."""
        for name in candidates:
            record = self._records.get(name)
            if record is not None and record.anonymous and self._is_free(record):
                await self._removed(record)

    def _is_free(self, record: VolumeRecord, how: Removal = PLAIN_REMOVAL) -> bool:
        """Whether it is still there, nobody has it and nothing protects it."""
        name = record.name
        here = self._records.get(name) is record and name not in self._removing
        return (
            here
            and not self._users(name)
            and not self.holds.is_busy(name)
            and (how.unprotected or not record.protected)
        )

    async def prune(self, filters: Filters = NO_FILTERS, how: Removal = PLAIN_REMOVAL) -> VolumePruneResponse:
        """As Docker: local volumes without options of their own, for what those are made of may be anybody's."""
        filters.check(_PRUNE_FILTERS)
        try:
            every = filters.flag("all", False)
        except InvalidArgument:
            value = filters.get("all")[0]
            raise InvalidArgument(
                f"invalid filter 'all': strconv.ParseBool: parsing \"{value}\": invalid syntax"
            ) from None
        deleted, reclaimed = [], 0
        for record in self.records():
            if not self._is_free(record, how) or not (every or record.anonymous) or not _plain(record):
                continue
            if not filters.matches_labels(record.labels) or filters.excludes_labels(record.labels):
                continue
            size = await asyncio.to_thread(size_of, self.mounts.mountpoint(record))
            if not self._is_free(record, how):  # it has come into use while its files were counted
                continue
            if how.dry_run or await self._removed(record):
                deleted.append(record.name)
                reclaimed += size
        if not how.dry_run:
            self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return VolumePruneResponse(volumes_deleted=deleted, space_reclaimed=reclaimed)

    async def usage(self) -> Sequence[Volume]:
        """Every plain local volume with its size and the number of containers that use it."""
        found = []
        for record in self.records():
            if not _plain(record):
                continue
            size = await asyncio.to_thread(size_of, self.mounts.mountpoint(record))
            usage = VolumeUsage(ref_count=len(self._users(record.name)), size=size)
            found.append(msgspec.structs.replace(self.show(record), usage_data=usage))
        return found

    def show(self, record: VolumeRecord) -> Volume:
        return Volume(
            created_at=record.created_at,
            driver=record.driver,
            labels=record.labels,
            mountpoint=self.mounts.mountpoint(record),
            name=record.name,
            options=record.options,
            scope="local",
        )

    def source(self, name: str) -> str:
        """Where a container's volume is on the host, as `inspect` shows it; empty where nobody knows."""
        record = self._records.get(name)
        return "" if record is None else self.mounts.mountpoint(record)

    async def _removed(self, record: VolumeRecord) -> bool:
        """Remove one of several: what cannot be removed stays, and does not keep the others, as with Docker."""
        try:
            await self._remove(record)
        except HafenError as error:
            log.warning("%s", error.message)
            return False
        return True

    async def _remove(self, record: VolumeRecord, lost: bool = False) -> None:
        """`lost`: also where its driver is away or does not know it."""
        name = record.name
        self._removing.add(name)
        with self._database.transaction(durable=True):
            self._database.execute("UPDATE volumes SET removing = 1 WHERE name = ?", (name,))
        rest: Callable[[], None] | None = None
        try:
            await self.mounts.settle(record)
            driver = await self.mounts.driver(record)
            rest = await self._call(driver, driver.remove, record)
        except HafenError as error:
            if not lost:
                self._removing.discard(name)
                with self._database.transaction(durable=True):
                    self._database.execute("UPDATE volumes SET removing = 0 WHERE name = ?", (name,))
                raise explained(error, f"remove {name}") from error
        with self._database.transaction(durable=False):
            self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
        self._records.pop(name, None)
        self._removing.discard(name)
        self.mounts.forget(name)
        self._events.publish("volume", "destroy", name, {"driver": record.driver})
        if rest is not None:
            await asyncio.to_thread(rest)

    async def _find(self, driver: str) -> VolumeDriver:
        if driver == "local":
            return self._drivers.find(driver)
        return await self.mounts.in_thread(self._drivers.find, driver)

    async def _call(
        self,
        driver: VolumeDriver,
        function: Callable[..., Callable[[], None] | None],
        record: VolumeRecord,
    ) -> Callable[[], None] | None:
        """At once where the driver is instant: then nothing else happens in between."""
        if driver.instant:
            try:
                return function(record.volume)
            except OSError as error:
                raise _translated(error) from error
        return await self.mounts.in_thread(function, record.volume)


def _translated(error: HafenError | OSError) -> HafenError:
    if isinstance(error, HafenError):
        return error
    return System(f"{error.filename or 'volume driver'}: {(error.strerror or str(error)).lower()}")


def _take_back(directory: str) -> None:
    """A new volume's `_data`, and what it lies in. What has files stays."""
    for path in (directory, os.path.dirname(directory)):
        with suppress(OSError):
            os.rmdir(path)


def _sorted(words: dict[str, str] | None) -> dict[str, str] | None:
    """As Go writes a map."""
    return None if words is None else dict(sorted(words.items()))


def _plain(record: VolumeRecord) -> bool:
    return record.driver == "local" and not record.options


def _shown(driver: VolumeDriver, found: Found, known: Volume) -> Volume:
    """What the driver says, over what is known here."""
    return msgspec.structs.replace(
        known,
        driver=driver.name,
        scope=driver.scope,
        mountpoint=found.mountpoint or known.mountpoint,
        created_at=known.created_at or found.created_at or units.ZERO_TIME,
        status=dict(found.status),
    )
