"""Event bus with bounded replay: what happened, told to whoever listens and kept for those who ask later.

The newest `KEPT` events are kept in memory and in the database. Writing them is never waited for: they are collected
and written at most `FLUSH_AFTER` seconds later, or by the orderly end; a crash of the machine may lose that much.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from hafen.errors import Unavailable
from hafen.spec import units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.wire.event import Event, EventActor
from hafen.spec.wire.gojson import encode, restore
from hafen.storage.database import Database

KEPT = 4096
FLUSH_AFTER = 0.5
_BACKLOG = 16_384
_TYPED_FILTERS = ("container", "image", "volume", "network", "daemon", "plugin")


class Events:
    """The engine's one event bus; loop thread only."""

    def __init__(self, database: Database, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._unwritten: list[Event] = []
        self._subscriptions: set[Subscription] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0
        for (text,) in database.query("SELECT event FROM events ORDER BY number DESC LIMIT ?", (KEPT,)):
            self._kept.appendleft(restore(_as_bytes(text), Event))

    @property
    def listeners(self) -> int:
        return len(self._subscriptions)

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell everyone. `kind` is container, image, network, volume or daemon; `actor` its id or name."""
        now = self._last = max(self._clock(), self._last + 1)
        event = Event(
            type=kind,
            action=action,
            actor=EventActor(id=actor, attributes=dict(attributes)),
            scope="local",
            time=now // 1_000_000_000,
            time_nano=now,
        )
        self._kept.append(event)
        for subscription in self._subscriptions:
            subscription.offer(event)
        self._unwritten.append(event)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush)

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        unwritten, self._unwritten = self._unwritten, []
        if not unwritten:
            return
        with self._database.transaction(durable=False):
            for event in unwritten[-KEPT:]:
                self._database.execute("INSERT INTO events (event) VALUES (?)", (encode(event),))
            self._database.execute("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (KEPT,))

    def subscribe(
        self, since: str | None = None, until: str | None = None, filters: Filters = NO_FILTERS
    ) -> AsyncIterator[Event]:
        """Events from `since` on (now where None) up to `until` (for ever where None)."""
        now = self._clock()
        first = units.parse_timestamp(since, now) if since else None
        last = units.parse_timestamp(until, now) if until else None
        subscription = Subscription(self, filters, last)
        if first is not None:
            for event in self._kept:
                if event.time_nano >= first:
                    subscription.offer(event)
        if last is not None and last <= now:
            subscription.end()
        else:
            self._subscriptions.add(subscription)
            if last is not None:
                subscription.end_after((last - now) / 1e9)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def end(self) -> None:
        """End every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.end()

    def close(self) -> None:
        """End every subscription and write what is left."""
        self.end()
        self.flush()


class Subscription:
    """One listener; an async iterator that `aclose` ends. One that does not read for long is cut off."""

    def __init__(self, events: Events, filters: Filters, last: int | None) -> None:
        self._events = events
        self._filters = filters
        self._last = last
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._overrun = False
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, event: Event) -> None:
        if self._last is not None and event.time_nano > self._last:
            return
        if not matches(event, self._filters):
            return
        if len(self._queue) >= _BACKLOG:
            self._overrun = True
            self.end()
            return
        self._queue.append(event)
        self._wake.set()

    def end_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        self._ended = True
        self._wake.set()
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().call_soon(self._events.forget, self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._overrun:
                raise Unavailable("this listener reads too slowly; events were lost")
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    async def aclose(self) -> None:
        self.end()


def matches(event: Event, filters: Filters) -> bool:
    """Whether a client that filters so wants to hear of the event (moby `daemon/events/filter.go`)."""
    if not filters:
        return True
    attributes = event.actor.attributes
    short_action = event.action.partition(":")[0]
    if not (filters.matches_any("event", event.action, short_action) and filters.matches_any("type", event.type)):
        return False
    if not filters.matches_any("scope", event.scope) or not filters.matches_labels(attributes):
        return False
    return all(_matches_actor(event, kind, filters.get(kind)) for kind in _TYPED_FILTERS)


def _matches_actor(event: Event, kind: str, wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return True
    attributes = event.actor.attributes
    if kind == "image" and event.type == "container":
        name = attributes.get("image", "")
        return any(name == want or name.partition(":")[0] == want for want in wanted)
    if event.type != kind:
        return False
    actor, name = event.actor.id, attributes.get("name", "")
    return any(want == name or actor.startswith(want) or name.partition(":")[0] == want for want in wanted if want)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
