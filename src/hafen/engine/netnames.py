"""Names in user-defined networks, as each container sees them: what the embedded resolver answers from."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from hafen.engine.guests import Guest
from hafen.engine.netdefaults import NetworkDefaults
from hafen.engine.netrecords import Endpoints, NetworkRecords
from hafen.network import etcfiles
from hafen.network.dns import Resolver
from hafen.network.dnsservers import Server
from hafen.network.driver import Netns

_HOST = frozenset(("host.docker.internal", "gateway.docker.internal", "host.containers.internal"))


class NetworkNames:
    """Containers by name, alias, short id and hostname, each also as `name.network`; the host by its well-known
    names. On the default bridge there are no names, as with Docker."""

    def __init__(self, records: NetworkRecords, endpoints: Endpoints) -> None:
        self._records = records
        self._endpoints = endpoints
        self._turn = itertools.count()

    def addresses(self, container_id: str, name: str) -> Sequence[str] | None:
        """Those of several containers with one name take turns in being the first."""
        held = self._endpoints.of(container_id)
        found: list[str] = []
        for network_id, endpoint in held.items():
            record = self._records.get(network_id)
            if record is None or not record.user_defined:
                continue
            index = self._endpoints.by_name(network_id)
            wanted = endpoint.links.get(name, name)
            found += index.get(wanted) or index.get(wanted.removesuffix(f".{record.name.lower()}"), ())
        if found:
            first = next(self._turn) % len(found)
            return found[first:] + found[:first]
        if name in _HOST:
            return [gateway for e in held.values() for gateway in (e.gateway, e.gateway6) if gateway]
        return None

    def names(self, container_id: str, address: str) -> Sequence[str] | None:
        for network_id in self._endpoints.of(container_id):
            record = self._records.get(network_id)
            if record is not None and record.user_defined:
                for endpoint in self._endpoints.within(network_id):
                    if address in (endpoint.ip, endpoint.ip6):
                        return [f"{endpoint.container_name}.{record.name}"]
        return None


class OwnedNetns(Netns, Protocol):
    def close(self) -> None: ...


class Namespaces(Protocol):
    """The network namespaces of running containers."""

    async def namespace(self, container_id: str) -> OwnedNetns: ...

    async def resolver_sockets(self, netns: int) -> tuple[socket.socket, socket.socket]:
        """Where the embedded resolver listens inside the namespace: by UDP and by TCP."""

    async def server_sockets(self, netns: int, family: int, kind: int, count: int) -> Sequence[socket.socket]:
        """Sockets inside the namespace that the embedded resolver asks servers by."""

    async def set_sysctls(self, netns: int, settings: Mapping[str, str]) -> None:
        """Write sysctls of the namespace; System where the kernel refuses one."""


class NameService:
    """The embedded resolver, for every container that is in a network with names."""

    def __init__(
        self, records: NetworkRecords, endpoints: Endpoints, namespaces: Namespaces, defaults: NetworkDefaults
    ) -> None:
        self._defaults = defaults
        self._records = records
        self._endpoints = endpoints
        self._namespaces = namespaces
        self._resolver = Resolver(NetworkNames(records, endpoints), namespaces.server_sockets)

    def close(self) -> None:
        self._resolver.close()

    def serves(self, container_id: str) -> bool:
        """Whether the container is in a network that has names."""
        records = [self._records.find(network_id) for network_id in self._endpoints.of(container_id)]
        return any(record.user_defined for record in records)

    def stop(self, container_id: str) -> None:
        self._resolver.stop(container_id)

    async def start(self, guest: Guest, netns: Netns) -> None:
        if not self.serves(guest.id):
            return
        udp, tcp = await self._namespaces.resolver_sockets(netns.fd)
        if self.serves(guest.id):
            self._resolver.serve(guest.id, udp, tcp, lambda: self._servers(guest))
        else:  # the container ended meanwhile, and its sockets would keep its namespace
            udp.close()
            tcp.close()

    async def follow(self, guest: Guest) -> None:
        """A running container has other networks than before, or another engine."""
        if not self.serves(guest.id):
            self.stop(guest.id)
        elif not self._resolver.serves(guest.id):
            netns = await self._namespaces.namespace(guest.id)
            try:
                await self.start(guest, netns)
            finally:
                netns.close()

    def _servers(self, guest: Guest) -> Sequence[Server]:
        """Whom to ask for names that are not ours: nobody, where no network of the container leads out."""
        if not any(self._records.find(network_id).leads_out for network_id in self._endpoints.of(guest.id)):
            return ()
        own = [address for address in guest.host_config.dns or () if address != etcfiles.EMBEDDED_RESOLVER]
        if own:
            return [Server(address, inside=True) for address in own]
        if self._defaults.dns:  # on the loopback they are the host's, not every container's
            return [Server(address, inside=not etcfiles.is_loopback(address)) for address in self._defaults.dns]
        return [Server(address) for address in etcfiles.host_resolver().servers or etcfiles.FALLBACK_SERVERS]
