"""Connections that the kernel remembers follow the published ports, as with senders that always use one port."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hafen.kernel.conntrack import Conntrack
from hafen.network.bridge import BridgeDriver
from hafen.network.driver import Endpoint
from hafen.spec.ports import parse_publish
from tests.harness.netns import Netns, World
from tests.root.network.test_bridge import BRIDGE, DUAL, plugged, wish

pytestmark = pytest.mark.root


@pytest.fixture
def driver(world: World) -> Iterator[BridgeDriver]:
    made = BridgeDriver()
    yield made
    made.close()


def leave(driver: BridgeDriver, netns: Netns, endpoint: Endpoint) -> None:
    driver.withdraw(BRIDGE, endpoint)
    driver.unplug(endpoint, netns)


def send(
    sender: socket.socket, words: bytes, server: socket.socket, address: str = "192.0.2.2", port: int = 514
) -> None:
    sender.sendto(words, (address, port))
    assert server.recv(100) == words


def flows(family: int = socket.AF_INET) -> set[tuple[str, str]]:
    """(where they were sent, who answers) of all UDP connections that the host remembers."""
    with Conntrack() as conntrack:
        found = conntrack.connections(family, socket.IPPROTO_UDP)
    return {(one.original.destination, one.reply.source) for one in found}


def test_sender_finds_the_container_that_took_the_port_over(world: World, driver: BridgeDriver) -> None:
    sender = world.neighbour.udp(5000)
    one, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2", "514:514/udp")
    send(sender, b"first", one.udp(514))
    leave(driver, one, endpoint)
    assert flows() == set(), "the next one with its address gets nothing of it"
    sender.sendto(b"lost", ("192.0.2.2", 514))
    two, _ = plugged(driver, world, BRIDGE, "172.17.0.3", "514:514/udp")
    send(sender, b"second", two.udp(514))


def test_sender_that_was_there_first(world: World, driver: BridgeDriver) -> None:
    """From outside and from the host itself, to a port of every address and of one alone."""
    driver.create(BRIDGE)
    local, outside = world.host.udp(5000), world.neighbour.udp(5000)
    targets = [(outside, "192.0.2.2", 514), (local, "127.0.0.1", 514), (outside, "192.0.2.2", 515)]
    for sender, address, port in targets:
        with world.host.udp(port) as former:
            send(sender, b"too early", former, address, port)
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "514:514/udp", "192.0.2.2:515:514/udp")
    server = one.udp(514)
    for number, (sender, address, port) in enumerate(targets):
        send(sender, b"%d" % number, server, address, port)


def test_over_ipv6(world: World, driver: BridgeDriver) -> None:
    world.give_ipv6()
    driver.create(DUAL)
    sender = world.neighbour.udp(5000, "::")
    with world.host.udp(514, "::") as former:
        send(sender, b"too early", former, "2001:db8::2")
    netns = world.container()
    endpoint = driver.attach(DUAL, replace(wish("172.21.0.2"), ip6="fd00:21::2", prefix6=64), netns)
    published = driver.publish(DUAL, endpoint, parse_publish("514:514/udp"))
    send(sender, b"in time", netns.udp(514, "::"), "2001:db8::2")
    driver.withdraw(DUAL, published)
    assert flows(socket.AF_INET6) == set()


def test_what_containers_send_themselves_goes_on(world: World, driver: BridgeDriver) -> None:
    """A query that is under way to the same port of another machine gets its answer."""
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2")
    resolver, client = world.neighbour.udp(53), one.udp(5000)
    client.sendto(b"question", ("192.0.2.1", 53))
    question, sender = resolver.recvfrom(100)
    _, endpoint = plugged(driver, world, BRIDGE, "172.17.0.3", "53:53/udp")
    driver.withdraw(BRIDGE, endpoint)
    resolver.sendto(b"answer", sender)
    assert (question, client.recv(100)) == (b"question", b"answer")


def test_what_ended_while_the_engine_was_away(world: World, driver: BridgeDriver) -> None:
    sender, other = world.neighbour.udp(5000), world.neighbour.udp(5001)
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "514:514/udp")
    two, living = plugged(driver, world, BRIDGE, "172.17.0.3", "515:514/udp")
    server = two.udp(514)
    send(sender, b"one", one.udp(514))
    send(other, b"two", server, port=515)
    assert flows() == {("192.0.2.2", "172.17.0.2"), ("192.0.2.2", "172.17.0.3")}
    driver.close()
    again = BridgeDriver()
    again.restore([BRIDGE], [(BRIDGE, living)])
    assert flows() == {("192.0.2.2", "172.17.0.3")}
    send(other, b"still", server, port=515)
    again.close()


def test_many_ports_at_once(world: World, driver: BridgeDriver) -> None:
    driver.create(BRIDGE)
    sender = world.neighbour.udp(5000)
    for port in (20000, 20099):
        with world.host.udp(port) as former:
            send(sender, b"too early", former, port=port)
    one, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2", "20000-20099:20000-20099/udp")
    for port in (20000, 20099):
        send(sender, b"in time", one.udp(port), port=port)
    driver.withdraw(BRIDGE, endpoint)
    assert flows() == set()
