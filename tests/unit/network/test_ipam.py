"""Pools and addresses."""

from ipaddress import ip_address, ip_network

import pytest

from hafen.errors import Forbidden, InvalidArgument, System
from hafen.network import ipam
from hafen.network.ipam import Pool, Taken


def test_default_pools_avoid_what_is_used() -> None:
    assert ipam.choose_pool(Taken()) == ip_network("172.17.0.0/16")
    taken = [ip_network("172.17.5.0/24"), ip_network("172.18.0.0/15"), ip_network("fd00::/8")]
    assert ipam.choose_pool(Taken(taken)) == ip_network("172.20.0.0/16")
    assert ipam.choose_pool(Taken([ip_network("172.16.0.0/12")])) == ip_network("192.168.0.0/20")
    with pytest.raises(System, match="all predefined address pools have been fully subnetted"):
        ipam.choose_pool(Taken([ip_network("0.0.0.0/0")]))


def test_default_pools_avoid_what_the_host_has_routes_to_where_they_can() -> None:
    halves = [ip_network("0.0.0.0/1"), ip_network("128.0.0.0/1")]
    own = [ip_network("172.17.0.0/16")]
    assert ipam.choose_pool(Taken(own, [ip_network("172.16.0.0/12")])) == ip_network("192.168.0.0/20")
    assert ipam.choose_pool(Taken(own, halves)) == ip_network("172.18.0.0/16")
    with pytest.raises(System, match="all predefined address pools have been fully subnetted"):
        ipam.choose_pool(Taken(halves))


def test_addresses_are_reused_late() -> None:
    pool = Pool(ip_network("10.0.0.0/29"), reserved=[ip_address("10.0.0.1")])
    assert pool.free == 5
    first = pool.allocate()
    assert first == ip_address("10.0.0.2")
    pool.release(first)
    assert [str(pool.allocate()) for _ in range(5)] == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]
    assert pool.allocate() is None
    assert pool.free == 0


def test_range_and_claims() -> None:
    pool = Pool(ip_network("10.0.0.0/24"), ip_network("10.0.0.128/30"))
    pool.claim(ip_address("10.0.0.129"))
    assert [str(pool.allocate()) for _ in range(3)] == ["10.0.0.128", "10.0.0.130", "10.0.0.131"]
    pool.claim(ip_address("10.0.0.7"))
    with pytest.raises(Forbidden, match="Address already in use"):
        pool.claim(ip_address("10.0.0.7"))
    with pytest.raises(Forbidden):
        pool.claim(ip_address("10.0.0.255"))
    with pytest.raises(InvalidArgument, match=r"contain the IP address 10\.0\.1\.1"):
        pool.claim(ip_address("10.0.1.1"))


def test_ipv6_and_point_to_point() -> None:
    assert str(Pool(ip_network("fd00::/64")).allocate()) == "fd00::1"
    pool = Pool(ip_network("10.0.0.0/31"))
    assert {str(pool.allocate()), str(pool.allocate())} == {"10.0.0.0", "10.0.0.1"}


def test_subnets_as_users_write_them() -> None:
    assert ipam.parse_network("10.1.0.0/16") == ip_network("10.1.0.0/16")
    for text, complaint in (
        ("10.1.0.0/33", "invalid CIDR"),
        ("x", "invalid CIDR"),
        ("10.1.0.1/16", "should be 10.1.0.0"),
    ):
        with pytest.raises(InvalidArgument, match=complaint):
            ipam.parse_network(text)


def test_hardware_address() -> None:
    assert ipam.mac_of("172.17.0.2") == "02:42:ac:11:00:02"
