"""Start a container, as one straight checklist with one undo stack.

    1  may it start?                         spec.lifecycle
    2  mounts, namespaces of others, devices are there
    3  network namespace, addresses, files of /etc
    4  OCI configuration, seccomp program
    5  the shim runs it                      from here on nothing can fail
    6  state on disk, event, exit watched

Nothing is written before 5: until the shim answers, its run directory is the intent, and after a crash in between
`recover` finds the shim alive and makes the record say so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from hafen.engine import hostfacts, links, logconfig, seccomp, specgen
from hafen.engine.cdi import Registry
from hafen.engine.events import Events
from hafen.engine.exits import Exits
from hafen.engine.guests import Attached, Guest
from hafen.engine.hostfacts import HostFacts
from hafen.engine.mounting import Mounting
from hafen.engine.networks import Networks
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers, Record
from hafen.engine.shimlink import AttachClient, NetnsHandle, Shim, ShimLink, SpawnRequest
from hafen.errors import Conflict, HafenError, InvalidArgument, NotFound, StartFailed, System, Unavailable
from hafen.spec import lifecycle, runtime_config
from hafen.spec.lifecycle import Action
from hafen.spec.runtime_config import Device, DeviceRule
from hafen.spec.wire.hostconfig import HostConfig, Resources
from hafen.storage.snapshot import Snapshotter

# Docker's words for what its runtime refused; clients and their tests look for parts of it.
_FAILED = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
_CLIENT_PATIENCE = 2.0  # seconds for a client that was told to attach to hand over its socket


@dataclass(frozen=True, slots=True)
class Starter:
    """`Services.start`."""

    containers: Containers
    snapshotter: Snapshotter
    networks: Networks
    mounting: Mounting
    shims: ShimLink
    exits: Exits
    events: Events
    host: HostFacts
    paths: Paths
    runtimes: Mapping[str, str]
    cdi: Registry

    async def start(self, ref: str, detach_keys: str | None = None) -> None:
        """`detach_keys` is what the client will attach with; the attach itself carries them."""
        container = self.containers.find(ref)
        async with container.lock:
            lifecycle.next_state(container.status.state, Action.START, container.id, container.name)
            self.exits.cancel_restart(container)
            await self.run(container, restart_count=0, back_off=0.0)

    async def run(self, container: Container, **changes: object) -> None:
        """Start what the caller has locked and checked; `changes` are fields of the status that it then has."""
        try:
            shim, attached = await self._spawn(container, await waiting_clients(container))
            try:
                self.containers.transit(
                    container,
                    Action.START,
                    pid=shim.pid,
                    exit_code=0,
                    error="",
                    oom_killed=False,
                    stopped_by_user=False,
                    started_ns=int(shim.started_at.timestamp() * 1e6) * 1000,
                    networks=attached.networks,
                    ports=attached.ports,
                    **changes,
                )
            except BaseException:  # no space for the record: then it must not run either
                await shim.signal(signal.SIGKILL)
                await shim.exited
                self.exits.release(container)
                raise
        except BaseException as error:
            self._failed(container, error)
            raise
        container.shim = shim
        self.events.publish("container", "start", container.id, container.event_attributes())
        self.exits.watch(container, shim)
        links.follow(self.containers, self.paths, container)

    async def _spawn(self, container: Container, clients: list[AttachClient]) -> tuple[Shim, Attached]:
        record = container.record
        with ExitStack() as held, ExitStack() as undo:
            undo.callback(close_clients, clients)
            linked = links.environment(self.containers, record)
            undo.callback(self.mounting.release, record)
            mounts = await self.mounting.mounts(record, held)
            namespaces, shm_donor = self._namespaces_of_others(record)
            shm = self.mounting.shm(record, shm_donor)
            directory = self.paths.ensure_container(record.id)
            netns = await self._network_namespace(record.host_config, namespaces)
            if netns is not None:
                undo.callback(netns.close)
            attached = await self.networks.attach_all(guest_of(record), netns, directory)
            undo.callback(self.mounting.tell, record, "unmount")
            undo.callback(self.networks.release, record.id)
            self.mounting.tell(record, "mount")
            devices, rules = _devices(record.host_config)
            found = specgen.Found(
                rootfs=self.paths.rootfs(record.id),
                cgroup=self.paths.cgroup(record),
                mounts=mounts,
                files=self._files(record, directory),
                namespaces=namespaces,
                shm=shm,
                devices=devices,
                device_rules=rules,
                device_numbers=block_devices(record.host_config),
                linked=linked,
                without_ipv6=attached.without_ipv6,
            )
            config = self.cdi.inject(specgen.build(record, self.host, found), record.host_config.device_requests or ())
            request = self._request(record, config, netns)
            try:
                shim = await self.shims.spawn(request, clients)
            except StartFailed as error:
                raise StartFailed(f"{_FAILED}{error.message}: unknown", error.exit_code) from error
            except Unavailable as error:  # of the log's remote end, or of a shim that was killed
                raise System(f"failed to create task for container: {error.message}") from error
            except System as error:
                raise System(f"{_FAILED}unable to start container process: {error.message}: unknown") from error
            except InvalidArgument as error:  # what only the runtime can see: users, the working directory, sysctls
                raise System(error.message) from error
            undo.pop_all()
        if netns is not None:
            netns.close()
        return shim, attached

    def _request(self, record: Record, config: runtime_config.Config, netns: NetnsHandle | None) -> SpawnRequest:
        wanted = record.host_config
        runtime = self.runtimes[wanted.runtime]
        option = specgen.security_option(wanted, "seccomp")
        if option is None:
            option = "unconfined" if wanted.privileged else ""
        filter = seccomp.choose(option, specgen.capabilities(wanted, self.host))
        if filter is not None and runtime != "hafen":
            config = config._replace(linux=config.linux._replace(seccomp=filter.profile))
        size = wanted.console_size
        return SpawnRequest(
            container_id=record.id,
            run_dir=self.paths.run(record.id),
            data_dir=self.paths.container(record.id),
            config=runtime_config.to_json(config),
            rootfs=self.snapshotter.mounts(record.id),
            log=logconfig.of_spawn(record, self.paths.logs(record.id)),
            netns_fd=None if netns is None else netns.fd,
            terminal=record.config.tty,
            open_stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            runtime=runtime,
            console_size=(size[0], size[1]) if len(size) == 2 and any(size) else None,
            seccomp_bpf=filter.program if filter is not None else None,
        )

    def _namespaces_of_others(self, record: Record) -> tuple[dict[str, str], Container | None]:
        """Paths by namespace type ("host" for the host's), and the container whose /dev/shm is shared."""
        wanted = record.host_config
        found: dict[str, str] = {}
        donor = None
        for kind, file, mode in (
            ("pid", "pid", wanted.pid_mode),
            ("uts", "uts", wanted.uts_mode),
            ("ipc", "ipc", wanted.ipc_mode),
            ("network", "net", wanted.network_mode),
        ):
            if mode == "host":
                found[kind] = "host"
            elif mode.startswith("container:"):
                other = self._other(record, mode.removeprefix("container:"), file)
                found[kind] = f"/proc/{other.status.pid}/ns/{file}"
                if kind == "network":
                    found.setdefault("uts", f"/proc/{other.status.pid}/ns/uts")
                if kind == "ipc":
                    donor = other
        if donor is not None and donor.record.host_config.ipc_mode != "shareable":
            raise InvalidArgument(
                f"can't join IPC of container {donor.id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        return found, donor

    def _other(self, record: Record, ref: str, what: str) -> Container:
        other = self.containers.lookup(ref)
        if other is None:
            raise NotFound(f"No such container: {ref}")
        if other.id == record.id:
            raise InvalidArgument(f"cannot join own {what} namespace")
        if not other.alive:
            if what == "net":
                raise Conflict(f"cannot join network of a non running container: {other.id}")
            raise Conflict(f"failed to join {what.upper()} namespace: container {other.id} is not running")
        return other

    async def _network_namespace(self, wanted: HostConfig, namespaces: Mapping[str, str]) -> NetnsHandle | None:
        """A fresh one; None where the container shares that of the host or of another."""
        return None if "network" in namespaces else await self.shims.netns()

    def _files(self, record: Record, directory: str) -> dict[str, str]:
        """The files of /etc that are mounted into the container; those of the network's owner where it is shared."""
        mode = record.host_config.network_mode
        if mode.startswith("container:"):
            other = self.containers.lookup(mode.removeprefix("container:"))
            directory = directory if other is None else self.paths.container(other.id)
        names = ("resolv.conf", "hostname", "hosts")
        return {f"/etc/{name}": os.path.join(directory, name) for name in names}

    def _failed(self, container: Container, error: BaseException) -> None:
        """A start that failed leaves the container as it was, with the reason; an auto-removed one goes."""
        code = error.exit_code if isinstance(error, StartFailed) else 128
        reason = error.message if isinstance(error, HafenError) else f"{type(error).__name__}: {error}"
        try:
            self.containers.amend(container, error=reason, exit_code=code)
        finally:
            self.exits.start_failed(container)


def guest_of(record: Record) -> Guest:
    """The record, as far as networks are concerned."""
    return Guest(record.id, record.name, record.config, record.host_config, record.networks)


async def waiting_clients(container: Container) -> list[AttachClient]:
    """The clients that attached before the start, once their sockets are here."""
    sessions, container.sessions = container.sessions, []
    if not sessions:
        return []
    await asyncio.wait([session.ready for session in sessions], timeout=_CLIENT_PATIENCE)
    clients = []
    for session in sessions:
        session.taken.set_result(None)
        if session.ready.done():
            client = session.ready.result()
            if client is not None:
                clients.append(client)
        else:
            session.ready.set_result(None)
    return clients


def close_clients(clients: list[AttachClient]) -> None:
    """The start failed: who waited for output gets the end of the stream."""
    for client in clients:
        client.sock.close()
        if not client.done.done():
            client.done.set_result("gone")


def _devices(wanted: HostConfig) -> tuple[tuple[Device, ...], tuple[DeviceRule, ...]]:
    """Device nodes and the rules that let them be used."""
    if wanted.privileged:
        return hostfacts.all_devices(), ()
    devices: list[Device] = []
    rules: list[DeviceRule] = []
    for mapping in wanted.devices or ():
        for device in hostfacts.devices_at(mapping.path_on_host, mapping.path_in_container or mapping.path_on_host):
            access = mapping.cgroup_permissions or "rwm"
            if set(access) - set("rwm"):
                raise InvalidArgument(f"invalid device permissions: {access}")
            devices.append(device)
            rules.append(DeviceRule(True, device.type, device.major, device.minor, access))
    rules += [specgen.parse_device_rule(text) for text in wanted.device_cgroup_rules or ()]
    return tuple(devices), tuple(rules)


def block_devices(wanted: Resources) -> dict[str, tuple[int, int]]:
    """Major and minor numbers of the block devices that have limits."""
    found = {}
    for path in specgen.limited_devices(wanted):
        try:
            status = os.stat(path)
        except OSError as error:
            raise System(f"stat {path}: {os.strerror(error.errno or 0).lower()}") from error
        if not stat.S_ISBLK(status.st_mode):
            raise InvalidArgument(f"{path} is not a block device")
        found[path] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return found
