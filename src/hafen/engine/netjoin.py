"""Containers join networks at start and leave them at exit, or are plugged in and out while they run.

What a container has at this moment is an `Endpoint` per network, on disk before the container runs.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from hafen.engine import guests, netoptions
from hafen.engine.addresses import Addresses, Grant
from hafen.engine.guests import Attached, Guest
from hafen.engine.netdefaults import NetworkDefaults
from hafen.engine.netnames import NameService, Namespaces
from hafen.engine.netrecords import Endpoints, NetworkRecord, NetworkRecords, as_network
from hafen.errors import Conflict, Forbidden
from hafen.network import etcfiles
from hafen.network.driver import AddressBusy, Endpoint, Netns, NetworkDriver, Opening, Wish
from hafen.network.ipam import mac_of
from hafen.spec.ports import Port
from hafen.spec.wire.network import EndpointIpamConfig, EndpointSettings

if TYPE_CHECKING:
    from hafen.engine.records import Container

VERSIONS = (4, 6)
_REMEMBERED = 4096
_CLEARING = 5.0  # seconds that the kernel may need to clear a network namespace away


class Members(Namespaces, Protocol):
    """Containers, as networks need them (`engine.members`)."""

    def find(self, ref: str) -> Container: ...

    def directory(self, container: Container) -> str:
        """Where the files of its /etc are."""

    def asks(self, container: Container, networks: Mapping[str, EndpointSettings]) -> Guest:
        """From now on the container asks for these networks; on disk when it returns."""

    def has(self, container: Container, attached: Attached) -> None:
        """What the running container has now."""

    def linked(self, container_id: str) -> Sequence[tuple[str, str]]:
        """(address, names) of what the container links to on the default bridge."""

    def openings(self) -> Iterable[tuple[str, str, list[Port]]]:
        """What links open: the ids of two containers, and the second one's ports."""


@dataclass(frozen=True, slots=True)
class Joins:
    """The endpoints of one engine; loop thread only. `tell` publishes an event about a network."""

    records: NetworkRecords
    endpoints: Endpoints
    addresses: Addresses
    drivers: Mapping[str, NetworkDriver]
    members: Members
    names: NameService
    defaults: NetworkDefaults
    tell: Callable[..., None]
    left: dict[tuple[str, str], Endpoint] = field(default_factory=dict)
    """What a container had when it left a network of bridges, by their ids; those who left last."""

    async def attach_all(self, guest: Guest, netns: Netns | None, directory: str) -> Attached:
        """Connect a container that is about to start to every network it asks for, and write the files of its /etc
        into `directory`. All or nothing. `netns` is None where it shares that of the host or of another container."""
        joins = [(self.records.find(name), settings) for name, settings in guest.networks.items()]
        for record, settings in joins:
            guests.check_endpoint(record, settings)
        ways = ways_out(joins)
        with ExitStack() as undo:
            undo.callback(self.release, guest.id)
            for record, settings in joins:
                leads_out = [version for version in VERSIONS if ways.get(version) is record]
                endpoint = await self._attach(guest, record, settings, netns, leads_out)
                if netns is not None:
                    undo.callback(self.drivers[record.driver].unplug, endpoint, netns)
            self._publish(guest)
            self._write_files(guest, directory)
            if netns is not None:
                await self.names.start(guest, netns)
            undo.pop_all()
        return self.attached(guest)

    def release(self, container_id: str) -> None:
        """A container ended: ports and addresses are free again. Its links go with its network namespace.

        Does nothing where it is connected to nothing.
        """
        self.names.stop(container_id)
        with ExitStack() as every:  # also those after one that fails
            for record, endpoint in reversed(self._held(container_id)):
                every.callback(self._leave, record, endpoint)

    def renamed(self, container_id: str, name: str) -> None:
        """A container has another name now."""
        for network_id, endpoint in self.endpoints.of(container_id).items():
            names = (name, *endpoint.names[1:])  # its own name is the first (`guests.dns_names`)
            self.endpoints.put(network_id, replace(endpoint, container_name=name, names=names))

    def attached(self, guest: Guest) -> Attached:
        """What the container has."""
        held = self._held(guest.id)
        return Attached(
            {
                record.name: guests.filled(guest, record, guest.networks.get(record.name, EndpointSettings()), endpoint)
                for record, endpoint in held
            },
            guests.port_map(guest, [endpoint for _, endpoint in held]),
            tuple(name for record, endpoint in held if (name := _without_ipv6(guest, record, endpoint))),
        )

    # --- while a container runs ------------------------------------------------------------------------------------

    async def plug_in(
        self, container: Container, guest: Guest, record: NetworkRecord, settings: EndpointSettings, *,
        again: bool = False,
    ) -> None:  # fmt: skip
        """One more network, or nothing. It takes the default routes over where its priority is the highest. `again`:
        after an engine that may have come as far as the interface."""
        netns = await self.members.namespace(container.id)
        try:
            if not container.alive:
                raise Conflict(f"container {container.id} ended meanwhile")
            if again:
                left = Endpoint("", guest.id, guest.name, self._interface(guest, record, settings))
                self.drivers[record.driver].unplug(left, netns)
            endpoint = await self._attach(guest, record, settings, netns, ())
            try:
                if interface := _without_ipv6(guest, record, endpoint):
                    await self.members.set_sysctls(netns.fd, {netoptions.ipv6_switch(interface): "1"})
                self._find_ways_out(guest, netns)
            except BaseException:
                self._take_back(record, endpoint, netns)
                self._find_ways_out(guest, netns)
                raise
        finally:
            netns.close()
        await self._changed(container, guest)

    async def plug_out(self, container: Container, guest: Guest, record: NetworkRecord, endpoint: Endpoint) -> None:
        """One network less. Another one that leads out takes its default routes and its ports over."""
        netns = await self.members.namespace(container.id)
        try:
            await asyncio.to_thread(self.drivers[record.driver].unplug, endpoint, netns)
            current = self.endpoints.of(guest.id).get(record.id)
            if current is None:
                return  # the container ended meanwhile
            self._leave(record, current)
            self._find_ways_out(guest, netns)
        finally:
            netns.close()
        await self._changed(container, guest)

    async def settle(self, guest: Guest) -> None:
        """Where an engine was killed while a container that lives was connected or disconnected, or while its default
        routes and ports moved: finish that."""
        container = self.members.find(guest.id)
        for record, endpoint in self._held(guest.id):
            if record.name not in guest.networks:
                await self.plug_out(container, guest, record, endpoint)
        if self._ways_that_change(guest):
            netns = await self.members.namespace(guest.id)
            try:
                self._find_ways_out(guest, netns)
            finally:
                netns.close()
        self._publish(guest)
        held = {record.name for record, _ in self._held(guest.id)}
        for name, settings in guest.networks.items():
            if name not in held:
                await self.plug_in(container, guest, self.records.find(name), settings, again=True)

    async def _changed(self, container: Container, guest: Guest) -> None:
        """A running container has other networks than before: its files and its status say so."""
        await self.names.follow(guest)
        if not container.alive:
            return  # it ended meanwhile, and its status says so
        self._write_files(guest, self.members.directory(container))
        self.members.has(container, self.attached(guest))

    def follow_links(self, record: NetworkRecord) -> None:
        """Where the default network keeps its containers apart, those that are linked reach the exposed ports of those
        they link to."""
        if record.name != "bridge" or (network := as_network(record)).icc:
            return
        addresses = {one.container_id: one.ip for one in self.endpoints.within(record.id)}
        opened = {
            Opening(addresses[source], addresses[target], port)
            for source, target, exposed in self.members.openings()
            if source in addresses and target in addresses
            for port in exposed
        }
        self.drivers[record.driver].open(network, opened)

    # --- its parts -------------------------------------------------------------------------------------------------

    def _held(self, container_id: str) -> list[tuple[NetworkRecord, Endpoint]]:
        return [(self.records.find(network_id), e) for network_id, e in self.endpoints.of(container_id).items()]

    async def _attach(
        self, guest: Guest, record: NetworkRecord, settings: EndpointSettings, netns: Netns | None,
        leads_out: Sequence[int],
    ) -> Endpoint:  # fmt: skip
        record = self.records.find(record.id)  # it may have gone since the caller looked
        if record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        interface = self._interface(guest, record, settings)
        sysctls = netoptions.endpoint_sysctls(settings.driver_opts, interface)
        names = tuple(guests.dns_names(guest, settings))
        links = {alias.lower(): name.lower() for name, alias in map(guests.parse_link, settings.links or ())}
        former = self.left.pop((guest.id, record.id), None)
        ip, ip6 = self._grant(record, settings, former)
        asked = settings.ipam_config or EndpointIpamConfig()
        endpoint_id = secrets.token_hex(32)
        mac = mac_of(ip[0]) if ip[0] else f"02:42:{bytes.fromhex(endpoint_id[:8]).hex(':')}"
        wish = Wish(
            id=endpoint_id,
            container_id=guest.id,
            container_name=guest.name,
            interface=interface,
            ip=ip[0],
            prefix=ip[1],
            ip6=ip6[0],
            prefix6=ip6[1],
            mac=settings.mac_address.replace("-", ":").lower() or mac,
            link_local=tuple(asked.link_local_ips),
            leads_out=4 in leads_out,
            leads_out6=6 in leads_out,
            former=former.link if former else "",
        )
        driver = self.drivers[record.driver]
        with ExitStack() as undo:
            undo.callback(self.addresses.give_back, record, ip[0], ip6[0])
            endpoint = await self._made(record, wish, netns)
            if netns is not None:
                undo.callback(driver.unplug, endpoint, netns)
            endpoint = replace(endpoint, names=names, links=links, leads_out=tuple(leads_out))
            self.endpoints.put(record.id, endpoint)
            undo.pop_all()
        self.tell("connect", record, container=guest.id)
        if netns is not None:
            try:
                self.follow_links(record)
                if sysctls:
                    await self.members.set_sysctls(netns.fd, sysctls)
            except BaseException:
                self._take_back(record, endpoint, netns)
                raise
        return endpoint

    async def _made(self, record: NetworkRecord, wish: Wish, netns: Netns | None) -> Endpoint:
        """A container that starts again at once finds its own address taken for a moment."""
        deadline = time.monotonic() + _CLEARING
        while True:
            network = as_network(self.records.find(record.id))  # it may go while this waits
            try:
                return self.drivers[record.driver].attach(network, wish, netns)
            except AddressBusy:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.02)

    def _grant(self, record: NetworkRecord, settings: EndpointSettings, former: Endpoint | None) -> tuple[Grant, Grant]:
        """What is asked, or what it had when it last was there: proxies and the like go on using the address of who
        has restarted. The next ones where somebody else has taken it."""
        if former is None:
            return self.addresses.grant(record, settings)
        asked = settings.ipam_config or EndpointIpamConfig()
        wanted = msgspec.structs.replace(
            asked, ipv4_address=asked.ipv4_address or former.ip, ipv6_address=asked.ipv6_address or former.ip6
        )
        try:
            return self.addresses.grant(record, msgspec.structs.replace(settings, ipam_config=wanted))
        except Forbidden:
            return self.addresses.grant(record, settings)

    def _interface(self, guest: Guest, record: NetworkRecord, settings: EndpointSettings) -> str:
        """The name that was asked for, or the next free one: eth0, eth1, ..."""
        prefix = record.options.get(netoptions.INTERFACE_PREFIX) or "eth"
        used = {endpoint.interface for endpoint in self.endpoints.of(guest.id).values()}
        return netoptions.interface_name(settings.driver_opts) or next(
            name for number in itertools.count() if (name := f"{prefix}{number}") not in used
        )

    def _leave(self, record: NetworkRecord, endpoint: Endpoint) -> None:
        try:
            self.drivers[record.driver].withdraw(as_network(record), endpoint)
        finally:
            self.endpoints.drop(endpoint.container_id, record.id)
            if endpoint.link:  # else nothing of it can be taken away before its namespace goes
                self.left[endpoint.container_id, record.id] = endpoint
                while len(self.left) > _REMEMBERED:
                    del self.left[next(iter(self.left))]
            self.addresses.give_back(record, endpoint.ip, endpoint.ip6)
        self.tell("disconnect", record, container=endpoint.container_id)
        self.follow_links(record)

    def _take_back(self, record: NetworkRecord, endpoint: Endpoint, netns: Netns) -> None:
        """As if the endpoint had never been."""
        current = self.endpoints.of(endpoint.container_id).get(record.id)
        if current is not None:  # else the container ended meanwhile
            self._leave(record, current)
        self.drivers[record.driver].unplug(endpoint, netns)

    def _publish(self, guest: Guest) -> None:
        """Its ports, at the network that leads out: the one of IPv4, or else the one of IPv6."""
        wanted = guests.wanted_ports(guest)
        if not wanted:
            return
        held = self._held(guest.id)
        leading = [one for version in VERSIONS for one in held if version in one[1].leads_out][:1]
        for record, endpoint in held:
            if endpoint.ports and (record, endpoint) not in leading:
                self.endpoints.put(record.id, self.drivers[record.driver].withdraw(as_network(record), endpoint))
        for record, endpoint in leading:
            if not endpoint.ports:
                published = self.drivers[record.driver].publish(as_network(record), endpoint, wanted)
                self.endpoints.put(record.id, published)

    def _ways_that_change(self, guest: Guest) -> list[tuple[NetworkRecord, Endpoint, tuple[int, ...]]]:
        """What does not give the default routes that it should, with the versions that it is to give."""
        held = self._held(guest.id)
        ways = ways_out([(record, guest.networks.get(record.name, EndpointSettings())) for record, _ in held])
        wanted = [(one, its, tuple(v for v in VERSIONS if ways.get(v) is one)) for one, its in held]
        return [(record, endpoint, leads) for record, endpoint, leads in wanted if leads != endpoint.leads_out]

    def _find_ways_out(self, guest: Guest, netns: Netns) -> None:
        """Make the default routes and published ports of a running container agree with the networks it is in."""
        for record, endpoint, leads in self._ways_that_change(guest):
            gained = [version for version in leads if version not in endpoint.leads_out]
            if gained:
                self.drivers[record.driver].lead_out(as_network(record), endpoint, netns, gained)
            self.endpoints.put(record.id, replace(endpoint, leads_out=leads))
        self._publish(guest)

    def _write_files(self, guest: Guest, directory: str) -> None:
        files = guests.etc_files(
            guest,
            list(self.endpoints.of(guest.id).values()),
            etcfiles.host_resolver(),
            embedded=self.names.serves(guest.id),
            gateways=self._host_gateways(),
            linked=self.members.linked(guest.id),
            defaults=self.defaults,
        )
        os.makedirs(directory, exist_ok=True)
        etcfiles.write(directory, files)

    def _host_gateways(self) -> Sequence[str]:
        """What `host-gateway` means: the host as seen from the default network."""
        configs = self.records.find("bridge").ipam.config or ()
        return self.defaults.host_gateways or [config.gateway for config in configs if config.gateway]


def _without_ipv6(guest: Guest, record: NetworkRecord, endpoint: Endpoint) -> str:
    """The endpoint's interface, where it is to have no IPv6 at all, else "". Anybody beside it could otherwise give it
    an address and a default route by a router advertisement (CVE-2024-32473)."""
    settings = guest.networks.get(record.name, EndpointSettings())
    switch = netoptions.ipv6_switch(endpoint.interface)
    if not endpoint.interface or endpoint.ip6 or any(":" in address for address in endpoint.link_local):
        return ""
    if switch in netoptions.endpoint_sysctls(settings.driver_opts, endpoint.interface):
        return ""  # the user's word
    return endpoint.interface if os.path.isdir("/proc/sys/net/ipv6") else ""


def ways_out(joins: Iterable[tuple[NetworkRecord, EndpointSettings]]) -> dict[int, NetworkRecord]:
    """By version the network that gives the default route: the highest priority, then the first name."""
    candidates = [(record, settings) for record, settings in joins if record.leads_out]
    ordered = sorted(candidates, key=lambda pair: (-pair[1].gw_priority, pair[0].name))
    found: dict[int, NetworkRecord] = {}
    for record, _ in ordered:
        for version in VERSIONS:
            if record.has(version):
                found.setdefault(version, record)
    return found
