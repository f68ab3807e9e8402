"""Connect a network namespace to a bridge: the container's link, its addresses and routes."""

from __future__ import annotations

from ipaddress import ip_interface
from socket import AF_INET, AF_INET6

from hafen.kernel import rtnetlink
from hafen.kernel.rtnetlink import Rtnetlink
from hafen.network.driver import Netns, Wish


def plug(
    host: Rtnetlink, netns: Netns, wish: Wish, link: str, *, master: int, mtu: int, gateways: tuple[str, ...]
) -> None:
    """Make `link` here (a port of the bridge `master`) and `wish.interface` inside, with its addresses and the default
    routes by `gateways`. OSError where the kernel refuses; then nothing is left.

    Two system calls on the host's socket, four inside: some 0.6 ms, of which registering the two devices is most.
    """
    host.execute(rtnetlink.new_veth(link, wish.interface, netns.fd, master=master, mac=wish.mac, mtu=mtu))
    try:
        # Not closed: the socket is the caller's, and serves for what is connected later.
        _configure(Rtnetlink(netns.rtnetlink), wish, gateways)
    except BaseException:
        host.execute(rtnetlink.delete_link(link))
        raise


def _configure(inside: Rtnetlink, wish: Wish, gateways: tuple[str, ...]) -> None:
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
    if wish.default_route:
        requests.extend(rtnetlink.new_route(gateway) for gateway in gateways if gateway)
    inside.execute(*requests)


def add_default_routes(netns: Netns, gateways: tuple[str, ...]) -> None:
    """By the gateways, for each family that has no default route yet."""
    inside = Rtnetlink(netns.rtnetlink)
    for gateway in filter(None, gateways):
        family = AF_INET6 if ":" in gateway else AF_INET
        if all(route.destination for route in inside.routes(family)):
            inside.execute(rtnetlink.new_route(gateway))
