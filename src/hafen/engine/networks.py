"""Networks: the defaults, list, inspect, create, remove, prune; containers join at start and leave at exit.

What a container has at this moment is an `Endpoint` per network, on disk before the container runs. After a crash of
the engine `restore` is told which containers live, and makes drivers and kernel agree with that.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from hafen.engine import guests, netplan, netrecords
from hafen.engine.addresses import Addresses
from hafen.engine.events import Events
from hafen.engine.guests import Attached, Guest
from hafen.engine.netnames import NameService, Namespaces
from hafen.engine.netrecords import Endpoints, NetworkRecord, NetworkRecords, as_network
from hafen.errors import Conflict, Forbidden, HafenError, InvalidArgument, NotFound, System
from hafen.network import etcfiles
from hafen.network.driver import DEFAULT_BRIDGE, Endpoint, Netns, NetworkDriver, Wish
from hafen.network.ipam import IpNetwork, choose_pool, mac_of, overlaps
from hafen.spec import units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.network import (
    EndpointSettings,
    Ipam,
    IpamConfig,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkingConfig,
    NetworkInspect,
    NetworkPruneResponse,
    NetworkSummary,
)
from hafen.storage.database import Database

if TYPE_CHECKING:
    from hafen.engine.records import Container

log = logging.getLogger(__name__)

_NO_CONFIG = ContainerConfig()
_LIST_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))


class Members(Namespaces, Protocol):
    """Containers, as `connect` and `disconnect` need them (`engine.members`)."""

    def find(self, ref: str) -> Container: ...

    def directory(self, container: Container) -> str:
        """Where the files of its /etc are."""

    def asks(self, container: Container, networks: Mapping[str, EndpointSettings]) -> Guest:
        """From now on the container asks for these networks; on disk when it returns."""

    def has(self, container: Container, attached: Attached) -> None:
        """What the running container has now."""

    def linked(self, container_id: str) -> Sequence[tuple[str, str]]:
        """(address, names) of what the container links to on the default bridge."""


class Networks:
    """Every network of one engine; loop thread only. `drivers` are by the API's name of each."""

    def __init__(
        self,
        database: Database,
        events: Events,
        drivers: Mapping[str, NetworkDriver],
        members: Members,
        default_bridge: str = DEFAULT_BRIDGE,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._events = events
        self._drivers = drivers
        self._members = members
        self._default_bridge = default_bridge
        self._clock = clock
        self._records = NetworkRecords(database)
        self._addresses = Addresses()
        self._endpoints = Endpoints(database)
        self._names = NameService(self._records, self._endpoints, members)

    # --- the engine's life -----------------------------------------------------------------------------------------

    def ensure_defaults(self) -> None:
        """The three networks that are always there, written once."""
        for name, driver in netrecords.DRIVERS.items():
            if self._records.named(name) is None:
                self._records.insert(self._default_record(name, driver))

    async def restore(self, living: Iterable[Guest] = ()) -> dict[str, Attached]:
        """Make the kernel agree: networks exist, living containers keep what they have, and what belongs to nobody is
        removed. Called once, when it is known which containers live; returns what each of them has."""
        self.ensure_defaults()
        guests_by_id = {guest.id: guest for guest in living}
        for container in self._endpoints.containers():
            for network_id in self._endpoints.of(container):
                if container not in guests_by_id or self._records.get(network_id) is None:
                    self._endpoints.drop(container, network_id)
        self._avoid_conflict()
        for name, driver in self._drivers.items():
            mine = {record.id: record for record in self._records if record.driver == name}
            networks = {network_id: as_network(record) for network_id, record in mine.items()}
            endpoints = []
            for network_id, record in mine.items():
                for endpoint in self._endpoints.within(network_id):
                    self._addresses.claim(record, endpoint)
                    endpoints.append((networks[network_id], endpoint))
            try:
                warnings = driver.restore(networks.values(), endpoints)
            except HafenError as error:  # the engine is useful without; who attaches is told again
                warnings = [f"{name} networks do not work: {error}"]
            for warning in warnings:
                log.warning("%s", warning)
        for guest in guests_by_id.values():
            try:
                await self._names.follow(guest)
            except HafenError as error:
                log.warning("container %s cannot resolve names: %s", guest.name, error)
        return {container: self._attached(guest) for container, guest in guests_by_id.items()}

    def close(self) -> None:
        """The engine stops. Where no container is connected, nothing of ours stays in the kernel."""
        self._names.close()
        if not self._endpoints:
            for record in self._records:
                try:
                    self._drivers[record.driver].delete(as_network(record))
                except HafenError as error:
                    log.warning("network %s stays behind: %s", record.name, error)
        for driver in self._drivers.values():
            driver.close()

    def _avoid_conflict(self) -> None:
        """The default network moves where the host has come to use its addresses (a VPN, another engine) meanwhile."""
        record = self._records.find("bridge")
        if self._endpoints.within(record.id):
            return
        taken = list(self._drivers[record.driver].occupied({one.link for one in self._records}))
        if any(overlaps(subnet, other) for subnet in netrecords.subnets(record) for other in taken):
            log.warning(
                "the host uses addresses of %s: network %s gets others", netrecords.subnets(record), record.name
            )
            self._drivers[record.driver].unplug(record.link)
            self._records.delete(record)
            self._records.insert(msgspec.structs.replace(self._default_record("bridge", "bridge"), id=record.id))

    def _default_record(self, name: str, driver: str) -> NetworkRecord:
        ipam, options, link = Ipam(driver="default"), {}, ""
        if driver == "bridge":
            link = self._default_bridge
            subnet = choose_pool(self._occupied())
            ipam = Ipam(driver="default", config=[IpamConfig(subnet=str(subnet), gateway=str(subnet[1]))])
            options = {
                f"{netrecords.OPTION}bridge.default_bridge": "true",
                netrecords.ENABLE_ICC: "true",
                netrecords.MASQUERADE: "true",
                netrecords.HOST_BINDING: "0.0.0.0",
                netrecords.BRIDGE_NAME: link,
            }
        return NetworkRecord(secrets.token_hex(32), name, driver, self._now(), ipam, link, options=options)

    def _occupied(self) -> Sequence[IpNetwork]:
        found = [subnet for record in self._records for subnet in netrecords.subnets(record)]
        for driver in self._drivers.values():
            found += driver.occupied()
        return found

    def _now(self) -> str:
        return units.format_timestamp(self._clock())

    # --- what the API asks -----------------------------------------------------------------------------------------

    async def list(self, filters: Filters = NO_FILTERS) -> Sequence[NetworkSummary]:
        filters.check(_LIST_FILTERS)
        return [
            netrecords.as_summary(record)
            for record in self._records
            if netrecords.matches(record, filters, bool(self._endpoints.within(record.id)))
        ]

    async def inspect(self, ref: str, scope: str = "") -> NetworkInspect:
        record = self._records.find(ref)
        if scope not in ("", "local"):
            raise NotFound(f"network {ref} not found")
        return netrecords.as_inspect(record, self._endpoints.within(record.id))

    async def create(self, request: NetworkCreateRequest) -> NetworkCreateResponse:
        record = netplan.plan(request, secrets.token_hex(32), self._now(), self._records, self._occupied)
        self._records.insert(record)  # first: what a crash leaves in the kernel has a record then
        try:
            self._drivers[record.driver].create(as_network(record))
        except BaseException:
            self._records.delete(record)
            raise
        self._tell("create", record)
        return NetworkCreateResponse(id=record.id)

    async def remove(self, ref: str) -> None:
        record = self._records.find(ref)
        if record.predefined:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        if self._endpoints.within(record.id):
            raise Forbidden(f"error while removing network: network {record.name} id {record.id} has active endpoints")
        driver, network = self._drivers[record.driver], as_network(record)
        await asyncio.to_thread(driver.unplug, network.link)
        driver.delete(network)
        self._records.delete(record)
        self._addresses.forget(record)
        self._tell("destroy", record)

    async def connect(self, ref: str, request: NetworkConnectRequest) -> None:
        """Connect a container, which may run."""
        members, record = self._members, self._records.find(ref)
        container = members.find(request.container)
        async with container.lock:
            before = container.record.networks
            guests.check_connect(container.record.host_config, before, record.name)
            settings = guests.only_requested(request.endpoint_config or EndpointSettings())
            guests.check_endpoint(record, settings)
            if record.name in before:
                if not container.alive:
                    return  # what was asked for first counts
                raise Forbidden(f"endpoint with name {container.name} already exists in network {record.name}")
            guest = members.asks(container, {**before, record.name: settings})
            if not container.alive:
                names = guests.dns_names(guest, settings) if record.user_defined else None
                shown = msgspec.structs.replace(settings, dns_names=names)
                members.asks(container, {**before, record.name: shown})
                return
            try:
                await self._plug_in(container, guest, record, settings)
            except BaseException:
                members.asks(container, before)
                raise

    async def disconnect(self, ref: str, request: NetworkDisconnectRequest) -> None:
        """Disconnect a container, which may run. Another network that leads out takes over the default route."""
        members, record = self._members, self._records.find(ref)
        try:
            container = members.find(request.container)
        except NotFound:
            if request.force:  # Docker then looks for an endpoint that nobody's container is left of
                raise NotFound(f"endpoint {request.container} not found") from None
            raise
        async with container.lock:
            if record.name == "host":
                raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
            if record.name not in container.record.networks:
                raise System(f"container {container.id} is not connected to network {record.name}")
            remaining = {name: kept for name, kept in container.record.networks.items() if name != record.name}
            guest = members.asks(container, remaining)
            endpoint = self._endpoints.of(container.id).get(record.id)
            if endpoint is None or not container.alive:
                self._tell("disconnect", record, container=container.id)
                return
            self._detach(record, endpoint)
            await asyncio.to_thread(self._drivers[record.driver].unplug, endpoint.link)
            await self._find_way_out(container)
            await self._changed(container, guest)

    async def prune(self, filters: Filters = NO_FILTERS) -> NetworkPruneResponse:
        filters.check(("label", "label!", "until"))
        until = filters.until()
        oldest = None if until is None else units.format_timestamp(units.parse_timestamp(until, self._clock()))
        deleted = []
        for record in self._records:
            if (
                record.predefined
                or self._endpoints.within(record.id)
                or (oldest is not None and record.created >= oldest)
            ):
                continue
            if filters.matches_labels(record.labels) and not filters.excludes_labels(record.labels):
                await self.remove(record.id)
                deleted.append(record.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return NetworkPruneResponse(networks_deleted=deleted or None)

    def _tell(self, action: str, record: NetworkRecord, **more: str) -> None:
        self._events.publish("network", action, record.id, {**more, "name": record.name, "type": record.driver})

    # --- what a container's start and end ask ----------------------------------------------------------------------

    def check_networks(
        self,
        host_config: HostConfig,
        networking_config: NetworkingConfig | None = None,
        config: ContainerConfig = _NO_CONFIG,
    ) -> dict[str, EndpointSettings]:
        """At create: the networks that the container asks to join, by name. InvalidArgument where a network that exists
        cannot give what is asked; one that does not exist may when the container starts, as with Docker."""
        asked = None if networking_config is None else networking_config.endpoints_config
        wanted = guests.requested(config, host_config, asked)
        for name, settings in wanted.items():
            try:
                record = self._records.find(name)
            except NotFound:
                continue
            try:
                guests.check_endpoint(record, settings)
            except InvalidArgument as error:
                raise InvalidArgument(f"invalid config for network {name}: {error.message}") from error
        return wanted

    async def attach_all(self, guest: Guest, netns: Netns | None, directory: str) -> Attached:
        """Connect a container that is about to start to every network it asks for, and write the files of its /etc
        into `directory`. All or nothing. `netns` is None where it shares that of the host or of another container."""
        joins = [(self._records.find(name), settings) for name, settings in guest.networks.items()]
        for record, settings in joins:
            guests.check_endpoint(record, settings)
        way_out = _way_out(joins)
        with ExitStack() as undo:
            undo.callback(self.release, guest.id)
            for number, (record, settings) in enumerate(joins):
                self._attach(guest, record, settings, netns, number, is_way_out=record is way_out)
            self._write_files(guest, directory)
            if netns is not None:
                await self._names.start(guest, netns)
            undo.pop_all()
        return self._attached(guest)

    def release(self, container_id: str) -> None:
        """A container ended: ports and addresses are free again. Its links go with its network namespace.

        Does nothing where it is connected to nothing.
        """
        self._names.stop(container_id)
        for network_id, endpoint in self._endpoints.of(container_id).items():
            self._detach(self._records.find(network_id), endpoint)

    def renamed(self, container_id: str, name: str) -> None:
        """A container has another name now."""
        for network_id, endpoint in self._endpoints.of(container_id).items():
            names = (name, *endpoint.names[1:])  # its own name is the first (`guests.dns_names`)
            self._endpoints.put(network_id, replace(endpoint, container_name=name, names=names))

    def _attached(self, guest: Guest) -> Attached:
        held = self._endpoints.of(guest.id)
        records = [self._records.find(network_id) for network_id in held]
        return Attached(
            {
                record.name: guests.filled(
                    guest, record, guest.networks.get(record.name, EndpointSettings()), held[record.id]
                )
                for record in records
            },
            guests.port_map(guest, held.values()),
        )

    def _attach(
        self, guest: Guest, record: NetworkRecord, settings: EndpointSettings, netns: Netns | None, number: int,
        *, is_way_out: bool,
    ) -> None:  # fmt: skip
        ip, ip6 = self._addresses.grant(record, settings)
        wish = Wish(
            id=secrets.token_hex(32),
            container_id=guest.id,
            container_name=guest.name,
            interface=f"eth{number}",
            ip=ip[0],
            prefix=ip[1],
            ip6=ip6[0],
            prefix6=ip6[1],
            mac=(settings.mac_address.replace("-", ":").lower() or mac_of(ip[0])) if ip[0] else "",
            default_route=is_way_out,
            ports=guests.wanted_ports(guest) if is_way_out else (),
        )
        try:
            endpoint = self._drivers[record.driver].attach(as_network(record), wish, netns)
        except BaseException:
            self._addresses.give_back(record, ip[0], ip6[0])
            raise
        names = tuple(guests.dns_names(guest, settings))
        links = {alias.lower(): name.lower() for name, alias in map(guests.parse_link, settings.links or ())}
        self._endpoints.put(record.id, replace(endpoint, names=names, links=links))
        self._tell("connect", record, container=guest.id)

    def _write_files(self, guest: Guest, directory: str) -> None:
        endpoints = list(self._endpoints.of(guest.id).values())
        bridge = self._records.find("bridge")
        gateway = (bridge.ipam.config or [IpamConfig()])[0].gateway
        embedded = self._names.serves(guest.id)
        linked = self._members.linked(guest.id)
        files = guests.etc_files(
            guest, endpoints, etcfiles.host_resolver(), embedded=embedded, gateway=gateway, linked=linked
        )
        os.makedirs(directory, exist_ok=True)
        etcfiles.write(directory, files)

    def _detach(self, record: NetworkRecord, endpoint: Endpoint) -> None:
        try:
            self._drivers[record.driver].detach(as_network(record), endpoint)
        finally:
            self._endpoints.drop(endpoint.container_id, record.id)
            self._addresses.give_back(record, endpoint.ip, endpoint.ip6)
        self._tell("disconnect", record, container=endpoint.container_id)

    # --- while a container runs ------------------------------------------------------------------------------------

    async def _plug_in(
        self, container: Container, guest: Guest, record: NetworkRecord, settings: EndpointSettings
    ) -> None:
        netns = await self._members.namespace(container.id)
        try:
            if not container.alive:
                raise Conflict(f"container {container.id} ended meanwhile")
            held = self._endpoints.of(container.id).values()
            used = {endpoint.interface for endpoint in held}
            number = next(number for number in itertools.count() if f"eth{number}" not in used)
            leads_out = not record.internal and not any(endpoint.gateway for endpoint in held)
            self._attach(guest, record, settings, netns, number, is_way_out=leads_out)
        finally:
            netns.close()
        await self._changed(container, guest)

    async def _find_way_out(self, container: Container) -> None:
        """After an endpoint went: another one's gateway, where the default route went with it."""
        held = [(self._records.find(network_id), e) for network_id, e in self._endpoints.of(container.id).items()]
        joins = [(record, container.record.networks.get(record.name, EndpointSettings())) for record, _ in held]
        way_out = _way_out(joins)
        if way_out is None:
            return
        netns = await self._members.namespace(container.id)
        try:
            for record, endpoint in held:
                if record is way_out:
                    self._drivers[record.driver].lead_out(as_network(record), endpoint, netns)
        finally:
            netns.close()

    async def _changed(self, container: Container, guest: Guest) -> None:
        """A running container has other networks than before: its files and its status say so."""
        await self._names.follow(guest)
        self._write_files(guest, self._members.directory(container))
        self._members.has(container, self._attached(guest))


def _way_out(joins: Iterable[tuple[NetworkRecord, EndpointSettings]]) -> NetworkRecord | None:
    """The network that gives the default route and the published ports: the highest priority, then the first name."""
    candidates = [(record, settings) for record, settings in joins if not record.internal]
    ordered = sorted(candidates, key=lambda pair: (-pair[1].gw_priority, pair[0].name))
    return ordered[0][0] if ordered else None
