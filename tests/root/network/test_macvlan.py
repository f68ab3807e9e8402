"""macvlan and ipvlan on a real kernel: containers as machines of the neighbours' network.

What this machine's kernel has not (ipvlan, VLANs, dummies) is tested where it has: in the VM (tests/vm), or on another
host. Here it must be said clearly.
"""

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hafen.errors import Forbidden, System
from hafen.kernel import rtnetlink
from hafen.network.driver import Endpoint, Network, Subnet, Wish
from hafen.network.ipam import mac_of
from hafen.network.macvlan import IPVLAN, MACVLAN, ParentDriver, dummy_name
from tests.harness.netns import Netns, World

pytestmark = pytest.mark.root

SUBNETS = (Subnet("192.0.2.0/24", "192.0.2.1"), Subnet("2001:db8::/64", "2001:db8::1"))
HOME = Network("a" * 64, "home", "uplink", SUBNETS, mode="bridge")
FLAT = Network("b" * 64, "flat", "uplink", SUBNETS, mode="l2", flag="bridge")


@pytest.fixture
def driver(world: World) -> Iterator[ParentDriver]:
    made = ParentDriver(MACVLAN)
    yield made
    made.close()


@pytest.fixture
def ipvlan(world: World) -> Iterator[ParentDriver]:
    made = ParentDriver(IPVLAN)
    yield made
    made.close()


def kernel_has(kind: str) -> bool:
    """Whether such a link can be made here."""
    netns = Netns()
    try:
        probe = [rtnetlink.new_dummy("probe0")] if kind == "dummy" else [
            rtnetlink.new_veth("probe1", "probe2", netns.fd, master=0, mac="02:00:00:00:00:02", mtu=1500)
        ]  # fmt: skip
        netns.route.execute(*probe)
        parent = netns.route.link("probe1")
        if kind != "dummy":
            assert parent is not None
            netns.route.execute(
                rtnetlink.new_vlan("probe3", parent.ifindex, 10) if kind == "vlan"
                else rtnetlink.new_ipvlan("probe3", netns.fd, parent.ifindex, "l2", "bridge", mtu=1500)
            )  # fmt: skip
    except OSError:
        return False
    else:
        return True
    finally:
        netns.close()


def wish(ip: str, ip6: str = "") -> Wish:
    ident = secrets.token_hex(32)
    return Wish(ident, secrets.token_hex(32), "web", "eth0", ip, 24, ip6, 64 if ip6 else 0, mac_of(ip))


def plugged(driver: ParentDriver, world: World, network: Network, ip: str, ip6: str = "") -> tuple[Netns, Endpoint]:
    netns = world.container()
    return netns, driver.attach(network, wish(ip, ip6), netns)


def ping(source: Netns, address: str, seconds: int = 10) -> bool:
    return source.run("ping", "-c1", f"-W{seconds}", address).returncode == 0


def test_containers_are_machines_of_the_neighbours_network(world: World, driver: ParentDriver) -> None:
    before = world.links()
    one, endpoint = plugged(driver, world, HOME, "192.0.2.10", "2001:db8::10")
    two, _ = plugged(driver, world, HOME, "192.0.2.11", "2001:db8::11")
    assert world.links() == before, "nothing of it is on the host"
    assert (endpoint.gateway, endpoint.gateway6, endpoint.mac) == ("192.0.2.1", "2001:db8::1", "02:42:c0:00:02:0a")
    (link,) = [link for link in one.route.links() if link.name != "lo"]
    assert (link.name, link.kind, link.mac, link.mtu, link.is_up) == ("eth0", "macvlan", endpoint.mac, 1500, True)
    assert {(r.gateway, r.output) for r in one.route.routes() if not r.destination} == {("192.0.2.1", link.ifindex)}
    server = one.serve(80)
    world.neighbour.connect("192.0.2.10", 80).close()
    connection, (client, *_) = server.accept()
    connection.close()
    assert client == "192.0.2.1", "the neighbour itself, nothing in between"
    neighbours = world.neighbour.serve(81)
    one.connect("192.0.2.1", 81).close()
    connection, (client, *_) = neighbours.accept()
    connection.close()
    assert client == "192.0.2.10", "the container's own address"
    assert ping(two, "192.0.2.10")
    assert ping(two, "2001:db8::10")
    assert not ping(one, "192.0.2.2", 1), "the host is not reached over the parent"


def test_private_containers_do_not_see_each_other(world: World, driver: ParentDriver) -> None:
    private = replace(HOME, mode="private")
    plugged(driver, world, private, "192.0.2.10")
    two, _ = plugged(driver, world, private, "192.0.2.11")
    assert not ping(two, "192.0.2.10", 1)
    assert ping(two, "192.0.2.1")


def test_modes_and_who_shares_a_parent(world: World, driver: ParentDriver) -> None:
    for mode in ("vepa", "passthru"):
        network = replace(HOME, id=mode[0] * 64, mode=mode)
        one, endpoint = plugged(driver, world, network, "192.0.2.10")
        assert f"macvlan mode {mode}" in one.run("ip", "-d", "link", "show", "eth0").stdout
        driver.unplug(endpoint, one)
        assert one.route.link("eth0") is None
        driver.unplug(endpoint, one)
        driver.delete(network)
    driver.create(HOME)
    driver.create(replace(HOME, id="c" * 64))
    with pytest.raises(Forbidden, match=r"cannot use mode passthru, macvlan network .* is already using parent"):
        driver.create(replace(HOME, id="d" * 64, mode="passthru"))


def test_internal_network_leads_nowhere(world: World, driver: ParentDriver) -> None:
    one, endpoint = plugged(driver, world, replace(HOME, internal=True), "192.0.2.10")
    assert endpoint.gateway == ""
    assert all(route.destination for route in one.route.routes())


@pytest.mark.parametrize(
    ("parent", "complaint"),
    [
        ("nosuch", "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
        ("nosuch.10", "-o parent interface was not found on the host: nosuch"),
        ("uplink.x", r"unable to parse a valid vlan id from: x \(ex. eth0.10 for vlan 10\)"),
        ("uplink.5000", "vlan id must be between 1-4094, received: 5000"),
    ],
)
def test_parents_that_are_none(world: World, driver: ParentDriver, parent: str, complaint: str) -> None:
    with pytest.raises(System, match=complaint):
        driver.create(replace(HOME, link=parent))


def test_vlan_is_made_and_removed(world: World, driver: ParentDriver) -> None:
    network = replace(HOME, link="uplink.10", subnets=(Subnet("198.51.100.0/24", "198.51.100.1"),))
    if not kernel_has("vlan"):
        with pytest.raises(System, match=r"failed to create uplink.10 vlan link: operation not supported: .*8021q"):
            driver.create(network)
        assert "uplink.10" not in world.links()
        return
    one, endpoint = plugged(driver, world, network, "198.51.100.10")
    driver.create(replace(network, id="c" * 64))
    world.neighbour.run("ip", "link", "add", "link", "uplink", "name", "v10", "type", "vlan", "id", "10")
    world.neighbour.run("ip", "address", "add", "198.51.100.1/24", "dev", "v10")
    world.neighbour.run("ip", "link", "set", "v10", "up")
    assert ping(one, "198.51.100.1")
    untagged, _ = plugged(driver, world, replace(network, id="d" * 64, link="uplink"), "198.51.100.11")
    assert not ping(untagged, "198.51.100.10", 1), "frames of another VLAN"
    driver.unplug(endpoint, one)
    driver.delete(network)
    assert "uplink.10" in world.links(), "another network uses it"
    driver.delete(replace(network, id="c" * 64))
    assert "uplink.10" not in world.links()


def test_links_of_others_stay(world: World, driver: ParentDriver) -> None:
    world.host.run("ip", "link", "add", "theirs.10", "type", "veth", "peer", "name", "other")
    network = replace(HOME, link="theirs.10")
    driver.create(network)
    driver.delete(network)
    assert {"theirs.10", "other"} <= world.links()


def test_what_a_crash_left_is_removed(world: World, driver: ParentDriver) -> None:
    kind = "vlan" if kernel_has("vlan") else ""
    world.host.run("ip", "link", "add", "left.10", "type", "veth", "peer", "name", "other")
    world.host.run("ip", "link", "set", "left.10", "alias", f"hafen macvlan {'c' * 64}")
    assert driver.restore([HOME], []) == []
    assert "left.10" not in world.links()
    warnings = driver.restore([replace(HOME, id="e" * 64, link="uplink.77")], [])
    assert bool(warnings) is not bool(kind)


def test_network_without_a_parent(world: World, driver: ParentDriver) -> None:
    network = replace(HOME, link=dummy_name(HOME.id), internal=True)
    if not kernel_has("dummy"):
        with pytest.raises(System, match="operation not supported: this kernel has no dummy interfaces: name a parent"):
            driver.create(network)
        return
    one, _ = plugged(driver, world, network, "192.0.2.10")
    two, _ = plugged(driver, world, network, "192.0.2.11")
    assert ping(one, "192.0.2.11")
    assert not ping(two, "192.0.2.1", 1)
    driver.delete(network)
    assert network.link not in world.links()


def test_ipvlan(world: World, ipvlan: ParentDriver) -> None:
    if not kernel_has("ipvlan"):
        before = world.links()
        with pytest.raises(System, match="failed to create the ipvlan port: operation not supported: this kernel has"):
            plugged(ipvlan, world, FLAT, "192.0.2.10")
        assert world.links() == before
        return
    one, endpoint = plugged(ipvlan, world, FLAT, "192.0.2.10")
    two, _ = plugged(ipvlan, world, FLAT, "192.0.2.11")
    assert endpoint.mac == ""
    assert ping(one, "192.0.2.1")
    assert ping(two, "192.0.2.10")
    with pytest.raises(Forbidden, match="is already using parent interface uplink in another mode"):
        ipvlan.create(replace(FLAT, id="c" * 64, mode="l3"))


def test_ipvlan_routes(world: World, ipvlan: ParentDriver) -> None:
    if not kernel_has("ipvlan"):
        pytest.skip("this kernel has no ipvlan")
    routing = replace(FLAT, subnets=(Subnet("198.51.100.0/24", ""),), mode="l3")
    one, endpoint = plugged(ipvlan, world, routing, "198.51.100.10")
    assert endpoint.gateway == ""
    world.neighbour.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
    assert ping(one, "192.0.2.1")
