"""What users may say of a network and of their place in it, on the real drivers: addresses, names, routes, sysctls."""

import asyncio
from pathlib import Path

import pytest

from hafen.engine.netdefaults import AddressPool, NetworkDefaults
from hafen.errors import Forbidden, InvalidArgument, NotFound, System
from hafen.network.ipam import parse_network
from hafen.spec.wire.network import (
    ConfigReference,
    EndpointIpamConfig,
    EndpointSettings,
    Ipam,
    IpamConfig,
    NetworkConnectRequest,
    NetworkDisconnectRequest,
    NetworkingConfig,
    PortBinding,
    PortMap,
)
from tests.harness.netns import Netns, World
from tests.harness.networks import NetworkEngine, create

pytestmark = pytest.mark.root


def place(name: str, **settings: object) -> NetworkingConfig:
    return NetworkingConfig(endpoints_config={name: EndpointSettings(**settings)})  # type: ignore[arg-type]  # each test names the fields it is about


def addresses(*configs: IpamConfig) -> Ipam:
    return Ipam(config=list(configs))


def default_routes(netns: Netns) -> set[str]:
    return {
        words[2]
        for family in ("-4", "-6")
        for line in netns.run("ip", family, "route", "show", "default").stdout.splitlines()
        if (words := line.split())
    }


async def test_dual_stack_with_addresses_of_ones_own(engine: NetworkEngine) -> None:
    await create(engine, "mine", enable_ipv6=True)
    four, six = (await engine.networks.inspect("mine")).ipam.config or []
    assert four.subnet == "172.18.0.0/16"
    assert parse_network(six.subnet).prefixlen == 64
    assert six.subnet.startswith("fd"), "unique local (RFC 4193)"
    assert six.gateway == str(parse_network(six.subnet)[1])
    await create(engine, "other", enable_ipv6=True)
    other = (await engine.networks.inspect("other")).ipam.config or []
    assert other[1].subnet != six.subnet
    one, two = engine.guest(mode="mine"), engine.guest(mode="mine")
    got = (await engine.attach(one)).networks["mine"]
    await engine.attach(two)
    assert got.global_ipv6_address == str(parse_network(six.subnet)[2])
    assert (got.global_ipv6_prefix_len, got.ipv6_gateway) == (64, six.gateway)
    assert default_routes(engine.namespaces[one.id]) == {"172.18.0.1", six.gateway}
    assert f"{got.global_ipv6_address}\t{one.id[:12]}\n" in engine.file(one, "hosts")
    assert engine.namespaces[two.id].run("ping", "-c1", "-W10", got.global_ipv6_address).returncode == 0


async def test_ipv6_alone(engine: NetworkEngine) -> None:
    await create(engine, "six", enable_ipv4=False, enable_ipv6=True)
    shown = await engine.networks.inspect("six")
    assert (shown.enable_ipv4, shown.enable_ipv6, len(shown.ipam.config or ())) == (False, True, 1)
    one, two = engine.guest(mode="six"), engine.guest(mode="six")
    got = (await engine.attach(one)).networks["six"]
    assert (got.ip_address, got.gateway) == ("", "")
    assert got.mac_address.startswith("02:42:")
    other = (await engine.attach(two)).networks["six"]
    assert engine.namespaces[one.id].run("ping", "-c1", "-W10", other.global_ipv6_address).returncode == 0
    await engine.networks.connect("bridge", NetworkConnectRequest(container=one.id))
    assert default_routes(engine.namespaces[one.id]) == {"172.17.0.1", got.ipv6_gateway}, "each by its own network"


async def test_fixed_addresses_of_both_families(engine: NetworkEngine) -> None:
    subnets = addresses(IpamConfig(subnet="172.18.0.0/16"), IpamConfig(subnet="fd00:18::/64"))
    await create(engine, "mine", enable_ipv6=True, ipam=subnets)
    asked = EndpointIpamConfig(ipv4_address="172.18.0.22", ipv6_address="fd00:18::22", link_local_ips=["169.254.8.8"])
    guest = engine.guest(mode="mine", networking=place("mine", ipam_config=asked))
    got = (await engine.attach(guest)).networks["mine"]
    assert (got.ip_address, got.global_ipv6_address) == ("172.18.0.22", "fd00:18::22")
    inside = {address.ip for address in engine.namespaces[guest.id].route.addresses()}
    assert {"172.18.0.22", "fd00:18::22", "169.254.8.8"} <= inside


async def test_ranges_auxiliary_addresses_and_their_end(engine: NetworkEngine) -> None:
    config = IpamConfig(
        subnet="10.9.0.0/24", ip_range="10.9.0.8/30", gateway="10.9.0.9", auxiliary_addresses={"printer": "10.9.0.10"}
    )
    await create(engine, "small", ipam=addresses(config))
    got = [(await engine.attach(engine.guest(mode="small"))).networks["small"].ip_address for _ in range(2)]
    assert got == ["10.9.0.8", "10.9.0.11"]
    with pytest.raises(System, match=r"no available IPv4 addresses on this network's address pools: small \("):
        await engine.attach(engine.guest(mode="small"))
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        await create(engine, "again", ipam=addresses(IpamConfig(subnet="10.9.0.0/16")))


async def test_highest_priority_leads_out(engine: NetworkEngine) -> None:
    """And takes the published ports with it, while the container runs."""
    for name in ("one", "two"):
        await create(engine, name)
    guest = engine.guest(mode="one", ports={"80/tcp": [PortBinding(host_port="8080")]})
    await engine.attach(guest)
    netns, container = engine.namespaces[guest.id], engine.members.find(guest.id)
    server = netns.serve(80)

    def reached() -> None:
        engine.world.neighbour.connect("192.0.2.2", 8080).close()
        server.accept()[0].close()

    reached()
    assert default_routes(netns) == {"172.18.0.1"}
    preferred = EndpointSettings(gw_priority=5)
    await engine.networks.connect("two", NetworkConnectRequest(container=guest.id, endpoint_config=preferred))
    assert default_routes(netns) == {"172.19.0.1"}
    assert [len(bindings or ()) for bindings in container.status.ports.values()] == [2]
    reached()
    await engine.networks.disconnect("two", NetworkDisconnectRequest(container=guest.id))
    assert default_routes(netns) == {"172.18.0.1"}
    reached()
    await engine.networks.disconnect("one", NetworkDisconnectRequest(container=guest.id))
    assert default_routes(netns) == set()
    assert not engine.world.neighbour.reaches("192.0.2.2", 8080)
    await engine.networks.connect("two", NetworkConnectRequest(container=guest.id))
    assert default_routes(netns) == {"172.19.0.1"}
    reached()


async def test_ports_move_to_the_network_of_ipv4(engine: NetworkEngine) -> None:
    await create(engine, "six", enable_ipv4=False, enable_ipv6=True)
    guest = engine.guest(mode="six", ports={"80/tcp": [PortBinding(host_port="8080")]})
    got = await engine.attach(guest)
    assert got.ports["80/tcp"]
    server = engine.namespaces[guest.id].serve(80)
    await engine.networks.connect("bridge", NetworkConnectRequest(container=guest.id))
    engine.world.neighbour.connect("192.0.2.2", 8080).close()
    connection, (client, _) = server.accept()
    connection.close()
    assert client == "192.0.2.1"


async def test_connecting_that_fails_leaves_nothing(engine: NetworkEngine) -> None:
    """The container's ports, which had nowhere to be published before, are somebody else's by now."""
    await create(engine, "inner", internal=True)
    published: PortMap = {"80/tcp": [PortBinding(host_port="8080")]}
    guest = engine.guest(mode="inner", ports=published)
    await engine.attach(guest)
    await engine.attach(engine.guest(ports=published))
    before = engine.world.links()
    with pytest.raises(System, match=r"port is already allocated \(by c1\)"):
        await engine.networks.connect("bridge", NetworkConnectRequest(container=guest.id))
    wanted = EndpointSettings(driver_opts={"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.nosuch=1"})
    with pytest.raises(OSError, match="nosuch"):
        await engine.networks.connect("bridge", NetworkConnectRequest(container=guest.id, endpoint_config=wanted))
    netns = engine.namespaces[guest.id]
    assert {link.name for link in netns.route.links()} == {"lo", "eth0"}
    assert default_routes(netns) == set()
    assert engine.world.links() == before
    assert list(engine.members.find(guest.id).record.networks) == ["inner"]
    assert len((await engine.networks.inspect("bridge")).containers) == 1
    assert (await engine.attach(engine.guest())).networks["bridge"].ip_address


async def test_interface_names_and_sysctls(engine: NetworkEngine) -> None:
    await create(engine, "mine", options={"com.docker.network.container_iface_prefix": "lan"})
    settings = {
        "com.docker.network.endpoint.ifname": "wan0",
        "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.rp_filter=2",
    }
    networking = NetworkingConfig(
        endpoints_config={"mine": EndpointSettings(), "bridge": EndpointSettings(driver_opts=settings)}
    )
    guest = engine.guest(mode="mine", networking=networking)
    await engine.attach(guest)
    netns = engine.namespaces[guest.id]
    assert {link.name for link in netns.route.links()} == {"lo", "lan0", "wan0"}
    with netns.entered():
        conf = Path("/proc/sys/net/ipv4/conf/wan0")
        assert (conf / "log_martians").read_text() == "1\n"
        assert (conf / "rp_filter").read_text() == "2\n"
    await engine.networks.disconnect("mine", NetworkDisconnectRequest(container=guest.id))
    await engine.networks.connect("mine", NetworkConnectRequest(container=guest.id))
    assert {link.name for link in netns.route.links()} == {"lo", "lan0", "wan0"}
    for option, value in (("sysctls", "kernel.shmmax=1"), ("ifname", "a/b")):
        with pytest.raises(InvalidArgument, match="invalid endpoint settings"):
            engine.guest(networking=place("bridge", driver_opts={f"com.docker.network.endpoint.{option}": value}))


async def test_networks_that_are_copied(engine: NetworkEngine) -> None:
    await create(engine, "plan", config_only=True, labels={"a": "b"}, ipam=addresses(IpamConfig(subnet="10.99.0.0/24")))
    shown = await engine.networks.inspect("plan")
    assert (shown.driver, shown.config_only, shown.ipam.config) == ("null", True, [IpamConfig(subnet="10.99.0.0/24")])
    await create(engine, "copy", config_from=ConfigReference(network="plan"))
    copy = await engine.networks.inspect("copy")
    assert (copy.driver, copy.labels, copy.config_from.network) == ("bridge", {"a": "b"}, "plan")
    assert copy.ipam.config == [IpamConfig(subnet="10.99.0.0/24", gateway="10.99.0.1")]
    with pytest.raises(Forbidden, match='configuration network "plan" is in use'):
        await engine.networks.remove("plan")
    with pytest.raises(Forbidden, match="cannot create endpoint on configuration-only network"):
        await engine.attach(engine.guest(mode="plan"))
    with pytest.raises(NotFound, match='configuration network "copy" does not exist'):
        await create(engine, "third", config_from=ConfigReference(network="copy"))
    with pytest.raises(Forbidden, match="user specified configurations are not supported"):
        await create(engine, "third", config_from=ConfigReference(network="plan"), labels={"x": "y"})
    await engine.networks.prune()
    assert {network.name for network in await engine.networks.list()} == {"bridge", "host", "none", "plan"}
    await engine.networks.remove("plan")


async def test_macvlan_as_a_network_of_the_engine(engine: NetworkEngine) -> None:
    home = addresses(IpamConfig(subnet="192.0.2.0/24", gateway="192.0.2.1", auxiliary_addresses={"host": "192.0.2.2"}))
    await create(engine, "home", driver="macvlan", options={"parent": "uplink"}, ipam=home)
    guest = engine.guest(mode="home", ports={"80/tcp": [PortBinding(host_port="8080")]})
    got = await engine.attach(guest)
    assert (got.networks["home"].ip_address, got.networks["home"].gateway) == ("192.0.2.3", "192.0.2.1")
    assert got.ports == {}, "nothing to publish: it is a machine of its own"
    netns = engine.namespaces[guest.id]
    assert netns.run("ping", "-c1", "-W10", "192.0.2.1").returncode == 0
    assert "nameserver 127.0.0.11" in engine.file(guest, "resolv.conf")
    await engine.networks.disconnect("home", NetworkDisconnectRequest(container=guest.id))
    assert [link.name for link in netns.route.links()] == ["lo"]
    await engine.networks.connect("home", NetworkConnectRequest(container=guest.id))
    assert default_routes(netns) == {"192.0.2.1"}
    engine.networks.release(guest.id)
    await engine.networks.remove("home")
    assert "uplink" in engine.world.links()
    wrong = "requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default"
    with pytest.raises(System, match=wrong):
        await create(engine, "home", driver="macvlan", options={"parent": "uplink", "macvlan_mode": "foo"})


async def test_an_address_that_is_not_free_yet_is_waited_for(engine: NetworkEngine) -> None:
    """The kernel needs a moment to clear the namespace away that a container had before it was started again."""
    home = addresses(IpamConfig(subnet="192.0.2.0/24", gateway="192.0.2.1"))
    await create(engine, "home", driver="macvlan", options={"parent": "uplink"}, ipam=home)
    wanted = EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address="192.0.2.70"))
    guest = engine.guest(mode="home", networking=NetworkingConfig(endpoints_config={"home": wanted}))
    await engine.attach(guest)
    former = engine.namespaces[guest.id]
    engine.networks.release(guest.id)
    async with asyncio.TaskGroup() as group:
        again = group.create_task(engine.attach(guest))
        await asyncio.sleep(0.1)
        assert not again.done()
        assert former.run("ip", "link", "del", "eth0").returncode == 0
    assert again.result().networks["home"].ip_address == "192.0.2.70"


async def test_several_subnets_on_one_parent(engine: NetworkEngine) -> None:
    """Each address leads out by the gateway of its own subnet; who does not choose gets the next that is free."""
    configs = [IpamConfig(subnet=f"{net}.0/29", gateway=f"{net}.6") for net in ("192.168.210", "192.168.212")]
    await create(engine, "lan", driver="macvlan", options={"parent": "uplink"}, ipam=addresses(*configs))
    engine.world.neighbour.run("ip", "address", "add", "192.168.212.6/29", "dev", "uplink")
    chosen = EndpointIpamConfig(ipv4_address="192.168.212.2")
    guest = engine.guest(mode="lan", networking=place("lan", ipam_config=chosen))
    got = (await engine.attach(guest)).networks["lan"]
    assert (got.ip_address, got.gateway) == ("192.168.212.2", "192.168.212.6")
    netns = engine.namespaces[guest.id]
    assert default_routes(netns) == {"192.168.212.6"}
    assert netns.run("ping", "-c1", "-W10", "192.0.2.1").returncode == 0
    others = [(await engine.attach(engine.guest(mode="lan"))).networks["lan"] for _ in range(9)]
    assert [(one.ip_address, one.gateway) for one in others] == [
        *((f"192.168.210.{number}", "192.168.210.6") for number in (1, 2, 3, 4, 5)),
        *((f"192.168.212.{number}", "192.168.212.6") for number in (1, 3, 4, 5)),
    ]
    with pytest.raises(System, match=r"no available IPv4 addresses on this network's address pools: lan \("):
        await engine.attach(engine.guest(mode="lan"))


async def test_addresses_are_what_they_mean_however_they_are_written(engine: NetworkEngine) -> None:
    config = IpamConfig(subnet="FD00:AB::/64", gateway="FD00:AB::0001")
    await create(engine, "six", enable_ipv6=True, ipam=addresses(config))
    asked = EndpointIpamConfig(ipv6_address="FD00:AB::0005")
    guest = engine.guest(mode="six", networking=place("six", ipam_config=asked))
    before = await engine.attach(guest)
    got = before.networks["six"]
    assert (got.global_ipv6_address, got.ipv6_gateway, got.ipam_config) == ("fd00:ab::5", "fd00:ab::1", asked)
    assert (await engine.networks.inspect("six")).containers[guest.id].ipv6_address == "fd00:ab::5/64"
    engine.crash()
    engine.start()
    assert await engine.networks.restore([guest]) == {guest.id: before}
    netns = engine.namespaces[guest.id]
    with netns.entered():
        dig = await asyncio.create_subprocess_exec(
            "dig", "@127.0.0.11", "+short", "+tries=1", "+time=5", "-x", "fd00:ab::5", stdout=asyncio.subprocess.PIPE
        )
    output, _ = await dig.communicate()
    assert output.decode().strip() == "c0.six."


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("bridge.enable_icc", "maybe", r'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("bridge.enable_ip_masquerade", "maybe", r'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("bridge.host_binding_ipv4", "x", "nil ip"),
        ("driver.mtu", "x", r'strconv.Atoi: parsing "x": invalid syntax'),
        ("bridge.gateway_mode_ipv4", "x", "unknown gateway mode x"),
    ],
)
async def test_options_that_make_no_sense(engine: NetworkEngine, name: str, value: str, complaint: str) -> None:
    option = f"com.docker.network.{name}"
    with pytest.raises(InvalidArgument) as caught:
        await create(engine, "wrong", options={option: value})
    assert caught.value.message == f"failed to parse {option} value: {value} ({complaint})"
    assert (await engine.networks.list())[-1].name != "wrong"


async def test_ports_where_the_network_says(engine: NetworkEngine) -> None:
    await create(engine, "mine", options={"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"})
    guest = engine.guest(mode="mine", ports={"80/tcp": [PortBinding(host_port="8080")]})
    assert (await engine.attach(guest)).ports == {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")]}
    server = engine.namespaces[guest.id].serve(80)
    assert not engine.world.neighbour.reaches("192.0.2.2", 8080)
    engine.world.host.connect("127.0.0.1", 8080).close()
    server.accept()[0].close()


async def test_what_daemon_json_says(world: World, tmp_path: Path) -> None:
    defaults = NetworkDefaults(
        bridge="br9", bip="10.8.0.5/24", fixed_cidr="10.8.0.128/25", ipv6=True, fixed_cidr6="fd00:8::/64", icc=False,
        host_ip="127.0.0.1", mtu=1400, dns=("192.0.2.53",), dns_search=("example.test",), dns_options=("ndots:2",),
        host_gateways=("192.0.2.2",), pools=(AddressPool(parse_network("10.7.0.0/22"), 24),),
        options={"bridge": {"com.docker.network.driver.mtu": "1300"}},
    )  # fmt: skip
    engine = NetworkEngine(world, tmp_path, defaults)
    await engine.networks.restore()
    guest = engine.guest(ports={"80/tcp": [PortBinding(host_port="8080")]}, extra_hosts=["gw:host-gateway"])
    got = await engine.attach(guest)
    settings = got.networks["bridge"]
    assert (settings.ip_address, settings.gateway, settings.ip_prefix_len) == ("10.8.0.128", "10.8.0.5", 24)
    assert (settings.global_ipv6_address, settings.ipv6_gateway) == ("fd00:8::2", "fd00:8::1")
    assert got.ports == {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")]}
    link = engine.namespaces[guest.id].route.link("eth0")
    assert link is not None
    assert link.mtu == 1400
    text = engine.file(guest, "resolv.conf")
    assert [line for line in text.splitlines() if line[:1] not in ("#", "")] == [
        "nameserver 192.0.2.53", "search example.test", "options ndots:2",
    ]  # fmt: skip
    assert "192.0.2.2\tgw\n" in engine.file(guest, "hosts")
    for number in range(4):
        await create(engine, f"n{number}")
        shown = await engine.networks.inspect(f"n{number}")
        assert [config.subnet for config in shown.ipam.config or ()] == [f"10.7.{number}.0/24"]
        assert shown.options == {"com.docker.network.driver.mtu": "1300"}
    with pytest.raises(System, match=r"all predefined address pools have been fully subnetted: name a subnet"):
        await create(engine, "n4")
    before = await engine.networks.inspect("bridge")
    engine.crash()
    engine.defaults = NetworkDefaults(bridge="br9")
    engine.start()
    await engine.networks.restore([guest])
    assert (await engine.networks.inspect("bridge")).ipam == before.ipam, "not under a container that lives"
    engine.networks.release(guest.id)
    engine.crash()
    engine.start()
    await engine.networks.restore()
    after = await engine.networks.inspect("bridge")
    assert (after.id, after.enable_ipv6, after.options["com.docker.network.bridge.enable_icc"]) == (
        before.id, False, "true",
    )  # fmt: skip
    assert "10.8.0.5" not in world.host.run("ip", "address").stdout
    engine.crash()


async def test_many_join_and_leave_at_once(engine: NetworkEngine) -> None:
    await create(engine, "mine", enable_ipv6=True)
    guests = [engine.guest(mode="mine", ports={"80/tcp": [PortBinding()]}) for _ in range(10)]
    got = await asyncio.gather(*(engine.attach(guest) for guest in guests))
    ports = {binding.host_port for one in got for binding in one.ports["80/tcp"] or ()}
    assert len(ports) == 10, "each its own, the same for both families"
