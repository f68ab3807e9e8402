"""Filters, sizes, ordering and texts for `ps`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from hafen.engine import links
from hafen.engine.images import Images
from hafen.engine.inspect import show_mount, show_networks, shown_mounts, sizes
from hafen.engine.records import Container, Containers, Record, Row
from hafen.errors import HafenError, InvalidArgument, NotFound, System
from hafen.spec import ports
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.lifecycle import State
from hafen.spec.units import human_duration
from hafen.spec.wire.container import ContainerSummary, Health, HealthSummary, SummaryHostConfig, SummaryNetworkSettings
from hafen.spec.wire.network import EndpointSettings, PortSummary
from hafen.storage.snapshot import Snapshotter

_ACCEPTED = frozenset(
    (
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    )
)
_HEALTH = frozenset(("starting", "healthy", "unhealthy", "none"))
_HEALTH_TEXT = {"starting": "health: starting"}


@dataclass(frozen=True, slots=True)
class Listing:
    """`Services.listing`."""

    containers: Containers
    images: Images
    snapshotter: Snapshotter
    volume_source: Callable[[str], str]

    async def list(
        self, all: bool = False, limit: int | None = None, size: bool = False, filters: Filters = NO_FILTERS
    ) -> Sequence[ContainerSummary]:
        linked = links.names(self.containers)
        wanted = self._matcher(filters, linked)
        every = all or bool(limit and limit > 0) or "status" in filters
        newest_first = sorted(self.containers, key=lambda container: container.record.created_ns, reverse=True)
        now = time.time_ns()
        names: dict[str, frozenset[str]] = {}
        found = []
        for container in newest_first:
            if not (every or container.alive or container.status.state is State.RESTARTING) or not wanted(container):
                continue
            shown = self._row(container, now, linked.get(container.id, ()))
            if not self._still_names(names, container.record):
                shown = msgspec.structs.replace(shown, image=container.record.image_id)
            if size:
                own, whole = await sizes(self.snapshotter, container)
                shown = msgspec.structs.replace(shown, size_rw=own, size_root_fs=whole)
            found.append(shown)
            if limit and 0 < limit <= len(found):
                break
        return found

    def _still_names(self, known: dict[str, frozenset[str]], record: Record) -> bool:
        """Whether what a container was made from by name is still called so. `known` are the ids of names."""
        name = record.image
        if name not in known:
            try:
                known[name] = self.images.named(name)
            except HafenError:
                known[name] = frozenset()
        return record.image_id in known[name]

    def _row(self, container: Container, now_ns: int, linked: Sequence[str]) -> ContainerSummary:
        """What `ps` shows of it: the same object for as long as that does not change."""
        kept = container.row
        of = (container.record, container.status)
        if kept is None or kept.of[0] is not of[0] or kept.of[1] is not of[1] or kept.linked != linked:
            shown = summarise(container, now_ns, self.volume_source, linked)
        elif kept.shown.status != (text := status_text(container, now_ns)):
            shown = msgspec.structs.replace(kept.shown, status=text)
        else:
            return kept.shown
        container.row = Row(of, linked, shown)
        return shown

    def _matcher(self, filters: Filters, linked: Mapping[str, Sequence[str]]) -> Callable[[Container], bool]:
        """Check the filters once, and return what tells whether a container passes them."""
        filters.check(_ACCEPTED)
        for state in filters.get("status"):
            if state not in list_of_states():
                raise InvalidArgument(f"invalid filter 'status={state}'")
        for health in filters.get("health"):
            if health not in _HEALTH:
                raise InvalidArgument(f"unrecognized filter value for health: {health}")
        if "is-task" in filters and not filters.get("is-task"):
            raise InvalidArgument("invalid filter 'is-task'")
        tasks = filters.flag("is-task", False)
        exited = {_exit_code(text) for text in filters.get("exited")}
        before = min((self._created(ref) for ref in filters.get("before")), default=None)
        since = max((self._created(ref) for ref in filters.get("since")), default=None)
        images = self._ancestors(filters.get("ancestor")) if "ancestor" in filters else None
        published = [_port_range(text, "publish") for text in filters.get("publish")]
        exposed = [_port_range(text, "expose") for text in filters.get("expose")]
        if not filters:
            return lambda _: True

        def matches(container: Container) -> bool:
            record, status = container.record, container.status
            names = [one for name in (record.name, *linked.get(record.id, ())) for one in (name, f"/{name}")]
            return (
                (not filters.get("id") or any(want and record.id.startswith(want) for want in filters.get("id")))
                and (not filters.get("name") or any(_named(want, names) for want in filters.get("name")))
                and filters.matches_labels(record.config.labels)
                and filters.matches_any("status", str(status.state))
                and (not exited or (status.state is State.EXITED and status.exit_code in exited))
                and (before is None or record.created_ns < before)
                and (since is None or record.created_ns > since)
                and (images is None or record.image_id in images or record.image in images)
                and filters.matches_any("health", status.health.status if status.health else "none")
                and not tasks
                and ("network" not in filters or _in_network(container, filters.get("network")))
                and ("volume" not in filters or _has_volume(container, filters.get("volume")))
                and (not published or any(_overlaps(want, _published(container)) for want in published))
                and (not exposed or any(_overlaps(want, _exposed(container)) for want in exposed))
            )

        return matches

    def _created(self, ref: str) -> int:
        return self.containers.find(ref).record.created_ns

    def _ancestors(self, refs: Sequence[str]) -> set[str]:
        """Ids of the images, and of all that were made of them here; a name that is no image's stays a name."""
        found: set[str] = set()
        for ref in refs:
            try:
                waiting = [str(self.images.resolve(ref).id)]
            except (NotFound, InvalidArgument):
                found.add(ref)
                continue
            while waiting:
                found.add(image := waiting.pop())
                waiting += self.images.store.children(image)
        return found


def list_of_states() -> frozenset[str]:
    return frozenset(map(str, State))


def summarise(
    container: Container, now_ns: int, volume_source: Callable[[str], str], linked: Sequence[str] = ()
) -> ContainerSummary:
    """`linked` are names that links give it."""
    record, status = container.record, container.status
    health = status.health or Health(status="none")
    return ContainerSummary(
        id=record.id,
        names=sorted(f"/{name}" for name in (record.name, *linked)),
        image=record.image,
        image_id=record.image_id,
        command=" ".join((record.path, *(_quoted(word) for word in record.args))),
        created=record.created_ns // 1_000_000_000,
        ports=_ports(container),
        labels=record.config.labels,
        state=str(status.state),
        status=status_text(container, now_ns),
        host_config=SummaryHostConfig(
            network_mode=record.host_config.network_mode, annotations=record.host_config.annotations
        ),
        network_settings=SummaryNetworkSettings(networks=_networks(container)),
        mounts=[show_mount(point, volume_source) for point in shown_mounts(record.mounts)],
        health=HealthSummary(status=health.status, failing_streak=health.failing_streak),
    )


def _networks(container: Container) -> dict[str, EndpointSettings]:
    """What it has in each network; what it asked for of names and options is left to `inspect`, as in Docker."""
    found = {}
    for name, settings in show_networks(container).items():
        asked = settings.ipam_config
        if asked is not None:
            asked = msgspec.structs.replace(asked, link_local_ips=[])
        found[name] = msgspec.structs.replace(
            settings, ipam_config=asked, links=None, aliases=None, driver_opts=None, dns_names=None
        )
    return found


def _quoted(word: str) -> str:
    """moby quotes arguments with spaces in them."""
    return f"'{word}'" if " " in word else word


def status_text(container: Container, now_ns: int) -> str:
    """`Up 3 minutes`, `Exited (0) 2 hours ago`: what `ps` shows."""
    status = container.status
    match status.state:
        case State.CREATED:
            return "Created"
        case State.REMOVING:
            return "Removal In Progress"
        case State.DEAD:
            return "Dead"
        case State.RUNNING | State.PAUSED:
            up = f"Up {human_duration((now_ns - status.started_ns) / 1e9)}"
            if status.state is State.PAUSED:
                return f"{up} (Paused)"
            health = status.health.status if status.health else ""
            return f"{up} ({_HEALTH_TEXT.get(health, health)})" if health else up
    ago = human_duration((now_ns - status.finished_ns) / 1e9)
    if status.state is State.RESTARTING:
        return f"Restarting ({status.exit_code}) {ago} ago"
    return f"Exited ({status.exit_code}) {ago} ago" if status.finished_ns else ""


def _ports(container: Container) -> list[PortSummary]:
    """Published and exposed ports while it runs; nothing otherwise."""
    if not container.alive:
        return []
    found = []
    for key, bindings in container.status.ports.items():
        port = ports.parse_port(key)
        if not bindings:
            found.append(PortSummary(private_port=port.number, type=port.protocol))
        for binding in bindings or ():
            found.append(
                PortSummary(
                    ip=binding.host_ip,
                    private_port=port.number,
                    public_port=int(binding.host_port or 0),
                    type=port.protocol,
                )
            )
    return found


def _exit_code(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(
            f"invalid filter 'exited={text}': strconv.Atoi: parsing \"{text}\": invalid syntax"
        ) from None


def _named(want: str, names: Sequence[str]) -> bool:
    """Docker takes the value as a regular expression, found anywhere in the name with or without its slash."""
    import re

    try:
        pattern = re.compile(want)
    except re.error:
        return any(want in name for name in names)
    return any(pattern.search(name) for name in names)


def _in_network(container: Container, wanted: Sequence[str]) -> bool:
    networks = show_networks(container)
    known = {*networks, *(settings.network_id for settings in networks.values() if settings.network_id)}
    return any(want in known or any(name.startswith(want) for name in known if len(want) >= 12) for want in wanted)


def _has_volume(container: Container, wanted: Sequence[str]) -> bool:
    return any(
        want and want in (point.name, point.source, point.destination)
        for point in shown_mounts(container.record.mounts)
        for want in wanted
    )


_Ports = tuple[int, int, str]


def _port_range(text: str, field: str) -> _Ports:
    numbers, _, protocol = text.partition("/")
    first, dash, rest = numbers.partition("-")
    try:
        if not numbers:
            raise InvalidArgument("Empty string specified for ports.")
        begin = _port(first)
        end = _port(rest.partition("-")[0]) if dash else begin
        if end < begin:
            raise InvalidArgument(f"Invalid range specified for the Port: {numbers}")
    except InvalidArgument as error:
        raise System(f"error while looking up for {field} {text}: {error.message}") from error  # 500, as Docker
    return begin, end, protocol.partition("/")[0].lower() or "tcp"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > 20 or int(text) > 65535:
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _overlaps(want: _Ports, has: Sequence[tuple[int, str]]) -> bool:
    return any(want[0] <= number <= want[1] and want[2] == protocol for number, protocol in has)


def _published(container: Container) -> list[tuple[int, str]]:
    return [(port.public_port, port.type) for port in _ports(container) if port.public_port]


def _exposed(container: Container) -> list[tuple[int, str]]:
    found = [ports.parse_port(key) for key in container.record.config.exposed_ports]
    return [(port.number, port.protocol) for port in found] + [
        (port.private_port, port.type) for port in _ports(container)
    ]
