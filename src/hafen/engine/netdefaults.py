"""What an engine is told about networks in general, and the three networks that are always there; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface, IPv6Network, ip_interface, ip_network

from hafen.engine import netoptions
from hafen.engine.netrecords import NetworkRecord
from hafen.network.driver import DEFAULT_BRIDGE
from hafen.network.ipam import DEFAULT_POOLS, IpNetwork, Taken, choose_pool, overlaps
from hafen.spec.wire.network import Ipam, IpamConfig

Interface = IPv4Interface | IPv6Interface

DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Subnets of `size` bits' prefix, cut from `base` as they are needed."""

    base: IpNetwork
    size: int

    def __iter__(self) -> Iterator[IpNetwork]:
        yield from self.base.subnets(new_prefix=self.size)


@dataclass(frozen=True, slots=True)
class NetworkDefaults:
    """Everything of daemon.json that is about networks. Empty fields leave the choice to the engine."""

    bridge: str = DEFAULT_BRIDGE
    pools: tuple[AddressPool, ...] = ()
    bip: str = ""  # of the default network's bridge: "192.168.5.1/24"
    bip6: str = ""
    fixed_cidr: str = ""  # containers in the default network get their addresses from this part of it
    fixed_cidr6: str = ""
    ipv6: bool = False
    icc: bool = True
    masquerade: bool = True
    host_ip: str = "0.0.0.0"
    mtu: int = 0
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    host_gateways: tuple[str, ...] = ()  # what `host-gateway` means
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of new networks, by driver
    seed: str = ""  # makes this engine's own unique local addresses

    def subnets(self, version: int) -> Iterator[IpNetwork]:
        """Those that a network without any may get, best first."""
        given = [pool for pool in self.pools if pool.base.version == version]
        if given:
            for pool in given:
                yield from pool
        elif version == 4:
            yield from DEFAULT_POOLS
        else:
            yield from AddressPool(unique_local(self.seed), 64)


def unique_local(seed: str) -> IPv6Network:
    """A /48 of the engine's own (RFC 4193): as good as random, and the same every time."""
    return IPv6Network((b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5] + bytes(10), 48))


def record(
    defaults: NetworkDefaults, name: str, network_id: str, created: str, taken: Callable[[], Taken]
) -> NetworkRecord:
    """One of the three. `taken` gives what a subnet of our choice keeps clear of."""
    driver = DRIVERS[name]
    if driver != "bridge":
        return NetworkRecord(network_id, name, driver, created, Ipam(driver="default"))
    configs = [_config(defaults.bip, defaults.fixed_cidr, defaults, 4, taken)]
    if defaults.ipv6:
        configs.append(_config(defaults.bip6, defaults.fixed_cidr6, defaults, 6, taken))
    return NetworkRecord(
        network_id, name, driver, created, Ipam(driver="default", config=configs), defaults.bridge,
        enable_ipv6=defaults.ipv6, options=_options(defaults),
    )  # fmt: skip


def on_bridge(defaults: NetworkDefaults, addresses: Iterable[Interface]) -> NetworkDefaults:
    """The defaults where the default network's bridge is the administrator's and has these addresses: as with Docker,
    its subnets are those of the bridge, or of the addresses that the part for containers is in."""
    given = list(addresses)
    bip = _chosen(given, 4, defaults.fixed_cidr) if not defaults.bip else defaults.bip
    bip6 = _chosen(given, 6, defaults.fixed_cidr6) if not defaults.bip6 else defaults.bip6
    return replace(defaults, bip=bip, bip6=bip6)


def _chosen(addresses: Iterable[Interface], version: int, fixed: str) -> str:
    able = [one for one in addresses if one.version == version]
    return next((str(one) for one in able if not fixed or overlaps(one.network, ip_network(fixed))), "")


def fits(kept: NetworkRecord, defaults: NetworkDefaults) -> bool:
    """Whether the default network of an earlier start is what is wanted now."""
    if kept.driver != "bridge":
        return True
    wanted = record(defaults, kept.name, kept.id, kept.created, Taken)
    configs = {ip_network(one.subnet).version: one for one in kept.ipam.config or ()}
    for one in wanted.ipam.config or ():
        version = ip_network(one.subnet).version
        given = (defaults.bip or defaults.fixed_cidr) if version == 4 else (defaults.bip6 or defaults.fixed_cidr6)
        if (given and configs.get(version) != one) or (not given and configs.get(version, one).ip_range):
            return False
    return (kept.link, kept.options, kept.enable_ipv6) == (wanted.link, wanted.options, wanted.enable_ipv6)


def _config(bip: str, fixed: str, defaults: NetworkDefaults, version: int, taken: Callable[[], Taken]) -> IpamConfig:
    if bip:
        interface = ip_interface(bip)
        subnet, gateway = str(interface.network), str(interface.ip)
    else:
        # As Docker: without an address for the bridge, the part for containers is the subnet.
        chosen = ip_network(fixed) if fixed else choose_pool(taken(), defaults.subnets(version))
        subnet, gateway = str(chosen), str(chosen[1])
    return IpamConfig(subnet=subnet, gateway=gateway, ip_range=fixed if bip else "")


def _options(defaults: NetworkDefaults) -> dict[str, str]:
    options = {
        netoptions.DEFAULT_BRIDGE: "true",
        netoptions.ENABLE_ICC: str(defaults.icc).lower(),
        netoptions.MASQUERADE: str(defaults.masquerade).lower(),
        netoptions.HOST_BINDING: defaults.host_ip,
        netoptions.BRIDGE_NAME: defaults.bridge,
    }
    return {**options, netoptions.MTU: str(defaults.mtu)} if defaults.mtu else options
