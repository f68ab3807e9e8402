"""What a container asks of its networks: checked at create, and turned into files and settings at start; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hafen.engine import netoptions
from hafen.engine.netdefaults import NetworkDefaults
from hafen.engine.netrecords import NetworkRecord, idle_subnets, subnets
from hafen.errors import InvalidArgument, System
from hafen.network import etcfiles
from hafen.network.driver import Endpoint
from hafen.network.etcfiles import EtcFiles, Resolver
from hafen.network.ipam import parse_address
from hafen.spec import ports
from hafen.spec.ports import PortMapping
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.network import EndpointIpamConfig, EndpointSettings, PortBinding, PortMap

CONTAINER = "container:"
_NO_DEFAULTS = NetworkDefaults()


@dataclass(frozen=True, slots=True)
class Guest:
    """A container, as far as its networks are concerned. `networks` are those it asks to join, by name."""

    id: str
    name: str
    config: ContainerConfig
    host_config: HostConfig
    networks: Mapping[str, EndpointSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attached:
    """What a container got: to be kept with its status, and shown by inspect."""

    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    ports: PortMap = field(default_factory=dict)
    without_ipv6: tuple[str, ...] = ()  # its interfaces that are to have no IPv6 at all


def mode(host_config: HostConfig) -> str:
    """The network mode in its one spelling: "bridge", "host", "none", "container:<ref>", or a network's name."""
    return "bridge" if host_config.network_mode in ("", "default") else host_config.network_mode


def container_target(host_config: HostConfig) -> str | None:
    """The container whose network namespace (and files in /etc) are shared, or None."""
    text = host_config.network_mode
    return text.removeprefix(CONTAINER) if text.startswith(CONTAINER) else None


def parse_link(text: str) -> tuple[str, str]:
    """(container, alias) of one of `--link`: `db:mysql`, or `db` alone; System with Docker's text otherwise."""
    if not text:
        raise System("empty string specified for links")
    parts = text.split(":")
    if len(parts) > 2:
        raise System(f"bad format for links: {text}")
    name, alias = parts[0], parts[-1]
    if len(parts) == 2 and alias.startswith("/"):  # as an inspected one is written: /db:/web/mysql
        return name.removeprefix("/"), alias.rpartition("/")[2]
    return name, alias


def check_options(config: ContainerConfig, host_config: HostConfig, hostname_given: bool) -> None:
    """Options that contradict the network mode; InvalidArgument with Docker's texts."""
    shared = container_target(host_config)
    if shared == "":
        raise InvalidArgument("invalid container format container:<name|id>")
    for mapping in (*(host_config.port_bindings or {}), *config.exposed_ports):
        ports.parse_port(mapping)
    ports.from_bindings(host_config.port_bindings)
    if (shared is not None or mode(host_config) == "host") and host_config.links:
        kind = "container" if shared is not None else "host"
        raise InvalidArgument(
            f"conflicting options: {kind} type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if shared is None:
        return
    conflicts = (
        (hostname_given, "hostname and the network mode"),
        (bool(host_config.dns), "dns and the network mode"),
        (bool(host_config.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (bool(config.mac_address), "mac-address and the network mode"),
        (bool(host_config.port_bindings), "port publishing and the container type network mode"),
        (host_config.publish_all_ports, "port publishing and the container type network mode"),
        (bool(config.exposed_ports), "port exposing and the container type network mode"),
    )
    for found, what in conflicts:
        if found:
            raise InvalidArgument(f"conflicting options: {what}")


def requested(
    config: ContainerConfig, host_config: HostConfig, asked: Mapping[str, EndpointSettings | None] | None
) -> dict[str, EndpointSettings]:
    """The networks a new container asks to join, the one of its network mode first."""
    if container_target(host_config) is not None:
        places = [settings.ipam_config for settings in (asked or {}).values() if settings and settings.ipam_config]
        if any(place.ipv4_address or place.ipv6_address for place in places):
            raise InvalidArgument(
                f"invalid config for network {host_config.network_mode}: invalid endpoint settings:\n"
                "user specified IP address is supported on user defined networks only"
            )
        return {}
    if config.network_disabled:
        return {}
    primary = mode(host_config)
    given = {name: settings or EndpointSettings() for name, settings in (asked or {}).items()}
    first = given.pop(primary, None)
    for alias in ("default", host_config.network_mode):
        settings = given.pop(alias, None)
        first = first or settings
    first = first or EndpointSettings()
    if config.mac_address and first.mac_address not in ("", config.mac_address):
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be "
            "left empty"
        )
    if config.mac_address:
        first = msgspec.structs.replace(first, mac_address=config.mac_address)
    found = {primary: first, **given}
    if len(found) > 1 and (primary in ("host", "none") or any(name in ("host", "none") for name in given)):
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return {name: only_requested(settings) for name, settings in found.items()}


def only_requested(settings: EndpointSettings) -> EndpointSettings:
    """Without the fields that only the engine fills."""
    return EndpointSettings(
        ipam_config=settings.ipam_config,
        links=settings.links,
        aliases=settings.aliases,
        driver_opts=settings.driver_opts,
        gw_priority=settings.gw_priority,
        mac_address=settings.mac_address,
    )


def stopped(settings: EndpointSettings) -> EndpointSettings:
    """What a stopped container's inspect keeps of an endpoint."""
    return msgspec.structs.replace(
        only_requested(settings), mac_address="", network_id=settings.network_id, dns_names=settings.dns_names
    )


def check_connect(host_config: HostConfig, joined: Iterable[str], network: str) -> None:
    """Whether a container may be connected to one more network; InvalidArgument with Docker's texts."""
    before, shares = list(joined), mode(host_config) == "host" or container_target(host_config) is not None
    if network == "host" and not shares:
        raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
    if shares and network not in before:
        raise InvalidArgument(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    if before and "none" in (*before, network):
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )


def check_endpoint(network: NetworkRecord, settings: EndpointSettings) -> None:
    """Whether this network can give what is asked; InvalidArgument with Docker's texts."""
    asked = settings.ipam_config or EndpointIpamConfig()
    addresses = tuple(filter(None, (asked.ipv4_address, asked.ipv6_address)))
    problems: list[str] = []
    if network.predefined and addresses:
        problems.append("user specified IP address is supported on user defined networks only")
    if network.predefined and settings.aliases:
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    for text, family in ((asked.ipv4_address, 4), (asked.ipv6_address, 6)):
        if text and not _is_address(text, family):
            problems.append(f"invalid IPv{family} address: {text}")
    for text in asked.link_local_ips:
        if not _is_address(text):
            problems.append(f"invalid link-local IP address: {text}")
    by_user = network.user_subnet or network.name == "bridge"  # Docker counts its default one as the user's
    for text, version in ((asked.ipv4_address, 4), (asked.ipv6_address, 6)):
        if not text:
            continue
        found = subnets(network) if network.has(version) and by_user else []
        candidates = [one for one in found or idle_subnets(network) if one.version == version]
        if not candidates:
            problems.append(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        elif not (_is_address(text) and any(parse_address(text) in subnet for subnet in candidates)):
            problems.append(f"no configured subnet or ip-range contain the IP address {text}")
    netoptions.interface_name(settings.driver_opts)
    netoptions.endpoint_sysctls(settings.driver_opts, "eth0")
    if settings.mac_address and not _is_mac(settings.mac_address):
        raise InvalidArgument(f"invalid MAC address {settings.mac_address}")
    if problems:
        listed = "\n".join(f"* {problem}" for problem in problems) if len(problems) > 1 else problems[0]
        raise InvalidArgument(f"invalid endpoint settings:\n{listed}")


def _is_address(text: str, family: int | None = None) -> bool:
    try:
        address = parse_address(text)
    except InvalidArgument:
        return False
    return family in (None, address.version)


def _is_mac(text: str) -> bool:
    parts = text.replace("-", ":").split(":")
    return len(parts) == 6 and all(len(p) == 2 and all(c in "0123456789abcdefABCDEF" for c in p) for p in parts)


def wanted_ports(guest: Guest) -> tuple[PortMapping, ...]:
    """What is to be published: PortBindings, and with `-P` each exposed port."""
    published = ports.from_bindings(guest.host_config.port_bindings)
    if not guest.host_config.publish_all_ports:
        return published
    return published + ports.publish_all((ports.parse_port(key) for key in guest.config.exposed_ports), published)


def port_map(guest: Guest, endpoints: Iterable[Endpoint]) -> PortMap:
    """NetworkSettings.Ports: what is published, and `null` for what is only exposed, where it could be published."""
    held = list(endpoints)
    could = any(endpoint.link and (endpoint.gateway or endpoint.gateway6) for endpoint in held)
    found: PortMap = {str(ports.parse_port(key)): None for key in guest.config.exposed_ports if could}
    for endpoint in held:
        for port in endpoint.ports:
            bindings = found.get(str(port.container)) or []
            binding = PortBinding(host_ip=port.host_ip, host_port=str(port.host_port or ""))
            found[str(port.container)] = [*bindings, binding]
    return dict(sorted(found.items()))


def dns_names(guest: Guest, settings: EndpointSettings) -> list[str]:
    """Names by which other containers of a user-defined network find this one."""
    names = [guest.name, *(settings.aliases or ()), guest.id[:12], guest.config.hostname]
    return list(dict.fromkeys(name for name in names if name))


def filled(guest: Guest, network: NetworkRecord, settings: EndpointSettings, endpoint: Endpoint) -> EndpointSettings:
    """What inspect tells of a live endpoint."""
    return msgspec.structs.replace(
        settings,
        network_id=network.id,
        endpoint_id=endpoint.id,
        gateway=endpoint.gateway,
        ip_address=endpoint.ip,
        ip_prefix_len=endpoint.prefix,
        mac_address=endpoint.mac,
        ipv6_gateway=endpoint.gateway6,
        global_ipv6_address=endpoint.ip6,
        global_ipv6_prefix_len=endpoint.prefix6,
        dns_names=dns_names(guest, settings) if network.user_defined else None,
    )


def etc_files(
    guest: Guest,
    endpoints: Sequence[Endpoint],
    host: Resolver,
    *,
    embedded: bool,
    gateways: Sequence[str],
    linked: Sequence[tuple[str, str]] = (),
    defaults: NetworkDefaults = _NO_DEFAULTS,
) -> EtcFiles:
    """The files in the container's /etc. `embedded`: names are asked of our own resolver. `gateways` are what
    `host-gateway` means, `linked` addresses and names of what it links to."""
    options = guest.host_config
    given = [pair for text in options.extra_hosts or () for pair in etcfiles.parse_extra_host(text, gateways)]
    extra = [*given, *linked]
    dns = options.dns or defaults.dns
    search, dns_options = options.dns_search or defaults.dns_search, options.dns_options or defaults.dns_options
    wanted = etcfiles.override(host, dns, search, dns_options)
    if mode(options) == "host":
        hosts, resolver = etcfiles.host_hosts(extra), etcfiles.resolv_conf(wanted)
    else:
        own = [address for endpoint in endpoints for address in (endpoint.ip, endpoint.ip6)]
        hosts = etcfiles.hosts(own, guest.config.hostname, guest.config.domainname, extra)
        if embedded:
            resolver = etcfiles.resolv_conf(etcfiles.embedded(wanted), wanted.servers)
        else:
            resolver = etcfiles.resolv_conf(wanted if dns else etcfiles.without_loopback(wanted))
    return EtcFiles(hosts, resolver, f"{guest.config.hostname}\n")
