"""Volumes: create, list, inspect, remove, prune, and what a container mounts of them.

A local volume is a row and the directory `<data>/volumes/<name>/_data`. Removal writes its intent first, renames the
directory away, deletes the row, then the files: `recover` finishes what a crash cut short, and files that no intent
covers are never touched.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable, Sequence

import msgspec

from hafen.engine.events import Events
from hafen.errors import NOT_A_MANAGER, Conflict, InvalidArgument, NotFound, NotImplemented, Unavailable
from hafen.spec import names, units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.wire.volume import Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse, VolumeUsage
from hafen.storage.database import Database

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_REMOVING = ".removing-"
_LIST_FILTERS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_FILTERS = frozenset(("all", "label", "label!"))
_OPTIONS = frozenset(("type", "device", "o", "size"))


class VolumeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A local volume. `options` are the local driver's: type, device, o."""

    name: str
    created_at: str
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in (self.labels or {})


class Volumes:
    """All volumes; loop thread only. `users` tells the ids of the containers that mount a volume."""

    def __init__(
        self,
        database: Database,
        root: str,
        events: Events,
        users: Callable[[str], list[str]],
        new_id: Callable[[], str],
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._root = root
        self._events = events
        self._users = users
        self._new_id = new_id
        self._clock = clock
        self._records: dict[str, VolumeRecord] = {}

    def load(self) -> None:
        """Read the rows and finish what a crash cut short; called once."""
        os.makedirs(self._root, mode=0o701, exist_ok=True)
        for name, record, removing in self._database.query("SELECT name, record, removing FROM volumes"):
            assert isinstance(name, str)
            assert isinstance(record, bytes)
            self._records[name] = msgspec.json.decode(record, type=VolumeRecord)
            if removing:
                self._delete(self._records[name])
        for entry in os.scandir(self._root):
            if entry.name.startswith(_REMOVING):
                shutil.rmtree(entry.path, ignore_errors=True)

    def path(self, name: str) -> str:
        """The directory that is mounted; it exists when this returns."""
        directory = os.path.join(self._root, name, "_data")
        if not os.path.isdir(directory):
            os.makedirs(directory, exist_ok=True)
            os.chmod(os.path.dirname(directory), 0o701)
            os.chmod(directory, 0o755)
        return directory

    def names(self) -> frozenset[str]:
        """Of all volumes."""
        return frozenset(self._records)

    def directories(self) -> frozenset[str]:
        """Names of all directories that volumes have, or had, or that somebody has put beside theirs."""
        return frozenset(name for name in os.listdir(self._root) if not name.startswith(_REMOVING))

    def without_files(self) -> frozenset[str]:
        """Names of the volumes whose directory is not there."""
        return frozenset(name for name in self._records if not os.path.isdir(os.path.join(self._root, name, "_data")))

    def get(self, name: str) -> VolumeRecord:
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def ensure(
        self, name: str, driver: str, labels: dict[str, str] | None, options: dict[str, str] | None
    ) -> tuple[VolumeRecord, bool]:
        """The volume of that name, made where there was none (then the second value is true).

        An empty name makes an anonymous one. Part of the caller's transaction where one is open.
        """
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        if name and (known := self._records.get(name)) is not None:
            return known, False
        if not name:
            name, labels = self._new_id(), {ANONYMOUS_LABEL: "", **(labels or {})}
        names.check_volume_name(name)
        _check_options(name, options)
        created = units.format_timestamp(self._clock() // 1_000_000_000 * 1_000_000_000)
        record = VolumeRecord(name=name, created_at=created, labels=labels, options=options or None)
        self._database.execute("INSERT INTO volumes (name, record) VALUES (?, ?)", (name, msgspec.json.encode(record)))
        self._records[name] = record
        self.path(name)
        self._events.publish("volume", "create", name, {"driver": "local"})
        return record, True

    def discard(self, records: Iterable[VolumeRecord]) -> None:
        """Undo `ensure` after its transaction was rolled back."""
        for record in records:
            self._records.pop(record.name, None)
            shutil.rmtree(os.path.join(self._root, record.name), ignore_errors=True)

    async def create(self, request: VolumeCreateRequest) -> Volume:
        if request.cluster_volume_spec is not None:
            raise Unavailable(NOT_A_MANAGER)  # such volumes are Swarm's
        with self._database.transaction(durable=True):
            record, _ = self.ensure(request.name, request.driver, request.labels, request.driver_opts)
        return self.show(record)

    async def inspect(self, name: str) -> Volume:
        return self.show(self.get(name))

    async def list(self, filters: Filters = NO_FILTERS) -> VolumeListResponse:
        filters.check(_LIST_FILTERS)
        dangling = filters.flag("dangling", False) if "dangling" in filters else None
        found = []
        for record in sorted(self._records.values(), key=lambda record: record.name):
            if "name" in filters and not any(want in record.name for want in filters.get("name")):
                continue
            if not filters.matches_any("driver", "local") or not filters.matches_labels(record.labels):
                continue
            if dangling is not None and dangling == bool(self._users(record.name)):
                continue
            found.append(self.show(record))
        return VolumeListResponse(volumes=found, warnings=None)

    async def remove(self, name: str, force: bool = False) -> None:
        record = self._records.get(name)
        if record is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        users = self._users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await self._remove(record)

    async def remove_anonymous(self, candidates: Iterable[str]) -> None:
        """Remove those of the named volumes that are anonymous and that no container uses."""
        for name in candidates:
            record = self._records.get(name)
            if record is not None and record.anonymous and not self._users(name):
                await self._remove(record)

    async def prune(self, filters: Filters = NO_FILTERS) -> VolumePruneResponse:
        filters.check(_PRUNE_FILTERS)
        try:
            every = filters.flag("all", False)
        except InvalidArgument:
            value = filters.get("all")[0]
            raise InvalidArgument(
                f"invalid filter 'all': strconv.ParseBool: parsing \"{value}\": invalid syntax"
            ) from None
        deleted, reclaimed = [], 0
        for record in list(self._records.values()):
            if self._users(record.name) or not (every or record.anonymous):
                continue
            if not filters.matches_labels(record.labels) or filters.excludes_labels(record.labels):
                continue
            reclaimed += await asyncio.to_thread(_size, os.path.join(self._root, record.name))
            await self._remove(record)
            deleted.append(record.name)
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return VolumePruneResponse(volumes_deleted=deleted, space_reclaimed=reclaimed)

    async def usage(self) -> Sequence[Volume]:
        """Every volume with its size and the number of containers that use it."""
        found = []
        for record in list(self._records.values()):
            size = await asyncio.to_thread(_size, os.path.join(self._root, record.name))
            usage = VolumeUsage(ref_count=len(self._users(record.name)), size=size)
            found.append(msgspec.structs.replace(self.show(record), usage_data=usage))
        return found

    def show(self, record: VolumeRecord) -> Volume:
        return Volume(
            created_at=record.created_at,
            driver="local",
            labels=record.labels,
            mountpoint=os.path.join(self._root, record.name, "_data"),
            name=record.name,
            options=record.options,
            scope="local",
        )

    async def _remove(self, record: VolumeRecord) -> None:
        with self._database.transaction(durable=True):
            self._database.execute("UPDATE volumes SET removing = 1 WHERE name = ?", (record.name,))
        trash = self._delete(record)
        self._events.publish("volume", "destroy", record.name, {"driver": "local"})
        await asyncio.to_thread(shutil.rmtree, trash, True)

    def _delete(self, record: VolumeRecord) -> str:
        """Rename the files away and delete the row; returns where the files are now."""
        trash = os.path.join(self._root, f"{_REMOVING}{record.name}")
        try:
            os.rename(os.path.join(self._root, record.name), trash)
        except FileNotFoundError:
            pass  # a crash came after the rename
        with self._database.transaction(durable=False):
            self._database.execute("DELETE FROM volumes WHERE name = ?", (record.name,))
        self._records.pop(record.name, None)
        return trash


def _check_options(name: str, options: dict[str, str] | None) -> None:
    """moby `volume/local/local_unix.go`."""
    if not options:
        return
    for option in options:
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    if "size" in options:
        raise NotImplemented("quotas on local volumes (option size) are not implemented yet")
    for needed in ("type", "device"):
        if needed not in options:
            raise InvalidArgument(f'create {name}: missing required option: "{needed}"')


def _size(directory: str) -> int:
    """Bytes of the files below a directory; what vanishes meanwhile does not count."""
    total = 0
    pending = [directory]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total
