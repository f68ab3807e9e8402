"""The engine's networks with the real drivers: what a container gets, and what stays after crashes."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from hafen.engine.guests import Guest
from hafen.engine.netdefaults import AddressPool, NetworkDefaults
from hafen.engine.start import guest_of
from hafen.errors import Forbidden, InvalidArgument, NotFound, System
from hafen.kernel.nftables import Nftables
from hafen.network import dnswire
from hafen.network.ipam import parse_network
from hafen.spec.filters import Filters
from hafen.spec.wire.network import (
    EndpointIpamConfig,
    EndpointSettings,
    Ipam,
    IpamConfig,
    NetworkConnectRequest,
    NetworkDisconnectRequest,
    NetworkingConfig,
    PortBinding,
)
from tests.harness.netns import Netns, World
from tests.harness.networks import NetworkEngine, create

pytestmark = pytest.mark.root

_HOSTS = Path("/etc/hosts").read_text()


async def test_three_defaults_as_docker_shows_them(engine: NetworkEngine) -> None:
    listed = {network.name: network for network in await engine.networks.list()}
    assert {name: network.driver for name, network in listed.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    bridge = await engine.networks.inspect("bridge")
    assert bridge.ipam.config is not None
    config = bridge.ipam.config[0]
    assert (config.subnet, config.gateway) == ("172.17.0.0/16", "172.17.0.1")
    assert bridge.options["com.docker.network.bridge.default_bridge"] == "true"
    assert (await engine.networks.inspect(bridge.id[:8])).id == bridge.id
    assert listed["none"].ipam.config is None
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        await engine.networks.remove("bridge")
    with pytest.raises(NotFound, match="network nope not found"):
        await engine.networks.inspect("nope")


async def test_container_on_the_default_bridge(engine: NetworkEngine) -> None:
    guest = engine.guest(
        ports={"80/tcp": [PortBinding(host_port="8080")]},
        exposed=("55/tcp",),
        extra_hosts=["gw:host-gateway", "a:1.2.3.4"],
    )
    got = await engine.attach(guest)
    settings = got.networks["bridge"]
    assert (settings.ip_address, settings.ip_prefix_len, settings.gateway) == ("172.17.0.2", 16, "172.17.0.1")
    assert settings.mac_address == "02:42:ac:11:00:02"
    assert len(settings.endpoint_id) == len(settings.network_id) == 64
    assert settings.dns_names is None
    everywhere = [PortBinding(host_ip=address, host_port="8080") for address in ("0.0.0.0", "::")]
    assert got.ports == {"55/tcp": None, "80/tcp": everywhere}
    inspected = (await engine.networks.inspect("bridge")).containers[guest.id]
    assert (inspected.name, inspected.ipv4_address) == ("c0", "172.17.0.2/16")
    assert engine.file(guest, "hosts").endswith(f"172.17.0.1\tgw\n1.2.3.4\ta\n172.17.0.2\t{guest.id[:12]}\n")
    assert engine.file(guest, "hostname") == f"{guest.id[:12]}\n"
    assert "nameserver " in engine.file(guest, "resolv.conf")
    server = engine.namespaces[guest.id].serve(80)
    engine.world.neighbour.connect("192.0.2.2", 8080).close()
    server.accept()[0].close()
    engine.networks.release(guest.id)
    engine.networks.release(guest.id)
    assert not (await engine.networks.inspect("bridge")).containers


async def test_addresses_are_reused_late(engine: NetworkEngine) -> None:
    first = engine.guest()
    assert (await engine.attach(first)).networks["bridge"].ip_address == "172.17.0.2"
    engine.networks.release(first.id)
    assert (await engine.attach(engine.guest())).networks["bridge"].ip_address == "172.17.0.3"


async def test_who_comes_back_has_its_address_again_unless_it_is_taken(engine: NetworkEngine) -> None:
    await create(engine, "mine", ipam=Ipam(config=[IpamConfig(subnet="172.18.0.0/16")]))

    async def attached(guest: Guest) -> str:
        return (await engine.attach(guest)).networks["mine"].ip_address

    guest = engine.guest(mode="mine")
    had = await attached(guest)
    engine.networks.release(guest.id)
    assert await attached(engine.guest(mode="mine")) != had
    assert await attached(guest) == had
    engine.networks.release(guest.id)
    asked = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address=had))
    networking = NetworkingConfig(endpoints_config={"mine": asked})
    assert await attached(engine.guest(mode="mine", networking=networking)) == had
    assert await attached(guest) not in ("", had)


async def test_no_network_and_the_hosts(engine: NetworkEngine) -> None:
    none = engine.guest(mode="none")
    got = await engine.attach(none)
    assert list(got.networks) == ["none"]
    assert got.networks["none"].ip_address == ""
    assert [link.name for link in engine.namespaces[none.id].route.links()] == ["lo"]
    host = engine.guest(mode="host")
    directory = str(engine.base / host.id)
    got = await engine.networks.attach_all(host, None, directory)
    assert len(got.networks["host"].endpoint_id) == 64
    assert engine.file(host, "hosts") == _HOSTS
    shared = engine.guest(mode="container:abc")
    assert shared.networks == {}


async def test_what_is_refused(engine: NetworkEngine) -> None:
    fixed = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="172.17.0.9"))
    with pytest.raises(InvalidArgument, match="user specified IP address is supported on user defined networks only"):
        engine.guest(networking=NetworkingConfig(endpoints_config={"bridge": fixed}))
    with pytest.raises(InvalidArgument, match="network-scoped alias is supported only for containers in user defined"):
        engine.guest(networking=NetworkingConfig(endpoints_config={"default": EndpointSettings(aliases=["x"])}))
    with pytest.raises(NotFound, match="network nope not found"):
        await engine.attach(engine.guest(mode="nope"))
    await engine.attach(engine.guest(ports={"80/tcp": [PortBinding(host_port="8080")]}))
    links = engine.world.links()
    with pytest.raises(System, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"):
        await engine.attach(engine.guest(ports={"80/tcp": [PortBinding(host_port="8080")]}))
    assert engine.world.links() == links
    assert len((await engine.networks.inspect("bridge")).containers) == 1


async def test_restore_after_a_crash(engine: NetworkEngine) -> None:
    living = engine.guest(ports={"80/tcp": [PortBinding(host_port="8080")]})
    dead = engine.guest(ports={"80/tcp": [PortBinding(host_port="8081")]})
    before = [await engine.attach(guest) for guest in (living, dead)]
    links = engine.world.links()
    engine.crash()
    engine.start()
    assert await engine.networks.restore([living]) == {living.id: before[0]}
    assert links - engine.world.links() == {f"hf{before[1].networks['bridge'].endpoint_id[:11]}"}
    assert list((await engine.networks.inspect("bridge")).containers) == [living.id]
    with pytest.raises(System, match="8080 failed: port is already allocated"):
        await engine.attach(engine.guest(ports={"80/tcp": [PortBinding(host_port="8080")]}))
    assert (await engine.attach(engine.guest(ports={"80/tcp": [PortBinding(host_port="8081")]}))).networks[
        "bridge"
    ].ip_address != "172.17.0.2"


async def test_orderly_end_leaves_nothing_unless_a_container_runs(engine: NetworkEngine) -> None:
    guest = engine.guest()
    await engine.attach(guest)
    engine.networks.close()
    engine.database.close()
    assert "hafen0" in engine.world.links()
    engine.start()
    await engine.networks.restore([guest])
    engine.networks.release(guest.id)
    engine.networks.close()
    assert "hafen0" not in engine.world.links()
    assert Nftables().run("list ruleset") == ""


async def test_gentle_mac_and_rename(engine: NetworkEngine) -> None:
    wanted = EndpointSettings(mac_address="02-00-00-00-00-0A")
    guest = engine.guest(networking=NetworkingConfig(endpoints_config={"bridge": wanted}))
    assert (await engine.attach(guest)).networks["bridge"].mac_address == "02:00:00:00:00:0a"
    engine.networks.renamed(guest.id, "new")
    assert (await engine.networks.inspect("bridge")).containers[guest.id].name == "new"
    with pytest.raises(InvalidArgument, match="invalid MAC address zz"):
        engine.guest(networking=NetworkingConfig(endpoints_config={"bridge": EndpointSettings(mac_address="zz")}))


async def test_filters(engine: NetworkEngine) -> None:
    async def names(**fields: str) -> set[str]:
        return {network.name for network in await engine.networks.list(Filters({k: (v,) for k, v in fields.items()}))}

    assert await names(driver="null") == {"none"}
    assert await names(name="o") == {"host", "none"}
    assert await names(type="custom") == set()
    assert await names(dangling="false") == {"bridge", "host", "none"}
    with pytest.raises(InvalidArgument):
        await names(nope="x")


async def test_many_at_once(engine: NetworkEngine) -> None:
    guests = [engine.guest() for _ in range(20)]
    got = await asyncio.gather(*(engine.attach(guest) for guest in guests))
    assert len({attached.networks["bridge"].ip_address for attached in got}) == 20
    assert engine.namespaces[guests[0].id].run("ping", "-c1", "-W10", "172.17.0.21").returncode == 0


async def test_user_defined_network(engine: NetworkEngine) -> None:
    ident = await create(engine, "mine")
    shown = await engine.networks.inspect("mine")
    assert shown.ipam.config == [IpamConfig(subnet="172.18.0.0/16", gateway="172.18.0.1")]
    assert (shown.id, shown.driver, shown.options) == (ident, "bridge", {})
    assert f"hf-{ident[:12]}" in engine.world.links()
    guest = engine.guest(
        mode="mine", networking=NetworkingConfig(endpoints_config={"mine": EndpointSettings(aliases=["al"])})
    )
    got = (await engine.attach(guest)).networks["mine"]
    assert (got.ip_address, got.dns_names) == ("172.18.0.2", [guest.name, "al", guest.id[:12]])
    assert "nameserver 127.0.0.11" in engine.file(guest, "resolv.conf")
    assert engine.namespaces[guest.id].run("ping", "-c1", "-W10", "192.0.2.1").returncode == 0
    with pytest.raises(Forbidden, match=f"network mine id {ident} has active endpoints"):
        await engine.networks.remove("mine")
    engine.networks.release(guest.id)
    await engine.networks.remove("mine")
    assert f"hf-{ident[:12]}" not in engine.world.links()
    assert ident[:12] not in Nftables().run("list ruleset")


async def test_fixed_addresses(engine: NetworkEngine) -> None:
    config = IpamConfig(subnet="172.18.0.0/16", ip_range="172.18.5.0/24", gateway="172.18.0.9")
    await create(engine, "mynet", ipam=Ipam(config=[config]))
    asked = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="172.18.0.22"))
    networking = NetworkingConfig(endpoints_config={"mynet": asked})
    got = (await engine.attach(engine.guest(mode="mynet", networking=networking))).networks["mynet"]
    assert (got.ip_address, got.gateway, got.ipam_config) == ("172.18.0.22", "172.18.0.9", asked.ipam_config)
    assert (await engine.attach(engine.guest(mode="mynet"))).networks["mynet"].ip_address == "172.18.5.0"
    with pytest.raises(Forbidden, match="Address already in use"):
        await engine.attach(engine.guest(mode="mynet", networking=networking))
    outside = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="10.0.0.1"))
    with pytest.raises(InvalidArgument, match="no configured subnet or ip-range contain the IP address"):
        engine.guest(mode="mynet", networking=NetworkingConfig(endpoints_config={"mynet": outside}))


async def test_connect_and_disconnect_while_it_runs(engine: NetworkEngine) -> None:
    await create(engine, "one")
    await create(engine, "inner", internal=True)
    guest, other = engine.guest(), engine.guest(mode="one")
    await engine.attach(guest)
    await engine.attach(other)
    container, netns = engine.members.find(guest.id), engine.namespaces[guest.id]
    await engine.networks.connect("one", NetworkConnectRequest(container=guest.id))
    await engine.networks.connect("inner", NetworkConnectRequest(container=guest.id))
    assert [link.name for link in netns.route.links()] == ["lo", "eth0", "eth1", "eth2"]
    assert list(container.status.networks) == list(container.record.networks) == ["bridge", "one", "inner"]
    assert netns.run("ping", "-c1", "-W10", "172.18.0.2").returncode == 0
    assert engine.file(guest, "hosts").count(guest.id[:12]) == 3
    assert "nameserver 127.0.0.11" in engine.file(guest, "resolv.conf")
    assert "default via 172.17.0.1" in netns.run("ip", "route").stdout
    with pytest.raises(Forbidden, match=f"endpoint with name {guest.name} already exists in network one"):
        await engine.networks.connect("one", NetworkConnectRequest(container=guest.id))
    await engine.networks.disconnect("bridge", NetworkDisconnectRequest(container=guest.id))
    assert [link.name for link in netns.route.links()] == ["lo", "eth1", "eth2"]
    assert "default via 172.18.0.1" in netns.run("ip", "route").stdout, "another network leads out now"
    assert netns.run("ping", "-c1", "-W10", "192.0.2.1").returncode == 0
    assert list(container.status.networks) == ["one", "inner"]
    await engine.networks.connect("bridge", NetworkConnectRequest(container=guest.id))
    assert "eth0" in [link.name for link in netns.route.links()]
    with pytest.raises(System, match="is not connected to network none"):
        await engine.networks.disconnect("none", NetworkDisconnectRequest(container=guest.id))
    with pytest.raises(InvalidArgument, match="connected to host network"):
        await engine.networks.connect("host", NetworkConnectRequest(container=guest.id))
    with pytest.raises(InvalidArgument, match="private"):
        await engine.networks.connect("none", NetworkConnectRequest(container=guest.id))


async def test_connect_before_it_runs(engine: NetworkEngine) -> None:
    await create(engine, "one")
    guest = engine.guest()
    container = engine.members.add(guest)
    await engine.networks.connect("one", NetworkConnectRequest(container=guest.id))
    got = await engine.attach(guest_of(container.record))
    assert list(got.networks) == ["bridge", "one"]
    assert (await engine.networks.prune()).networks_deleted is None


async def test_prune(engine: NetworkEngine) -> None:
    await create(engine, "used")
    await create(engine, "free", labels={"a": "b"})
    await engine.attach(engine.guest(mode="used"))
    assert (await engine.networks.prune(Filters({"label": ("x",)}))).networks_deleted is None
    assert (await engine.networks.prune()).networks_deleted == ["free"]
    assert {network.name for network in await engine.networks.list()} == {"bridge", "host", "none", "used"}


async def test_networks_survive_a_crash(engine: NetworkEngine) -> None:
    ident = await create(engine, "mine")
    lost = await create(engine, "lost")
    guest = engine.guest(mode="mine")
    before = await engine.attach(guest)
    engine.database.execute("DELETE FROM networks WHERE id = ?", (lost,))  # as if the engine died while removing it
    engine.crash()
    engine.start()
    assert await engine.networks.restore([guest]) == {guest.id: before}
    assert f"hf-{ident[:12]}" in engine.world.links()
    assert f"hf-{lost[:12]}" not in engine.world.links()


async def ask(netns: Netns, *arguments: str) -> list[str]:
    """What dig says, without blocking the loop that answers it."""
    with netns.entered():
        dig = await asyncio.create_subprocess_exec(
            "dig", "@127.0.0.11", "+short", "+tries=1", "+time=3", *arguments, stdout=asyncio.subprocess.PIPE
        )
    output, _ = await dig.communicate()
    return sorted(output.decode().split())


async def test_names_in_a_user_defined_network(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    await create(engine, "Other")
    aliased = NetworkingConfig(endpoints_config={"mine": EndpointSettings(aliases=["db"])})
    one, two, three = (engine.guest(mode="mine", networking=aliased) for _ in range(3))
    elsewhere = engine.guest(mode="Other")
    for number, guest in enumerate((one, two, three, elsewhere)):
        named = replace(guest, name=f"c{number}")
        await engine.attach(named)
    inside = engine.namespaces[one.id]
    assert await ask(inside, "c1") == ["172.18.0.3"]
    assert await ask(inside, "C1.mine") == ["172.18.0.3"]
    assert await ask(inside, two.id[:12], "AAAA") == [], "the name exists, without such an address"
    assert await ask(inside, "db") == ["172.18.0.2", "172.18.0.3", "172.18.0.4"]
    assert await ask(inside, "+tcp", "c2") == ["172.18.0.4"]
    assert await ask(inside, "-x", "172.18.0.3") == ["c1.mine."]
    assert await ask(inside, "host.docker.internal") == ["172.18.0.1"]
    assert await ask(engine.namespaces[elsewhere.id], "c3.other") == ["172.19.0.2"]
    engine.networks.renamed(two.id, "renamed")
    assert await ask(inside, "renamed") == ["172.18.0.3"]
    engine.networks.release(three.id)
    assert await ask(inside, "db") == ["172.18.0.2", "172.18.0.3"]


async def test_other_names_are_forwarded(engine: NetworkEngine) -> None:
    """To a server beside the host that knows example.org, after one that does not exist."""
    await create(engine, "mine")
    await create(engine, "inner", internal=True)
    asked: list[bytes] = []
    server = engine.world.neighbour.udp(53, "192.0.2.1")
    server.setblocking(False)

    def serve() -> None:
        data, client = server.recvfrom(1000)
        asked.append(data)
        query = dnswire.parse_query(data)
        known = query.name == "example.org"
        server.sendto(dnswire.addresses(query, ["192.0.2.99"]) if known else dnswire.failure(query, 3), client)

    asyncio.get_running_loop().add_reader(server, serve)
    guest = engine.guest(mode="mine", dns=["192.0.2.2", "192.0.2.1"])
    shut = engine.guest(mode="inner", dns=["192.0.2.1"])
    for one in (guest, shut):
        await engine.attach(one)
    inside = engine.namespaces[guest.id]
    assert await ask(inside, "example.org") == ["192.0.2.99"]
    assert await ask(inside, "+noshort", "+noall", "+comments", "nope.example.org") != []
    assert len(asked) == 2
    assert await ask(inside, guest.name) == ["172.18.0.2"]
    assert len(asked) == 2, "our own names stay here"
    assert await ask(engine.namespaces[shut.id], "example.org") == []
    assert len(asked) == 2, "an internal network asks nobody outside"
    asyncio.get_running_loop().remove_reader(server)


async def test_a_thousand_queries_without_loss(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    guest = engine.guest(mode="mine")
    await engine.attach(guest)
    client = engine.namespaces[guest.id].udp()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    question = dnswire.encode_name(guest.name) + b"\0\1\0\1"
    seen: set[int] = set()
    for first in range(0, 1000, 50):
        for number in range(first, first + 50):
            client.sendto(number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6) + question, ("127.0.0.11", 53))
        while len(seen) < first + 50:
            seen.add(int.from_bytes((await asyncio.wait_for(loop.sock_recv(client, 512), 2))[:2], "big"))
    assert len(seen) == 1000


async def test_names_after_a_crash(engine: NetworkEngine) -> None:
    await create(engine, "mine")
    guest = engine.guest(mode="mine")
    await engine.attach(guest)
    engine.crash()
    engine.start()
    await engine.networks.restore([guest])
    assert await ask(engine.namespaces[guest.id], guest.name) == ["172.18.0.2"]


async def test_default_network_makes_room_for_the_host(engine: NetworkEngine) -> None:
    engine.crash()
    engine.world.host.run("ip", "route", "add", "172.17.9.0/24", "via", "192.0.2.1")
    engine.start()
    await engine.networks.restore()
    bridge = await engine.networks.inspect("bridge")
    assert bridge.ipam.config == [IpamConfig(subnet="172.18.0.0/16", gateway="172.18.0.1")]
    guest = engine.guest()
    assert (await engine.attach(guest)).networks["bridge"].ip_address == "172.18.0.2"
    engine.crash()
    engine.world.host.run("ip", "route", "add", "172.18.9.0/24", "via", "192.0.2.1")
    engine.start()
    await engine.networks.restore([guest])
    assert (await engine.networks.inspect("bridge")).ipam == bridge.ipam, "not under a container that lives"


@pytest.mark.parametrize("device", ["", "uplink"])
async def test_default_route_in_two_halves(world: World, tmp_path: Path, device: str) -> None:
    """As OpenVPN makes it (`redirect-gateway def1`): there are addresses, and they stay the same."""
    world.give_ipv6()
    engine = NetworkEngine(world, tmp_path)
    halves = ("0.0.0.0/1", "128.0.0.0/1", "::/3", "2000::/4", "3000::/4", "fc00::/7")
    for version in ("-4", "-6"):
        for network in halves:
            way = ("dev", device) if device else ("via", "2001:db8::1" if ":" in network else "192.0.2.1")
            if (":" in network) == (version == "-6"):
                done = world.host.run("ip", version, "route", "add", network, *way)
                assert done.returncode == 0, done.stderr
    for _ in range(3):
        await engine.networks.restore()
        bridge = await engine.networks.inspect("bridge")
        assert bridge.ipam.config == [IpamConfig(subnet="172.17.0.0/16", gateway="172.17.0.1")]
        engine.crash()
        engine.start()
    await engine.networks.restore()
    await create(engine, "mine", enable_ipv6=True)
    guest = engine.guest(mode="mine")
    assert (await engine.attach(guest)).networks["mine"].ip_address == "172.18.0.2"
    engine.crash()


async def test_default_network_stays_where_every_pool_is_in_use(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pools = tuple(AddressPool(parse_network(text), 16) for text in ("10.1.0.0/16", "10.2.0.0/16"))
    engine = NetworkEngine(world, tmp_path, NetworkDefaults(pools=pools))
    await engine.networks.restore()
    before = await engine.networks.inspect("bridge")
    engine.crash()
    for address in ("10.1.0.9/24", "10.2.0.9/24"):
        world.host.run("ip", "address", "add", address, "dev", "uplink")
    engine.start()
    await engine.networks.restore()
    assert (await engine.networks.inspect("bridge")).ipam == before.ipam
    assert "network bridge stays as it is: all predefined address pools" in caplog.text
    assert (await engine.attach(engine.guest())).networks["bridge"].ip_address == "10.1.0.2"
    engine.crash()


async def test_a_network_on_the_hosts_own_link_does_not_hide_its_addresses(engine: NetworkEngine) -> None:
    """The link of a macvlan network is the host's: what is on it is taken."""
    await create(engine, "home", driver="macvlan", options={"parent": "uplink"},
                 ipam=Ipam(config=[IpamConfig(subnet="198.51.100.0/24")]))  # fmt: skip
    engine.crash()
    engine.world.host.run("ip", "address", "add", "172.17.0.9/24", "dev", "uplink")
    engine.start()
    await engine.networks.restore()
    config = (await engine.networks.inspect("bridge")).ipam.config
    assert config == [IpamConfig(subnet="172.18.0.0/16", gateway="172.18.0.1")]
