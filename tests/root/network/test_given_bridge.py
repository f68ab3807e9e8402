"""Networks on a bridge that the administrator made: it is used, and never taken away."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hafen.engine import netdefaults
from hafen.engine.netdefaults import NetworkDefaults
from hafen.errors import System
from hafen.kernel.nftables import Nftables
from hafen.kernel.rtnetlink import Link, Rtnetlink
from hafen.network import bridgelink
from hafen.network.bridge import BridgeDriver
from hafen.network.driver import Network, Subnet
from tests.harness.engine import EngineProcess
from tests.harness.netns import Netns, World
from tests.harness.networks import NetworkEngine, create

pytestmark = pytest.mark.root

GIVEN = Network("a" * 64, "home", "br0", (Subnet("10.77.0.0/24", "10.77.0.5"),))


@pytest.fixture
def lan(world: World) -> Netns:
    """A machine on a wire that is a port of the administrator's br0, 10.77.0.5/24 and a second address."""
    made = world.container()
    world.host.link_to(made, "eth1", "192.0.2.130/32", "10.77.0.9/24")
    for command in (
        "link add br0 type bridge", "addr add 10.77.0.5/24 dev br0", "addr add 10.88.0.1/24 dev br0",
        "link set br0 mtu 1400 up", "link set eth1 master br0", "addr flush dev eth1",
    ):  # fmt: skip
        assert world.host.run("ip", *command.split()).returncode == 0
    return made


def shape(world: World) -> tuple[set[tuple[str, int]], set[str], int, str]:
    """What the administrator gave it: addresses, ports, MTU, and that it heeds router advertisements."""
    bridge = world.host.route.link("br0")
    assert bridge is not None, "the administrator's bridge is gone"
    addresses = {(a.ip, a.prefix) for a in world.host.route.addresses() if a.ifindex == bridge.ifindex}
    ports = {link.name for link in world.host.route.links() if link.master == bridge.ifindex}
    return (
        {one for one in addresses if not one[0].startswith("fe80")},
        ports,
        bridge.mtu,
        setting("ipv6/conf/br0/accept_ra"),
    )


@pytest.fixture
def engine(world: World, lan: Netns, tmp_path: Path) -> Iterator[NetworkEngine]:
    made = NetworkEngine(world, tmp_path, defaults())
    yield made
    made.crash()


def defaults(**settings: str) -> NetworkDefaults:
    configured = replace(NetworkDefaults(), bridge="br0", **settings)  # type: ignore[arg-type]  # each test names the fields it is about
    return netdefaults.on_bridge(configured, bridgelink.addresses_given("br0", "hafen"))


def setting(name: str) -> str:
    return Path(f"/proc/sys/net/{name}").read_text().strip()


async def test_default_network_takes_its_subnet_from_the_bridge(engine: NetworkEngine, lan: Netns) -> None:
    before = shape(engine.world)
    await engine.networks.restore()
    (config,) = (await engine.networks.inspect("bridge")).ipam.config or []
    assert (config.subnet, config.gateway) == ("10.77.0.0/24", "10.77.0.5")
    guest = engine.guest()
    got = (await engine.attach(guest)).networks["bridge"]
    assert (got.gateway, got.ip_address) == ("10.77.0.5", "10.77.0.1")
    netns = engine.namespaces[guest.id]
    assert next(link.mtu for link in netns.route.links() if link.name == "eth0") == 1400
    server = lan.serve(80)
    netns.connect("10.77.0.9", 80).close()
    server.settimeout(5)
    connection, (address, _) = server.accept()
    connection.close()
    assert address == "10.77.0.1", "a neighbour like any other"
    engine.networks.release(guest.id)
    netns.run("ip", "link", "del", "eth0")
    engine.networks.close()
    assert shape(engine.world) == before
    assert Nftables().run("list ruleset") == ""
    assert setting("ipv4/conf/br0/route_localnet") == "0", "nothing guards the host's loopback any more"


async def test_changed_address_is_followed(engine: NetworkEngine) -> None:
    await engine.networks.restore()
    engine.world.host.run("ip", "addr", "del", "10.77.0.5/24", "dev", "br0")
    engine.crash()
    engine.defaults = defaults()
    engine.start()
    await engine.networks.restore()
    (config,) = (await engine.networks.inspect("bridge")).ipam.config or []
    assert (config.subnet, config.gateway) == ("10.88.0.0/24", "10.88.0.1")
    assert shape(engine.world)[0] == {("10.88.0.1", 24)}


def test_which_address_counts(world: World, lan: Netns) -> None:
    assert defaults().bip == "10.77.0.5/24", "the first"
    assert defaults(fixed_cidr="10.88.0.128/25").bip == "10.88.0.1/24", "the one that containers are to be beside"
    assert defaults(fixed_cidr="10.99.0.0/24").bip == ""
    assert defaults(bip="10.99.0.1/24").bip == "10.99.0.1/24"
    assert bridgelink.addresses_given("eth1", "hafen") == bridgelink.addresses_given("none", "hafen") == []


async def test_networks_of_the_users_on_it_come_and_go(engine: NetworkEngine) -> None:
    engine.defaults = NetworkDefaults()
    engine.crash()
    engine.start()
    await engine.networks.restore()
    before = shape(engine.world)
    await create(engine, "mine", options={"com.docker.network.bridge.name": "br0"})
    (config,) = (await engine.networks.inspect("mine")).ipam.config or []
    assert config.subnet == "172.18.0.0/16", "as Docker: only the default network takes that of the bridge"
    addresses, *others = shape(engine.world)
    assert (addresses - before[0], *others) == ({("172.18.0.1", 16)}, *before[1:])
    engine.crash()
    engine.start()
    await engine.networks.restore()
    await engine.networks.remove("mine")
    assert before[0] < shape(engine.world)[0]
    assert shape(engine.world)[1:] == before[1:]


def test_failure_leaves_it(world: World, lan: Netns) -> None:
    before = shape(world)
    driver = BridgeDriver()
    with pytest.raises(System):
        driver.create(replace(GIVEN, subnets=(Subnet("10.66.0.0/24", "10.66.0.256"),)))
    assert shape(world) == before
    driver.close()


def test_administrator_who_makes_it_at_the_same_moment(world: World, lan: Netns) -> None:
    class JustBefore(Rtnetlink):
        def link(self, name: str) -> Link | None:
            return None

    with JustBefore() as route, pytest.raises(FileExistsError):
        bridgelink.set_up(route, GIVEN, "hafen", 1500)
    bridge = world.host.route.link("br0")
    assert bridge is not None
    assert not bridgelink.is_ours(bridge, "hafen")


def test_other_engines_bridges_are_theirs(world: World) -> None:
    mine, theirs = BridgeDriver(), BridgeDriver(table="hafen-other")
    networks = [Network(c * 64, c, f"hf-{c * 12}", (Subnet(f"172.2{c}.0.0/16", f"172.2{c}.0.1"),)) for c in "12"]
    mine.create(networks[0])
    theirs.create(networks[1])
    for driver in (mine, theirs):
        driver.close()
    again = BridgeDriver()
    again.restore([], [])
    again.close()
    assert world.links() >= {networks[1].link}
    assert networks[0].link not in world.links()


def test_engine_that_is_told_of_it(world: World, lan: Netns) -> None:
    before = shape(world)
    with (
        tempfile.TemporaryDirectory(prefix="hafen-given-") as folder,
        EngineProcess(Path(folder) / "e", "--bridge", "br0", "--fixed-cidr", "10.88.0.128/25") as engine,
    ):
        (config,) = json.loads(engine.docker("network", "inspect", "-f", "{{json .IPAM.Config}}", "bridge").stdout)
        assert config == {"Subnet": "10.88.0.0/24", "IPRange": "10.88.0.128/25", "Gateway": "10.88.0.1"}
        engine.kill()
        assert shape(world) == before
    assert shape(world) == before
