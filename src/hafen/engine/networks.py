"""Networks: the defaults, list, inspect, create, remove, prune, connect, disconnect.

After a crash of the engine `restore` is told which containers live, and makes drivers and kernel agree with that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from hafen.engine import guests, netdefaults, netplan, netrecords
from hafen.engine.addresses import Addresses
from hafen.engine.events import Events
from hafen.engine.guests import Attached, Guest
from hafen.engine.netdefaults import NetworkDefaults
from hafen.engine.netjoin import Joins, Members
from hafen.engine.netnames import NameService
from hafen.engine.netrecords import PREDEFINED, Endpoints, NetworkRecord, NetworkRecords, as_network
from hafen.errors import Forbidden, HafenError, InvalidArgument, NotFound, System
from hafen.network.driver import Netns, NetworkDriver
from hafen.network.ipam import Taken
from hafen.spec import units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.network import (
    EndpointSettings,
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

log = logging.getLogger(__name__)

_NO_CONFIG = ContainerConfig()
_NO_DEFAULTS = NetworkDefaults()
_LIST_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))


class Networks:
    """Every network of one engine; loop thread only. `drivers` are by the API's name of each."""

    def __init__(
        self,
        database: Database,
        events: Events,
        drivers: Mapping[str, NetworkDriver],
        members: Members,
        defaults: NetworkDefaults = _NO_DEFAULTS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._events = events
        self._drivers = drivers
        self._members = members
        self._defaults = defaults
        self._clock = clock
        self._records = NetworkRecords(database)
        self._addresses = Addresses()
        self._endpoints = Endpoints(database)
        self._names = NameService(self._records, self._endpoints, members, defaults)
        self._joins = Joins(
            self._records, self._endpoints, self._addresses, drivers, members, self._names, defaults, self._tell
        )

    # --- the engine's life -----------------------------------------------------------------------------------------

    def ensure_defaults(self) -> None:
        """The three networks that are always there, written once."""
        for name in PREDEFINED:
            if self._records.named(name) is None:
                self._records.insert(self._default_record(name, secrets.token_hex(32)))

    async def restore(self, living: Iterable[Guest] = ()) -> dict[str, Attached]:
        """Make the kernel agree: networks exist, living containers keep what they have, and what belongs to nobody is
        removed. Called once, when it is known which containers live; returns what each of them has."""
        self.ensure_defaults()
        guests_by_id = {guest.id: guest for guest in living}
        for container in self._endpoints.containers():
            for network_id in self._endpoints.of(container):
                if container not in guests_by_id or self._records.get(network_id) is None:
                    self._endpoints.drop(container, network_id)
        self._renew_default()
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
        self.follow_links()
        for guest in guests_by_id.values():
            try:
                await self._joins.settle(guest)
            except HafenError as error:
                log.warning("container %s does not have the networks that it should have: %s", guest.name, error)
            try:
                await self._names.follow(guest)
            except HafenError as error:
                log.warning("container %s cannot resolve names: %s", guest.name, error)
        return {container: self._joins.attached(guest) for container, guest in guests_by_id.items()}

    def follow_links(self) -> None:
        """The containers' links are others than before."""
        try:
            self._joins.follow_links(self._records.find("bridge"))
        except HafenError as error:
            log.warning("the ports that links open: %s", error)

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

    def _renew_default(self) -> None:
        """The default network changes where the engine was told something else about it than before, and moves where
        the host has come to use its addresses (a VPN, another engine) meanwhile; not under a container that lives."""
        record = self._records.find("bridge")
        if self._endpoints.within(record.id):
            return
        taken = self._occupied(but=record)
        fits, clash = netdefaults.fits(record, self._defaults), taken.clash(netrecords.subnets(record))
        if fits and (not clash or self._defaults.bip):
            return
        try:
            renewed = netdefaults.record(self._defaults, "bridge", record.id, self._now(), lambda: taken)
            if fits and taken.clash(netrecords.subnets(renewed)) >= clash:
                return  # the host has routes to whatever there is
            # Before the record: the link would keep its addresses beside the new ones.
            self._drivers[record.driver].retire(as_network(record))
        except HafenError as error:
            log.warning("network %s stays as it is: %s", record.name, error)
            return
        if clash:
            log.warning(
                "the host uses addresses of %s: network %s gets others", netrecords.subnets(record), record.name
            )
        self._records.replace(renewed)
        self._addresses.forget(record)

    def _default_record(self, name: str, network_id: str) -> NetworkRecord:
        return netdefaults.record(self._defaults, name, network_id, self._now(), self._occupied)

    def _occupied(self, but: NetworkRecord | None = None) -> Taken:
        """What a new network's addresses keep clear of, `but` these of one that gets others."""
        ours = {record.link for record in self._records if record.driver == "bridge"}
        found = [driver.occupied(ours) for driver in self._drivers.values()]
        subnets = [subnet for record in self._records if record is not but for subnet in netrecords.subnets(record)]
        return Taken(
            [*subnets, *(subnet for one in found for subnet in one.own)], [s for one in found for s in one.routed]
        )

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
        subnets = {} if record.config_only else self._addresses.status(record)
        return netrecords.as_inspect(record, self._endpoints.within(record.id), subnets)

    async def create(self, request: NetworkCreateRequest) -> NetworkCreateResponse:
        record = netplan.plan(
            request, secrets.token_hex(32), self._now(), self._records, self._occupied, self._defaults
        )
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
        if record.config_only and any(one.config_from == record.name for one in self._records):
            raise Forbidden(f'error while removing network: configuration network "{record.name}" is in use')
        with self._records.going(record):  # no container joins it meanwhile
            await asyncio.to_thread(driver.retire, network)
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
                await self._joins.plug_in(container, guest, record, settings)
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
            if record.name == "host" and guests.mode(container.record.host_config) == "host":
                raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
            if record.name not in container.record.networks:
                the = "" if container.alive else "the "
                raise System(f"container {container.id} is not connected to {the}network {record.name}")
            before = container.record.networks
            # First: an engine that is killed over it is followed by one that goes on (`Joins.settle`).
            guest = members.asks(container, {name: kept for name, kept in before.items() if name != record.name})
            endpoint = self._endpoints.of(container.id).get(record.id)
            if endpoint is None or not container.alive:
                self._tell("disconnect", record, container=container.id)
                return
            try:
                await self._joins.plug_out(container, guest, record, endpoint)
            except BaseException:
                if record.id in self._endpoints.of(container.id):
                    members.asks(container, before)
                raise

    async def prune(self, filters: Filters = NO_FILTERS) -> NetworkPruneResponse:
        filters.check(("label", "label!", "until"))
        until = filters.until()
        oldest = None if until is None else units.format_timestamp(units.parse_timestamp(until, self._clock()))
        deleted = []
        for record in self._records:
            if (
                record.predefined
                or record.config_only
                or self._endpoints.within(record.id)
                or (oldest is not None and record.created >= oldest)
            ):
                continue
            if filters.matches_labels(record.labels) and not filters.excludes_labels(record.labels):
                try:
                    await self.remove(record.id)
                except HafenError as error:  # somebody came to use it, or removes it, meanwhile
                    log.warning("network %s is not pruned: %s", record.name, error)
                else:
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
        """See `Joins.attach_all`."""
        return await self._joins.attach_all(guest, netns, directory)

    def release(self, container_id: str) -> None:
        self._joins.release(container_id)

    def renamed(self, container_id: str, name: str) -> None:
        self._joins.renamed(container_id, name)
