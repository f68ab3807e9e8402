"""Event bus with bounded replay: what happened, told to whoever listens and kept for those who ask later.

The newest `KEPT` events are kept in memory and in the database. What is told in one turn of the loop is written at the
turn's end, before any listener can have it, in a transaction that is not synced: a killed engine forgets nothing that
was told, a power cut may lose the last seconds.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from hafen.errors import HafenError, InvalidArgument, System, Unavailable
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.wire.event import Event, EventActor
from hafen.spec.wire.gojson import encode, restore
from hafen.storage.database import Database

log = logging.getLogger(__name__)

KEPT = 4096
_TRIM_EVERY = 256
_BACKLOG = 16_384
_BY_NAME = ("container", "volume", "network", "daemon", "plugin", "node", "service", "secret", "config")
_WITH_DETAILS = frozenset(("health_status", "exec_create", "exec_start"))


class Events:
    """The engine's one event bus; loop thread only."""

    def __init__(self, database: Database, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._unwritten: list[Event] = []
        self._subscriptions: set[Subscription] = set()
        self._flush: asyncio.Handle | None = None
        self._untrimmed = _TRIM_EVERY
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
        self._unwritten.append(event)
        if self._flush is None:  # first in the queue, before what wakes the listeners
            self._flush = asyncio.get_running_loop().call_soon(self.flush)
        for subscription in self._subscriptions:
            subscription.offer(event)

    def flush(self) -> None:
        """Write what is not written yet; a full disk costs the replay after a restart, and nothing else."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        unwritten, self._unwritten = self._unwritten, []
        if not unwritten:
            return
        self._untrimmed += len(unwritten)
        try:
            with self._database.transaction(durable=False):
                for event in unwritten[-KEPT:]:
                    self._database.execute("INSERT INTO events (event) VALUES (?)", (encode(event),))
                if self._untrimmed >= _TRIM_EVERY:
                    self._database.execute(
                        "DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (KEPT,)
                    )
                    self._untrimmed = 0
        except HafenError as error:
            log.warning("%d events could not be written: %s", len(unwritten), error)

    def subscribe(
        self, since: str | None = None, until: str | None = None, filters: Filters = NO_FILTERS
    ) -> AsyncIterator[list[Event]]:
        """Events from `since` on (all that is kept where only `until` is told) up to `until` (for ever where None)."""
        now = self._clock()
        try:
            first, last = _moment(since), _moment(until)
        except InvalidArgument as error:
            raise System(error.message) from error  # 500, as Docker
        if first is not None and last is not None and last < first:
            raise InvalidArgument(f"`since` time ({since}) cannot be after `until` time ({until})")
        subscription = Subscription(self, filters, last)
        if first is not None or last is not None:
            for event in self._kept:
                if event.time_nano >= (first or 0):
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
    """One listener; an async iterator of all that came since the last look, which `aclose` ends. One that does not
    read for long is cut off."""

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

    async def __anext__(self) -> list[Event]:
        while not self._queue:
            if self._overrun:
                raise Unavailable("this listener reads too slowly; events were lost")
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        waiting = list(self._queue)
        self._queue.clear()
        return waiting

    async def aclose(self) -> None:
        self.end()


def matches(event: Event, filters: Filters) -> bool:
    """Whether a client that filters so wants to hear of the event (moby `daemon/events/filter.go`).

    A field that is no filter of events is ignored, as Docker does.
    """
    if not filters:
        return True
    actor, attributes = event.actor.id, event.actor.attributes
    name = attributes.get("name", "")
    return (
        _matches_action(event.action, filters)
        and filters.matches_any("type", event.type)
        and filters.matches_any("scope", event.scope)
        and all(_begins(filters.get(kind), actor, name) for kind in _BY_NAME)
        and _matches_image(event, filters)
        and filters.matches_labels(attributes)
    )


def _matches_action(action: str, filters: Filters) -> bool:
    """Exactly; but what goes on after a colon (a command, a state) need not be told, and then prefixes are enough."""
    wanted = filters.get("event")
    return filters.matches_any("event", action) or (
        any(want in _WITH_DETAILS for want in wanted) and any(action.startswith(want) for want in wanted)
    )


def _begins(wanted: tuple[str, ...], *candidates: str) -> bool:
    return not wanted or any(one.startswith(want) for want in wanted for one in candidates)


def _matches_image(event: Event, filters: Filters) -> bool:
    name = event.actor.attributes.get("name" if event.type == "image" else "image", "")
    return filters.matches_any("image", event.actor.id, name, _without_tag(name))


def _without_tag(name: str) -> str:
    repository, colon, tag = name.rpartition(":")
    return repository if colon and "/" not in tag else name


def _moment(text: str | None) -> int | None:
    """Nanoseconds since 1970 of `seconds[.fraction]`; clients turn durations and dates into that."""
    if not text:
        return None
    seconds, point, fraction = text.partition(".")
    nanoseconds = _integer(fraction) * 10 ** max(0, 9 - len(fraction)) if point else 0
    return _integer(seconds) * 1_000_000_000 + nanoseconds


def _integer(text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]+", text, re.ASCII):
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
