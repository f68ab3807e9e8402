"""Composition root: the only module that names concrete drivers."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from hafen.api import versions
from hafen.daemon.config import DaemonConfig
from hafen.distribution.endpoint import Rules
from hafen.engine import hostfacts, logconfig, netdefaults
from hafen.engine.attach import Attacher
from hafen.engine.cdi import Registry
from hafen.engine.commit import Committer
from hafen.engine.copy import Copier
from hafen.engine.copyup import CopyUp
from hafen.engine.create import Creator, new_id
from hafen.engine.events import Events
from hafen.engine.exec import Execs
from hafen.engine.execrecords import ExecRecords
from hafen.engine.exits import Exits
from hafen.engine.fsck import Fsck
from hafen.engine.health import HealthChecks
from hafen.engine.images import Images, ImageStore, ImageUser
from hafen.engine.inspect import Inspector
from hafen.engine.listing import Listing
from hafen.engine.logs import Logs
from hafen.engine.members import Members
from hafen.engine.mounting import Mounting
from hafen.engine.networks import Networks
from hafen.engine.paths import Paths
from hafen.engine.pausing import Pauser
from hafen.engine.records import Containers
from hafen.engine.recover import Recovery
from hafen.engine.registry import Registries
from hafen.engine.remove import Remover
from hafen.engine.scope import Scope
from hafen.engine.services import Services
from hafen.engine.shimlink import ShimLink
from hafen.engine.start import Starter
from hafen.engine.stats import Stats
from hafen.engine.stop import Stopper
from hafen.engine.system import System
from hafen.engine.update import Updater
from hafen.engine.volumecopies import VolumeCopies
from hafen.engine.volumemounts import VolumeMounts
from hafen.engine.volumes import Volumes
from hafen.engine.volumework import VolumeWork
from hafen.errors import InvalidArgument
from hafen.kernel import cgroup
from hafen.logs.drivers import DRIVERS
from hafen.network import bridgelink
from hafen.network.bridge import BridgeDriver
from hafen.network.driver import DEFAULT_BRIDGE, NetworkDriver
from hafen.network.host import HostDriver
from hafen.network.macvlan import IPVLAN, MACVLAN, ParentDriver
from hafen.network.none import NullDriver
from hafen.spec import platform
from hafen.spec.wire.hostconfig import LogConfig
from hafen.storage import sshfsvolumes
from hafen.storage.content import LocalContent
from hafen.storage.database import Database
from hafen.storage.overlay import OverlaySnapshotter
from hafen.storage.plugin import Places
from hafen.storage.snapshot import Snapshotter
from hafen.storage.sshfsvolumes import SshfsVolumes
from hafen.storage.volumeplugin import PluginDrivers
from hafen.storage.volumes import LocalDrivers, LocalVolumes

if TYPE_CHECKING:  # what it is made of is imported where there is one
    from hafen.daemon.registry import EngineRegistry

log = logging.getLogger(__name__)

_KNOWN_RUNTIMES = ("runc", "crun")


@dataclass(slots=True)
class Engine:
    """One engine, wired: its services, and what its life needs beside them."""

    services: Services
    recovery: Recovery
    shims: ShimLink
    scope: Scope
    exits: Exits
    health: HealthChecks
    events: Events
    networks: Networks
    volumes: Volumes
    snapshotter: Snapshotter
    database: Database
    hierarchy: cgroup.Hierarchy
    cgroup_parent: str
    registry: EngineRegistry | None

    async def start(self) -> None:
        """After this what the database says is true."""
        await self.shims.start()
        await self.recovery.recover()
        if self.registry:
            await self.registry.start()

    async def close(self) -> None:
        """Orderly end: containers keep running."""
        if self.registry:
            await self.registry.close()
        self.exits.close()
        self.health.close()
        await self.scope.close()
        await self.shims.close()
        self.networks.close()
        self.volumes.mounts.close()
        self.events.close()
        self.services.images.close()
        self.snapshotter.close()
        self.hierarchy.tidy(self.cgroup_parent)
        self.database.close()


@dataclass(frozen=True, slots=True)
class Stores:
    """What an engine keeps on disk."""

    database: Database
    paths: Paths
    events: Events
    containers: Containers
    snapshots: Snapshotter
    scope: Scope
    volumes: Volumes
    images: Images
    registries: Registries
    registry: EngineRegistry | None


def network_drivers(config: DaemonConfig) -> dict[str, NetworkDriver]:
    """By the API's names. An engine with another bridge gets an nftables table of its own, which the loop watches."""
    networks, table = config.networks, _network_owner(config)
    bridge = BridgeDriver(table=table, respect_firewall=networks.firewall == "respect", warn=log.warning)
    bridge.watch(asyncio.get_running_loop())
    drivers: tuple[NetworkDriver, ...] = (
        bridge, HostDriver(), NullDriver(), ParentDriver(MACVLAN, owner=table), ParentDriver(IPVLAN, owner=table),
    )  # fmt: skip
    return {driver.name: driver for driver in drivers}


def _network_owner(config: DaemonConfig) -> str:
    """The name of this engine on what it makes in the kernel."""
    bridge = config.networks.bridge
    return "hafen" if bridge == DEFAULT_BRIDGE else f"hafen-{bridge}"


def _networks(config: DaemonConfig, kept: Stores, members: Members) -> Networks:
    given = bridgelink.addresses_given(config.networks.bridge, _network_owner(config))
    defaults = netdefaults.on_bridge(config.networks.defaults(engine_id(kept.database)), given)
    return Networks(kept.database, kept.events, network_drivers(config), members, defaults)


def runtimes(config: DaemonConfig) -> dict[str, str]:
    """OCI runtimes by name; "hafen" is our own, the others are paths of binaries."""
    found = {"hafen": "hafen"}
    for name in _KNOWN_RUNTIMES:
        path = shutil.which(name)
        if path:
            found[name] = path
    return {**found, **config.runtimes}


def log_plugins() -> list[str]:
    """Log drivers that can be used here."""
    return sorted(name for name, driver in DRIVERS.items() if name != "none" and driver.available())


def engine_id(database: Database) -> str:
    """This engine's id, made once."""
    row = database.row("SELECT value FROM settings WHERE name = 'engine-id'")
    if row is not None:
        return str(row[0])
    import uuid

    made = str(uuid.uuid4())
    with database.transaction():
        database.execute("INSERT INTO settings (name, value) VALUES ('engine-id', ?)", (made,))
    return made


def snapshotter(config: DaemonConfig, database: Database) -> Snapshotter:
    if config.storage_driver in ("overlay", "overlay2"):
        return OverlaySnapshotter(database, f"{config.data_root}/snapshots/overlay")
    if config.storage_driver == "vfs":
        from hafen.storage.vfs import VfsSnapshotter

        return VfsSnapshotter(database, f"{config.data_root}/snapshots/vfs")
    raise InvalidArgument(f"unknown storage driver {config.storage_driver}; overlay and vfs are known")


def stores(config: DaemonConfig, database: Database, paths: Paths) -> Stores:
    """What is kept: read from disk, nothing started."""
    events = Events(database)
    containers = Containers(database)
    containers.load()
    snapshots = snapshotter(config, database)

    def users_of_volume(name: str) -> list[str]:
        return [one.id for one in containers if any(point.name == name for point in one.record.mounts)]

    def users_of_image(identity: str) -> Sequence[ImageUser]:
        return [ImageUser(one.id, one.alive) for one in containers if one.record.uses_image(identity)]

    scope = Scope()
    plugins = PluginDrivers(Places(config.plugin_sockets, tuple(config.plugin_specs)))
    sshfs = (SshfsVolumes(paths.volumes),) if shutil.which(sshfsvolumes.TOOL) else ()
    drivers = LocalDrivers(LocalVolumes(paths.volumes), *sshfs, plugins=plugins)
    mounts = VolumeMounts(database, drivers, scope)
    volumes = Volumes(database, drivers, mounts, events, users_of_volume, new_id, time.time_ns)
    volumes.load()
    content = LocalContent(f"{config.data_root}/content")
    store = ImageStore(database, content, snapshots, events.publish, platform.of_machine(os.uname().machine))
    rules = Rules(config.registry_mirrors, config.insecure_registries, config.registry_certs)
    registries = Registries(store, rules, f"hafen/{metadata.version('hafen')}")
    return Stores(
        database, paths, events, containers, snapshots, scope, volumes,
        Images(store, users_of_image), registries,
        engine_registry(config, store, registries),
    )  # fmt: skip


def engine_registry(config: DaemonConfig, store: ImageStore, registries: Registries) -> EngineRegistry | None:
    """The registry over this engine's content store: also where it is not served (any more), what it has stays."""
    root = f"{config.data_root}/registry"
    if not (config.registry or os.path.exists(f"{root}/registry.db")):
        return None
    from hafen.daemon.registry import EngineRegistry

    return EngineRegistry(config, root, store, registries)


def wire(config: DaemonConfig) -> Engine:
    """Everything of one engine, not started yet. Needs a running event loop."""
    default_log = LogConfig(type=config.log_driver, config=dict(config.log_opts))
    logconfig.check(default_log, DRIVERS)
    paths = Paths(config.run_root, config.data_root, config.cgroup_parent)
    paths.make()
    database = Database(paths.database)
    try:
        return _engine(config, stores(config, database, paths), default_log)
    except BaseException:
        database.close()
        raise


def volume_copies(kept: Stores) -> VolumeCopies:
    root, containers = kept.paths.volumes, kept.containers
    work = VolumeWork(kept.database, root, Pauser(containers, kept.events), kept.volumes.holds, new_id)
    return VolumeCopies(kept.database, root, kept.volumes, work, time.time_ns)


def _engine(config: DaemonConfig, kept: Stores, default_log: LogConfig) -> Engine:
    hierarchy = cgroup.open_hierarchy()
    host = hostfacts.raise_descriptor_limit(hostfacts.read(hierarchy.version))
    available = runtimes(config)
    database, paths, events, containers, scope = kept.database, kept.paths, kept.events, kept.containers, kept.scope
    snapshots, volumes, images = kept.snapshots, kept.volumes, kept.images
    shims = ShimLink(idle_shims=config.idle_shims, idle_netns=config.idle_netns)
    members = Members(containers, shims, paths)
    networks = _networks(config, kept, members)
    copies = volume_copies(kept)
    copy_up, mounting = CopyUp(snapshots, volumes, paths.volumes), Mounting(snapshots, volumes, paths, events)
    logs = Logs(containers, paths, DRIVERS)
    remover = Remover(database, containers, snapshots, volumes, events, paths, logs, networks.follow_links)
    exits = Exits(containers, networks, mounting, remover, events, scope)
    cdi = Registry(tuple(config.cdi_spec_dirs))
    starter = Starter(containers, snapshots, networks, mounting, shims, exits, events, host, paths, available, cdi)
    exits.restart = starter.run
    exec_rows = ExecRecords(database, containers)
    execs = Execs(containers, exec_rows, events, host, scope)
    health = HealthChecks(containers, execs, events, scope)
    containers.on_transit = health.follow
    listing = Listing(containers, images, snapshots, volumes.source)
    services = Services(
        create=Creator(
            database, containers, images, snapshots, volumes, copy_up, networks, events, host, available,
            default_log, DRIVERS, hierarchy.has,
        ),
        start=starter,
        stop=Stopper(containers, starter, exits, events),
        remove=remover,
        listing=listing,
        inspect=Inspector(containers, execs, networks, logs, snapshots, events, paths, volumes.source),
        update=Updater(containers, events, host),
        stats=Stats(containers, hierarchy, host, paths, scope),
        attach=Attacher(containers, events, logs),
        exec=execs,
        copy=Copier(containers, snapshots, mounting, events),
        commit=Committer(containers, images, events, Pauser(containers, events)),
        events=events,
        system=System(
            containers, images, volumes, snapshots, listing, events, host, hierarchy, paths, available,
            engine_id(database), config.log_driver, log_plugins(), config.labels, config.debug,
            (versions.text(versions.NEWEST), versions.text(versions.OLDEST)), cdi, kept.registries.info(),
        ),
        registry=kept.registries,
        volumes=volumes,
        volume_copies=copies,
        networks=networks,
        images=images,
        logs=logs,
        fsck=Fsck(images.store, containers, volumes, paths, kept.registries),
    )  # fmt: skip
    recovery = Recovery(
        containers, exec_rows, execs, health, snapshots, networks, mounting, volumes, copies, copy_up,
        remover, starter, exits, shims, images, hierarchy, paths, scope,
    )  # fmt: skip
    return Engine(
        services, recovery, shims, scope, exits, health, events, networks, volumes, snapshots, database, hierarchy,
        config.cgroup_parent, kept.registry,
    )  # fmt: skip
