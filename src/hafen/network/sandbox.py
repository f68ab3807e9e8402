"""The inside of a container's network namespace: its interface, addresses and default routes."""

from __future__ import annotations

import errno
from collections.abc import Collection
from ipaddress import ip_interface
from socket import AF_INET, AF_INET6

from hafen.kernel import rtnetlink
from hafen.kernel.netlink import Request
from hafen.kernel.rtnetlink import Rtnetlink
from hafen.network.driver import Netns, Wish

_FAMILIES = {4: AF_INET, 6: AF_INET6}


def plug(
    host: Rtnetlink, netns: Netns, wish: Wish, made_by: Request, gateways: tuple[str, str], *, direct: bool = False
) -> None:
    """Let `made_by` make `wish.interface` inside, and give it its addresses and the default routes that it is to lead
    out by: over the gateways of IPv4 and IPv6 ("" for none), or with `direct` straight over the link. OSError where
    the kernel refuses; then nothing is left.

    Two system calls on the host's socket, four inside: some 0.6 ms, of which registering the devices is most.
    """
    host.execute(made_by)
    # Not closed: the socket is the caller's, and serves for what is connected later.
    inside = Rtnetlink(netns.rtnetlink)
    try:
        _configure(inside, wish, gateways, direct)
    except BaseException:
        inside.discard(wish.interface)
        raise


def _configure(inside: Rtnetlink, wish: Wish, gateways: tuple[str, str], direct: bool) -> None:
    made = inside.link(wish.interface)
    if made is None:
        raise OSError(f"rtnetlink: {wish.interface} is not in the container's network namespace")
    requests = [] if wish.ip6 else [rtnetlink.no_link_local(made.ifindex)]
    requests.append(rtnetlink.set_link(made.ifindex, up=True))
    if wish.ip:
        broadcast = str(ip_interface(f"{wish.ip}/{wish.prefix}").network.broadcast_address)
        requests.append(rtnetlink.new_address(made.ifindex, wish.ip, wish.prefix, broadcast))
    if wish.ip6:
        requests.append(rtnetlink.new_address(made.ifindex, wish.ip6, wish.prefix6))
    requests.extend(
        rtnetlink.new_address(made.ifindex, address, 64 if ":" in address else 16) for address in wish.link_local
    )
    versions = [version for version, leads in ((4, wish.leads_out), (6, wish.leads_out6)) if leads]
    requests += _routes(made.ifindex, gateways, direct, versions, bool(wish.ip), bool(wish.ip6))
    inside.execute(*requests)


def _routes(
    index: int, gateways: tuple[str, str], direct: bool, versions: Collection[int], ipv4: bool, ipv6: bool
) -> list[Request]:
    found = []
    for version, gateway, has_address in ((4, gateways[0], ipv4), (6, gateways[1], ipv6)):
        if version in versions and has_address and (gateway or direct):
            by = "" if direct else gateway
            found.append(rtnetlink.new_route(by, output=index, ipv6=version == 6))
    return found


def lead_out(
    netns: Netns, interface: str, gateways: tuple[str, str], versions: Collection[int], *, direct: bool = False
) -> None:
    """The default routes of these versions lead over the interface from now on, whatever they did before."""
    inside = Rtnetlink(netns.rtnetlink)
    link = inside.link(interface)
    if link is None:
        raise OSError(errno.ENODEV, f"{interface} is not in the container's network namespace")
    former = [
        rtnetlink.delete_default_route(route)
        for version in versions
        for route in inside.routes(_FAMILIES[version])
        if not route.destination and route.table == rtnetlink.RT_TABLE_MAIN
    ]
    inside.execute(*former)
    inside.execute(*_routes(link.ifindex, gateways, direct, versions, ipv4=True, ipv6=True))


def unplug(netns: Netns, interface: str) -> None:
    """Remove the interface, and with it the host's end; also where it has gone already."""
    Rtnetlink(netns.rtnetlink).discard(interface)
