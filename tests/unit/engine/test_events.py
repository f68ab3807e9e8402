"""The event bus: order, filters, replay, bounds and what survives an engine."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.engine import events as module
from hafen.engine.events import Events
from hafen.errors import InvalidArgument, System
from hafen.spec.filters import Filters, parse
from hafen.spec.wire.event import Event, EventActor
from hafen.storage.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "db")
    yield opened
    opened.close()


class Clock:
    def __init__(self, seconds: int = 1000) -> None:
        self.now = seconds * 1_000_000_000

    def __call__(self) -> int:
        self.now += 1_000_000_000
        return self.now


async def collect(bus: Events, filters: Filters, since: str, until: str) -> list[Event]:
    return [event async for events in bus.subscribe(since, until, filters) for event in events]


async def test_live_events_come_in_order(database: Database) -> None:
    bus = Events(database)
    listener = bus.subscribe()
    for action in ("create", "start", "die"):
        bus.publish("container", action, "c1", {"name": "web"})
    assert [event.action for event in await anext(listener)] == ["create", "start", "die"]
    assert bus.listeners == 1
    waiting = asyncio.ensure_future(anext(listener, None))
    await asyncio.sleep(0)
    bus.close()
    assert await waiting is None
    assert bus.listeners == 0


async def test_replay_and_restart(database: Database) -> None:
    bus = Events(database, Clock())
    for number in range(5):
        bus.publish("container", "create", f"c{number}", {})
    bus.close()
    again = Events(database, Clock(2000))
    found = [event.actor.id for event in await collect(again, parse(None), "1002", "1004")]
    assert found == ["c1", "c2", "c3"]


async def test_the_past_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    monkeypatch.setattr(module, "_TRIM_EVERY", 4)
    bus = Events(database, Clock())
    for number in range(25):
        bus.publish("container", "create", f"c{number}", {})
        if number % 7 == 0:
            bus.flush()
    bus.close()
    (count,) = database.row("SELECT count(*) FROM events") or (0,)
    assert isinstance(count, int)
    assert 10 <= count < 10 + 4
    assert len(await collect(Events(database, Clock()), parse(None), "0", "1")) == 0
    found = await collect(Events(database, Clock()), parse(None), "1", "1001")
    assert len(found) <= 10


async def test_times_never_repeat(database: Database) -> None:
    bus = Events(database, lambda: 5)
    listener = bus.subscribe()
    bus.publish("container", "a", "x", {})
    bus.publish("container", "b", "x", {})
    first, second = await anext(listener)
    assert first.time_nano < second.time_nano
    bus.close()


async def test_a_listener_that_never_reads_is_cut_off(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKLOG", 3)
    bus = Events(database)
    bus.subscribe()
    for _ in range(5):
        bus.publish("container", "a", "x", {})
    await asyncio.sleep(0)
    assert bus.listeners == 0
    bus.close()


async def test_what_a_listener_was_told_survives_the_engine(tmp_path: Path, database: Database) -> None:
    bus = Events(database)
    listener = bus.subscribe()
    told = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    bus.publish("container", "create", "c1", {})
    assert len(await told) == 1
    assert database.row("SELECT count(*) FROM events") == (1,)
    bus.close()


async def test_until_alone_tells_all_that_is_kept(database: Database) -> None:
    bus = Events(database, Clock())
    for number in range(3):
        bus.publish("container", "create", f"c{number}", {})
    assert [event.actor.id for event in await collect(bus, parse(None), "", "1002.000000001")] == ["c0", "c1"]
    assert [event.actor.id for event in await collect(bus, parse(None), "1001.5", "1002.5")] == ["c1"]


@pytest.mark.parametrize(
    ("since", "until", "text"),
    [
        ("yesterday", "", 'strconv.ParseInt: parsing "yesterday": invalid syntax'),
        ("", "1h", 'strconv.ParseInt: parsing "1h": invalid syntax'),
        ("1.5", "1.2.3", 'strconv.ParseInt: parsing "2.3": invalid syntax'),
        ("1" * 20, "", f'strconv.ParseInt: parsing "{"1" * 20}": value out of range'),
        ("10", "5", "`since` time (10) cannot be after `until` time (5)"),
    ],
)
def test_bad_times(database: Database, since: str, until: str, text: str) -> None:
    with pytest.raises((InvalidArgument, System)) as refused:
        Events(database).subscribe(since, until)
    assert refused.value.message == text


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ('{"event": ["exec_create"]}', True),
        ('{"event": ["exec_create: ls -l"]}', True),
        ('{"event": ["start"]}', False),
        ('{"type": ["container"], "container": ["web"]}', True),
        ('{"container": ["abc"]}', True),
        ('{"container": ["other"]}', False),
        ('{"image": ["busybox"]}', True),
        ('{"image": ["busybox:1"]}', True),
        ('{"network": ["we"]}', True),  # Docker looks at the actor's name, whatever the actor is
        ('{"volume": ["web2"]}', False),
        ('{"event": ["exec"]}', False),
        ('{"event": ["exec_start", "exec"]}', True),
        ('{"image": ["busy"]}', False),
        ('{"unknown": ["x"]}', True),
        ('{"label": ["a=b"]}', True),
        ('{"label": ["a=c"]}', False),
        ('{"scope": ["swarm"]}', False),
    ],
)
def test_filters(filters: str, expected: bool) -> None:
    attributes = {"name": "web", "image": "busybox:1", "a": "b"}
    actor = EventActor(id="abcdef", attributes=attributes)
    event = Event(type="container", action="exec_create: ls -l", actor=actor, scope="local")
    assert module.matches(event, parse(filters)) is expected
