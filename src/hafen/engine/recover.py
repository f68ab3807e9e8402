"""On start: what the database says is compared with what the kernel says, and made true.

    for each record     shim answers            -> it runs; its exit is watched again
                        exit.json of that run   -> exited, with that code
                        neither                 -> killed, by hand or with the machine: what is left is swept
    then                restart policies, auto-removes and removals that were cut short are carried out
    and what no record knows is removed: shims with their containers, cgroups, run and data directories,
    snapshots, links and addresses

Docker reports 255 for what it does not know. A shim that was killed takes its container along by SIGKILL, so it is 137
where the machine did not reboot, 255 where it did.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from hafen.engine import links, subpaths
from hafen.engine.copyup import CopyUp
from hafen.engine.exec import Execs
from hafen.engine.execrecords import ExecRecords
from hafen.engine.exits import Exits
from hafen.engine.health import HealthChecks
from hafen.engine.images import Images
from hafen.engine.mounting import Mounting
from hafen.engine.networks import Networks
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers
from hafen.engine.remove import Remover
from hafen.engine.scope import Scope
from hafen.engine.shimlink import Exit, Shim, ShimLink, read_exit, sweep
from hafen.engine.start import Starter, guest_of
from hafen.engine.volumecopies import VolumeCopies
from hafen.engine.volumes import Volumes
from hafen.errors import HafenError
from hafen.kernel import mount
from hafen.kernel.cgroup import Hierarchy
from hafen.spec import cronspec, names
from hafen.spec.lifecycle import Action, State
from hafen.storage.snapshot import Snapshotter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovery:
    """Carried out once, before the engine listens."""

    containers: Containers
    exec_rows: ExecRecords
    execs: Execs
    health: HealthChecks
    snapshotter: Snapshotter
    networks: Networks
    mounting: Mounting
    volumes: Volumes
    copies: VolumeCopies
    copy_up: CopyUp
    remover: Remover
    starter: Starter
    exits: Exits
    shims: ShimLink
    images: Images
    hierarchy: Hierarchy
    paths: Paths
    scope: Scope

    async def recover(self) -> None:
        ended: list[tuple[Container, Exit]] = []
        self.exec_rows.load()
        for container in self.containers:
            shim = await self._reconnect(container)
            if shim is not None:
                self._adopt(container, shim)
                await self.execs.adopt(container, shim)
                continue
            self.execs.lost(container)
            if container.alive:
                self._kill_leftovers(container)
                ended.append((container, self._last_exit(container)))
        await self.copies.recover()
        await self.volumes.recover(self._users_of_volumes())
        await self.copy_up.recover(self.containers)
        await self._restore_networks()
        for container, exit in ended:
            self.exits.exited(container, exit)
        await self._finish_removals()
        self._sweep_orphans()
        self.images.recover(self.paths.data_root, self.paths.run_root)
        self._start_by_policy({container.id for container, _ in ended})

    def _users_of_volumes(self) -> dict[str, list[str]]:
        """Ids of the running containers by the volumes they have."""
        found: dict[str, list[str]] = {}
        for container in self.containers:
            for point in container.record.mounts if container.shim is not None else ():
                if point.type == "volume":
                    found.setdefault(point.name, []).append(container.id)
        return found

    async def _restore_networks(self) -> None:
        living = [container for container in self.containers if container.shim is not None]
        attached = await self.networks.restore([guest_of(container.record) for container in living])
        for container in living:
            own = attached[container.id]
            if (own.networks, own.ports) != (container.status.networks, container.status.ports):
                self.containers.amend(container, networks=own.networks, ports=own.ports)
        for container in living:
            links.follow(self.containers, self.paths, container)

    async def _reconnect(self, container: Container) -> Shim | None:
        run_dir = self.paths.run(container.id)
        if not os.path.isdir(run_dir):  # noqa: ASYNC240 - a look at tmpfs
            return None
        return await self.shims.reconnect(container.id, run_dir, self.paths.container(container.id))

    def _kill_leftovers(self, container: Container) -> None:
        """Processes that outlived their shim and its directory."""
        group = self.hierarchy.open(self.paths.cgroup(container.record))
        try:
            group.kill()
            group.remove()
        except OSError as error:
            log.warning("the cgroup of container %s stays behind: %s", container.id, error)

    def _adopt(self, container: Container, shim: Shim) -> None:
        """It runs, whatever the record says: an engine may have died between the shim's answer and its own note."""
        container.shim = shim
        started = int(shim.started_at.timestamp() * 1e6) * 1000
        if not container.alive:
            log.warning("container %s runs, though its record says %s", container.id, container.status.state)
            if container.status.state is State.REMOVING:
                return
            self.containers.transit(container, Action.START, pid=shim.pid, started_ns=started, error="", exit_code=0)
        elif container.status.pid != shim.pid:
            self.containers.amend(container, pid=shim.pid, started_ns=started)
        if shim.paused and container.status.state is State.RUNNING:  # and not noted any more
            self.containers.transit(container, Action.PAUSE)
        elif not shim.paused and container.status.state is State.PAUSED:
            self.containers.transit(container, Action.UNPAUSE)
        self.health.resume(container)
        self.exits.watch(container, shim)

    def _last_exit(self, container: Container) -> Exit:
        told = read_exit(self.paths.container(container.id))
        if told is not None and told.at.timestamp() >= container.status.started_ns / 1e9 - 0.001:
            return told
        code = 255 if _booted_at() > container.status.started_ns / 1e9 else 137
        return Exit(code, False, datetime.now(UTC))

    async def _finish_removals(self) -> None:
        """Removals that were cut short, and auto-removed containers that outlived their engine."""
        for container in self.containers:
            status = container.status
            if container.alive or status.state is State.RESTARTING:
                continue
            ran = status.started_ns > 0
            if status.state is State.REMOVING or (container.record.host_config.auto_remove and ran):
                await self.remover.forget(container, volumes=True)

    def _sweep_orphans(self) -> None:
        subpaths.sweep(self.paths.subpaths)
        known = {container.id for container in self.containers}
        for container_id in _unknown(self.paths.runs, known):
            log.warning("removing what is left of unknown container %s", container_id)
            sweep(self.paths.run(container_id), self.paths.container(container_id))
        for container_id in _unknown(self.paths.containers, known):
            directory = self.paths.container(container_id)
            shm = os.path.join(directory, "shm")
            if os.path.ismount(shm):
                mount.umount(shm)
            shutil.rmtree(directory, ignore_errors=True)
        self._sweep_snapshots(known)
        for container in self.containers:
            if container.shim is None:
                self.mounting.release(container.record)

    def _sweep_snapshots(self, known: set[str]) -> None:
        for info in self.snapshotter.all():
            owner, _, _ = info.key.partition(":")
            if not info.committed and names.is_id(owner) and owner not in known:
                try:
                    self.snapshotter.remove(info.key)
                except HafenError as error:
                    log.warning("snapshot %s stays behind: %s", info.key, error)

    def _start_by_policy(self, ended: set[str]) -> None:
        """`always` and `unless-stopped` containers come up with the engine; those that `exited` has seen are on
        their way."""
        for container in self.containers:
            status, policy = container.status, container.record.host_config.restart_policy
            if status.state is State.RESTARTING and container.restart is None:
                self.scope.start(self.exits.bring_back(container), f"restart {container.id}")
            elif (
                status.state is State.EXITED
                and container.id not in ended
                and cronspec.wants_start_at_boot(policy.name, status.stopped_by_user)
            ):
                self.scope.start(self._start(container), f"start {container.id}")

    async def _start(self, container: Container) -> None:
        async with container.lock:
            if container.alive or self.containers.lookup(container.id) is not container:
                return
            try:
                await self.starter.run(container, restart_count=0, back_off=0.0)
            except HafenError as error:
                log.warning("container %s cannot be started: %s", container.id, error)


def _unknown(directory: str, known: Iterable[str]) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if names.is_id(name) and name not in known]
    except FileNotFoundError:
        return []


def _booted_at() -> float:
    """Seconds since the epoch; /proc/stat, `btime`."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0
