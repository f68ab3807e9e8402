"""What may be done with a volume at the same time: copies of it, its restore and removal, containers that start.

A copy holds the starts of containers that can write to the volume. They wait with their container's lock in hand, so
who holds a volume takes no container's lock before it lets go.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hafen.errors import Conflict


class Holds:
    """By names of volumes, or paths of what belongs to one; loop thread only."""

    def __init__(self) -> None:
        self._busy: Counter[str] = Counter()
        self._alone: set[str] = set()
        self._held: dict[str, list[asyncio.Event]] = {}
        self._watched: dict[str, list[asyncio.Event]] = {}

    @contextmanager
    def busy(self, name: str, alone: bool = False) -> Iterator[None]:
        """Something is done with it, `alone` where nothing else may be done. Conflict where that is not possible."""
        if name in self._alone or (alone and self._busy[name]):
            raise Conflict(f"{name} is being {'changed' if name in self._alone else 'copied'}; try again later")
        self._busy[name] += 1
        if alone:
            self._alone.add(name)
        try:
            yield
        finally:
            self._alone.discard(name)
            self._busy -= Counter((name,))

    def is_busy(self, name: str) -> bool:
        return name in self._busy

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Who comes to write to it waits for the end of this."""
        with _listed(self._held, name) as end:
            try:
                yield
            finally:
                end.set()

    @contextmanager
    def watch(self, name: str) -> Iterator[asyncio.Event]:
        """The event is set when somebody comes to write to it."""
        with _listed(self._watched, name) as event:
            yield event

    async def enter(self, volumes: Iterable[str]) -> None:
        """A container is about to start, and can write to these: wait until none of them is held. The caller has the
        container's lock until it runs, or does not."""
        names = tuple(volumes)
        while ends := [end for name in names for end in self._held.get(name, ())]:
            await ends[0].wait()
        for name in names:
            for event in self._watched.get(name, ()):
                event.set()


@contextmanager
def _listed(events: dict[str, list[asyncio.Event]], name: str) -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    events.setdefault(name, []).append(event)
    try:
        yield event
    finally:
        events[name].remove(event)
        if not events[name]:
            del events[name]
