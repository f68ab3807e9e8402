"""From a request to a network record: every check, and what the user left open chosen; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Network, ip_network

import msgspec

from hafen.engine import netrecords
from hafen.engine.netrecords import PREDEFINED, NetworkRecord
from hafen.errors import NOT_A_MANAGER, Conflict, Forbidden, InvalidArgument, NotFound, NotImplemented
from hafen.network.driver import bridge_name
from hafen.network.ipam import IpNetwork, choose_pool, overlaps, parse_address, parse_network
from hafen.spec.wire.network import Ipam, IpamConfig, NetworkCreateRequest

_PLANNED = frozenset(("macvlan", "ipvlan"))
_LINK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ, linux/if.h; and nothing that nft(8) reads otherwise


def plan(
    request: NetworkCreateRequest,
    network_id: str,
    created: str,
    existing: Iterable[NetworkRecord],
    occupied: Callable[[], Iterable[IpNetwork]],
) -> NetworkRecord:
    """The record of a new user-defined bridge network. `occupied` gives what no pool of our choice may overlap."""
    known = list(existing)
    _check_name(request.name, known)
    driver = request.driver or "bridge"
    _check_driver(driver)
    if request.config_only or (request.config_from is not None and request.config_from.network):
        raise NotImplemented("configuration-only networks are not implemented yet")
    if request.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if request.ingress or request.scope not in ("", "local"):
        raise NotImplemented("swarm-scoped networks are not implemented yet")
    options = request.options or {}
    netrecords.mtu(options)
    ipam = request.ipam or Ipam()
    if ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    ipv6 = bool(request.enable_ipv6)
    configs, idle = _checked(ipam.config or [], ipv6)
    by_user = bool(configs)
    taken = [subnet for record in known for subnet in netrecords.subnets(record)]
    for config in configs:
        if any(overlaps(ip_network(config.subnet), other) for other in taken):
            raise Forbidden("Pool overlaps with other one on this address space")
    versions = {ip_network(config.subnet).version for config in configs}
    if 4 not in versions:
        configs.insert(0, IpamConfig(subnet=str(choose_pool([*taken, *occupied()]))))
    if ipv6 and 6 not in versions:
        configs.append(IpamConfig(subnet=str(_unique_local(network_id))))
    configs = [_with_gateway(config) for config in configs]
    return NetworkRecord(
        id=network_id,
        name=request.name,
        driver=driver,
        created=created,
        ipam=Ipam(driver="default", options=ipam.options, config=[*configs, *idle] if by_user else [*idle, *configs]),
        link=_link(options, network_id, known),
        internal=request.internal,
        attachable=request.attachable,
        enable_ipv6=ipv6,
        user_subnet=by_user,
        options=options,
        labels=request.labels or {},
    )


def _check_name(name: str, known: Iterable[NetworkRecord]) -> None:
    if not name.strip():
        raise InvalidArgument(f"invalid name: {name}")
    if name in PREDEFINED or name == "default":
        raise Forbidden(f"operation is not permitted on predefined {name} network ")  # Docker's space
    if "/" in name:
        raise InvalidArgument(f"invalid network name: {name}")
    if any(record.name == name for record in known):
        raise Conflict(f"network with name {name} already exists")


def _check_driver(driver: str) -> None:
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Forbidden(NOT_A_MANAGER)
    if driver in _PLANNED:
        raise NotImplemented(f"network driver {driver} is not implemented yet")
    if driver != "bridge":
        raise NotFound(f'plugin "{driver}" not found')


def _link(options: dict[str, str], network_id: str, known: Iterable[NetworkRecord]) -> str:
    name = options.get(netrecords.BRIDGE_NAME) or bridge_name(network_id)
    if _LINK_NAME.fullmatch(name) is None or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name: {name}")
    for record in known:
        if record.link == name:
            raise Forbidden(
                f"cannot create network {network_id} ({name}): conflicts with network {record.id} ({record.link}): "
                "networks have same bridge name"
            )
    return name


def _checked(configs: Iterable[IpamConfig], ipv6: bool) -> tuple[list[IpamConfig], list[IpamConfig]]:
    """The subnets that the user wants, and those of IPv6 that a network without it remembers, which Docker does not
    look at; InvalidArgument listing every mistake, as Docker does."""
    problems: list[str] = []
    found: list[IpamConfig] = []
    idle: list[IpamConfig] = []
    for config in configs:
        if not config.subnet:
            if config.gateway or config.ip_range or config.auxiliary_addresses:
                problems.append("every ip-range or gateway must have a corresponding subnet")
            continue
        in_use = netrecords.in_use(config, ipv6)
        try:
            subnet = parse_network(config.subnet, strict=in_use)
        except InvalidArgument as error:
            problems.append(error.message)
            continue
        if not in_use:
            idle.append(config)
            continue
        problems += _range_problems(config.ip_range, subnet)
        problems += _address_problems("gateway", config.gateway, subnet)
        for address in config.auxiliary_addresses.values():
            problems += _address_problems("auxiliary address", address, subnet)
        if any(overlaps(subnet, ip_network(other.subnet)) for other in found):
            problems.append(f"invalid subnet {subnet}: overlaps with another one of this network")
        found.append(config)
    if problems:
        raise InvalidArgument("invalid network config:\n" + "\n".join(problems))
    return found, idle


def _range_problems(text: str, subnet: IpNetwork) -> list[str]:
    if not text:
        return []
    try:
        area = parse_network(text)
    except InvalidArgument as error:
        return [error.message.replace("invalid subnet", "invalid ip-range", 1)]
    if area.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    if area.prefixlen < subnet.prefixlen:
        return [f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"]
    if not overlaps(area, subnet):
        return [f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"]
    return []


def _address_problems(what: str, text: str, subnet: IpNetwork) -> list[str]:
    if not text:
        return []
    try:
        address = parse_address(text)
    except InvalidArgument:
        return [f"invalid {what} {text}: invalid address"]
    if address.version != subnet.version:
        return [f"invalid {what} {text}: parent subnet is an IPv{subnet.version} block"]
    if address not in subnet:
        return [f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address"]
    return []


def _with_gateway(config: IpamConfig) -> IpamConfig:
    if config.gateway:
        return config
    subnet = ip_network(config.subnet)
    reserved = {parse_address(text) for text in config.auxiliary_addresses.values()}
    first = next((address for address in subnet.hosts() if address not in reserved), None)
    if first is None:
        raise InvalidArgument(f"invalid network config:\nsubnet {subnet} has no room for a gateway")
    return msgspec.structs.replace(config, gateway=str(first))


def _unique_local(network_id: str) -> IPv6Network:
    """A /64 of our own (RFC 4193): as random as the network's id."""
    return IPv6Network((bytes.fromhex("fd" + network_id[:14]) + bytes(8), 64))
