"""Joining, leaving and removing that is cut short or runs beside another: every state can be left again."""

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator

import pytest

from hafen.engine import guests
from hafen.engine.guests import Guest
from hafen.engine.records import Status
from hafen.engine.start import guest_of
from hafen.errors import NotFound, System
from hafen.kernel.nftables import Nftables
from hafen.network.driver import Endpoint, Network
from hafen.spec.lifecycle import State
from hafen.spec.wire.network import (
    EndpointSettings,
    Ipam,
    IpamConfig,
    NetworkConnectRequest,
    NetworkDisconnectRequest,
    PortBinding,
    PortMap,
)
from tests.harness.netns import Netns
from tests.harness.networks import NetworkEngine, create

pytestmark = pytest.mark.root

PORTS: PortMap = {"80/tcp": [PortBinding(host_port="8080")]}
HOME = IpamConfig(subnet="192.0.2.0/24", gateway="192.0.2.1", auxiliary_addresses={"host": "192.0.2.2"})


def interfaces(netns: Netns) -> set[str]:
    return {link.name for link in netns.route.links()} - {"lo"}


def leads_out_by(netns: Netns) -> str:
    return netns.run("ip", "route", "show", "default").stdout.partition(" dev ")[0]


async def in_two_networks(engine: NetworkEngine, driver: str) -> tuple[Guest, Netns]:
    """A container whose first network leads out, and gives its ports where it is a bridge."""
    home = {"driver": driver, "options": {"parent": "uplink"}, "ipam": Ipam(config=[HOME])}
    await create(engine, "first", **(home if driver == "macvlan" else {}))
    await create(engine, "second")
    guest = engine.guest(mode="first", ports=PORTS)
    await engine.attach(guest)
    await engine.networks.connect("second", NetworkConnectRequest(container=guest.id))
    return guest, engine.namespaces[guest.id]


@pytest.mark.parametrize("driver", ["bridge", "macvlan"])
async def test_a_disconnect_cut_short_is_finished_by_the_next_engine(engine: NetworkEngine, driver: str) -> None:
    guest, netns = await in_two_networks(engine, driver)
    container = engine.members.find(guest.id)
    left = {name: kept for name, kept in container.record.networks.items() if name != "first"}
    engine.members.asks(container, left)  # durable, and then the engine is killed
    engine.crash()
    engine.start()
    got = (await engine.networks.restore([guest_of(container.record)]))[guest.id]
    assert list(got.networks) == list(container.status.networks) == ["second"]
    assert len(got.ports["80/tcp"] or ()) == 2
    assert interfaces(netns) == {"eth1"}
    assert leads_out_by(netns) == f"default via {got.networks['second'].gateway}"
    server = netns.serve(80)
    engine.world.neighbour.connect("192.0.2.2", 8080).close()
    server.accept()[0].close()
    await engine.networks.remove("first")
    await engine.networks.disconnect("second", NetworkDisconnectRequest(container=guest.id))
    assert interfaces(netns) == set()


@pytest.mark.parametrize("driver", ["bridge", "macvlan"])
@pytest.mark.parametrize("got_as_far_as_the_interface", [False, True])
async def test_a_connect_cut_short_is_finished_by_the_next_engine(
    engine: NetworkEngine, driver: str, got_as_far_as_the_interface: bool
) -> None:
    home = {"driver": driver, "options": {"parent": "uplink"}, "ipam": Ipam(config=[HOME])}
    ident = await create(engine, "more", **(home if driver == "macvlan" else {}))
    guest = engine.guest()
    await engine.attach(guest)
    netns, container = engine.namespaces[guest.id], engine.members.find(guest.id)
    if got_as_far_as_the_interface:
        await engine.networks.connect("more", NetworkConnectRequest(container=guest.id))
        engine.database.execute("DELETE FROM endpoints WHERE network = ?", (ident,))
    else:
        engine.members.asks(container, {**container.record.networks, "more": EndpointSettings()})
    engine.crash()
    engine.start()
    got = (await engine.networks.restore([guest_of(container.record)]))[guest.id]
    assert list(got.networks) == list(container.status.networks) == ["bridge", "more"]
    assert got.networks["more"].ip_address in {address.ip for address in netns.route.addresses()}
    assert interfaces(netns) == {"eth0", "eth1"}
    assert engine.file(guest, "hosts").count(guest.id[:12]) == 2
    await engine.networks.disconnect("more", NetworkDisconnectRequest(container=guest.id))
    assert interfaces(netns) == {"eth0"}
    await engine.networks.connect("more", NetworkConnectRequest(container=guest.id))


async def test_a_connect_that_cannot_be_finished_can_be_given_up(engine: NetworkEngine) -> None:
    """The network has gone since, as far as the container's record knows."""
    guest = engine.guest()
    await engine.attach(guest)
    container = engine.members.find(guest.id)
    engine.members.asks(container, {**container.record.networks, "gone": EndpointSettings()})
    engine.crash()
    engine.start()
    assert list((await engine.networks.restore([guest_of(container.record)]))[guest.id].networks) == ["bridge"]
    await create(engine, "gone")
    await engine.networks.disconnect("gone", NetworkDisconnectRequest(container=guest.id))
    await engine.networks.connect("gone", NetworkConnectRequest(container=guest.id))


async def test_default_routes_and_ports_move_though_the_engine_was_killed(engine: NetworkEngine) -> None:
    guest, netns = await in_two_networks(engine, "bridge")
    container = engine.members.find(guest.id)
    left = {name: kept for name, kept in container.record.networks.items() if name != "first"}
    engine.members.asks(container, left)
    joins = engine.networks._joins
    record, endpoint = joins._held(guest.id)[0]
    joins.drivers["bridge"].unplug(endpoint, netns)
    joins._leave(record, endpoint)
    engine.crash()
    assert leads_out_by(netns) == ""
    engine.start()
    got = (await engine.networks.restore([guest_of(container.record)]))[guest.id]
    assert leads_out_by(netns) == f"default via {got.networks['second'].gateway}"
    server = netns.serve(80)
    engine.world.neighbour.connect("192.0.2.2", 8080).close()
    server.accept()[0].close()


async def test_a_disconnect_that_fails_changes_nothing(engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    guest, netns = await in_two_networks(engine, "bridge")

    def refuse(endpoint: Endpoint, netns: Netns) -> None:
        raise System("no")

    with monkeypatch.context() as patch:
        patch.setattr(engine.drivers["bridge"], "unplug", refuse)
        with pytest.raises(System, match="no"):
            await engine.networks.disconnect("first", NetworkDisconnectRequest(container=guest.id))
    assert list(engine.members.find(guest.id).record.networks) == ["first", "second"]
    assert guest.id in (await engine.networks.inspect("first")).containers
    server = netns.serve(80)
    engine.world.neighbour.connect("192.0.2.2", 8080).close()
    server.accept()[0].close()
    await engine.networks.disconnect("first", NetworkDisconnectRequest(container=guest.id))
    assert interfaces(netns) == {"eth1"}


class SlowRetire:
    """A bridge whose removal takes as long as the test wants."""

    def __init__(self, engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = engine.drivers["bridge"]
        self._retire = driver.retire
        self._go_on = threading.Event()
        self._begun = threading.Semaphore(0)
        monkeypatch.setattr(driver, "retire", self._slowly)

    def _slowly(self, network: Network) -> None:
        self._begun.release()
        self._go_on.wait(10)
        self._retire(network)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.acquire, timeout=10)

    def go_on(self) -> None:
        self._go_on.set()


@pytest.fixture
def slow(engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowRetire]:
    made = SlowRetire(engine, monkeypatch)
    yield made
    made.go_on()


async def test_nobody_joins_a_network_that_is_being_removed(engine: NetworkEngine, slow: SlowRetire) -> None:
    ident = await create(engine, "mine")
    running = engine.guest(ports=PORTS)
    await engine.attach(running)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.networks.remove("mine"))
        await slow.begun()
        with pytest.raises(NotFound, match="network mine not found"):
            await engine.attach(engine.guest(mode="mine"))
        with pytest.raises(NotFound, match="network mine not found"):
            await engine.networks.connect("mine", NetworkConnectRequest(container=running.id))
        for ref in ("mine", ident, ident[:8]):
            with pytest.raises(NotFound, match=f"network {ref} not found"):
                await engine.networks.remove(ref)
        slow.go_on()
    assert f"hf-{ident[:12]}" not in engine.world.links()
    assert ident[:12] not in Nftables().run("list ruleset")
    await create(engine, "mine")
    assert (await engine.attach(engine.guest(mode="mine"))).networks["mine"].ip_address == "172.18.0.2"


async def test_a_removal_that_fails_leaves_a_network(engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(engine, "mine")

    def refuse(network: Network) -> None:
        raise System("no")

    with monkeypatch.context() as patch:
        patch.setattr(engine.drivers["bridge"], "retire", refuse)
        with pytest.raises(System, match="no"):
            await engine.networks.remove("mine")
    guest = engine.guest(mode="mine")
    await engine.attach(guest)
    engine.networks.release(guest.id)
    await engine.networks.remove("mine")


async def test_prune_goes_on_past_what_somebody_else_removes(engine: NetworkEngine, slow: SlowRetire) -> None:
    for name in ("one", "two", "three"):
        await create(engine, name)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.networks.remove("one"))
        await slow.begun()
        pruning = tasks.create_task(engine.networks.prune())
        await slow.begun()
        slow.go_on()
    assert pruning.result().networks_deleted == ["two", "three"]


async def test_what_one_network_refuses_does_not_keep_the_ports_of_another(
    engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, _ = await in_two_networks(engine, "bridge")
    driver = engine.drivers["bridge"]
    withdraw = driver.withdraw

    def refuse(network: Network, endpoint: Endpoint) -> Endpoint:
        if network.name == "first":
            withdraw(network, endpoint)
            raise System("no")
        return withdraw(network, endpoint)

    with monkeypatch.context() as patch:
        patch.setattr(driver, "withdraw", refuse)
        with pytest.raises(System, match="no"):
            engine.networks.release(guest.id)
    for name in ("first", "second"):
        assert not (await engine.networks.inspect(name)).containers
        await engine.networks.remove(name)


async def test_a_container_that_ends_while_it_is_connected(
    engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its resolver would keep its namespace for ever, and its status would say that it has networks."""
    await create(engine, "mine")
    guest = engine.guest()
    await engine.attach(guest)
    container = engine.members.find(guest.id)
    made: list[socket.socket] = []
    make = engine.members.resolver_sockets

    async def ends_meanwhile(netns: int) -> tuple[socket.socket, socket.socket]:
        udp, tcp = await make(netns)
        made.extend((udp, tcp))
        stopped = {name: guests.stopped(had) for name, had in container.status.networks.items()}
        container.status = Status(state=State.EXITED, networks=stopped)
        engine.networks.release(guest.id)
        return udp, tcp

    monkeypatch.setattr(engine.members, "resolver_sockets", ends_meanwhile)
    await engine.networks.connect("mine", NetworkConnectRequest(container=guest.id))
    assert [one.fileno() for one in made] == [-1, -1]
    assert list(container.status.networks) == ["bridge"]
    assert list(container.record.networks) == ["bridge", "mine"], "where it starts the next time"
    await engine.networks.remove("mine")


@pytest.mark.parametrize(("link", "complaint"), [("a:b:c", "bad format for links: a:b:c"), ("", "empty string")])
async def test_links_that_make_no_sense_leave_nothing(engine: NetworkEngine, link: str, complaint: str) -> None:
    await create(engine, "mine")
    guest = engine.guest()
    await engine.attach(guest)
    asked = NetworkConnectRequest(container=guest.id, endpoint_config=EndpointSettings(links=[link]))
    with pytest.raises(System, match=complaint):
        await engine.networks.connect("mine", asked)
    assert interfaces(engine.namespaces[guest.id]) == {"eth0"}
    assert (await engine.attach(engine.guest(mode="mine"))).networks["mine"].ip_address == "172.18.0.2"


async def test_a_join_that_cannot_be_recorded_leaves_nothing(
    engine: NetworkEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(engine, "mine")
    guest = engine.guest()
    await engine.attach(guest)
    links = engine.world.links()

    def refuse(network: str, endpoint: Endpoint) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(engine.networks._endpoints, "put", refuse)
        with pytest.raises(OSError, match="no space"):
            await engine.networks.connect("mine", NetworkConnectRequest(container=guest.id))
    assert engine.world.links() == links
    await engine.networks.connect("mine", NetworkConnectRequest(container=guest.id))
    assert interfaces(engine.namespaces[guest.id]) == {"eth0", "eth1"}
