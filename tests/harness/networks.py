"""The part of an engine that is about networks, with the real drivers on namespaces of the test's own."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hafen.engine.events import Events
from hafen.engine.guests import Attached, Guest
from hafen.engine.netdefaults import NetworkDefaults
from hafen.engine.networks import Networks
from hafen.engine.records import Container, Record, Status
from hafen.engine.start import guest_of
from hafen.engine.zygote import NetnsHandle
from hafen.network.bridge import BridgeDriver
from hafen.network.driver import NetworkDriver
from hafen.network.host import HostDriver
from hafen.network.macvlan import IPVLAN, MACVLAN, ParentDriver
from hafen.network.none import NullDriver
from hafen.spec.lifecycle import State
from hafen.spec.ports import Port
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.image import EmptyObject
from hafen.spec.wire.network import EndpointSettings, NetworkCreateRequest, NetworkingConfig, PortMap
from hafen.storage.database import Database
from tests.harness.netns import Netns, World


class FakeMembers:
    """Containers without an engine: their namespaces are the test's."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.containers: dict[str, Container] = {}
        self.namespaces: dict[str, Netns] = {}
        self.links: list[tuple[str, str, list[Port]]] = []

    def add(self, guest: Guest) -> Container:
        record = Record(
            id=guest.id, name=guest.name, created_ns=0, image="", image_id="", config=guest.config,
            host_config=guest.host_config, path="", args=(), snapshotter="", networks=dict(guest.networks),
        )  # fmt: skip
        container = self.containers[guest.id] = Container(record, Status())
        return container

    def find(self, ref: str) -> Container:
        return self.containers[ref]

    def directory(self, container: Container) -> str:
        return str(self.base / container.id)

    async def namespace(self, container_id: str) -> NetnsHandle:
        netns = self.namespaces[container_id]
        return NetnsHandle(os.dup(netns.fd), netns.rtnetlink.dup())

    async def resolver_sockets(self, netns: int) -> tuple[socket.socket, socket.socket]:
        (owner,) = [one for one in self.namespaces.values() if os.fstat(one.fd).st_ino == os.fstat(netns).st_ino]
        with owner.entered():
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind(("127.0.0.11", 53))
        tcp.bind(("127.0.0.11", 53))
        return udp, tcp

    async def server_sockets(self, netns: int, family: int, kind: int, count: int) -> Sequence[socket.socket]:
        (owner,) = [one for one in self.namespaces.values() if os.fstat(one.fd).st_ino == os.fstat(netns).st_ino]
        with owner.entered():
            made = [socket.socket(family, kind) for _ in range(count)]
        for one in made:
            one.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        return made

    async def set_sysctls(self, netns: int, settings: Mapping[str, str]) -> None:
        (owner,) = [one for one in self.namespaces.values() if os.fstat(one.fd).st_ino == os.fstat(netns).st_ino]
        with owner.entered():
            for name, value in settings.items():
                Path(f"/proc/sys/{name}").write_text(value)  # noqa: ASYNC240 - a file of the kernel's

    def asks(self, container: Container, networks: Mapping[str, EndpointSettings]) -> Guest:
        container.record = msgspec.structs.replace(container.record, networks=dict(networks))
        return guest_of(container.record)

    def has(self, container: Container, attached: Attached) -> None:
        container.status = msgspec.structs.replace(container.status, networks=attached.networks, ports=attached.ports)

    def openings(self) -> Sequence[tuple[str, str, list[Port]]]:
        return self.links

    def linked(self, container_id: str) -> Sequence[tuple[str, str]]:
        return ()


class NetworkEngine:
    """The part of an engine that is about networks, on a database that outlives it."""

    def __init__(self, world: World, base: Path, defaults: NetworkDefaults | None = None) -> None:
        self.defaults = defaults or NetworkDefaults()
        self.world = world
        self.base = base
        self.members = FakeMembers(base)
        self.namespaces = self.members.namespaces
        self.start()

    def start(self) -> None:
        self.database = Database(self.base / "hafen.db")
        every = (BridgeDriver(), HostDriver(), NullDriver(), ParentDriver(MACVLAN), ParentDriver(IPVLAN))
        drivers: dict[str, NetworkDriver] = {driver.name: driver for driver in every}
        self.networks = Networks(self.database, Events(self.database), drivers, self.members, self.defaults)
        self.drivers = drivers

    def crash(self) -> None:
        """As the kernel sees a killed engine: its sockets are gone, nothing else."""
        self.networks._names.close()
        self.database.close()
        for driver in self.drivers.values():
            driver.close()

    def guest(
        self, *, mode: str = "default", ports: PortMap | None = None, networking: NetworkingConfig | None = None,
        exposed: tuple[str, ...] = (), **options: object,
    ) -> Guest:  # fmt: skip
        name = f"c{len(self.namespaces)}"
        ident = secrets.token_hex(32)
        config = ContainerConfig(
            hostname=ident[:12], exposed_ports={key: EmptyObject() for key in (*exposed, *(ports or {}))}
        )
        host_config = HostConfig(network_mode=mode, port_bindings=ports, **options)  # type: ignore[arg-type]  # test data
        wanted = self.networks.check_networks(host_config, networking, config)
        return Guest(ident, name, config, host_config, wanted)

    async def attach(self, guest: Guest) -> Attached:
        netns = self.namespaces[guest.id] = self.world.container()
        attached = await self.networks.attach_all(guest, netns, str(self.base / guest.id))
        container = self.members.add(guest)
        container.status = Status(state=State.RUNNING, networks=attached.networks, ports=attached.ports)
        return attached

    def file(self, guest: Guest, name: str) -> str:
        return (self.base / guest.id / name).read_text()


async def create(engine: NetworkEngine, name: str, **fields: object) -> str:
    return (await engine.networks.create(NetworkCreateRequest(name=name, **fields))).id  # type: ignore[arg-type]  # each test names the fields it is about
