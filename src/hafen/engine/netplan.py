"""From a request to a network record: every check, and what the user left open chosen; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_network

import msgspec

from hafen.engine import netoptions, netrecords
from hafen.engine.netdefaults import NetworkDefaults
from hafen.engine.netrecords import PREDEFINED, NetworkRecord
from hafen.errors import NOT_A_MANAGER, Conflict, Forbidden, InvalidArgument, NotFound
from hafen.network.driver import bridge_name
from hafen.network.ipam import IpNetwork, Taken, choose_pool, overlaps, parse_address, parse_network
from hafen.network.macvlan import IPVLAN, MACVLAN
from hafen.spec.wire.network import Ipam, IpamConfig, NetworkCreateRequest

_LINK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ, linux/if.h; and nothing that nft(8) reads otherwise
_ON_PARENT = (MACVLAN, IPVLAN)


def plan(
    request: NetworkCreateRequest,
    network_id: str,
    created: str,
    existing: Iterable[NetworkRecord],
    occupied: Callable[[], Taken],
    defaults: NetworkDefaults,
) -> NetworkRecord:
    """The record of a new user-defined network. `occupied` gives what a pool of our choice keeps clear of."""
    known = list(existing)
    _check_name(request.name, known)
    driver = request.driver or "bridge"
    ipam = request.ipam or Ipam()
    ipv4, ipv6 = request.enable_ipv4 is not False, bool(request.enable_ipv6)
    _checked(ipam.config or [], ipv4, ipv6)
    _check_configuration(request)
    if request.config_only:
        return _template(request, network_id, created)
    _check_driver(driver)
    if request.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if request.config_from is not None and request.config_from.network:
        request = _configured_from(request, request.config_from.network, known)
        ipam = request.ipam or Ipam()
        ipv4, ipv6 = request.enable_ipv4 is not False, bool(request.enable_ipv6)
    if request.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    options = {**defaults.options.get(driver, {}), **(request.options or {})}
    record = NetworkRecord(
        id=network_id,
        name=request.name,
        driver=driver,
        created=created,
        ipam=ipam,
        internal=request.internal,
        attachable=request.attachable,
        enable_ipv4=ipv4,
        enable_ipv6=ipv6,
        config_from="" if request.config_from is None else request.config_from.network,
        scope=request.scope or "local",
        options=options,
        labels=request.labels or {},
    )
    link = netoptions.parent(options, network_id) if driver in _ON_PARENT else _link(options, network_id, known)
    record = msgspec.structs.replace(record, link=link)
    netrecords.as_network(record)  # the options make sense
    return _with_addresses(record, known, occupied, defaults)


def _with_addresses(
    record: NetworkRecord,
    known: Iterable[NetworkRecord],
    occupied: Callable[[], Taken],
    defaults: NetworkDefaults,
) -> NetworkRecord:
    """With the subnets and gateways that the user left open."""
    configs, idle = _checked(record.ipam.config or [], record.enable_ipv4, record.enable_ipv6)
    taken = [subnet for one in known for subnet in netrecords.subnets(one)]
    for config in configs:
        if any(overlaps(ip_network(config.subnet), other) for other in taken):
            raise Forbidden("Pool overlaps with other one on this address space")
    versions = [ip_network(config.subnet).version for config in configs]
    if record.driver == "bridge" and len(set(versions)) < len(versions):
        raise Forbidden("bridge driver doesn't support multiple subnets")
    missing = [version for version in (4, 6) if record.has(version) and version not in versions]
    clear_of = occupied() if missing else Taken()
    chosen = [IpamConfig(subnet=str(choose_pool(clear_of, defaults.subnets(version)))) for version in missing]
    configs, chosen = (
        [config if _has_no_gateway(record, config) else _with_gateway(config) for config in several]
        for several in (configs, chosen)
    )
    # As Docker lists them: those of the user, IPv4 before IPv6, then those of the engine's choice.
    given = sorted([*configs, *idle], key=lambda config: ":" in config.subnet)
    ipam = Ipam(driver="default", options=record.ipam.options, config=[*given, *chosen])
    return msgspec.structs.replace(record, ipam=ipam, user_subnet=bool(configs))


def _has_no_gateway(record: NetworkRecord, config: IpamConfig) -> bool:
    """Whether nobody in the network could use one."""
    network = netrecords.as_network(record)
    if record.driver == "bridge":
        return network.gateway_mode_of(ip_network(config.subnet).version) == "isolated"
    return network.mode in ("l3", "l3s")


def _check_configuration(request: NetworkCreateRequest) -> None:
    """What networks that are copied, and copies, may say; Forbidden with Docker's texts."""
    if request.config_only and (request.ingress or request.internal or request.attachable or request.scope):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    if request.config_from is None or not request.config_from.network:
        return
    if request.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    ipam = request.ipam or Ipam()
    if ipam.driver not in ("", "default") or ipam.options or ipam.config or request.labels or request.enable_ipv6:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    if request.options:
        raise Forbidden("network driver options are not supported if the network depends on a configuration network")


def _template(request: NetworkCreateRequest, network_id: str, created: str) -> NetworkRecord:
    """A network that is only there to be copied."""
    ipam = request.ipam or Ipam()
    return NetworkRecord(
        id=network_id,
        name=request.name,
        driver="null",
        created=created,
        ipam=Ipam(driver=ipam.driver or "default", options=ipam.options, config=ipam.config),
        enable_ipv4=request.enable_ipv4 is not False,
        enable_ipv6=bool(request.enable_ipv6),
        config_only=True,
        options=request.options or {},
        labels=request.labels or {},
    )


def _configured_from(request: NetworkCreateRequest, name: str, known: Iterable[NetworkRecord]) -> NetworkCreateRequest:
    source = next((one for one in known if one.config_only and one.name == name), None)
    if source is None:
        raise NotFound(f'configuration network "{name}" does not exist')
    return msgspec.structs.replace(
        request, ipam=source.ipam, options=source.options, labels=source.labels, enable_ipv4=source.enable_ipv4,
        enable_ipv6=source.enable_ipv6,
    )  # fmt: skip


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
    if driver not in ("bridge", *_ON_PARENT):
        raise NotFound(f'plugin "{driver}" not found')


def _link(options: dict[str, str], network_id: str, known: Iterable[NetworkRecord]) -> str:
    name = options.get(netoptions.BRIDGE_NAME) or bridge_name(network_id)
    if _LINK_NAME.fullmatch(name) is None or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name: {name}")
    for record in known:
        if record.link == name and record.driver == "bridge":
            raise Forbidden(
                f"cannot create network {network_id} ({name}): conflicts with network {record.id} ({record.link}): "
                "networks have same bridge name"
            )
    return name


def _checked(configs: Iterable[IpamConfig], ipv4: bool, ipv6: bool) -> tuple[list[IpamConfig], list[IpamConfig]]:
    """The subnets that the user wants, and those that a network without their version remembers, which Docker does not
    look at; InvalidArgument listing every mistake, as Docker does."""
    problems: list[str] = []
    found: list[IpamConfig] = []
    idle: list[IpamConfig] = []
    for config in configs:
        if not config.subnet:
            if config.gateway or config.ip_range or config.auxiliary_addresses:
                problems.append("invalid subnet : invalid CIDR block notation")
            continue
        in_use = netrecords.in_use(config, ipv4, ipv6)
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
        for host, address in config.auxiliary_addresses.items():
            problems += _address_problems("auxiliary address", address, subnet, host)
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


def _address_problems(what: str, text: str, subnet: IpNetwork, called: str = "") -> list[str]:
    if not text:
        return []
    shown = called or text
    try:
        address = parse_address(text)
    except InvalidArgument:
        return [f"invalid {what} {shown}: invalid address"]
    if address.version != subnet.version:
        return [f"invalid {what} {shown}: parent subnet is an IPv{subnet.version} block"]
    if address not in subnet:
        return [f"invalid {what} {shown}: parent subnet {subnet} doesn't contain this address"]
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
