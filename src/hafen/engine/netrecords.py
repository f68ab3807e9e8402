"""Networks and endpoints: what they are, their persistence, and the shapes that others know them in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_network

import msgspec

from hafen.engine import netoptions
from hafen.errors import InvalidArgument, NotFound, System
from hafen.network.driver import Endpoint, Network, Subnet
from hafen.network.ipam import IpAddress, IpNetwork, Pool, parse_address, parse_network
from hafen.spec.filters import Filters
from hafen.spec.wire.network import (
    ConfigReference,
    EndpointResource,
    Ipam,
    IpamConfig,
    IpamStatus,
    NetworkInspect,
    NetworkStatus,
    NetworkSummary,
    SubnetStatus,
)
from hafen.storage.database import Database

PREDEFINED = ("bridge", "host", "none")


class NetworkRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a network is. `ipam` is as the user sees it: with the subnets and gateways that were chosen."""

    id: str
    name: str
    driver: str
    created: str
    ipam: Ipam
    link: str = ""
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    config_only: bool = False  # there to be copied by others
    config_from: str = ""  # the network that it was copied from
    scope: str = "local"
    user_subnet: bool = False  # the user chose it, and so may choose addresses in it
    options: dict[str, str] = {}
    labels: dict[str, str] = {}

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def user_defined(self) -> bool:
        """Such networks have names, aliases and addresses of the user's choice."""
        return not self.predefined

    @property
    def leads_out(self) -> bool:
        """Whether it may give a container its default route."""
        return self.driver not in ("host", "null") and not as_network(self).internal

    def has(self, version: int) -> bool:
        return self.enable_ipv4 if version == 4 else self.enable_ipv6


def in_use(config: IpamConfig, ipv4: bool, ipv6: bool) -> bool:
    """Whether addresses come of it: subnets of a version that the network is without are only remembered, as Docker
    does."""
    return bool(config.subnet) and (ipv6 if ":" in config.subnet else ipv4)


def subnets(record: NetworkRecord) -> list[IpNetwork]:
    return [ip_network(config.subnet) for config in configs_in_use(record)]


def configs_in_use(record: NetworkRecord) -> list[IpamConfig]:
    if record.config_only:
        return []
    return [one for one in record.ipam.config or () if in_use(one, record.enable_ipv4, record.enable_ipv6)]


def idle_subnets(record: NetworkRecord) -> list[IpNetwork]:
    """Those that are only remembered, and may have been written with host bits."""
    used = configs_in_use(record)
    configs = record.ipam.config or ()
    return [parse_network(one.subnet, strict=False) for one in configs if one.subnet and one not in used]


def as_network(record: NetworkRecord) -> Network:
    """The network as its driver knows it."""
    network = Network(
        id=record.id,
        name=record.name,
        link=record.link,
        subnets=tuple(_subnet(config) for config in configs_in_use(record)),
        internal=record.internal,
    )
    return netoptions.apply(network, record.driver, record.options)


def _subnet(config: IpamConfig) -> Subnet:
    """As the kernel writes addresses, where users write FD00::0001."""
    return Subnet(str(ip_network(config.subnet)), str(parse_address(config.gateway)) if config.gateway else "")


def as_summary(record: NetworkRecord) -> NetworkSummary:
    return NetworkSummary(
        name=record.name,
        id=record.id,
        created=record.created,
        scope=record.scope,
        driver=record.driver,
        enable_ipv4=record.enable_ipv4,
        enable_ipv6=record.enable_ipv6,
        ipam=record.ipam,
        internal=record.internal,
        attachable=record.attachable,
        config_from=ConfigReference(network=record.config_from),
        config_only=record.config_only,
        options=record.options,
        labels=record.labels,
    )


def as_inspect(
    record: NetworkRecord, endpoints: Iterable[Endpoint], subnets: dict[str, SubnetStatus]
) -> NetworkInspect:
    summary = as_summary(record)
    containers = {
        endpoint.container_id: EndpointResource(
            name=endpoint.container_name,
            endpoint_id=endpoint.id,
            mac_address=endpoint.mac,
            ipv4_address=f"{endpoint.ip}/{endpoint.prefix}" if endpoint.ip else "",
            ipv6_address=f"{endpoint.ip6}/{endpoint.prefix6}" if endpoint.ip6 else "",
        )
        for endpoint in endpoints
    }
    fields = {name: getattr(summary, name) for name in summary.__struct_fields__}
    status = NetworkStatus(ipam=IpamStatus(subnets=subnets)) if subnets else None
    return NetworkInspect(**fields, containers=containers, status=status)


def pools(record: NetworkRecord) -> list[Pool]:
    """Fresh allocators for the network's subnets: gateways and auxiliary addresses are taken."""
    made = []
    for config in configs_in_use(record):
        reserved: list[IpAddress] = [parse_address(text) for text in config.auxiliary_addresses.values()]
        if config.gateway:
            reserved.append(parse_address(config.gateway))
        ip_range = ip_network(config.ip_range) if config.ip_range else None
        made.append(Pool(ip_network(config.subnet), ip_range, reserved))
    return made


def matches(record: NetworkRecord, filters: Filters, connected: bool) -> bool:
    """Whether a listing that filters so shows the network."""
    for wanted in filters.get("type"):
        if wanted not in ("builtin", "custom"):
            raise System(f"invalid filter: 'type'='{wanted}'")
    dangling = record.user_defined and not connected
    try:
        wanted_dangling = filters.flag("dangling", dangling)
    except InvalidArgument:
        raise InvalidArgument(
            'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
        ) from None
    return (
        wanted_dangling == dangling
        and filters.matches_any("driver", record.driver)
        and filters.matches_any("scope", record.scope)
        and filters.matches_any("type", "custom" if record.user_defined else "builtin")
        and ("name" not in filters or any(want in record.name for want in filters.get("name")))
        and ("id" not in filters or any(record.id.startswith(want) for want in filters.get("id")))
        and filters.matches_labels(record.labels)
    )


class NetworkRecords:
    """All networks, by id and by name; loop thread only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[str, NetworkRecord] = {}
        self._going: set[str] = set()
        for (text,) in database.query("SELECT record FROM networks"):
            assert isinstance(text, bytes)
            record = msgspec.json.decode(text, type=NetworkRecord)
            self._by_id[record.id] = record

    def __iter__(self) -> Iterator[NetworkRecord]:
        return iter(tuple(self._by_id.values()))

    def named(self, name: str) -> NetworkRecord | None:
        return next((record for record in self._by_id.values() if record.name == name), None)

    def get(self, network_id: str) -> NetworkRecord | None:
        return self._by_id.get(network_id)

    def find(self, ref: str) -> NetworkRecord:
        """By name, id, or unambiguous id prefix; NotFound otherwise, and while it is being removed."""
        found = self._by_id.get(ref) or self.named("bridge" if ref == "default" else ref)
        if found is not None and found.id not in self._going:
            return found
        staying = [record for record in self._by_id.values() if record.id not in self._going]
        matching = [record for record in staying if ref and record.id.startswith(ref)]
        if len(matching) > 1:
            raise InvalidArgument(f"network {ref} is ambiguous ({len(matching)} matches found on ID prefix)")
        if not matching:
            raise NotFound(f"network {ref} not found")
        return matching[0]

    @contextmanager
    def going(self, record: NetworkRecord) -> Iterator[None]:
        """The record is being removed: nobody finds it, though its name, link and addresses are still taken."""
        self._going.add(record.id)
        try:
            yield
        finally:
            self._going.discard(record.id)

    def insert(self, record: NetworkRecord) -> None:
        """Durable when it returns."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "INSERT INTO networks (id, name, record) VALUES (?, ?, ?)",
                (record.id, record.name, msgspec.json.encode(record)),
            )
        self._by_id[record.id] = record

    def replace(self, record: NetworkRecord) -> None:
        """Put the record in the place of the one with its id and name; durable when it returns."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "UPDATE networks SET record = ? WHERE id = ?", (msgspec.json.encode(record), record.id)
            )
        self._by_id[record.id] = record

    def delete(self, record: NetworkRecord) -> None:
        with self._database.transaction(durable=True):
            self._database.execute("DELETE FROM networks WHERE id = ?", (record.id,))
        self._by_id.pop(record.id, None)


class Endpoints:
    """What containers have in the kernel at this moment: by container id, then network id, in the order of joining.

    A row is there before its container runs, and not waited for: after a power cut no container lives. What a crash
    leaves in the kernel without a row is recognised by its name.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_container: dict[str, dict[str, Endpoint]] = {}
        self._by_name: dict[str, dict[str, list[str]]] = {}  # by network, made when asked for
        for container, network, text in database.query(
            "SELECT container, network, endpoint FROM endpoints ORDER BY rowid"
        ):
            assert isinstance(container, str)
            assert isinstance(network, str)
            assert isinstance(text, bytes)
            endpoint = msgspec.json.decode(text, type=Endpoint)
            self._by_container.setdefault(container, {})[network] = endpoint

    def __bool__(self) -> bool:
        return bool(self._by_container)

    def containers(self) -> tuple[str, ...]:
        return tuple(self._by_container)

    def of(self, container: str) -> dict[str, Endpoint]:
        """A container's endpoints by network id."""
        return dict(self._by_container.get(container, {}))

    def within(self, network: str) -> list[Endpoint]:
        """A network's endpoints."""
        return [held[network] for held in self._by_container.values() if network in held]

    def by_name(self, network: str) -> Mapping[str, Sequence[str]]:
        """Addresses of a network's containers by each of their names, in lower case."""
        index = self._by_name.get(network)
        if index is None:
            index = self._by_name[network] = {}
            for endpoint in self.within(network):
                for name in endpoint.names:
                    index.setdefault(name.lower(), []).extend(filter(None, (endpoint.ip, endpoint.ip6)))
        return index

    def put(self, network: str, endpoint: Endpoint) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO endpoints (container, network, endpoint) VALUES (?, ?, ?)",
            (endpoint.container_id, network, msgspec.json.encode(endpoint)),
        )
        self._by_container.setdefault(endpoint.container_id, {})[network] = endpoint
        self._by_name.pop(network, None)

    def drop(self, container: str, network: str) -> None:
        self._database.execute("DELETE FROM endpoints WHERE container = ? AND network = ?", (container, network))
        held = self._by_container.get(container, {})
        held.pop(network, None)
        self._by_name.pop(network, None)
        if not held:
            self._by_container.pop(container, None)
