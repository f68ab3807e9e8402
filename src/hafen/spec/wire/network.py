"""Engine API JSON shapes for networks, endpoints and published ports (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import UInt16, UInt64, Wire, named, null, shown, unless_empty


class PortBinding(Wire, frozen=True):
    """Where a port is published: empty address means every address, empty port a free one."""

    host_ip: str = shown(str)
    host_port: str = shown(str)


PortMap = dict[str, list[PortBinding] | None]  # "80/tcp" -> bindings; None: exposed, not published


class PortSummary(Wire, frozen=True):
    ip: str = named("IP", "")
    private_port: UInt16 = shown(int)
    public_port: UInt16 = 0
    type: str = shown(str)


class EndpointIpamConfig(Wire, frozen=True):
    """Addresses that the user asks for."""

    ipv4_address: str = named("IPv4Address", "")
    ipv6_address: str = named("IPv6Address", "")
    link_local_ips: list[str] = unless_empty(list[str], "LinkLocalIPs")


class EndpointSettings(Wire, frozen=True):
    """A container's place in a network: what was asked (first part) and what it got (from `network_id` on)."""

    ipam_config: EndpointIpamConfig | None = shown(null, "IPAMConfig")
    links: list[str] | None = shown(null)
    aliases: list[str] | None = shown(null)
    driver_opts: dict[str, str] | None = shown(null)
    gw_priority: int = shown(int)
    network_id: str = shown(str, "NetworkID")
    endpoint_id: str = shown(str, "EndpointID")
    gateway: str = shown(str)
    ip_address: str = shown(str, "IPAddress")
    mac_address: str = shown(str)
    ip_prefix_len: int = shown(int, "IPPrefixLen")
    ipv6_gateway: str = shown(str, "IPv6Gateway")
    global_ipv6_address: str = shown(str, "GlobalIPv6Address")
    global_ipv6_prefix_len: int = shown(int, "GlobalIPv6PrefixLen")
    dns_names: list[str] | None = shown(null, "DNSNames")


class NetworkingConfig(Wire, frozen=True):
    """Networks a new container joins, by name."""

    endpoints_config: dict[str, EndpointSettings | None] | None = shown(null)


class NetworkSettings(Wire, frozen=True):
    """A container's networks as `inspect` tells them; `versions` adds the older top-level addresses."""

    sandbox_id: str = shown(str, "SandboxID")
    sandbox_key: str = shown(str)
    ports: PortMap = shown(dict[str, list[PortBinding] | None])
    networks: dict[str, EndpointSettings] = shown(dict[str, EndpointSettings])


class IpamConfig(Wire, frozen=True):
    subnet: str = ""
    ip_range: str = named("IPRange", "")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = unless_empty(dict[str, str])


class Ipam(Wire, frozen=True):
    driver: str = shown(str)
    options: dict[str, str] | None = shown(null)
    config: list[IpamConfig] | None = shown(null)


class ConfigReference(Wire, frozen=True):
    network: str = shown(str)


class PeerInfo(Wire, frozen=True):
    name: str = shown(str)
    ip: str = shown(str, "IP")


class EndpointResource(Wire, frozen=True):
    """A container in a network, as the network tells it. Addresses carry their prefix length."""

    name: str = shown(str)
    endpoint_id: str = shown(str, "EndpointID")
    mac_address: str = shown(str)
    ipv4_address: str = shown(str, "IPv4Address")
    ipv6_address: str = shown(str, "IPv6Address")


class SubnetStatus(Wire, frozen=True):
    ips_in_use: UInt64 = shown(int, "IPsInUse")
    dynamic_ips_available: UInt64 = shown(int, "DynamicIPsAvailable")


class IpamStatus(Wire, frozen=True):
    subnets: dict[str, SubnetStatus] = unless_empty(dict[str, SubnetStatus])


class NetworkStatus(Wire, frozen=True):
    ipam: IpamStatus = named("IPAM", IpamStatus())


class NetworkSummary(Wire, frozen=True):
    """One network in the list. `created` is RFC 3339 with nanoseconds."""

    name: str = shown(str)
    id: str = shown(str)
    created: str = shown(str)
    scope: str = shown(str)
    driver: str = shown(str)
    enable_ipv4: bool = shown(bool, "EnableIPv4")
    enable_ipv6: bool = shown(bool, "EnableIPv6")
    ipam: Ipam = shown(Ipam, "IPAM")
    internal: bool = shown(bool)
    attachable: bool = shown(bool)
    ingress: bool = shown(bool)
    config_from: ConfigReference = shown(ConfigReference)
    config_only: bool = shown(bool)
    options: dict[str, str] = shown(dict[str, str])
    labels: dict[str, str] = shown(dict[str, str])
    peers: list[PeerInfo] = unless_empty(list[PeerInfo])


class NetworkInspect(NetworkSummary, frozen=True):
    containers: dict[str, EndpointResource] = shown(dict[str, EndpointResource])
    status: NetworkStatus | None = None


class NetworkCreateRequest(Wire, frozen=True):
    name: str = shown(str)
    check_duplicate: bool = False  # older clients only; always checked
    driver: str = shown(str)
    scope: str = shown(str)
    enable_ipv4: bool | None = named("EnableIPv4", None)
    enable_ipv6: bool | None = named("EnableIPv6", None)
    ipam: Ipam | None = shown(null, "IPAM")
    internal: bool = shown(bool)
    attachable: bool = shown(bool)
    ingress: bool = shown(bool)
    config_only: bool = shown(bool)
    config_from: ConfigReference | None = shown(null)
    options: dict[str, str] | None = shown(null)
    labels: dict[str, str] | None = shown(null)


class NetworkCreateResponse(Wire, frozen=True):
    id: str = shown(str)
    warning: str = shown(str)


class NetworkConnectRequest(Wire, frozen=True):
    container: str = shown(str)
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnectRequest(Wire, frozen=True):
    container: str = shown(str)
    force: bool = shown(bool)


class NetworkPruneResponse(Wire, frozen=True):
    networks_deleted: list[str] | None = shown(null)
