"""The bridge driver on a real kernel: who reaches whom, and that nothing stays."""

import errno
import os
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import System
from hafen.kernel.nftables import Nftables
from hafen.network.bridge import BridgeDriver
from hafen.network.driver import Endpoint, Network, Subnet, Wish
from hafen.network.ipam import mac_of
from hafen.spec.ports import Port, PortMapping, PortRange, parse_publish
from tests.harness.netns import Netns, World

pytestmark = pytest.mark.root

BRIDGE = Network("a" * 64, "bridge", "hafen0", (Subnet("172.17.0.0/16", "172.17.0.1"),))
OTHER = Network("b" * 64, "other", "hf-bbbbbbbbbbbb", (Subnet("172.18.0.0/16", "172.18.0.1"),))
INTERNAL = Network("c" * 64, "inner", "hf-cccccccccccc", (Subnet("172.19.0.0/16", "172.19.0.1"),), internal=True)
APART = Network("d" * 64, "apart", "hf-dddddddddddd", (Subnet("172.20.0.0/16", "172.20.0.1"),), icc=False)

PLAIN = Network("f" * 64, "plain", "hf-ffffffffffff", (Subnet("172.22.0.0/16", "172.22.0.1"),), masquerade=False)
DUAL = Network(
    "e" * 64, "dual", "hf-eeeeeeeeeeee", (Subnet("172.21.0.0/16", "172.21.0.1"), Subnet("fd00:21::/64", "fd00:21::1"))
)


@pytest.fixture
def driver(world: World) -> Iterator[BridgeDriver]:
    made = BridgeDriver()
    yield made
    made.close()


def wish(ip: str, *, name: str = "web", interface: str = "eth0") -> Wish:
    return Wish(secrets.token_hex(32), secrets.token_hex(32), name, interface, ip, 16, mac=mac_of(ip))


def plugged(driver: BridgeDriver, world: World, network: Network, ip: str, *publish: str) -> tuple[Netns, Endpoint]:
    netns = world.container()
    ports = [mapping for text in publish for mapping in parse_publish(text)]
    endpoint = driver.attach(network, wish(ip), netns)
    try:
        return netns, driver.publish(network, endpoint, ports)
    except BaseException:
        driver.unplug(endpoint, netns)
        raise


def ping(source: Netns, address: str) -> bool:
    return source.run("ping", "-c1", "-W10", address).returncode == 0


def peer_of(server: socket.socket) -> str:
    """The address that the next client comes from."""
    server.settimeout(5)
    connection, (address, *_) = server.accept()
    connection.close()
    return str(address)


def test_containers_reach_each_other_the_host_and_the_world(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2")
    two, _ = plugged(driver, world, BRIDGE, "172.17.0.3")
    assert (endpoint.gateway, endpoint.mac) == ("172.17.0.1", "02:42:ac:11:00:02")
    assert ping(one, "172.17.0.3")
    assert ping(one, "172.17.0.1")
    assert ping(world.host, "172.17.0.2")
    assert ping(one, "192.0.2.1")
    server = world.neighbour.serve(80)
    two.connect("192.0.2.1", 80).close()
    assert peer_of(server) == "192.0.2.2"


def test_link_as_docker_makes_it(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2")
    (link,) = [link for link in one.route.links() if link.name != "lo"]
    assert (link.name, link.mac, link.mtu, link.is_up) == ("eth0", "02:42:ac:11:00:02", 1500, True)
    assert {(a.ip, a.prefix) for a in one.route.addresses()} == {("127.0.0.1", 8), ("::1", 128), ("172.17.0.2", 16)}
    assert "brd 172.17.255.255" in one.run("ip", "addr", "show", "eth0").stdout
    assert endpoint.link in world.links()


def test_published_port_from_everywhere(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    two, _ = plugged(driver, world, BRIDGE, "172.17.0.3")
    elsewhere, _ = plugged(driver, world, OTHER, "172.18.0.2")
    server = one.serve(80)
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(server) == "192.0.2.1", "the client's address is kept"
    for source, address in (
        (world.host, "127.0.0.1"), (world.host, "192.0.2.2"), (world.host, "172.17.0.1"), (world.host, "172.17.0.2"),
        (two, "192.0.2.2"), (two, "172.17.0.1"), (one, "192.0.2.2"), (one, "172.17.0.1"), (elsewhere, "192.0.2.2"),
    ):  # fmt: skip
        port = 80 if address == "172.17.0.2" else 8080
        source.connect(address, port).close()
        peer_of(server)


@pytest.mark.parametrize("network", [BRIDGE, PLAIN], ids=["masqueraded", "not"])
def test_published_port_from_beside_it(world: World, driver: BridgeDriver, network: Network) -> None:
    """The answer would go from container to container, and from an address that nobody asked."""
    one, _ = plugged(driver, world, network, network.gateway_of(4)[:-1] + "2", "8080:80")
    two, endpoint = plugged(driver, world, network, network.gateway_of(4)[:-1] + "3")
    server = one.serve(80)
    for source in (one, two):
        source.connect("192.0.2.2", 8080).close()
        assert peer_of(server) == network.gateway_of(4)
    world.neighbour.run("ip", "route", "add", network.subnets[0].network, "via", "192.0.2.2")
    server = world.neighbour.serve(80)
    two.connect("192.0.2.1", 80).close()
    assert peer_of(server) == ("192.0.2.2" if network.masquerade else endpoint.ip)


def test_published_udp_port(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "5353:53/udp")
    server = one.udp(53)
    for source, address in ((world.neighbour, "192.0.2.2"), (world.host, "127.0.0.1"), (one, "192.0.2.2")):
        client = source.udp()
        client.sendto(b"question", (address, 5353))
        data, sender = server.recvfrom(100)
        server.sendto(b"answer", sender)
        assert (data, client.recvfrom(100)) == (b"question", (b"answer", (address, 5353)))


def test_port_published_on_one_address(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "127.0.0.1:8080:80")
    server = one.serve(80)
    world.host.connect("127.0.0.1", 8080).close()
    peer_of(server)
    assert not world.neighbour.reaches("192.0.2.2", 8080)


def test_port_of_the_loopback_is_not_the_neighbours(world: World, driver: BridgeDriver) -> None:
    """Who is on the same wire may send to the host's hardware address what has any address (moby#45610)."""
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "127.0.0.1:5353:53/udp")
    server = one.udp(53)
    for route in ("del local 127.0.0.0/8 dev lo", "del local 127.0.0.1 dev lo", "add 127.0.0.1 via 192.0.2.2"):
        assert world.neighbour.run("ip", "route", *route.split(), "table", "local").returncode == 0
    for source, words in ((world.neighbour, b"from the wire"), (world.host, b"from the host")):
        source.udp().sendto(words, ("127.0.0.1", 5353))
    assert server.recv(100) == b"from the host"


def test_what_must_not_be_reached_is_not(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    two, _ = plugged(driver, world, OTHER, "172.18.0.2")
    inner, _ = plugged(driver, world, INTERNAL, "172.19.0.2")
    inner2, _ = plugged(driver, world, INTERNAL, "172.19.0.3")
    apart, _ = plugged(driver, world, APART, "172.20.0.2")
    apart2, _ = plugged(driver, world, APART, "172.20.0.3")
    servers = [one.serve(80), two.serve(80), inner2.serve(80), apart2.serve(80), world.neighbour.serve(80)]
    loopback = world.host.serve(7777, "127.0.0.1")
    assert not two.reaches("172.17.0.2", 80), "another bridge"
    assert inner.reaches("172.19.0.3", 80)
    assert not inner.reaches("192.0.2.1", 80), "an internal network has no way out"
    inner.run("ip", "route", "add", "default", "via", "172.19.0.1")
    assert not inner.reaches("192.0.2.1", 80), "not even with a route"
    assert apart.reaches("192.0.2.1", 80)
    assert not apart.reaches("172.20.0.3", 80), "inter-container communication is off"
    world.neighbour.run("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.2")
    assert not world.neighbour.reaches("172.17.0.2", 80), "a neighbour that routes past the published port"
    one.run("ip", "route", "add", "127.0.0.0/8", "via", "172.17.0.1", "table", "99")
    one.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    one.run("ip", "rule", "add", "pref", "0", "to", "127.0.0.1", "dport", "7777", "lookup", "99")
    assert not one.reaches("127.0.0.1", 7777), "the host's loopback (CVE-2020-8558)"
    for server in (*servers, loopback):
        server.close()


def advertise_router(netns: Netns) -> None:
    """As a router would (RFC 4861, 4.2): send your packets to me."""
    assert netns.run("ip", "addr", "add", "fe80::2/64", "dev", "eth0", "nodad").returncode == 0
    link = netns.route.link("eth0")
    assert link is not None
    with netns.entered():
        router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        router.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, link.ifindex))


@pytest.mark.parametrize("network", [BRIDGE, DUAL])
def test_containers_are_no_routers_of_the_host(world: World, driver: BridgeDriver, network: Network) -> None:
    """CVE-2020-13401. With IPv6 in the network the host forwards, and its links are told to heed routers even so."""
    one, _ = plugged(driver, world, network, network.gateway_of(4)[:-1] + "2")
    advertise_router(one)
    assert ping(one, network.gateway_of(4)), "what was sent before has come too"
    assert world.host.run("ip", "-6", "route", "show", "default").stdout == ""


def test_ipv6_works_at_once(world: World, driver: BridgeDriver) -> None:
    """While an address is tentative the host asks for no neighbour, and nobody comes through (RFC 4862, 5.4)."""
    plugged(driver, world, DUAL, "172.21.0.2")
    shown = world.host.run("ip", "-6", "addr", "show", "dev", DUAL.link).stdout
    assert "fe80::" in shown
    assert "tentative" not in shown


def test_ports_that_are_taken(world: World, driver: BridgeDriver) -> None:
    plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80", "127.0.0.1:9000:80")
    refusal = (
        r"driver failed programming external connectivity on endpoint web \([0-9a-f]{64}\): "
        r"Bind for 0.0.0.0:8080 failed: port is already allocated"
    )
    with pytest.raises(System, match=refusal):
        plugged(driver, world, BRIDGE, "172.17.0.3", "8080:80")
    with pytest.raises(System, match="port is already allocated"):
        plugged(driver, world, BRIDGE, "172.17.0.3", "9000:80")
    host_server = world.host.serve(7070)
    with pytest.raises(System, match=rf"0.0.0.0:7070/tcp: address already in use \(by .*, pid {os.getpid()}\)"):
        plugged(driver, world, BRIDGE, "172.17.0.3", "8081:81", "7070:80")
    host_server.close()
    before = world.links()
    plugged(driver, world, BRIDGE, "172.17.0.3", "127.0.0.2:9000:80", "8080:80/udp", "8081:81", "7070:80")
    assert len(world.links() - before) == 1, "what failed left nothing"
    with pytest.raises(OSError, match="in use"):
        world.host.serve(8081)


def test_ranges_and_ephemeral_ports(world: World, driver: BridgeDriver) -> None:
    _, first = plugged(driver, world, BRIDGE, "172.17.0.2", "9000-9002:80", "81", "81/udp")
    _, second = plugged(driver, world, BRIDGE, "172.17.0.3", "9000-9002:80", "81")
    assert [(port.host_ip, port.host_port) for port in first.ports[:2]] == [("0.0.0.0", 9000), ("::", 9000)]
    assert second.ports[0].host_port == second.ports[1].host_port == 9001
    low, high = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(low <= port.host_port <= high for port in (*first.ports[2:], *second.ports[2:]))
    assert first.ports[2].host_port != second.ports[2].host_port
    plugged(driver, world, BRIDGE, "172.17.0.4", "9000-9002:80")
    with pytest.raises(System, match="all ports of 9000-9002 are allocated"):
        plugged(driver, world, BRIDGE, "172.17.0.5", "9000-9002:80")


def test_detach_frees_the_port_and_unplugs(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    driver.withdraw(BRIDGE, endpoint)
    driver.unplug(endpoint, one)
    assert endpoint.link not in world.links()
    assert one.route.link("eth0") is None
    server = world.host.serve(8080)
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(server) == "192.0.2.1", "the port is the host's again"


def test_link_goes_with_the_namespace(world: World, driver: BridgeDriver) -> None:
    netns = Netns()
    endpoint = driver.attach(BRIDGE, wish("172.17.0.2"), netns)
    driver.withdraw(BRIDGE, endpoint)
    netns.close()
    world.host.run("timeout", "10", "sh", "-c", f"while ip link show {endpoint.link}; do :; done")
    assert endpoint.link not in world.links()


def test_nothing_stays(world: World, driver: BridgeDriver) -> None:
    before = world.links()
    for network in (BRIDGE, OTHER, INTERNAL, APART):
        driver.create(network)
        assert network.link in world.links()
    one, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    driver.withdraw(BRIDGE, endpoint)
    driver.unplug(endpoint, one)
    for network in (BRIDGE, OTHER, INTERNAL, APART):
        driver.delete(network)
        driver.delete(network)
    assert world.links() == before
    assert Nftables().run("list ruleset") == ""


def test_other_tables_are_not_touched(world: World, driver: BridgeDriver) -> None:
    nftables = Nftables()
    nftables.run("table inet hosts {\n chain forward { type filter hook forward priority 0; policy drop; }\n}")
    warnings = driver.restore([BRIDGE], [])
    assert any("chain forward of table inet hosts" in warning for warning in warnings)
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2")
    server = world.neighbour.serve(80)
    assert not one.reaches("192.0.2.1", 80)
    server.close()
    driver.delete(BRIDGE)
    assert "policy drop" in nftables.run("list table inet hosts")


def test_forwarding_is_switched_on_and_said(world: World) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    told: list[str] = []
    driver = BridgeDriver(warn=told.append)
    driver.create(BRIDGE)
    driver.create(OTHER)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    assert told == ["IPv4 forwarding was off; it is now on (/proc/sys/net/ipv4/ip_forward)"]
    driver.close()


def test_flushed_ruleset_comes_back(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    Nftables().run("flush ruleset")
    _, endpoint = plugged(driver, world, BRIDGE, "172.17.0.3", "8081:80")
    server = one.serve(80)
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(server) == "192.0.2.1"
    Nftables().run("flush ruleset")
    driver.withdraw(BRIDGE, endpoint)
    world.neighbour.connect("192.0.2.2", 8080).close()


def test_removed_bridge_comes_back(world: World, driver: BridgeDriver) -> None:
    plugged(driver, world, BRIDGE, "172.17.0.2")
    world.host.run("ip", "link", "del", "hafen0")
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.3")
    assert ping(one, "192.0.2.1")
    assert Nftables().run("list chain inet hafen from-hafen0").count("masquerade") == 2


def test_restore_after_a_crash(world: World, driver: BridgeDriver) -> None:
    one, living = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    _, dead = plugged(driver, world, BRIDGE, "172.17.0.3", "8081:80")
    _, lost = plugged(driver, world, OTHER, "172.18.0.2")
    world.host.run("ip", "link", "add", "type", "veth")  # somebody else's
    others = {"veth0", "veth1"}
    driver.close()  # as the kernel closes a dead engine's sockets
    again = BridgeDriver()
    assert again.restore([BRIDGE], [(BRIDGE, living)]) == []
    links = world.links()
    assert {living.link, BRIDGE.link} | others <= links
    assert not {dead.link, lost.link, OTHER.link} & links
    server = one.serve(80)
    world.neighbour.connect("192.0.2.2", 8080).close()
    peer_of(server)
    assert not world.neighbour.reaches("192.0.2.2", 8081)
    with pytest.raises(OSError, match="in use"):
        world.host.serve(8080)
    plugged(again, world, BRIDGE, "172.17.0.4", "8081:80")
    again.close()


def test_restore_goes_on_past_a_network_that_fails(world: World, driver: BridgeDriver) -> None:
    """Its link is somebody else's by now: the others have their ports, held and redirected."""
    one, living = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    _, broken = plugged(driver, world, OTHER, "172.18.0.2", "8081:80")
    driver.close()
    world.host.run("ip", "link", "del", OTHER.link)
    world.host.run("ip", "link", "add", OTHER.link, "type", "veth", "peer", "name", "theirs")
    again = BridgeDriver()
    warnings = again.restore([OTHER, BRIDGE], [(OTHER, broken), (BRIDGE, living)])
    assert warnings == [f"network {OTHER.name} does not work: link {OTHER.link} exists and is no bridge"]
    server = one.serve(80)
    world.neighbour.connect("192.0.2.2", 8080).close()
    peer_of(server)
    for port in (8080, 8081):
        with pytest.raises(OSError, match="in use"):
            world.host.serve(port)
    with pytest.raises(System, match="exists and is no bridge"):
        plugged(again, world, OTHER, "172.18.0.3")
    world.host.run("ip", "link", "del", OTHER.link)
    two, _ = plugged(again, world, OTHER, "172.18.0.3")
    assert ping(two, "192.0.2.1")
    again.close()


def test_restore_without_nftables(world: World, driver: BridgeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are held all the same; nobody joins a network whose table is not there, until it is."""
    _, living = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    driver.close()
    Nftables().run("flush ruleset")
    again = BridgeDriver()

    def refuse(commands: str, *, json: bool = False) -> str:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(again._firewall._nftables, "run", refuse)
        (warning,) = again.restore([BRIDGE], [(BRIDGE, living)])
        assert warning.startswith("bridge networks do not work: ")
        with pytest.raises(OSError, match="in use"):
            world.host.serve(8080)
        with pytest.raises(System, match="no memory"):
            plugged(again, world, BRIDGE, "172.17.0.3")
    one, _ = plugged(again, world, BRIDGE, "172.17.0.4", "8082:80")
    assert Nftables().run("list table inet hafen").count(" : 172.17.0.") == 2, "what lived is published again"
    server = one.serve(80)
    world.neighbour.connect("192.0.2.2", 8082).close()
    peer_of(server)
    again.close()


def test_link_that_is_no_bridge(world: World, driver: BridgeDriver) -> None:
    world.host.run("ip", "link", "add", "hafen0", "type", "veth")
    with pytest.raises(System, match="link hafen0 exists and is no bridge"):
        driver.create(BRIDGE)
    assert Nftables().run("list ruleset") == ""


def test_many_ports_cost_what_one_costs(world: World, driver: BridgeDriver) -> None:
    ports = [PortMapping(Port(n), "0.0.0.0", PortRange(n, n)) for n in range(20000, 20500)]
    _, plain = plugged(driver, world, BRIDGE, "172.17.0.2")
    endpoint = driver.publish(BRIDGE, plain, ports)
    assert len(endpoint.ports) == 500
    assert Nftables().run("list table inet hafen").count(" : 172.17.0.2 . ") == 500
    driver.withdraw(BRIDGE, endpoint)
    assert " : 172.17.0.2 . " not in Nftables().run("list table inet hafen")
