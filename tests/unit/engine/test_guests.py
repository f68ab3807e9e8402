"""What a container asks of its networks."""

import pytest

from hafen.engine import guests
from hafen.engine.guests import Guest
from hafen.errors import InvalidArgument
from hafen.network.driver import Endpoint, PublishedPort
from hafen.network.etcfiles import Resolver
from hafen.spec.ports import Port, PortMapping
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.image import EmptyObject
from hafen.spec.wire.network import EndpointSettings, PortBinding

NAMED = EndpointSettings(aliases=["x"])


def guest(config: ContainerConfig | None = None, host: HostConfig | None = None) -> Guest:
    return Guest("f" * 64, "web", config or ContainerConfig(hostname="h"), host or HostConfig(), {})


@pytest.mark.parametrize(
    ("mode", "asked", "expected"),
    [
        ("", None, {"bridge": EndpointSettings()}),
        ("default", {"bridge": NAMED}, {"bridge": NAMED}),
        ("bridge", {"default": NAMED}, {"bridge": NAMED}),
        ("none", None, {"none": EndpointSettings()}),
        ("container:x", {"bridge": NAMED}, {}),
        ("mine", {"other": NAMED, "mine": None}, {"mine": EndpointSettings(), "other": NAMED}),
    ],
)
def test_networks_to_join(
    mode: str, asked: dict[str, EndpointSettings | None] | None, expected: dict[str, EndpointSettings]
) -> None:
    found = guests.requested(ContainerConfig(), HostConfig(network_mode=mode), asked)
    assert found == expected
    assert list(found) == list(expected)


def test_old_clients_give_the_hardware_address_with_the_container() -> None:
    config = ContainerConfig(mac_address="02:00:00:00:00:01")
    assert guests.requested(config, HostConfig(), None)["bridge"].mac_address == "02:00:00:00:00:01"
    assert guests.requested(ContainerConfig(network_disabled=True), HostConfig(), None) == {}


def test_what_only_the_engine_fills_is_not_taken_from_a_client() -> None:
    given = EndpointSettings(ip_address="1.2.3.4", endpoint_id="x", network_id="y", aliases=["a"])
    assert guests.requested(ContainerConfig(), HostConfig(), {"bridge": given})["bridge"] == EndpointSettings(
        aliases=["a"]
    )


def test_host_mode_joins_nothing_else() -> None:
    with pytest.raises(InvalidArgument, match="conflicting options"):
        guests.requested(ContainerConfig(), HostConfig(network_mode="host"), {"mine": None})


SHARED = "container:x"


@pytest.mark.parametrize(
    ("config", "host", "complaint"),
    [
        (ContainerConfig(), HostConfig(network_mode=SHARED, dns=["1.1.1.1"]), "dns and the network mode"),
        (ContainerConfig(), HostConfig(network_mode=SHARED, extra_hosts=["a:1.1.1.1"]), "custom host"),
        (ContainerConfig(), HostConfig(network_mode=SHARED, publish_all_ports=True), "port publishing"),
        (ContainerConfig(exposed_ports={"80/tcp": EmptyObject()}), HostConfig(network_mode=SHARED), "port exposing"),
        (ContainerConfig(), HostConfig(network_mode="host", links=["a:b"]), "host type networking can't"),
        (ContainerConfig(), HostConfig(network_mode="container:"), "invalid container format"),
        (ContainerConfig(), HostConfig(port_bindings={"x": []}), "invalid port: x"),
        (ContainerConfig(), HostConfig(port_bindings={"80/tcp": [PortBinding("zz", "")]}), "invalid IP address: zz"),
    ],
)  # fmt: skip
def test_contradictions(config: ContainerConfig, host: HostConfig, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        guests.check_options(config, host, hostname_given=False)


def test_hostname_of_a_shared_network() -> None:
    with pytest.raises(InvalidArgument, match="conflicting options: hostname and the network mode"):
        guests.check_options(ContainerConfig(), HostConfig(network_mode="container:x"), hostname_given=True)
    guests.check_options(ContainerConfig(), HostConfig(), hostname_given=True)


def test_ports_shown() -> None:
    config = ContainerConfig(exposed_ports={"55/tcp": EmptyObject(), "80/tcp": EmptyObject()})
    bridged = Endpoint(
        "e", "c", "n", link="hf1", gateway="172.17.0.1", ports=(PublishedPort(Port(80), "0.0.0.0", 8080),)
    )
    shown = guests.port_map(guest(config), [bridged])
    assert shown == {"55/tcp": None, "80/tcp": [PortBinding("0.0.0.0", "8080")]}
    assert guests.port_map(guest(config), [Endpoint("e", "c", "n")]) == {}, "no network to publish them at"
    wanted = guests.wanted_ports(guest(config, HostConfig(publish_all_ports=True)))
    assert wanted == (PortMapping(Port(55)), PortMapping(Port(80)))


def test_files_of_the_three_kinds() -> None:
    host = Resolver(("127.0.0.53",), ("corp",))
    endpoints = [Endpoint("e", "c", "n", ip="172.18.0.2")]
    plain = guests.etc_files(guest(), endpoints, host, embedded=False, gateways=())
    assert "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch corp\n" in plain.resolv_conf
    assert plain.hosts.endswith("172.18.0.2\th\n")
    assert plain.hostname == "h\n"
    user = guests.etc_files(guest(host=HostConfig(dns=["9.9.9.9"])), endpoints, host, embedded=True, gateways=())
    assert "nameserver 127.0.0.11\n" in user.resolv_conf
    assert "9.9.9.9" in user.resolv_conf.splitlines()[1]
    chosen = guests.etc_files(guest(host=HostConfig(dns=["127.0.0.1"])), endpoints, host, embedded=False, gateways=())
    assert "nameserver 127.0.0.1\n" in chosen.resolv_conf, "who asks for it gets it"
    shared = guests.etc_files(guest(host=HostConfig(network_mode="host")), [], host, embedded=False, gateways=())
    assert "nameserver 127.0.0.53\n" in shared.resolv_conf


def test_names_in_a_user_defined_network() -> None:
    assert guests.dns_names(guest(), NAMED) == ["web", "x", "f" * 12, "h"]
    assert guests.dns_names(guest(), EndpointSettings(aliases=["web"])) == ["web", "f" * 12, "h"]
