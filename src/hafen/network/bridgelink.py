"""The bridge under a network: one that we made, or one that the administrator made and that we only use.

What we made bears an alias with our name from the moment it is there, and is removed with its network. What does not
bear it is never deleted: it keeps its addresses, its ports, its MTU, and whether it heeds router advertisements.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from hafen.errors import System
from hafen.kernel import rtnetlink
from hafen.kernel.rtnetlink import Link, Rtnetlink
from hafen.network.driver import Network
from hafen.network.ipam import mac_of

_SETTINGS = "/proc/sys/net"


def is_ours(link: Link, owner: str) -> bool:
    """Whether the engine whose name is `owner` made this bridge."""
    return link.kind == "bridge" and link.alias.startswith(_alias(owner, ""))


def _alias(owner: str, network_id: str) -> str:
    return f"{owner} bridge {network_id}"


def set_up(route: Rtnetlink, network: Network, owner: str, mtu: int) -> Link:
    """The network's bridge: made where it is missing, with whatever it lacks where it is there."""
    found = route.link(network.link)
    if found is None:
        return _make(route, network, owner, mtu)
    if found.kind != "bridge":
        raise System(f"link {network.link} exists and is no bridge")
    _configure(route, network, found, ours=is_ours(found, owner))
    return found


def _make(route: Rtnetlink, network: Network, owner: str, mtu: int) -> Link:
    gateway = network.gateway_of(4)
    mac = mac_of(gateway) if gateway else f"02:42:{bytes.fromhex(network.id[:8]).hex(':')}"
    # In one system call: nobody would know a bridge as ours whose maker was killed before it had its alias.
    alias = rtnetlink.set_alias(network.link, _alias(owner, network.id))
    try:
        route.execute(rtnetlink.new_bridge(network.link, mac, mtu), alias)
    except OSError as error:
        if error.errno == errno.EEXIST:  # the administrator was faster, and the alias is on his
            route.execute(rtnetlink.set_alias(network.link, ""))
        raise
    with ExitStack() as undo:
        undo.callback(route.discard, network.link)
        made = route.link(network.link)
        if made is None:
            raise System(f"link {network.link} vanished")
        _configure(route, network, made, ours=True)
        undo.pop_all()
    return made


def _configure(route: Rtnetlink, network: Network, bridge: Link, *, ours: bool) -> None:
    present = {(a.ip, a.prefix) for a in route.addresses() if a.ifindex == bridge.ifindex}
    requests = []
    if ours:
        _prepare_ipv6(network.link)  # also where an engine was killed before it came to this
    if ours and not bridge.is_up and not any(":" in subnet.network for subnet in network.subnets):
        requests.append(rtnetlink.no_link_local(bridge.ifindex))
    if not bridge.is_up:
        requests.append(rtnetlink.set_link(bridge.ifindex, up=True))
    for subnet in network.subnets if network.host_addresses else ():
        if network.gateway_mode_of(6 if ":" in subnet.network else 4) == "isolated":
            continue
        prefix = ip_network(subnet.network).prefixlen
        if subnet.gateway and (subnet.gateway, prefix) not in present:
            requests.append(rtnetlink.new_address(bridge.ifindex, subnet.gateway, prefix))
    route.execute(*requests)
    _route_loopback(network.link, "1")


def remove(route: Rtnetlink, name: str, owner: str) -> None:
    """Also where it has gone already. One that is not ours stays, with the addresses that it has."""
    link = route.link(name)
    if link is None:
        return
    if is_ours(link, owner):
        route.discard(name)
    elif link.kind == "bridge":
        _route_loopback(name, "0")


def answer_for_ports(name: str) -> None:
    """Isolated ports of the bridge reach one another through the host, as far as its firewall lets them: it answers
    their questions for one another's hardware addresses (`proxy_arp_pvlan`, RFC 3069), without the usual delay."""
    _write(f"ipv4/neigh/{name}/proxy_delay", "0")
    _write(f"ipv4/conf/{name}/proxy_arp_pvlan", "1")


def _route_loopback(name: str, value: str) -> None:
    """Whether published ports answer on the host's 127.0.0.1 to what comes over this bridge. The ruleset's `raw` chain
    closes what this opens, so it must not stay where that has gone."""
    _write(f"ipv4/conf/{name}/route_localnet", value)


def _prepare_ipv6(name: str) -> None:
    """Before the bridge comes up. It heeds no router advertisements, or a container could make itself the host's way
    out (CVE-2020-13401). It looks for no duplicates of its own address: until the kernel has done so, which takes a
    second or two, it asks for no neighbour, and the first who come from outside wait."""
    with suppress(FileNotFoundError):  # a host without IPv6
        _write(f"ipv6/conf/{name}/accept_ra", "0")
        _write(f"ipv6/conf/{name}/accept_dad", "0")


def _write(setting: str, value: str) -> None:
    with open(f"{_SETTINGS}/{setting}", "w") as file:
        file.write(value)


def addresses_given(name: str, owner: str) -> list[IPv4Interface | IPv6Interface]:
    """The addresses of a bridge that the administrator made, in order; none where it is ours or is not there."""
    with Rtnetlink() as route:
        link = route.link(name)
        if link is None or link.kind != "bridge" or is_ours(link, owner):
            return []
        found = [ip_interface(f"{a.ip}/{a.prefix}") for a in route.addresses() if a.ifindex == link.ifindex]
    return [address for address in found if not address.is_link_local]
