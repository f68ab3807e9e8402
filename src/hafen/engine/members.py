"""Containers as networks see them: found, entered, and told what they joined; between `Networks` and the records."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from hafen.engine import links
from hafen.engine.guests import Attached, Guest
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers
from hafen.engine.shimlink import NetnsHandle, ShimLink, SocketSpec
from hafen.engine.start import guest_of
from hafen.errors import System
from hafen.network import dnsservers
from hafen.network.etcfiles import EMBEDDED_RESOLVER
from hafen.spec.ports import Port
from hafen.spec.wire.network import EndpointSettings

_RESOLVER_SOCKETS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)


@dataclass(frozen=True, slots=True)
class Members:
    """What `Networks.connect` and `disconnect` need of the containers."""

    containers: Containers
    shims: ShimLink
    paths: Paths

    def find(self, ref: str) -> Container:
        """NotFound where there is none. The caller takes its lock."""
        return self.containers.find(ref)

    def directory(self, container: Container) -> str:
        return self.paths.ensure_container(container.id)

    async def namespace(self, container_id: str) -> NetnsHandle:
        """The network namespace of a running container, and a socket in it; the caller's to close."""
        container = self.containers.find(container_id)
        try:
            fd = os.open(f"/proc/{container.status.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise System(f"container {container.id}: its network namespace is gone: {error}") from error
        try:
            (route,) = await self.shims.sockets(fd, [SocketSpec(socket.AF_NETLINK, socket.SOCK_RAW, "", 0)])
        except BaseException:
            os.close(fd)
            raise
        return NetnsHandle(fd, route)

    async def resolver_sockets(self, netns: int) -> tuple[socket.socket, socket.socket]:
        """Where the embedded resolver listens inside the namespace: by UDP and by TCP."""
        udp, tcp = await self.shims.sockets(
            netns, [SocketSpec(socket.AF_INET, kind, EMBEDDED_RESOLVER, dnsservers.PORT) for kind in _RESOLVER_SOCKETS]
        )
        return udp, tcp

    async def server_sockets(self, netns: int, family: int, kind: int, count: int) -> Sequence[socket.socket]:
        """Sockets inside the namespace that the embedded resolver asks servers by."""
        anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
        return await self.shims.sockets(netns, [SocketSpec(family, kind, anywhere, 0)] * count)

    async def set_sysctls(self, netns: int, settings: Mapping[str, str]) -> None:
        await self.shims.set_sysctls(netns, settings)

    def asks(self, container: Container, networks: Mapping[str, EndpointSettings]) -> Guest:
        """From now on the container asks for these networks."""
        self.containers.replace(container, msgspec.structs.replace(container.record, networks=dict(networks)))
        return guest_of(container.record)

    def has(self, container: Container, attached: Attached) -> None:
        """What the running container has now."""
        self.containers.amend(container, networks=attached.networks, ports=attached.ports)

    def linked(self, container_id: str) -> Sequence[tuple[str, str]]:
        """(address, names) of what the container links to on the default bridge."""
        return links.hosts(self.containers, self.containers.find(container_id).record)

    def openings(self) -> Iterator[tuple[str, str, list[Port]]]:
        """What links open: the ids of two containers, and the second one's ports."""
        return links.openings(self.containers)
