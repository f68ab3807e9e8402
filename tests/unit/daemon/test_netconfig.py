"""What daemon.json and flags say about networks."""

import json
from ipaddress import ip_network
from itertools import islice
from pathlib import Path

import pytest

from hafen.daemon.config import load
from hafen.errors import InvalidArgument


def written(folder: Path, **values: object) -> list[str]:
    path = folder / "daemon.json"
    path.write_text(json.dumps(values))
    return ["--config-file", str(path)]


def test_dockers_names(tmp_path: Path) -> None:
    given = {
        "bip": "10.8.0.1/24", "fixed-cidr": "10.8.0.128/25", "ipv6": True, "fixed-cidr-v6": "fd00:8::/64", "icc": False,
        "ip": "127.0.0.1", "ip-masq": False, "mtu": 1400, "dns": ["192.0.2.1"], "dns-search": ["example.test"],
        "dns-opts": ["ndots:2"], "host-gateway-ip": "192.0.2.2", "firewall": "respect", "userland-proxy": True,
        "default-address-pools": [{"base": "10.7.0.0/16", "size": 24}, {"base": "fd00:7::/48", "size": 64}],
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}},
    }  # fmt: skip
    networks = load(written(tmp_path, **given)).networks
    defaults = networks.defaults("seed")
    assert networks.firewall == "respect"
    assert (defaults.bip, defaults.fixed_cidr, defaults.ipv6, defaults.icc) == (
        "10.8.0.1/24",
        "10.8.0.128/25",
        True,
        False,
    )
    assert (defaults.host_ip, defaults.masquerade, defaults.mtu) == ("127.0.0.1", False, 1400)
    assert (defaults.dns, defaults.dns_search, defaults.dns_options) == (
        ("192.0.2.1",),
        ("example.test",),
        ("ndots:2",),
    )
    assert defaults.host_gateways == ("192.0.2.2",)
    assert [str(subnet) for subnet in islice(defaults.subnets(4), 2)] == ["10.7.0.0/24", "10.7.1.0/24"]
    assert [str(subnet) for subnet in islice(defaults.subnets(6), 2)] == ["fd00:7::/64", "fd00:7:0:1::/64"]


def test_flags(tmp_path: Path) -> None:
    flags = [
        "--bip", "10.8.0.1/24", "--ipv6", "--icc", "false", "--mtu", "1400", "--dns", "192.0.2.1", "--dns", "192.0.2.2",
        "--default-address-pool", "base=10.7.0.0/16,size=24", "--firewall", "respect",
    ]  # fmt: skip
    networks = load([*written(tmp_path, bip="10.9.0.1/24", icc=True), *flags]).networks
    assert (networks.bip, networks.ipv6, networks.icc, networks.mtu, networks.firewall) == (
        "10.8.0.1/24", True, False, 1400, "respect",
    )  # fmt: skip
    assert networks.dns == ("192.0.2.1", "192.0.2.2")
    assert next(networks.defaults().subnets(4)) == ip_network("10.7.0.0/24")


def test_unique_local_addresses_are_the_engines_own(tmp_path: Path) -> None:
    networks = load(written(tmp_path)).networks
    one, again, other = (next(networks.defaults(seed).subnets(6)) for seed in ("one", "one", "other"))
    assert one == again != other
    assert one.prefixlen == 64
    assert all(str(subnet).startswith("fd") for subnet in (one, other))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"bip": "what"}, "bip: 'what' does not appear to be an IPv4 or IPv6 interface"),
        ({"fixed-cidr": "10.8.0.1/25"}, r"fixed-cidr: 10\.8\.0\.1/25 has host bits set"),
        ({"ip": "what"}, "ip: 'what' does not appear"),
        ({"dns": ["what"]}, "dns: 'what' does not appear"),
        ({"firewall": "what"}, "firewall is 'what'; one of docker, respect"),
        ({"iptables": False}, "iptables can only be true here"),
        ({"default-address-pools": [{"base": "10.7.0.0/16"}]}, "invalid default-address-pools entry"),
        ({"default-address-pools": [{"base": "10.7.0.0/16", "size": 8}]}, r"size 8 does not fit 10\.7\.0\.0/16"),
        ({"default-address-pools": "what"}, "the value of default-address-pools has the wrong type"),
        ({"mtu": "many"}, "the value of mtu has the wrong type"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, values: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        load(written(tmp_path, **values))
