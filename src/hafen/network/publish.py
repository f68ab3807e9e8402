"""Published ports: choose them, and hold each by a bound socket, so that nothing else on the host can take it.

Where the ruleset redirects a port, its packets never reach the socket; what does (over paths the ruleset does not
cover) is refused, as by a closed port. Where it does not - an IPv6 address of the host in front of a container that has
only IPv4, or a host whose own firewall is to decide - the socket is a real one, and `relay` serves it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from hafen.errors import System
from hafen.network import portowner
from hafen.network.driver import PublishedPort
from hafen.network.relay import Relay
from hafen.network.relay import Target as RelayTarget
from hafen.spec.ports import PortMapping

_LOCAL_PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_EVERYWHERE4, _EVERYWHERE6 = "0.0.0.0", "::"
_TYPES = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's ports are: its addresses ("" for none). In a `routed` version its ports are reached under its
    own address, and the host holds none."""

    ip: str
    ip6: str = ""
    routed: frozenset[int] = frozenset()
    neighbours: tuple[str, ...] = ()  # subnets whose hosts it answers without passing through the host

    def keeps(self, client: str) -> bool:
        """Whether the answers to this client's own address pass through the host, where a relay can have them."""
        source = ip_address(client.partition("%")[0])
        beside = any(source in ip_network(subnet) for subnet in self.neighbours)
        return not (source.is_loopback or source.is_link_local or beside)

    def address(self, version: int) -> str:
        return self.ip if version == 4 else self.ip6


@dataclass(frozen=True, slots=True)
class _Held:
    port: PublishedPort
    owner: str
    socket: socket.socket | None


class HeldPorts:
    """Every published port of this engine, by who has it. With `relay_all` none is redirected."""

    def __init__(self, *, relay_all: bool = False) -> None:
        self._relay_all = relay_all
        self._relay = Relay()
        self._held: dict[tuple[str, int], list[_Held]] = {}  # by protocol and port of the host
        self._next_ephemeral = 0

    def hold(
        self, mappings: Iterable[PortMapping], owner: str, target: Target, default_ip: str = ""
    ) -> tuple[PublishedPort, ...]:
        """Take a host port for each mapping: all of them or none. One that names no address has the same number on all
        of IPv4 and of IPv6, or on `default_ip`.

        System with Docker's text where one is taken ("port is already allocated" by a container of ours, "address
        already in use" by somebody else).
        """
        with ExitStack() as undo:
            taken: list[PublishedPort] = []
            for mapping, hosts in self._with_hosts(mappings, target, default_ip):
                routed = [PublishedPort(mapping.container, one, 0) for one in hosts if _version(one) in target.routed]
                held = self._hold_one(mapping, owner, [h for h in hosts if _version(h) not in target.routed], target)
                undo.callback(self.release, held)
                taken += [*routed, *held]
            undo.pop_all()
        return tuple(taken)

    def _with_hosts(
        self, mappings: Iterable[PortMapping], target: Target, default_ip: str
    ) -> list[tuple[PortMapping, list[str]]]:
        """Each mapping with the host's addresses that are to have it; those that differ in nothing but the address are
        one, so that clients find the same port at every address."""
        found: list[tuple[PortMapping, list[str]]] = []
        for mapping in mappings:
            hosts = self._hosts(mapping, target, default_ip)
            for known, others in found:
                if (known.container, known.host) == (mapping.container, mapping.host) and not {*others} & {*hosts}:
                    others += hosts
                    break
            else:
                found.append((mapping, hosts))
        return found

    def _hosts(self, mapping: PortMapping, target: Target, default_ip: str) -> list[str]:
        """Addresses of the host to hold the port on; none where the container is not reachable from there."""
        wanted = mapping.host_ip or default_ip
        hosts = [wanted] if wanted else [_EVERYWHERE4, _EVERYWHERE6]
        able = [host for host in hosts if self._reachable(mapping.container.protocol, target, _version(host))]
        return able if wanted or _has_ipv6() else [host for host in able if host != _EVERYWHERE6]

    def _reachable(self, protocol: str, target: Target, version: int) -> bool:
        return bool(target.address(version) or (protocol != "sctp" and (target.ip or target.ip6)))

    def restore(self, ports: Iterable[PublishedPort], owner: str, target: Target) -> list[str]:
        """Take again what a living container has, after a restart; warnings where somebody came in between."""
        warnings = []
        for port in ports:
            if not port.host_port:
                continue
            holder: socket.socket | None = None
            try:
                holder = self._bind(port, target)
            except OSError as error:
                warnings.append(f"port {_shown(port.host_ip, port.host_port)} of {owner} is not held: {error}")
            self._remember(_Held(port, owner, holder))
        return warnings

    def release(self, ports: Iterable[PublishedPort]) -> None:
        for port in ports:
            key = (port.container.protocol, port.host_port)
            remaining = []
            for held in self._held.get(key, ()):
                if held.port == port:
                    self._close(held)
                else:
                    remaining.append(held)
            if remaining:
                self._held[key] = remaining
            else:
                self._held.pop(key, None)

    def close(self) -> None:
        for several in self._held.values():
            for held in several:
                self._close(held)
        self._held.clear()
        self._relay.close()

    def _close(self, held: _Held) -> None:
        if held.socket is not None and not self._relay.stop(held.socket):
            held.socket.close()

    def _remember(self, held: _Held) -> None:
        self._held.setdefault((held.port.container.protocol, held.port.host_port), []).append(held)

    def _hold_one(
        self, mapping: PortMapping, owner: str, hosts: list[str], target: Target
    ) -> tuple[PublishedPort, ...]:
        """One port of the mapping's range on each of these addresses, the same number on all."""
        if not hosts:
            return ()
        ephemeral = not mapping.host.first
        several = ephemeral or mapping.host.first != mapping.host.last
        candidates = self._ephemeral() if ephemeral else range(mapping.host.first, mapping.host.last + 1)
        failure: System | None = None
        for number in candidates:
            ports = tuple(PublishedPort(mapping.container, host, number) for host in hosts)
            try:
                self._take(ports, owner, target)
            except _Taken as error:
                failure = System(str(error))
                if error.hopeless:
                    break
                continue
            if ephemeral:
                self._next_ephemeral = number + 1
            return ports
        if failure is not None and not several:
            raise failure
        wanted = "the ephemeral range" if ephemeral else str(mapping.host)
        raise System(
            f"Bind for {hosts[0]} failed: all ports of {wanted} are allocated" + (f": {failure}" if failure else "")
        )

    def _take(self, ports: Iterable[PublishedPort], owner: str, target: Target) -> None:
        """All of them, or _Taken and none."""
        with ExitStack() as undo:
            for port in ports:
                where = _shown(port.host_ip, port.host_port)
                rival = self._rival(port)
                if rival is not None:
                    raise _Taken(f"Bind for {where} failed: port is already allocated (by {rival.owner})")
                try:
                    holder = self._bind(port, target)
                except OSError as error:
                    raise _Taken(_refusal(error, where, port), hopeless=error.errno != errno.EADDRINUSE) from error
                self._remember(_Held(port, owner, holder))
                undo.callback(self.release, [port])
            undo.pop_all()

    def _rival(self, wanted: PublishedPort) -> _Held | None:
        """Who of us has this port on an address that overlaps."""
        for held in self._held.get((wanted.container.protocol, wanted.host_port), ()):
            one, other = ip_address(held.port.host_ip), ip_address(wanted.host_ip)
            if one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified):
                return held
        return None

    def _bind(self, port: PublishedPort, target: Target) -> socket.socket | None:
        """A socket that has the port, served where nobody redirects it; None where the kernel does not speak the
        protocol itself."""
        redirected = bool(target.address(_version(port.host_ip))) and not self._relay_all
        # What the host sends to ::1 cannot be redirected: the kernel has no `route_localnet` for IPv6.
        beside = (
            _version(port.host_ip) == 6 and ip_address(port.host_ip) in _LOOPBACK6 and port.container.protocol != "sctp"
        )
        if redirected and not beside:
            return _bind(port, listening=False)
        holder = _bind(port, listening=True)
        if holder is not None:
            own = target.address(_version(port.host_ip)) or target.ip or target.ip6
            keeps = target.keeps if self._relay_all else _keeps_none
            self._relay.serve(holder, RelayTarget(own, port.container.number, keeps))
        return holder

    def _ephemeral(self) -> list[int]:
        """The kernel's own range, beginning after the port that was handed out last."""
        with open(_LOCAL_PORT_RANGE) as file:
            first, last = (int(word) for word in file.read().split())
        start = self._next_ephemeral if first <= self._next_ephemeral <= last else first
        return [*range(start, last + 1), *range(first, start)]


_LOOPBACK6 = frozenset((ip_address("::"), ip_address("::1")))


class _Taken(Exception):
    """A port that cannot be had. `hopeless`: nor can any other of the range."""

    def __init__(self, text: str, *, hopeless: bool = False) -> None:
        super().__init__(text)
        self.hopeless = hopeless


def _keeps_none(client: str) -> bool:
    return False


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _has_ipv6() -> bool:
    """Whether this host speaks IPv6 at all."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _bind(port: PublishedPort, *, listening: bool) -> socket.socket | None:
    """A socket that has the port; None where the kernel does not speak the protocol itself."""
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    kind, number_of_protocol = _TYPES[port.container.protocol]
    try:
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, number_of_protocol)
    except OSError as error:
        if port.container.protocol == "sctp" and error.errno == errno.EPROTONOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.container.protocol != "tcp":  # to be bound is enough to have the port
            if not listening:
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            holder.bind((port.host_ip, port.host_port))
            return holder
        # Old connections of the host's own (TIME_WAIT) must not stand in the way, and nobody may get in beside us:
        # the first needs SO_REUSEADDR, the second a socket that listens, or has been listening and has it no more
        # (socket(7)).
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((port.host_ip, port.host_port))
        holder.listen(socket.SOMAXCONN if listening else 1)
        if not listening:
            holder.shutdown(socket.SHUT_RD)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        holder.close()
        raise
    return holder


def _shown(host_ip: str, number: int) -> str:
    return f"[{host_ip}]:{number}" if ":" in host_ip else f"{host_ip}:{number}"


def _refusal(error: OSError, where: str, port: PublishedPort) -> str:
    reason = os.strerror(error.errno or 0).lower()
    protocol = port.container.protocol
    if error.errno == errno.EADDRINUSE:
        reason = "address already in use"
        holder = portowner.who_has(protocol, port.host_port)
        if holder:
            reason += f" (by {holder})"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = "cannot assign requested address"
    return f"failed to bind host port for {where}/{protocol}: {reason}"
