"""Container records, their persistence, and the table of all containers in memory.

A container is a frozen `Record` (what it is) and a frozen `Status` (how it is), each a JSON column of one row. The
row is the truth; the object in memory adds what only a running engine has: a lock, the link to the shim, who waits.
States change through `Containers.transit` alone, which asks `spec.lifecycle`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hafen.errors import Conflict, InvalidArgument, NotFound
from hafen.spec import cronspec, lifecycle, names
from hafen.spec.lifecycle import ALIVE, Action, State
from hafen.spec.mounts import MountPoint
from hafen.spec.wire.container import ContainerConfig, ContainerSummary, Health
from hafen.spec.wire.exec import ExecConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.network import EndpointSettings, PortMap
from hafen.storage.database import Database

if TYPE_CHECKING:
    from hafen.engine.shimlink import AttachClient, Shim


class Link(msgspec.Struct, frozen=True):
    """A legacy link (`engine.links`): the target's id, its name when the link was made, and the alias it has here."""

    target: str
    name: str
    alias: str


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a container is. `config` is already merged with the image's; `networks` are those it asks to join."""

    id: str
    name: str
    created_ns: int
    image: str
    image_id: str
    config: ContainerConfig
    host_config: HostConfig
    path: str
    args: tuple[str, ...]
    snapshotter: str
    parent: str | None = None
    networks: dict[str, EndpointSettings] = {}
    mounts: tuple[MountPoint, ...] = ()
    links: tuple[Link, ...] = ()
    platform: str = "linux"

    @property
    def snapshots(self) -> list[str]:
        """Keys of its own snapshots: its root, and one for each image mounted in it."""
        return [self.id, *(point.snapshot(self.id) for point in self.mounts if point.type == "image")]

    def uses_image(self, identity: str) -> bool:
        return self.image_id == identity or any(
            point.type == "image" and point.name == identity for point in self.mounts
        )


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a container is. `networks` and `ports` are what it got when it was last started."""

    state: State = State.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    back_off: float = 0.0
    stopped_by_user: bool = False
    networks: dict[str, EndpointSettings] = {}
    ports: PortMap = {}
    sandbox: str = ""
    health: Health | None = None  # from the first start on, where there is a check


class Container:
    """One container in memory."""

    __slots__ = (
        "execs",
        "exits",
        "keep",
        "lock",
        "record",
        "restart",
        "row",
        "sessions",
        "shim",
        "status",
        "stopping",
        "transits",
        "waiters",
    )

    def __init__(self, record: Record, status: Status) -> None:
        self.record = record
        self.status = status
        self.lock = asyncio.Lock()
        self.shim: Shim | None = None
        self.sessions: list[PendingSession] = []
        self.waiters: list[Waiter] = []
        self.exits: list[asyncio.Future[None]] = []
        self.execs: dict[str, Exec] = {}
        self.keep = False  # an auto-removed container that is being restarted stays
        self.restart: asyncio.TimerHandle | None = None
        self.stopping = False  # the next exit is what a `stop` brought about
        self.transits = 0  # how often its state has changed
        self.row: Row | None = None  # what `ps` showed of it last

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def alive(self) -> bool:
        return self.status.state in ALIVE

    def running_shim(self) -> Shim:
        """The link to its shim; Conflict where it does not run."""
        if not self.alive or self.shim is None:
            raise lifecycle.not_running(self.id)
        return self.shim

    def resolve(self, result: WaitResult, *conditions: str) -> None:
        """Answer everyone who waits for one of the conditions."""
        for waiter in tuple(self.waiters):
            if waiter.condition in conditions:
                self.waiters.remove(waiter)
                if not waiter.future.done():
                    waiter.future.set_result(result)

    def event_attributes(self, **more: str) -> dict[str, str]:
        """What Docker tells of a container with each of its events."""
        return {**self.record.config.labels, **more, "image": self.record.image, "name": self.name}


class Row(NamedTuple):
    """What a list showed of a container: of which record and status, with which names that links give."""

    of: tuple[Record, Status]
    linked: Sequence[str]
    shown: ContainerSummary


@dataclass(slots=True, eq=False)
class Exec:
    """A further process of a container. `exit_code` is None until it has ended, which sets `ended`; `begun` is set once
    it runs, or never will."""

    id: str
    container: Container
    config: ExecConfig
    started: bool = False
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    probe: bool = False  # of a health check: no row, and forgotten at its end
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Waiter:
    """Somebody who waits for a container; `condition` is not-running, next-exit or removed."""

    __slots__ = ("condition", "future")

    def __init__(self, condition: str, future: asyncio.Future[WaitResult]) -> None:
        self.condition = condition
        self.future = future


class WaitResult(msgspec.Struct, frozen=True):
    code: int
    error: str = ""


def wait_for_exit(container: Container) -> asyncio.Future[None]:
    """Resolves when the container's exit is recorded, restart policy or not; at once where it does not run."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if container.alive:
        container.exits.append(ended)
    else:
        ended.set_result(None)
    return ended


class PendingSession:
    """A client that attached before the start. `ready` resolves when its socket is here (None: it went away), `taken`
    when a start has taken it."""

    __slots__ = ("ready", "taken")

    def __init__(self) -> None:
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready: asyncio.Future[AttachClient | None] = asyncio.get_running_loop().create_future()


class Containers:
    """All containers, by id and by name; loop thread only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, str] = {}
        self.execs: dict[str, Exec] = {}
        self.on_transit: Callable[[Container], None] = lambda container: None

    def load(self) -> None:
        """Read every row; called once, before anything else."""
        rows = self._database.query("SELECT record, status FROM containers ORDER BY created_ns")
        for record, status in rows:
            assert isinstance(record, bytes)
            assert isinstance(status, bytes)
            self._add(Container(msgspec.json.decode(record, type=Record), msgspec.json.decode(status, type=Status)))

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, ref: str) -> Container:
        """By id, name (with or without its slash), a link's name (`web/redis`) or unambiguous id prefix; NotFound
        otherwise."""
        if not ref:
            raise InvalidArgument('invalid name or ID supplied: ""')
        container = self.lookup(ref)
        if container is None:
            raise NotFound(f"No such container: {ref}")
        return container

    def lookup(self, ref: str) -> Container | None:
        """As `find`, None where there is none. InvalidArgument for an ambiguous prefix."""
        container = self._by_id.get(ref)
        if container is not None:
            return container
        known = self._by_name.get(ref.removeprefix("/")) or names.find_by_prefix(ref, self._by_id)
        return self._by_id[known] if known else self._linked(ref.removeprefix("/"))

    def _linked(self, name: str) -> Container | None:
        """The target of a link by its name, `parent/alias`."""
        parent, _, alias = name.partition("/")
        if not alias or parent not in self._by_name:
            return None
        links = self._by_id[self._by_name[parent]].record.links
        return next((self._by_id.get(link.target) for link in links if link.alias == alias), None)

    def name_taken(self, name: str) -> bool:
        return name in self._by_name

    def check_name(self, name: str) -> None:
        """Conflict with Docker's text where another container has the name."""
        owner = self._by_name.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def insert(self, record: Record) -> None:
        """Write the row of a new container; part of the caller's transaction. `publish` makes it visible."""
        self._database.execute(
            "INSERT INTO containers (id, name, created_ns, record, status) VALUES (?, ?, ?, ?, ?)",
            (record.id, record.name, record.created_ns, encode(record), encode(Status())),
        )

    def publish(self, record: Record) -> Container:
        """Make a new container visible, after its row was committed."""
        container = Container(record, Status())
        self._add(container)
        return container

    def replace(self, container: Container, record: Record) -> None:
        """Change what a container is (rename, update); durable."""
        with self._database.transaction(durable=True):
            self._database.execute(
                "UPDATE containers SET name = ?, record = ? WHERE id = ?", (record.name, encode(record), record.id)
            )
        del self._by_name[container.name]
        container.record = record
        self._by_name[record.name] = record.id

    def transit(self, container: Container, action: Action, **changes: object) -> None:
        """Change a container's state as the table allows, with further fields of its status; on disk first."""
        state = lifecycle.next_state(container.status.state, action, container.id, container.name)
        health = _health_after(container, action)
        self.amend(container, state=state, health=health, **changes)
        container.transits += 1
        self.on_transit(container)

    def amend(self, container: Container, **changes: object) -> None:
        """Change fields of the status, on disk first.

        Not synced for an auto-removed container: after a power cut such a container is gone anyway (`recover`), so
        there is nothing that a client was told to survive.
        """
        self._write(
            container,
            msgspec.structs.replace(container.status, **changes),
            durable=not container.record.host_config.auto_remove,
        )

    def note_health(self, container: Container, health: Health) -> None:
        """Health comes and goes too often to be synced."""
        self._write(container, msgspec.structs.replace(container.status, health=health), durable=False)

    def _write(self, container: Container, status: Status, *, durable: bool) -> None:
        with self._database.transaction(durable=durable):
            self._database.execute("UPDATE containers SET status = ? WHERE id = ?", (encode(status), container.id))
        container.status = status

    def delete(self, container: Container) -> None:
        """Delete the row; part of the caller's transaction. `forget` makes it invisible."""
        self._database.execute("DELETE FROM containers WHERE id = ?", (container.id,))
        if container.execs:
            self._database.execute("DELETE FROM execs WHERE container = ?", (container.id,))

    def forget(self, container: Container) -> None:
        self._by_id.pop(container.id, None)
        for exec_id in container.execs:
            self.execs.pop(exec_id, None)
        if self._by_name.get(container.name) == container.id:
            del self._by_name[container.name]

    def _add(self, container: Container) -> None:
        self._by_id[container.id] = container
        self._by_name[container.name] = container.id


def _health_after(container: Container, action: Action) -> Health | None:
    """A start forgets the streak; what is stopped or paused counts as unhealthy (moby `CloseMonitorChannel`)."""
    health = container.status.health
    if action is Action.START and cronspec.has_probe(container.record.config.healthcheck):
        return Health(status="starting", log=health.log if health else [])
    if health is not None and action in (Action.EXIT, Action.AWAIT_RESTART, Action.PAUSE):
        return msgspec.structs.replace(health, status="unhealthy")
    return health


def encode(value: Record | Status) -> bytes:
    return msgspec.json.encode(value)
