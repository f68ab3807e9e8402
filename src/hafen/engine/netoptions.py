"""Options of networks and endpoints, as Docker's drivers name and read them; pure.

InvalidArgument with Docker's texts where a value makes no sense, System where Docker takes that for its own failure.
Names that no driver knows are kept and mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import TypeVar

from hafen.errors import InvalidArgument, System
from hafen.kernel.rtnetlink import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from hafen.network import macvlan
from hafen.network.driver import GATEWAY_MODES, Network
from hafen.network.macvlan import IPVLAN, MACVLAN

OPTION = "com.docker.network."
DEFAULT_BRIDGE = f"{OPTION}bridge.default_bridge"
BRIDGE_NAME = f"{OPTION}bridge.name"
ENABLE_ICC = f"{OPTION}bridge.enable_icc"
MASQUERADE = f"{OPTION}bridge.enable_ip_masquerade"
HOST_BINDING = f"{OPTION}bridge.host_binding_ipv4"
GATEWAY_MODE = f"{OPTION}bridge.gateway_mode_ipv4"
GATEWAY_MODE6 = f"{OPTION}bridge.gateway_mode_ipv6"
HOST_IPV4 = f"{OPTION}host_ipv4"
HOST_IPV6 = f"{OPTION}host_ipv6"
INHIBIT_IPV4 = f"{OPTION}bridge.inhibit_ipv4"
MTU = f"{OPTION}driver.mtu"
INTERFACE_PREFIX = f"{OPTION}container_iface_prefix"

IFNAME = f"{OPTION}endpoint.ifname"
SYSCTLS = f"{OPTION}endpoint.sysctls"

T = TypeVar("T")

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def apply(network: Network, driver: str, options: Mapping[str, str]) -> Network:
    """The network with what the options of its driver say."""
    if driver == "bridge":
        return _bridge(network, options)
    if driver == MACVLAN:
        return _on_parent(network, driver, options, "macvlan_mode", MACVLAN_MODES)
    if driver == IPVLAN:
        found = _on_parent(network, driver, options, "ipvlan_mode", IPVLAN_MODES)
        return replace(found, flag=_choice(options, "ipvlan_flag", IPVLAN_FLAGS, "bridge", driver))
    return network


def _bridge(network: Network, options: Mapping[str, str]) -> Network:
    host_ip = _read(options, HOST_BINDING, "", _address)
    modes = [_read(options, name, "nat", _gateway_mode) for name in (GATEWAY_MODE, GATEWAY_MODE6)]
    if "isolated" in modes and not network.internal:
        raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
    return replace(
        network,
        icc=_read(options, ENABLE_ICC, True, boolean),
        masquerade=_read(options, MASQUERADE, True, boolean),
        host_ip="" if host_ip == "0.0.0.0" else host_ip,
        mtu=_read(options, MTU, 0, _number),
        gateway_mode=modes[0],
        gateway_mode6=modes[1],
        leaves_as=_read(options, HOST_IPV4, "", _address),
        leaves_as6=_read(options, HOST_IPV6, "", _address),
        host_addresses=not _read(options, INHIBIT_IPV4, False, boolean),
    )


def _on_parent(
    network: Network, driver: str, options: Mapping[str, str], name: str, modes: Mapping[str, int]
) -> Network:
    if options.get("parent") == "lo":
        raise System(f"loopback interface is not a valid {driver} parent link")
    dummy = network.link == macvlan.dummy_name(network.id)
    return replace(
        network,
        internal=network.internal or dummy,
        mtu=_read(options, MTU, 0, _number),
        mode=_choice(options, name, modes, macvlan.DEFAULT_MODES[driver], driver),
    )


def parent(options: Mapping[str, str], network_id: str) -> str:
    """The interface below a macvlan or ipvlan network."""
    return options.get("parent") or macvlan.dummy_name(network_id)


def _choice(options: Mapping[str, str], name: str, known: Mapping[str, int], default: str, driver: str) -> str:
    value = options.get(name) or default
    if value not in known:
        what = name.replace("_", " ")
        raise System(f"requested {what} '{value}' is not valid, '{default}' mode is the {driver} driver default")
    return value


def _read(options: Mapping[str, str], name: str, default: T, parse: Callable[[str], T]) -> T:
    text = options.get(name)
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidArgument(f"failed to parse {name} value: {text} ({error})") from None


def boolean(text: str) -> bool:
    """As strconv.ParseBool reads it; ValueError with its words."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("nil ip") from None


def _gateway_mode(text: str) -> str:
    if text not in GATEWAY_MODES:
        raise ValueError(f"unknown gateway mode {text}")
    return text


def endpoint_sysctls(options: Mapping[str, str] | None, interface: str) -> dict[str, str]:
    """`net.ipv4.conf.IFNAME.log_martians=1,...` of an endpoint, by paths below /proc/sys. docker's client writes all of
    it in lower case."""
    found: dict[str, str] = {}
    for setting in filter(None, (options or {}).get(SYSCTLS, "").split(",")):
        name, equals, value = setting.partition("=")
        parts = name.split(".")
        if not equals or len(parts) != 5 or parts[0] != "net" or parts[3].upper() != "IFNAME":
            raise InvalidArgument(
                f"invalid endpoint settings:\nunable to parse '{setting}' in label {SYSCTLS}: "
                "the form is net.X.Y.IFNAME.Z=value"
            )
        if parts[1] not in ("ipv4", "ipv6", "mpls"):
            raise InvalidArgument(
                f"invalid endpoint settings:\nunable to parse '{setting}' in label {SYSCTLS}: "
                "only ipv4, ipv6 and mpls are interface sysctls"
            )
        found["/".join([*parts[:3], interface, parts[4]])] = value
    return found


def ipv6_switch(interface: str) -> str:
    """The sysctl that takes IPv6 from an interface, as a path below /proc/sys."""
    return f"net/ipv6/conf/{interface}/disable_ipv6"


def interface_name(options: Mapping[str, str] | None) -> str:
    """The name that the user wants for the interface inside, "" for none."""
    name = (options or {}).get(IFNAME, "")
    if name and (len(name.encode()) > 15 or name in (".", "..") or any(c in "/:" or c.isspace() for c in name)):
        raise InvalidArgument(f"invalid endpoint settings:\ninvalid interface name: {name}")
    return name
