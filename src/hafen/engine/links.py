"""Links of the default bridge (`--link db:mysql`): addresses in /etc/hosts, variables, and names of the target.

A container's record holds its links; all else is worked out when it is needed. On networks of the user's own a link is
an alias in the resolver (`engine.netnames`), and none of this. The rules and texts are those of moby's `daemon/links`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hafen.engine import guests
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers, Link, Record
from hafen.errors import InvalidArgument, NotFound, System
from hafen.network import etcfiles
from hafen.spec import ports
from hafen.spec.ports import Port
from hafen.spec.wire.hostconfig import HostConfig

_BRIDGE = "bridge"
_NOT_PASSED_ON = frozenset(("HOME", "PATH"))  # each image's own


def requested(containers: Containers, wanted: HostConfig) -> tuple[Link, ...]:
    """The links of `HostConfig.Links`, their targets found; networks of the user's own have theirs elsewhere."""
    if guests.mode(wanted) not in (_BRIDGE, "none"):
        return ()
    found: dict[str, Link] = {}
    for text in wanted.links or ():
        ref, alias = guests.parse_link(text)
        target = _owner(containers, ref)
        if guests.mode(target.record.host_config) == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. This would result in undefined "
                "behavior"
            )
        found.setdefault(alias, Link(target.id, target.name, alias))
    return tuple(found.values())


def _owner(containers: Containers, ref: str) -> Container:
    """The container whose network it is."""
    passed: set[str] = set()
    while (target := containers.lookup(ref)) is not None and target.id not in passed:
        other = guests.container_target(target.record.host_config)
        if other is None:
            return target
        passed.add(target.id)  # two that were to share with each other
        ref = other
    why = f"No such container: {ref}" if ref else 'invalid name or ID supplied: ""'
    raise InvalidArgument(f"could not get container for {ref}: {why}")


def shown(containers: Containers, record: Record) -> list[str] | None:
    """`HostConfig.Links` as inspect tells it; a target that is gone by its last known name."""
    return [f"/{_name(containers, link)}:/{record.name}/{link.alias}" for link in record.links] or None


def _name(containers: Containers, link: Link) -> str:
    target = containers.lookup(link.target)
    return link.name if target is None else target.name


def names(containers: Containers) -> dict[str, list[str]]:
    """The names that links give to their targets, by the target's id: `web/redis`."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for link in container.record.links:
            found.setdefault(link.target, []).append(f"{container.name}/{link.alias}")
    return found


def _targets(containers: Containers, record: Record) -> list[tuple[Link, Container]]:
    """The links that have an effect: none where the container is not on the default bridge, nor to what is gone."""
    if _BRIDGE not in record.networks:
        return []
    targets = ((link, containers.lookup(link.target)) for link in record.links)
    return [(link, target) for link, target in targets if target is not None]


def check(containers: Containers, record: Record) -> None:
    """At start and at exec: the targets must run, on the default bridge."""
    for _, target in _targets(containers, record):
        if _BRIDGE not in target.record.networks:
            raise System(f"Cannot link to /{target.name}, as it does not belong to the default network")
    if _BRIDGE not in record.networks:
        return
    for link in record.links:
        known = containers.lookup(link.target)
        if known is None or not known.alive:
            raise System(
                f"Cannot link to a non running container: /{_name(containers, link)} AS /{record.name}/{link.alias}"
            )


def openings(containers: Containers) -> Iterator[tuple[str, str, list[Port]]]:
    """Who may reach which ports of whom, by their ids, where containers of the default bridge are kept apart: a
    target's exposed ports."""
    for container in containers:
        for _, target in _targets(containers, container.record):
            yield container.id, target.id, [ports.parse_port(text) for text in target.record.config.exposed_ports]


def hosts(containers: Containers, record: Record) -> list[tuple[str, str]]:
    """(address, names) of each target that runs, for /etc/hosts."""
    found = []
    for link, target in _targets(containers, record):
        address = _address(target)
        if address:
            own = () if link.alias == target.name else (target.name,)
            found.append((address, " ".join((link.alias, target.record.config.hostname, *own))))
    return found


def _address(target: Container) -> str:
    settings = target.status.networks.get(_BRIDGE)
    return settings.ip_address if settings is not None and target.alive else ""


def environment(containers: Containers, record: Record) -> list[str]:
    """The variables that tell of the targets; InvalidArgument and System as `check`."""
    check(containers, record)
    found: list[str] = []
    for link, target in _targets(containers, record):
        exposed = [ports.parse_port(text) for text in target.record.config.exposed_ports]
        found += variables(f"/{record.name}/{link.alias}", _address(target), exposed, target.record.config.env or ())
    return found


def variables(name: str, address: str, exposed: list[Port], env: list[str] | tuple[str, ...]) -> list[str]:
    """What Docker tells of one target: its first port, each port, runs of adjoining ones, its own variables."""
    prefix = name.rpartition("/")[2].replace("-", "_").upper()
    found = {f"{prefix}_NAME": name}
    by_number = sorted(exposed, key=lambda port: (port.number, port.protocol != "tcp"))
    if by_number:
        found[f"{prefix}_PORT"] = _url(address, by_number[0])
    for first, last in _runs(exposed):
        if last != first:
            start = f"{prefix}_PORT_{first.number}_{first.protocol.upper()}"
            found[f"{start}_START"], found[f"{start}_END"] = _url(address, first), _url(address, last)
            found[f"{start}_PORT_START"], found[f"{start}_PORT_END"] = str(first.number), str(last.number)
    for port in by_number:
        one = f"{prefix}_PORT_{port.number}_{port.protocol.upper()}"
        found[one] = _url(address, port)
        found[f"{one}_ADDR"], found[f"{one}_PORT"] = address, str(port.number)
        found[f"{one}_PROTO"] = port.protocol
    for entry in env:
        variable, equals, value = entry.partition("=")
        if equals and variable not in _NOT_PASSED_ON:
            found[f"{prefix}_ENV_{variable}"] = value
    return [f"{variable}={value}" for variable, value in found.items()]


def _runs(exposed: list[Port]) -> list[tuple[Port, Port]]:
    """First and last of each run of adjoining ports of one protocol."""
    found: list[tuple[Port, Port]] = []
    for port in sorted(exposed, key=lambda port: (port.protocol, port.number)):
        if found and found[-1][1].protocol == port.protocol and found[-1][1].number + 1 == port.number:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found


def _url(address: str, port: Port) -> str:
    return f"{port.protocol}://{address}:{port.number}"


def follow(containers: Containers, paths: Paths, target: Container) -> None:
    """The target has started: those that link to it and run learn its address. What else they have in their
    /etc/hosts stays as it is."""
    address = _address(target)
    if not address:
        return
    for container in containers:
        if not container.record.links or not container.alive:
            continue
        for link, linked in _targets(containers, container.record):
            if linked is target:
                etcfiles.move_host(paths.container(container.id), link.alias, address)


def remove(containers: Containers, paths: Paths, name: str) -> None:
    """`docker rm --link /web/redis`."""
    parent_name, _, alias = f"/{name.removeprefix('/')}".rpartition("/")
    containers.find(name)  # else there is no such container
    if not parent_name:
        raise System("Conflict, cannot remove the default link name of the container")
    parent = containers.lookup(parent_name)
    if parent is None:
        raise NotFound(f"Cannot get parent {parent_name} for link name {name}")
    kept = tuple(link for link in parent.record.links if link.alias != alias)
    containers.replace(parent, msgspec.structs.replace(parent.record, links=kept))
    if parent.alive:
        etcfiles.drop_host(paths.container(parent.id), alias)
