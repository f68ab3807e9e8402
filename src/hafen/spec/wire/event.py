"""Engine API JSON shape for events (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import Wire, shown


class EventActor(Wire, frozen=True):
    id: str = shown(str, "ID")
    attributes: dict[str, str] = shown(dict[str, str])


class Event(Wire, frozen=True):
    """One line of /events. `time` is seconds, `time_nano` nanoseconds since the epoch; `versions` adds the older
    `status`, `id` and `from`."""

    type: str = shown(str)
    action: str = shown(str)
    actor: EventActor = shown(EventActor)
    scope: str = shown(str, "scope")
    time: int = shown(int, "time")
    time_nano: int = shown(int, "timeNano")
