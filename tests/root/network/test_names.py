"""The embedded resolver, asked by Debian's dig from inside: what is answered, with which words, and how much of it."""

import asyncio
import os
import re
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from hafen.network import dnswire
from hafen.network.dns import MAX_CONNECTIONS
from hafen.spec.wire.network import EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkingConfig
from tests.harness.descriptors import few_descriptors
from tests.harness.netns import Netns
from tests.harness.networks import NetworkEngine, create

pytestmark = pytest.mark.root


class Dig:
    """What dig says: `status`, `flags`, the answers' data, and whether it went by TCP."""

    def __init__(self, text: str) -> None:
        self.text = text
        found = re.search(r"status: (\w+), id: \d+\n;; flags: ([a-z ]+);", text)
        self.status, flags = (found[1], found[2]) if found else ("", "")
        self.flags = set(flags.split())
        section = text.partition(";; ANSWER SECTION:\n")[2].partition("\n\n")[0]
        self.answers = [line.split()[-1] for line in section.splitlines()]
        self.by_tcp = "(TCP)" in text


async def dig(netns: Netns, *arguments: str) -> Dig:
    with netns.entered():
        process = await asyncio.create_subprocess_exec(
            "dig", "@127.0.0.11", "+tries=1", "+time=3", *arguments, stdout=asyncio.subprocess.PIPE
        )
    output, _ = await process.communicate()
    return Dig(output.decode())


class Server:
    """A name server on the neighbour: `example.org` has as many addresses as there are in `addresses`."""

    def __init__(self, engine: NetworkEngine, address: str = "192.0.2.1") -> None:
        self.addresses = ["192.0.2.99"]
        self.asked: list[str] = []
        self._udp = engine.world.neighbour.udp(53, address)
        self._udp.setblocking(False)
        self._tcp = engine.world.neighbour.serve(53, address)
        asyncio.get_running_loop().add_reader(self._udp, self._by_udp)

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._by_tcp, sock=self._tcp)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._udp)
        self._server.close()
        await self._server.wait_closed()

    def _answer(self, data: bytes) -> tuple[dnswire.Query, bytes]:
        query = dnswire.parse_query(data)
        self.asked.append(query.name)
        if query.name != "example.org":
            return query, dnswire.failure(query, dnswire.NXDOMAIN)
        return query, dnswire.addresses(query, self.addresses)

    def _by_udp(self) -> None:
        data, client = self._udp.recvfrom(4096)
        query, answer = self._answer(data)
        self._udp.sendto(dnswire.for_udp(query, answer), client)

    async def _by_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        _, answer = self._answer(await reader.readexactly(length))
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()


async def inside(engine: NetworkEngine, **options: object) -> Netns:
    guest = engine.guest(mode="mine", **options)  # type: ignore[arg-type]  # test data
    await engine.attach(guest)
    return engine.namespaces[guest.id]


async def test_what_there_is_and_what_there_is_not(engine: NetworkEngine) -> None:
    await create(engine, "mine", enable_ipv6=True)
    async with Server(engine) as server:
        netns = await inside(engine, dns=["192.0.2.1"])
        four = await dig(netns, "c0", "A")
        assert (four.status, four.answers) == ("NOERROR", ["172.18.0.2"])
        assert {"qr", "rd", "ra"} <= four.flags
        six = await dig(netns, "c0", "AAAA")
        assert len(six.answers) == 1
        assert six.answers[0].startswith("fd")
        for kind in ("MX", "SRV", "TXT"):
            nothing = await dig(netns, "c0", kind)
            assert (nothing.status, nothing.answers) == ("NOERROR", []), "the name exists, such a record does not"
        assert server.asked == [], "names of our own are nobody else's to hear"
        unknown = await dig(netns, "nope.example.org")
        assert (unknown.status, unknown.answers, server.asked) == ("NXDOMAIN", [], ["nope.example.org"])
        assert (await dig(netns, "-x", "172.18.0.2")).answers == ["c0.mine."]
        assert (await dig(netns, "-x", six.answers[0])).answers == ["c0.mine."]
        assert (await dig(netns, "-x", "203.0.113.7")).status == "NXDOMAIN"
        assert server.asked[-1] == "7.113.0.203.in-addr.arpa"


async def test_edns(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    netns = await inside(engine)
    assert "; EDNS: version: 0" in (await dig(netns, "c0")).text, "who asks with it is answered with it"
    assert "EDNS" not in (await dig(netns, "+noedns", "c0")).text
    assert (await dig(netns, "+bufsize=1232", "+dnssec", "c0")).answers == ["172.18.0.2"]


async def test_several_addresses_of_one_name_take_turns(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    shared = NetworkingConfig(endpoints_config={"mine": EndpointSettings(aliases=["pool"])})
    netns, *_ = [await inside(engine, networking=shared) for _ in range(3)]
    firsts = {(await dig(netns, "pool")).answers[0] for _ in range(6)}
    assert firsts == {"172.18.0.2", "172.18.0.3", "172.18.0.4"}


async def test_long_answers_come_by_tcp(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    async with Server(engine) as server:
        server.addresses = [f"198.51.100.{number}" for number in range(100)]
        netns = await inside(engine, dns=["192.0.2.1"])
        cut = await dig(netns, "+ignore", "+noedns", "example.org")
        assert "tc" in cut.flags
        assert cut.answers == []
        whole = await dig(netns, "+noedns", "example.org")
        assert whole.by_tcp
        assert sorted(whole.answers) == sorted(server.addresses)
        large = await dig(netns, "+bufsize=4096", "example.org")
        assert not large.by_tcp
        assert len(large.answers) == 100


async def test_own_long_answers(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    shared = NetworkingConfig(endpoints_config={"mine": EndpointSettings(aliases=["pool"])})
    netns, *_ = [await inside(engine, networking=shared) for _ in range(40)]
    assert "tc" in (await dig(netns, "+ignore", "+noedns", "pool")).flags
    found = await dig(netns, "+noedns", "pool")
    assert found.by_tcp
    assert len(found.answers) == 40


async def test_search_domains_and_the_next_server(engine: NetworkEngine) -> None:
    """One server that is not there, then one that is."""
    await create(engine, "mine")
    async with Server(engine):
        netns = await inside(engine, dns=["192.0.2.2", "192.0.2.1"])
        assert (await dig(netns, "example.org")).answers == ["192.0.2.99"]
        assert (await dig(netns, "+tcp", "example.org")).answers == ["192.0.2.99"]
        assert (await dig(netns, "+search", "+domain=org", "example")).answers == ["192.0.2.99"]


async def test_names_follow_the_networks_while_it_runs(engine: NetworkEngine) -> None:
    for name in ("mine", "other"):
        await create(engine, name)
    await inside(engine)
    apart = engine.guest(mode="other")
    await engine.attach(apart)
    netns = engine.namespaces[apart.id]
    assert (await dig(netns, "c0.mine")).answers == []
    await engine.networks.connect("mine", NetworkConnectRequest(container=apart.id))
    assert (await dig(netns, "c0.mine")).answers == ["172.18.0.2"]


async def test_a_thousand_queries_a_second(engine: NetworkEngine) -> None:
    """Without loss, half of them for names that are forwarded. By processor time, the server's in it: the machine has
    other things to do."""
    await create(engine, "mine")
    async with Server(engine) as server:
        netns = await inside(engine, dns=["192.0.2.1"])
        client = netns.udp()
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        begin, answered = time.process_time(), 0
        for first in range(0, 2000, 40):
            for number in range(first, first + 40):
                question = dnswire.encode_name("c0" if number % 2 else "example.org") + b"\0\1\0\1"
                message = number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6) + question
                client.sendto(message, ("127.0.0.11", 53))
            for _ in range(40):
                answer = await asyncio.wait_for(loop.sock_recv(client, 512), 3)
                assert answer[3] & 0x0F == dnswire.NOERROR
                answered += 1
        took = time.process_time() - begin
        assert answered == 2000
        assert len(server.asked) == 1000
        assert answered / took > 1000, f"{answered / took:.0f} a second"


def framed(name: str) -> bytes:
    message = b"\0\1\1\0\0\1" + bytes(6) + dnswire.encode_name(name) + b"\0\1\0\1"
    return len(message).to_bytes(2, "big") + message


def tcp(netns: Netns, undo: ExitStack) -> socket.socket:
    with netns.entered():
        made = undo.enter_context(socket.socket())
    made.setblocking(False)
    return made


async def answered(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 512), 10)


async def test_tcp_connections_of_one_container_are_bounded(engine: NetworkEngine) -> None:
    """Each costs the engine a descriptor: the oldest goes for one more."""
    await create(engine, "mine")
    netns = await inside(engine)
    loop = asyncio.get_running_loop()
    with ExitStack() as undo:
        clients = [tcp(netns, undo) for _ in range(MAX_CONNECTIONS + 10)]
        for client in clients:
            await loop.sock_connect(client, ("127.0.0.11", 53))
            await loop.sock_sendall(client, framed("c0"))
            assert dnswire.encode_name("c0") in await answered(client)
        for client in clients[:10]:
            assert await answered(client) == b""
        for client in clients[10:]:
            await loop.sock_sendall(client, framed("c0"))
            assert dnswire.encode_name("c0") in await answered(client)


async def test_tcp_without_descriptors_waits_for_some(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    netns = await inside(engine)
    loop = asyncio.get_running_loop()
    with ExitStack() as undo:
        client = tcp(netns, undo)
        with few_descriptors(0):
            await loop.sock_connect(client, ("127.0.0.11", 53))
            await loop.sock_sendall(client, framed("c0"))
            begin = time.process_time()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(client, 512), 0.5)
            assert time.process_time() - begin < 0.2, "it asks again and again"
        assert dnswire.encode_name("c0") in await answered(client)


async def served_inside(netns: Netns, undo: ExitStack, address: str) -> list[str]:
    """A name server in a container, by UDP and TCP, that knows example.org; the names that it is asked for."""
    asked: list[str] = []
    udp, tcp = netns.udp(53, address), netns.serve(53, address)
    udp.setblocking(False)

    def answer(data: bytes) -> bytes:
        query = dnswire.parse_query(data)
        asked.append(query.name)
        return dnswire.addresses(query, [f"198.51.100.{number}" for number in range(100)])

    def by_udp() -> None:
        data, client = udp.recvfrom(4096)
        udp.sendto(dnswire.for_udp(dnswire.parse_query(data), answer(data)), client)

    async def by_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        response = answer(await reader.readexactly(length))
        writer.write(len(response).to_bytes(2, "big") + response)
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    loop.add_reader(udp, by_udp)
    undo.callback(loop.remove_reader, udp)
    server = await asyncio.start_server(by_tcp, sock=tcp)
    undo.callback(server.close)
    return asked


async def test_servers_of_the_users_are_asked_from_inside(engine: NetworkEngine) -> None:
    """On a macvlan network the host does not reach them. By UDP, by TCP, over IPv6, and on the container's loopback."""
    config = [
        IpamConfig(subnet="192.0.2.0/24", gateway="192.0.2.1", auxiliary_addresses={"host": "192.0.2.2"}),
        IpamConfig(subnet="2001:db8::/64", gateway="2001:db8::1"),
    ]
    await create(
        engine, "mine", driver="macvlan", options={"parent": "uplink"}, enable_ipv6=True, ipam=Ipam(config=config)
    )
    pihole = await inside(engine)
    (six,) = [address.ip for address in pihole.route.addresses() if address.ip.startswith("2001:")]
    (four,) = [address.ip for address in pihole.route.addresses() if address.ip.startswith("192.")]
    with ExitStack() as undo:
        for address in (four, six):
            asked = await served_inside(pihole, undo, address)
            netns = await inside(engine, dns=[address])
            found = await dig(netns, "+noedns", "example.org")
            assert found.by_tcp
            assert len(found.answers) == 100
            assert asked == ["example.org", "example.org"], "by UDP first"
        own = await inside(engine, dns=["127.0.0.1"])
        asked = await served_inside(own, undo, "127.0.0.1")
        assert len((await dig(own, "+bufsize=4096", "example.org")).answers) == 100
        assert asked == ["example.org"]


async def test_a_container_that_ends_leaves_no_socket_for_its_servers(engine: NetworkEngine) -> None:
    """Also those that are being made at that moment, for a burst of queries that share them."""
    await create(engine, "mine")
    async with Server(engine):
        guest = engine.guest(mode="mine", dns=["192.0.2.1"])
        await engine.attach(guest)
        netns = engine.namespaces[guest.id]
        assert (await dig(netns, "example.org")).answers == ["192.0.2.99"]
        before = len(os.listdir("/proc/self/fd"))
        make, made, go_on = engine.members.server_sockets, asyncio.Event(), asyncio.Event()
        counts: list[int] = []

        async def slowly(netns: int, family: int, kind: int, count: int) -> Sequence[socket.socket]:
            sockets = await make(netns, family, kind, count)
            counts.append(count)
            made.set()
            await go_on.wait()
            return sockets

        sockets = engine.networks._names._resolver._stubs[guest.id]._server_sockets
        sockets._make = slowly
        client = netns.udp()
        for number in range(40):
            question = dnswire.encode_name("example.org") + b"\0\1\0\1"
            client.sendto(number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6) + question, ("127.0.0.11", 53))
        await asyncio.wait_for(made.wait(), 10)
        engine.networks.release(guest.id)
        go_on.set()
        await asyncio.wait(sockets._refills.values(), timeout=10)
        assert counts == [8], "one for all who wait"
        # The client's is there beside; the resolver's two and those that were left over have gone.
        assert len(os.listdir("/proc/self/fd")) == before + 1 - 2 - 7


async def test_a_server_that_leads_back_is_not_asked(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    async with Server(engine) as server:
        netns = await inside(engine, dns=["127.0.0.11", "192.0.2.1"])
        assert (await dig(netns, "example.org")).answers == ["192.0.2.99"]
        assert server.asked == ["example.org"]
