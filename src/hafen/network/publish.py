"""Published ports: choose them, and hold each by a bound socket, so that nothing else on the host can take it.

The packets themselves never reach these sockets: the ruleset redirects them first. What does (over paths the ruleset
does not cover) is refused, as by a closed port.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from hafen.errors import System
from hafen.network.driver import PublishedPort
from hafen.spec.ports import PortMapping

_LOCAL_PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_TYPES = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


@dataclass(frozen=True, slots=True)
class _Held:
    port: PublishedPort
    owner: str
    socket: socket.socket | None


class HeldPorts:
    """Every published port of this engine, by who has it."""

    def __init__(self) -> None:
        self._held: list[_Held] = []
        self._next_ephemeral = 0

    def hold(self, mappings: Iterable[PortMapping], owner: str, default_ip: str = "") -> tuple[PublishedPort, ...]:
        """Take a host port for each mapping: all of them or none.

        System with Docker's text where one is taken ("port is already allocated" by a container of ours, "address
        already in use" by somebody else).
        """
        with ExitStack() as undo:
            taken: list[PublishedPort] = []
            for mapping in mappings:
                port = self._hold_one(mapping, owner, mapping.host_ip or default_ip or "0.0.0.0")
                undo.callback(self._release, port)
                taken.append(port)
            undo.pop_all()
        return tuple(taken)

    def restore(self, ports: Iterable[PublishedPort], owner: str) -> list[str]:
        """Take again what a living container has, after a restart; warnings where somebody came in between."""
        warnings = []
        for port in ports:
            holder: socket.socket | None = None
            try:
                holder = _bind(port.host_ip, port.container.protocol, port.host_port)
            except OSError as error:
                warnings.append(f"port {_shown(port.host_ip, port.host_port)} of {owner} is not held: {error}")
            self._held.append(_Held(port, owner, holder))
        return warnings

    def release(self, ports: Iterable[PublishedPort]) -> None:
        for port in ports:
            self._release(port)

    def close(self) -> None:
        for held in self._held:
            if held.socket is not None:
                held.socket.close()
        self._held.clear()

    def _release(self, port: PublishedPort) -> None:
        for held in [held for held in self._held if held.port == port]:
            self._held.remove(held)
            if held.socket is not None:
                held.socket.close()

    def _hold_one(self, mapping: PortMapping, owner: str, host_ip: str) -> PublishedPort:
        ephemeral = not mapping.host.first
        several = ephemeral or mapping.host.first != mapping.host.last
        candidates = self._ephemeral() if ephemeral else range(mapping.host.first, mapping.host.last + 1)
        failure: System | None = None
        for number in candidates:
            port = PublishedPort(mapping.container, host_ip, number)
            where = _shown(host_ip, number)
            rival = self._rival(port)
            if rival is not None:
                failure = System(f"Bind for {where} failed: port is already allocated (by {rival.owner})")
                continue
            try:
                holder = _bind(host_ip, mapping.container.protocol, number)
            except OSError as error:
                failure = System(_refusal(error, where, mapping.container.protocol, number))
                if error.errno != errno.EADDRINUSE:
                    break
                continue
            self._held.append(_Held(port, owner, holder))
            if ephemeral:
                self._next_ephemeral = number + 1
            return port
        if failure is not None and not several:
            raise failure
        wanted = "the ephemeral range" if ephemeral else str(mapping.host)
        raise System(
            f"Bind for {host_ip} failed: all ports of {wanted} are allocated" + (f": {failure}" if failure else "")
        )

    def _rival(self, wanted: PublishedPort) -> _Held | None:
        """Who of us has this port on an address that overlaps."""
        for held in self._held:
            port = held.port
            if port.host_port != wanted.host_port or port.container.protocol != wanted.container.protocol:
                continue
            one, other = ip_address(port.host_ip), ip_address(wanted.host_ip)
            if one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified):
                return held
        return None

    def _ephemeral(self) -> list[int]:
        """The kernel's own range, beginning after the port that was handed out last."""
        with open(_LOCAL_PORT_RANGE) as file:
            first, last = (int(word) for word in file.read().split())
        start = self._next_ephemeral if first <= self._next_ephemeral <= last else first
        return [*range(start, last + 1), *range(first, start)]


def _bind(host_ip: str, protocol: str, number: int) -> socket.socket | None:
    """A socket that has the port; None where the kernel does not speak the protocol itself."""
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    kind, number_of_protocol = _TYPES[protocol]
    try:
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, number_of_protocol)
    except OSError as error:
        if protocol == "sctp" and error.errno == errno.EPROTONOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_DGRAM:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            holder.bind((host_ip, number))
            return holder
        # Old connections of the host's own (TIME_WAIT) must not stand in the way, and nobody may get in beside us:
        # the first needs SO_REUSEADDR, the second a socket that has been listening and has it no more (socket(7)).
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host_ip, number))
        holder.listen(1)
        holder.shutdown(socket.SHUT_RD)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        holder.close()
        raise
    return holder


def _shown(host_ip: str, number: int) -> str:
    return f"[{host_ip}]:{number}" if ":" in host_ip else f"{host_ip}:{number}"


def _refusal(error: OSError, where: str, protocol: str, number: int) -> str:
    reason = os.strerror(error.errno or 0).lower()
    if error.errno == errno.EADDRINUSE:
        reason = "address already in use"
        holder = _who_has(protocol, number)
        if holder:
            reason += f" (by {holder})"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = "cannot assign requested address"
    return f"failed to bind host port for {where}/{protocol}: {reason}"


def _who_has(protocol: str, number: int) -> str:
    """The process that has a local port, as "nginx, pid 123"; "" where it cannot be told. Slow: for errors only."""
    inodes = set()
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        try:
            with open(table) as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        inodes |= {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == number}
    inodes.discard("socket:[0]")
    for pid in (name for name in os.listdir("/proc") if name.isdigit()) if inodes else ():
        if any(_link(f"/proc/{pid}/fd/{fd}") in inodes for fd in _listed(f"/proc/{pid}/fd")):
            return f"{_command(pid)}, pid {pid}"
    return ""


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # the process ended meanwhile
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "a process that has ended"
