"""Create a container: resolve the image, merge configurations, make snapshot, volumes and record in one transaction.

Everything that is checked is checked before anything is made. Then one transaction holds the snapshot's row, the
volumes' rows and the container's: after a crash either all of it is there or none, and directories without a row are
removed by the snapshotter's and `recover`'s sweep.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from hafen.engine import guests, hostconfig, limits, links, logconfig, specgen, targets
from hafen.engine.copyup import CopyUp
from hafen.engine.events import Events
from hafen.engine.hostfacts import TINI, HostFacts
from hafen.engine.networks import Networks
from hafen.engine.records import Container, Containers, Record
from hafen.engine.volumerecords import Removal, VolumeRecord
from hafen.engine.volumes import Volumes
from hafen.errors import Conflict, InvalidArgument, NotFound, System
from hafen.logs.driver import LogDriver
from hafen.spec import mounts, names
from hafen.spec import platform as platforms
from hafen.spec.mounts import MountPoint
from hafen.spec.wire.container import ContainerConfig, CreateRequest, CreateResponse
from hafen.spec.wire.hostconfig import HostConfig, LogConfig
from hafen.spec.wire.image import HealthConfig, ImageConfig
from hafen.storage.database import Database

if TYPE_CHECKING:
    from hafen.engine.images import Image, Images
    from hafen.storage.snapshot import Snapshotter

_CONFIG_FIELDS = tuple(field.name for field in msgspec.structs.fields(ContainerConfig))


def new_id() -> str:
    """A fresh 64-hex id whose short form is never a number (tools read that as one)."""
    while (text := secrets.token_hex(32))[:12].isdecimal():
        pass
    return text


@dataclass(frozen=True, slots=True)
class Creator:
    """`Services.create`. `has_limit` tells whether the cgroups of this machine have a file."""

    database: Database
    containers: Containers
    images: Images
    snapshotter: Snapshotter
    volumes: Volumes
    copy_up: CopyUp
    networks: Networks
    events: Events
    host: HostFacts
    runtimes: Collection[str]
    default_log: LogConfig
    log_drivers: Mapping[str, LogDriver]
    has_limit: Callable[[str], bool]

    async def create(self, name: str | None, request: CreateRequest, platform: str | None = None) -> CreateResponse:
        if request == CreateRequest():
            raise InvalidArgument("config cannot be empty in order to create a container")
        wanted = request.host_config or HostConfig()
        if not wanted.runtime and request.runtime in self.runtimes:
            wanted = msgspec.structs.replace(wanted, runtime=request.runtime)
        config = ContainerConfig(**{field: getattr(request, field) for field in _CONFIG_FIELDS})
        hostconfig.check_config(config)
        hostconfig.check_host_config(wanted, config, self.host, self.runtimes)
        guests.check_options(config, wanted, bool(config.hostname))
        if wanted.init and not self.host.init:
            raise System(f"--init needs {TINI}, which is not installed here; install Debian's package tini")
        image = self._image(config.image, platform)
        config = merge(config, image.config)
        path, args = command(config)
        self._check_others(wanted)
        wanted, discarded = limits.fit(hostconfig.complete(wanted, self.host), self.host.cgroup_version, self.has_limit)
        log = logconfig.completed(wanted.log_config, self.default_log, self.log_drivers)
        linked = links.requested(self.containers, wanted)
        networks = self.networks.check_networks(wanted, request.networking_config, config)
        # Links are the record's, and follow renames.
        wanted = msgspec.structs.replace(wanted, log_config=log, links=None, **self._others_by_id(wanted))
        points = self._mount_points(config, wanted)
        container_id = new_id()
        if name:
            name = names.check_container_name(name)
            self.containers.check_name(name)
        else:
            name = names.random_name(secrets.choice, self.containers.name_taken)
        record = Record(
            id=container_id,
            name=name,
            created_ns=time.time_ns(),
            image=config.image,
            image_id=str(image.id),
            config=_named_hostname(config, wanted, container_id, self._network_owner(wanted), self.host),
            host_config=wanted,
            path=path,
            args=args,
            snapshotter=self.snapshotter.name,
            parent=image.snapshot,
            networks=networks,
            mounts=points,
            links=linked,
        )
        container = await self._make(await self._prepared(record))
        self.events.publish("container", "create", container_id, container.event_attributes())
        return CreateResponse(id=container_id, warnings=[*discarded, *self._warnings(wanted)])

    def _image(self, ref: str, platform: str | None) -> Image:
        if not ref:
            raise InvalidArgument("config cannot be empty in order to create a container")
        image = self.images.resolve(ref)
        if not platform:
            return image
        if platform.count("/") > 2 or not all(platform.split("/")):
            raise InvalidArgument(f'"{platform}": cannot parse platform specifier: invalid argument')
        try:
            return self.images.resolve(ref, platforms.parse(platform))
        except NotFound:
            raise NotFound(
                f"image with reference {ref} was found but does not match the specified platform: "
                f"wanted {platform}, actual: linux/{image.config_architecture}"
            ) from None

    def _check_others(self, wanted: HostConfig) -> None:
        """Containers whose namespaces are to be shared must exist."""
        for mode in (wanted.ipc_mode, wanted.pid_mode):
            kind, _, ref = mode.partition(":")
            if kind == "container" and ref and self.containers.lookup(ref) is None:
                raise InvalidArgument(f"No such container: {ref}")

    def _others_by_id(self, wanted: HostConfig) -> dict[str, str]:
        """The modes that name a container whose namespace is to be shared, with its id: names change."""
        found = {}
        for field in ("network_mode", "ipc_mode", "pid_mode"):
            kind, _, ref = str(getattr(wanted, field)).partition(":")
            if kind == "container" and ref and (other := self.containers.lookup(ref)) is not None:
                found[field] = f"container:{other.id}"
        return found

    def _network_owner(self, wanted: HostConfig) -> Container | None:
        kind, _, ref = wanted.network_mode.partition(":")
        return self.containers.lookup(ref) if kind == "container" else None

    def _mount_points(self, config: ContainerConfig, wanted: HostConfig) -> tuple[MountPoint, ...]:
        """All mounts by destination: of others, binds, mounts, tmpfs, and then what the image declares."""
        found: dict[str, MountPoint] = {}
        for text in wanted.volumes_from or ():
            ref, mode = mounts.parse_volumes_from(text)
            donor = self.containers.lookup(ref)
            if donor is None:
                raise InvalidArgument(f"No such container: {ref}")
            for point in donor.record.mounts:
                if point.type in ("bind", "volume"):
                    rw = point.rw and "ro" not in mode.split(",")
                    found[point.destination] = msgspec.structs.replace(
                        point, rw=rw, mode="", anonymous=False, copy_up=False
                    )
        own: dict[str, MountPoint] = {}
        requested = (
            *(mounts.parse_bind(text, wanted.volume_driver) for text in wanted.binds or ()),
            *(mounts.parse_mount(mount) for mount in wanted.mounts),
            *(mounts.parse_tmpfs(where, options) for where, options in wanted.tmpfs.items()),
        )
        for point in requested:
            if point.destination in own:
                raise InvalidArgument(f"Duplicate mount point: {point.destination}")
            if point.type == "bind" and not point.create_source and not os.path.lexists(point.source):
                raise InvalidArgument(
                    f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
                )
            if point.type == "image":
                point = msgspec.structs.replace(point, name=self._mounted_image(point.source))
            own[point.destination] = point
        found.update(own)
        for destination in config.volumes or {}:
            declared = mounts.image_volume(destination, wanted.volume_driver)
            if declared is not None:
                found.setdefault(declared.destination, declared)
        return tuple(found.values())

    def _mounted_image(self, ref: str) -> str:
        """Not NotFound where it is missing: clients would fetch the container's own image."""
        try:
            return self.images.resolve(ref).id
        except NotFound as error:
            raise InvalidArgument(f'invalid mount config for type "image": {error.message}') from error

    async def _prepared(self, record: Record) -> Record:
        """With the names and drivers of its volumes; those of plug-ins exist after this."""
        points = []
        for point in record.mounts:
            if point.type == "volume":
                name, driver = await self.volumes.prepare(point.name, point.driver, point.driver_options)
                # Docker notes that SELinux may label it, for its own directories alone.
                mode = "" if point.mode == "z" and driver != "local" else point.mode
                point = msgspec.structs.replace(point, name=name, driver=driver, mode=mode)
            points.append(point)
        return msgspec.structs.replace(record, mounts=tuple(points))

    async def _make(self, record: Record) -> Container:
        """The container's rows in one transaction, then the content of its volumes; all of it or nothing."""
        made: list[VolumeRecord] = []
        try:
            self._write(record, made)
        except BaseException:
            await self.volumes.discard(made)
            raise
        container = self.containers.publish(record)
        try:
            await self.copy_up.fill(record)
        except BaseException as error:
            with self.database.transaction():
                for key in record.snapshots:
                    self.snapshotter.remove(key)
                self.containers.delete(container)
            self.containers.forget(container)
            for volume in made:
                with suppress(Conflict):  # another container has come to use it
                    await self.volumes.remove(volume.name, Removal(force=True, unprotected=True))
            if isinstance(error, OSError):
                raise System(f"copying the image's content into a volume: {error}") from error
            raise
        return container

    def _write(self, record: Record, made: list[VolumeRecord]) -> None:
        """One transaction; `made` gets the volumes that are new."""
        with self.database.transaction(durable=not record.host_config.auto_remove):
            for point in record.mounts:
                if point.type == "volume":
                    volume, new = self.volumes.ensure(
                        point.name, point.driver, point.labels or None, point.driver_options or None,
                        anonymous=point.anonymous,
                    )  # fmt: skip
                    if new:
                        made.append(volume)
            for key, parent in self._snapshots(record):
                self.snapshotter.prepare(key, parent)
            targets.place(self.snapshotter.tree(record.id))
            self.containers.insert(record)

    def _snapshots(self, record: Record) -> Iterator[tuple[str, str | None]]:
        """(key, parent) of the container's root and of each image mounted in it."""
        yield record.id, record.parent
        for point in record.mounts:
            if point.type == "image":
                yield point.snapshot(record.id), self.images.resolve(point.name).snapshot

    def _warnings(self, wanted: HostConfig) -> list[str]:
        warnings = []
        if wanted.network_mode == "host" and wanted.port_bindings:
            warnings.append("Published ports are discarded when using host network mode")
        if specgen.security_option(wanted, "apparmor") and not self.host.apparmor:
            warnings.append("Your kernel has no AppArmor, or it is off. The AppArmor profile is discarded.")
        if specgen.security_option(wanted, "label") not in (None, "disable"):
            warnings.append("SELinux labels are not implemented yet. The label options are discarded.")
        return warnings


def merge(own: ContainerConfig, image: ImageConfig | None) -> ContainerConfig:
    """The container's configuration over the image's (moby `runconfig`, `daemon/commit.go: merge`)."""
    image = image or ImageConfig()
    set_here = {entry.partition("=")[0] for entry in own.env or ()}
    env = [*(own.env or ()), *(entry for entry in image.env if entry.partition("=")[0] not in set_here)]
    entrypoint, cmd = own.entrypoint, own.cmd
    if not entrypoint:
        cmd = cmd or list(image.cmd) or None
        if entrypoint is None:
            entrypoint = list(image.entrypoint) or None
    return msgspec.structs.replace(
        own,
        user=own.user or image.user,
        exposed_ports={**image.exposed_ports, **own.exposed_ports},
        env=env or None,
        cmd=cmd,
        entrypoint=entrypoint,
        working_dir=own.working_dir or image.working_dir,
        volumes={**image.volumes, **(own.volumes or {})} or None,
        labels={**image.labels, **own.labels},
        stop_signal=own.stop_signal or image.stop_signal,
        shell=own.shell or list(image.shell),
        healthcheck=_merge_health(own.healthcheck, image.healthcheck),
    )


def _merge_health(own: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """Each field that is not set is the image's."""
    if own is None or image is None:
        return own or image
    return HealthConfig(**{field: getattr(own, field) or getattr(image, field) for field in own.__struct_fields__})


def command(config: ContainerConfig) -> tuple[str, tuple[str, ...]]:
    """(path, arguments) of the first process; an entrypoint of one empty word is none."""
    entrypoint = config.entrypoint or []
    if entrypoint == [""]:
        entrypoint = []
    words = (*entrypoint, *(config.cmd or ()))
    if not words:
        raise InvalidArgument("no command specified")
    return words[0], words[1:]


def _named_hostname(
    config: ContainerConfig, wanted: HostConfig, container_id: str, owner: Container | None, host: HostFacts
) -> ContainerConfig:
    """The hostname: what was asked, that of a shared network's owner or of the host, or the short id."""
    if config.hostname:
        return config
    if owner is not None:
        name, domain = owner.record.config.hostname, owner.record.config.domainname
        return msgspec.structs.replace(config, hostname=name, domainname=config.domainname or domain)
    if wanted.network_mode == "host" or wanted.uts_mode == "host":
        return msgspec.structs.replace(config, hostname=host.hostname)
    return msgspec.structs.replace(config, hostname=container_id[:12])
