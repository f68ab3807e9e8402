"""Senders of UDP follow the published ports, also those that always use one port and never end (syslog, RTP, VPNs).

The kernel decides about the translation of a connection once, and takes all datagrams between two ports for one
connection, for as long as they keep coming. So what it has decided is made to be forgotten where a port comes or goes.
TCP needs none of it: a connection ends with the container, and the next one begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6, IPPROTO_UDP

from hafen.kernel.conntrack import Connection, Conntrack
from hafen.kernel.rtnetlink import Rtnetlink
from hafen.network.driver import Network
from hafen.network.ipam import IpNetwork
from hafen.network.ruleset import Published


class Flows:
    """What the kernel remembers. That something cannot be forgotten is only told: ports are published all the same."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def published(self, ports: Iterable[Published]) -> None:
        """These are redirected from now on: also what senders sent to the host before."""
        with self._conntrack() as conntrack:
            for version, several in _by_version(ports):
                wanted = {(one.port.host_ip, one.port.host_port) for one in several}
                everywhere = {number for address, number in wanted if ip_address(address).is_unspecified}
                own = _own_addresses() if everywhere else set()
                for one in _connections(conntrack, version, several):
                    target, number = one.original.destination, one.original.destination_port
                    if (target, number) in wanted or (number in everywhere and _is_own(target, own)):
                        conntrack.forget(one)

    def withdrawn(self, ports: Iterable[Published]) -> None:
        """These are not redirected any more; whoever gets the container's address next must not get its datagrams."""
        with self._conntrack() as conntrack:
            for version, several in _by_version(ports):
                gone = {(one.target, one.port.container.number) for one in several}
                for one in _connections(conntrack, version, several):
                    if _is_translated(one) and _answers(one) in gone:
                        conntrack.forget(one)

    def restored(self, networks: Iterable[Network], ports: Iterable[Published]) -> None:
        """These alone are redirected: what was withdrawn while no engine ran, or by one that was killed, is over."""
        kept = {(one.target, one.port.container.number) for one in ports}
        subnets = [ip_network(subnet.network) for network in networks for subnet in network.subnets]
        with self._conntrack() as conntrack:
            for version in {subnet.version for subnet in subnets}:
                for one in _connections(conntrack, version):
                    if _is_translated(one) and _answers(one) not in kept and _is_within(one.reply.source, subnets):
                        conntrack.forget(one)

    @contextmanager
    def _conntrack(self) -> Iterator[Conntrack]:
        try:
            with Conntrack() as conntrack:
                yield conntrack
        except OSError as error:
            self._warn(f"who sends to a published UDP port may go on to reach what had it before: {error}")


def _connections(conntrack: Conntrack, version: int, to: Iterable[Published] = ()) -> list[Connection]:
    """Among them those to these ports; to one port, few others."""
    family, numbers = AF_INET if version == 4 else AF_INET6, {one.port.host_port for one in to}
    return conntrack.connections(family, IPPROTO_UDP, numbers.pop() if len(numbers) == 1 else 0)


def _own_addresses() -> set[str]:
    with Rtnetlink() as route:
        return {address.ip for address in route.addresses()}


def _by_version(ports: Iterable[Published]) -> list[tuple[int, list[Published]]]:
    """The UDP ports that are translated, of IPv4 and of IPv6."""
    udp = [one for one in ports if one.port.container.protocol == "udp" and not one.routed]
    found = [(version, [one for one in udp if ip_address(one.target).version == version]) for version in (4, 6)]
    return [(version, several) for version, several in found if several]


def _is_within(address: str, subnets: Iterable[IpNetwork]) -> bool:
    return any(ip_address(address) in subnet for subnet in subnets)


def _is_own(address: str, own: Collection[str]) -> bool:
    return address in own or ip_address(address).is_loopback


def _is_translated(one: Connection) -> bool:
    return one.reply.source != one.original.destination


def _answers(one: Connection) -> tuple[str, int]:
    return one.reply.source, one.reply.source_port
