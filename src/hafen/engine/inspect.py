"""Records as the API shows them; and rename, changes and top of one container."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from hafen.engine import guests, links, logconfig
from hafen.engine.events import Events
from hafen.engine.exec import Execs
from hafen.engine.logs import Logs
from hafen.engine.networks import Networks
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers, Record, Status
from hafen.engine.targets import without_targets
from hafen.errors import Conflict, HafenError, InvalidArgument, System
from hafen.spec import names, units
from hafen.spec.lifecycle import State
from hafen.spec.mounts import MountPoint
from hafen.spec.wire import container as wire
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.image import GraphDriver
from hafen.spec.wire.network import EndpointSettings, NetworkSettings
from hafen.storage.snapshot import Snapshotter, shown_driver


@dataclass(frozen=True, slots=True)
class Inspector:
    """`Services.inspect`."""

    containers: Containers
    execs: Execs
    networks: Networks
    logs: Logs
    snapshotter: Snapshotter
    events: Events
    paths: Paths
    volume_source: Callable[[str], str]

    async def inspect(self, ref: str, size: bool = False) -> wire.ContainerInspect:
        container = self.containers.find(ref)
        shown = self._show(container)
        if size:
            own, whole = await sizes(self.snapshotter, container)
            shown = msgspec.structs.replace(shown, size_rw=own, size_root_fs=whole)
        return shown

    def _show(self, container: Container) -> wire.ContainerInspect:
        record, status = container.record, container.status
        directory = self._files_directory(container)
        return wire.ContainerInspect(
            id=record.id,
            created=units.format_timestamp(record.created_ns),
            path=record.path,
            args=list(record.args),
            state=show_state(status),
            image=record.image_id,
            resolv_conf_path=os.path.join(directory, "resolv.conf") if status.started_ns else "",
            hostname_path=os.path.join(directory, "hostname") if status.started_ns else "",
            hosts_path=os.path.join(directory, "hosts") if status.started_ns else "",
            log_path=self.logs.log_path(container) if status.started_ns else "",
            name=f"/{record.name}",
            restart_count=status.restart_count,
            driver=shown_driver(record.snapshotter),
            platform=record.platform,
            exec_ids=self.execs.ids(container),
            host_config=msgspec.structs.replace(
                record.host_config,
                links=links.shown(self.containers, record),
                log_config=logconfig.shown(record.host_config.log_config),
            ),
            graph_driver=GraphDriver(data=None, name=shown_driver(record.snapshotter)),
            mounts=[show_mount(point, self.volume_source) for point in shown_mounts(record.mounts)],
            config=_config(record),
            network_settings=NetworkSettings(
                sandbox_id=record.id if container.alive else "",
                sandbox_key=f"/proc/{status.pid}/ns/net" if container.alive else "",
                ports=status.ports if container.alive else {},
                networks=show_networks(container),
            ),
        )

    def _files_directory(self, container: Container) -> str:
        mode = container.record.host_config.network_mode
        owner = self.containers.lookup(mode.partition(":")[2]) if mode.startswith("container:") else None
        return self.paths.container((owner or container).id)

    async def changes(self, ref: str) -> list[wire.FilesystemChange]:
        container = self.containers.find(ref)
        tree = self.snapshotter.tree(container.id)
        changes = await asyncio.to_thread(lambda: without_targets(tree.changes()))
        return [wire.FilesystemChange(path=change.path, kind=int(change.kind)) for change in changes]

    async def rename(self, ref: str, name: str) -> None:
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        container = self.containers.find(ref)
        old = container.name
        try:
            names.check_container_name(f"/{name.removeprefix('/')}")
            name = name.removeprefix("/")
            if name == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            self.containers.check_name(name)
        except (InvalidArgument, Conflict) as error:
            if error.message.startswith("Renaming"):
                raise
            raise type(error)(f"Error when allocating new name: {error.message}") from error
        async with container.lock:
            self.containers.replace(container, msgspec.structs.replace(container.record, name=name))
            self.networks.renamed(container.id, name)
        self.events.publish("container", "rename", container.id, container.event_attributes(oldName=f"/{old}"))

    async def top(self, ref: str, ps_args: str | None = None) -> wire.TopResponse:
        container = self.containers.find(ref)
        if container.status.state is State.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        shim = container.running_shim()
        pids = set(await shim.pids())
        titles, rows = await _ps((ps_args or "-ef").split())
        pids.update(await shim.pids())  # those that began meanwhile
        column = titles.index("PID")
        processes = [row for row in rows if len(row) > column and row[column].isdecimal() and int(row[column]) in pids]
        self.events.publish("container", "top", container.id, container.event_attributes())
        return wire.TopResponse(processes=processes, titles=titles)


async def _ps(arguments: list[str]) -> tuple[list[str], list[list[str]]]:
    """ps(1) over all processes of the host: its columns are what clients expect of `top`."""
    for name, title in re.findall(r"\s(\S*)=\s*(PID\S*)", " ".join(["", *arguments])):
        if name != "pid":  # another column under the title by which the processes are found
            raise System(f'specifying "{name}={title}" is not allowed')
    process = await asyncio.create_subprocess_exec(
        "ps", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        words = errors.decode(errors="replace").strip().splitlines()
        raise System(f"ps: {words[0] if words else f'exit status {process.returncode}'}")
    lines = output.decode(errors="replace").splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise System("Couldn't find PID field in ps output")
    return titles, [line.split(None, len(titles) - 1) for line in lines[1:]]


def show_state(status: Status) -> wire.ContainerState:
    state = status.state
    return wire.ContainerState(
        status=str(state),
        running=state in (State.RUNNING, State.PAUSED, State.RESTARTING),
        paused=state is State.PAUSED,
        restarting=state is State.RESTARTING,
        oom_killed=status.oom_killed,
        dead=state is State.DEAD,
        pid=status.pid,
        exit_code=status.exit_code,
        error=status.error,
        started_at=units.format_timestamp(status.started_ns),
        finished_at=units.format_timestamp(status.finished_ns),
        health=status.health,
    )


def shown_mounts(points: tuple[MountPoint, ...]) -> list[MountPoint]:
    """Docker lists everything but `--tmpfs`, which it keeps in HostConfig alone."""
    return [point for point in points if point.type != "tmpfs" or not point.from_tmpfs]


def show_mount(point: MountPoint, volume_source: Callable[[str], str]) -> wire.MountPoint:
    source = volume_source(point.name) if point.type == "volume" else point.source
    return wire.MountPoint(
        type=point.type,
        name=point.name,
        source=source,
        destination=point.destination,
        driver=point.driver,
        mode=point.mode,
        rw=point.rw,
        propagation=point.propagation,
    )


def _config(record: Record) -> ContainerConfig:
    """With the hardware address that was asked for where it is asked for since API 1.44: the main network's."""
    main = record.networks.get(guests.mode(record.host_config), EndpointSettings())
    return msgspec.structs.replace(record.config, mac_address=main.mac_address or record.config.mac_address)


def show_networks(container: Container) -> dict[str, EndpointSettings]:
    """What it has while it runs; otherwise what it asks for, with what is left of its last run (the network's id)."""
    has = container.status.networks
    if container.alive and has:
        return has
    return {name: has.get(name, asked) for name, asked in container.record.networks.items()}


async def sizes(snapshotter: Snapshotter, container: Container) -> tuple[int, int]:
    """(bytes of its own, bytes with its image)."""
    own = (await asyncio.to_thread(snapshotter.tree(container.id).usage)).bytes
    whole, key = own, container.record.parent
    try:
        while key is not None:
            whole += (await asyncio.to_thread(snapshotter.tree(key).usage)).bytes
            key = snapshotter.info(key).parent
    except HafenError:  # the image was removed by force meanwhile
        pass
    return own, whole
