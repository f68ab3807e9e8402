"""Published ports on a real kernel: IPv4 and IPv6, redirected, relayed and routed, and who gets through."""

import re
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hafen.errors import System
from hafen.kernel.nftables import Nftables
from hafen.network.bridge import BridgeDriver
from hafen.network.driver import Endpoint, Network, Subnet, Wish
from hafen.network.ipam import mac_of
from hafen.spec.ports import parse_publish
from tests.harness.netns import Netns, World

pytestmark = pytest.mark.root

V4 = Network("a" * 64, "four", "hf-aaaaaaaaaaaa", (Subnet("172.18.0.0/16", "172.18.0.1"),))
DUAL = Network(
    "b" * 64, "dual", "hf-bbbbbbbbbbbb", (Subnet("172.19.0.0/16", "172.19.0.1"), Subnet("fd00:19::/64", "fd00:19::1"))
)
V6 = Network("c" * 64, "six", "hf-cccccccccccc", (Subnet("fd00:20::/64", "fd00:20::1"),))


@pytest.fixture
def driver(world: World) -> Iterator[BridgeDriver]:
    made = BridgeDriver()
    world.give_ipv6()
    yield made
    made.close()


@pytest.fixture
def respectful(world: World) -> Iterator[BridgeDriver]:
    made = BridgeDriver(respect_firewall=True)
    world.give_ipv6()
    yield made
    made.close()


def plugged(
    driver: BridgeDriver, world: World, network: Network, ip: str, ip6: str, *publish: str
) -> tuple[Netns, Endpoint]:
    netns = world.container()
    ident = secrets.token_hex(32)
    wish = Wish(
        ident, secrets.token_hex(32), "web", "eth0", ip, 16 if ip else 0, ip6, 64 if ip6 else 0,
        mac_of(ip) if ip else f"02:42:{bytes.fromhex(ident[:8]).hex(':')}",
    )  # fmt: skip
    ports = [mapping for text in publish for mapping in parse_publish(text)]
    return netns, driver.publish(network, driver.attach(network, wish, netns), ports)


def peer_of(server: socket.socket) -> str:
    """The address that the next client comes from."""
    server.settimeout(5)
    connection, (address, *_) = server.accept()
    connection.close()
    return str(address)


def echo_once(server: socket.socket) -> threading.Thread:
    """Answers one client with all that it sent, reading to its end first."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            received = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(received)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_dual_stack_is_published_on_both(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, DUAL, "172.19.0.2", "fd00:19::2", "8080:80")
    other, _ = plugged(driver, world, DUAL, "172.19.0.3", "fd00:19::3")
    assert [(port.host_ip, port.host_port) for port in endpoint.ports] == [("0.0.0.0", 8080), ("::", 8080)]
    four, six = one.serve(80), one.serve(80, "::")
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(four) == "192.0.2.1"
    world.neighbour.connect("2001:db8::2", 8080).close()
    assert peer_of(six) == "2001:db8::1", "the client's address is kept"
    for source, address in (
        (world.host, "::1"), (world.host, "2001:db8::2"), (world.host, "fd00:19::1"), (other, "2001:db8::2"),
        (other, "fd00:19::1"), (one, "2001:db8::2"),
    ):  # fmt: skip
        source.connect(address, 8080).close()
        peer_of(six)
    server = world.neighbour.serve(81, "::")
    one.connect("2001:db8::1", 81).close()
    assert peer_of(server) == "2001:db8::2", "containers leave with the host's address"


def test_ipv6_of_the_host_in_front_of_a_container_without(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, V4, "172.18.0.2", "", "8080:80", "[::1]:8081:80", "0.0.0.0:8082:80")
    assert {(port.host_ip, port.host_port) for port in endpoint.ports} == {
        ("0.0.0.0", 8080), ("::", 8080), ("::1", 8081), ("0.0.0.0", 8082),
    }  # fmt: skip
    server = one.serve(80)
    for source, address, port in (
        (world.neighbour, "2001:db8::2", 8080), (world.host, "::1", 8080), (world.host, "::1", 8081),
    ):  # fmt: skip
        source.connect(address, port).close()
        assert peer_of(server) == "172.18.0.1", "a relayed client comes from the host"
    assert not world.neighbour.reaches("2001:db8::2", 8081)
    assert not world.neighbour.reaches("2001:db8::2", 8082)
    with pytest.raises(OSError, match="in use"):
        world.host.serve(8080, "::")
    driver.withdraw(V4, endpoint)
    world.host.serve(8080, "::")


def test_container_with_ipv6_alone(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, V6, "", "fd00:20::2", "8080:80")
    assert endpoint.gateway == ""
    server = one.serve(80, "::")
    world.neighbour.connect("2001:db8::2", 8080).close()
    assert peer_of(server) == "2001:db8::1"
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(server) == "fd00:20::1"
    assert {a.ip for a in one.route.addresses() if ":" not in a.ip} == {"127.0.0.1"}


def test_relay_carries_everything_both_ways(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, V4, "172.18.0.2", "", "8080:80")
    server = one.serve(80)
    thread = echo_once(server)
    sent = secrets.token_bytes(1 << 16) * 128
    client = world.neighbour.connect("2001:db8::2", 8080)

    def send() -> None:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = b"".join(iter(lambda: client.recv(1 << 20), b""))
    sender.join()
    thread.join()
    assert received == sent
    server.close()
    with pytest.raises(ConnectionResetError):  # as where nobody listens
        world.neighbour.connect("2001:db8::2", 8080).recv(1)


def test_relayed_datagrams_find_back(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, V4, "172.18.0.2", "", "5353:53/udp")
    world.host.run("ip", "address", "add", "2001:db8::22/64", "dev", "uplink", "nodad")
    server = one.udp(53)
    clients = [world.neighbour.udp(address="2001:db8::1") for _ in range(3)]
    for address in ("2001:db8::2", "2001:db8::22"):
        for number, client in enumerate(clients):
            client.sendto(b"question %d" % number, (address, 5353))
            data, sender = server.recvfrom(100)
            server.sendto(b"answer to " + data, sender)
            answer, (source, port, *_) = client.recvfrom(100)
            assert (answer, source, port) == (b"answer to question %d" % number, address, 5353)


def test_forms(world: World, driver: BridgeDriver) -> None:
    _, endpoint = plugged(
        driver, world, DUAL, "172.19.0.2", "fd00:19::2",
        "9000-9002:80-82", "127.0.0.1::83", "127.0.0.2::83", "[2001:db8::2]:9100:84/udp", "9200:85/sctp",
    )  # fmt: skip
    by_port: dict[int, list[tuple[str, int]]] = {}
    for port in endpoint.ports:
        by_port.setdefault(port.container.number, []).append((port.host_ip, port.host_port))
    for number in (80, 81, 82):
        assert by_port[number] == [("0.0.0.0", number + 8920), ("::", number + 8920)]
    first, second = by_port[83]
    assert (first[0], second[0]) == ("127.0.0.1", "127.0.0.2")
    assert first[1] == second[1], "one number for every address"
    assert by_port[84] == [("2001:db8::2", 9100)]
    assert by_port[85] == [("0.0.0.0", 9200), ("::", 9200)]
    table = Nftables().run("list table inet hafen")
    assert re.search(r"(sctp|132) \. 9200 : 172\.19\.0\.2 \. 85", table), table
    assert re.search(r"2001:db8::2 \. (udp|17) \. 9100 : fd00:19::2 \. 84", table), table


def test_who_has_the_port(world: World, driver: BridgeDriver) -> None:
    world.host.serve(8080, "::")
    with pytest.raises(System, match=r"bind host port for \[::\]:8080/tcp: address already in use \(by .*, pid \d+\)"):
        plugged(driver, world, V4, "172.18.0.2", "", "8080:80")
    _, endpoint = plugged(driver, world, V4, "172.18.0.3", "", "0.0.0.0:8080:80")
    assert len(endpoint.ports) == 1
    with pytest.raises(System, match=r"Bind for 127.0.0.1:8080 failed: port is already allocated \(by web\)"):
        plugged(driver, world, V4, "172.18.0.4", "", "127.0.0.1:8080:80")


def test_routed_network(world: World, driver: BridgeDriver) -> None:
    routed = replace(DUAL, gateway_mode="routed", gateway_mode6="routed")
    one, endpoint = plugged(driver, world, routed, "172.19.0.2", "fd00:19::2", "8080:80")
    assert [(port.host_ip, port.host_port) for port in endpoint.ports] == [("0.0.0.0", 0), ("::", 0)]
    world.neighbour.run("ip", "route", "add", "172.19.0.0/16", "via", "192.0.2.2")
    world.neighbour.run("ip", "route", "add", "fd00:19::/64", "via", "2001:db8::2")
    servers = {address: one.serve(80, any_) for address, any_ in (("172.19.0.2", "0.0.0.0"), ("fd00:19::2", "::"))}
    one.serve(81)
    for (address, server), client in zip(servers.items(), ("192.0.2.1", "2001:db8::1"), strict=True):
        world.neighbour.connect(address, 80).close()
        assert peer_of(server) == client
        assert world.neighbour.run("ping", "-c1", "-W10", address).returncode == 0
    assert not world.neighbour.reaches("172.19.0.2", 81), "not published"
    assert not world.neighbour.reaches("192.0.2.2", 8080), "nothing is translated"
    neighbours = world.neighbour.serve(82)
    one.connect("192.0.2.1", 82).close()
    assert peer_of(neighbours) == "172.19.0.2", "nor masqueraded"
    driver.withdraw(routed, endpoint)
    assert not world.neighbour.reaches("172.19.0.2", 80)


def test_unprotected_network(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, replace(V4, gateway_mode="nat-unprotected"), "172.18.0.2", "")
    world.neighbour.run("ip", "route", "add", "172.18.0.0/16", "via", "192.0.2.2")
    server = one.serve(80)
    world.neighbour.connect("172.18.0.2", 80).close()
    assert peer_of(server) == "192.0.2.1"


def test_address_that_containers_leave_with(world: World, driver: BridgeDriver) -> None:
    world.host.run("ip", "address", "add", "192.0.2.22/24", "dev", "uplink")
    world.host.run("ip", "address", "add", "2001:db8::22/64", "dev", "uplink", "nodad")
    chosen = replace(DUAL, leaves_as="192.0.2.22", leaves_as6="2001:db8::22")
    one, _ = plugged(driver, world, chosen, "172.19.0.2", "fd00:19::2", "8080:80")
    other, _ = plugged(driver, world, V4, "172.18.0.2", "")
    four, six = world.neighbour.serve(81), world.neighbour.serve(81, "::")
    one.connect("192.0.2.1", 81).close()
    assert peer_of(four) == "192.0.2.22"
    one.connect("2001:db8::1", 81).close()
    assert peer_of(six) == "2001:db8::22"
    other.connect("192.0.2.1", 81).close()
    assert peer_of(four) == "192.0.2.2", "other networks as before"
    own = one.serve(80)
    one.connect("192.0.2.2", 8080).close()
    peer_of(own)


def test_isolated_network_has_no_address_of_the_host(world: World, driver: BridgeDriver) -> None:
    apart = replace(V4, internal=True, gateway_mode="isolated", subnets=(Subnet("172.18.0.0/16", ""),))
    one, _ = plugged(driver, world, apart, "172.18.0.2", "")
    two, _ = plugged(driver, world, apart, "172.18.0.3", "")
    assert "172.18." not in world.host.run("ip", "-4", "address").stdout
    one.serve(80)
    assert two.reaches("172.18.0.2", 80)


HOST_RULES = """
table inet hosts {
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    tcp dport 8081 accept
  }
}
"""


def test_the_hosts_firewall_decides_where_it_is_respected(world: World, respectful: BridgeDriver) -> None:
    publish = ("8080:80", "8081:80", "5353:53/udp")
    one, endpoint = plugged(respectful, world, DUAL, "172.19.0.2", "fd00:19::2", *publish)
    beside, _ = plugged(respectful, world, DUAL, "172.19.0.3", "fd00:19::3")
    elsewhere, _ = plugged(respectful, world, V4, "172.18.0.2", "")
    four, six = one.serve(80), one.serve(80, "::")
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(four) == "192.0.2.1", "the client's address is kept"
    world.neighbour.connect("2001:db8::2", 8080).close()
    assert peer_of(six) == "2001:db8::1"
    for source in (beside, elsewhere, one):
        source.connect("192.0.2.2", 8080).close()
        assert peer_of(four) in ("172.18.0.2", "172.19.0.1")
    Nftables().run(HOST_RULES)
    assert not world.neighbour.reaches("192.0.2.2", 8080)
    assert not world.neighbour.reaches("2001:db8::2", 8080)
    world.neighbour.connect("192.0.2.2", 8081).close()
    peer_of(four)
    world.host.connect("127.0.0.1", 8080).close()
    peer_of(four)
    datagrams = one.udp(53)
    datagrams.settimeout(0.3)
    world.neighbour.udp().sendto(b"x", ("192.0.2.2", 5353))
    with pytest.raises(TimeoutError):
        datagrams.recv(10)
    Nftables().run("add rule inet hosts input udp dport 5353 accept")
    client = world.neighbour.udp()
    client.sendto(b"x", ("192.0.2.2", 5353))
    data, sender = datagrams.recvfrom(10)
    assert (data, sender[0]) == (b"x", "192.0.2.1")
    datagrams.sendto(b"y", sender)
    assert client.recv(10) == b"y"
    respectful.withdraw(DUAL, endpoint)
    assert not world.neighbour.reaches("192.0.2.2", 8081)
    assert "fwmark" in world.host.run("ip", "rule").stdout
    for network in (DUAL, V4):
        respectful.delete(network)
    for family in ("-4", "-6"):
        assert "fwmark" not in world.host.run("ip", family, "rule").stdout
        assert "local default" not in world.host.run("ip", family, "route", "show", "table", "all").stdout


def test_what_respecting_it_needs_goes_with_it(world: World, respectful: BridgeDriver) -> None:
    respectful.create(DUAL)
    assert "fwmark" in world.host.run("ip", "rule").stdout
    respectful.close()  # as the kernel closes a dead engine's sockets
    again = BridgeDriver()
    again.restore([DUAL], [])
    assert "fwmark" not in world.host.run("ip", "rule").stdout
    again.close()


def test_the_hosts_firewall_is_bypassed_where_it_is_not(world: World, driver: BridgeDriver) -> None:
    """Docker's behaviour, and clients' expectation; the documentation tells of the other."""
    one, _ = plugged(driver, world, V4, "172.18.0.2", "", "8080:80")
    Nftables().run(HOST_RULES)
    server = one.serve(80)
    world.neighbour.connect("192.0.2.2", 8080).close()
    assert peer_of(server) == "192.0.2.1"


def test_relayed_ports_come_back_after_a_crash(world: World, driver: BridgeDriver) -> None:
    one, endpoint = plugged(driver, world, V4, "172.18.0.2", "", "8080:80")
    driver.close()
    again = BridgeDriver()
    assert again.restore([V4], [(V4, endpoint)]) == []
    server = one.serve(80)
    world.neighbour.connect("2001:db8::2", 8080).close()
    peer_of(server)
    again.close()
    assert not world.neighbour.reaches("2001:db8::2", 8080)


def test_forwarding_of_ipv6_keeps_the_hosts_own_way(world: World) -> None:
    world.give_ipv6()
    Path("/proc/sys/net/ipv6/conf/uplink/accept_ra").write_text("1")
    told: list[str] = []
    driver = BridgeDriver(warn=told.append)
    driver.create(DUAL)
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"
    assert Path("/proc/sys/net/ipv6/conf/uplink/accept_ra").read_text() == "2\n"
    assert any(text.startswith("IPv6 forwarding was off") for text in told)
    driver.close()


def test_mtu_follows_the_uplink(world: World, driver: BridgeDriver) -> None:
    world.host.run("ip", "link", "set", "uplink", "mtu", "1400")
    one, _ = plugged(driver, world, V4, "172.18.0.2", "")
    two, _ = plugged(driver, world, replace(DUAL, mtu=1300), "172.19.0.2", "")
    links = [one.route.link("eth0"), two.route.link("eth0"), world.host.route.link(V4.link)]
    assert [link.mtu for link in links if link is not None] == [1400, 1300, 1400]


def test_sctp(world: World, driver: BridgeDriver) -> None:
    """Redirected like the others; the kernel needs no SCTP of its own for that, but this test's client does."""
    one, _ = plugged(driver, world, V4, "172.18.0.2", "", "9200:85/sctp")
    try:
        server = one.stream(socket.IPPROTO_SCTP)
    except OSError:
        pytest.skip("this kernel has no SCTP")
    server.bind(("172.18.0.2", 85))
    server.listen(1)
    client = world.neighbour.stream(socket.IPPROTO_SCTP)
    client.connect(("192.0.2.2", 9200))
    client.sendall(b"hello")
    server.settimeout(5)
    connection, (address, _) = server.accept()
    with connection:
        assert (connection.recv(10), address) == (b"hello", "192.0.2.1")
    with pytest.raises(OSError, match="in use"):
        world.host.stream(socket.IPPROTO_SCTP).bind(("0.0.0.0", 9200))
