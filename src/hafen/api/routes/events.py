"""/events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from hafen.api import versions
from hafen.api.message import Answer, Request, StreamReply
from hafen.api.router import Route
from hafen.api.stream import JSON
from hafen.engine.services import Services
from hafen.http.streams import close
from hafen.spec.wire.event import Event

JSONL: Final = "application/jsonl"
NDJSON: Final = "application/x-ndjson"
SEQUENCE: Final = "application/json-seq"
_REMEMBERED: Final = 64


async def events(request: Request, services: Services) -> Answer:
    query = request.query
    found = services.events.subscribe(query.text("since") or None, query.text("until") or None, query.filters())
    content_type = _content_type(request)
    return StreamReply(_texts(found, request.version, content_type == SEQUENCE), content_type)


def _content_type(request: Request) -> str:
    """Since 1.52 a client may ask for the stream under a better name than JSON's, which it is not."""
    accept = request.headers.get("accept", "") if request.version >= (1, 52) else ""
    return next((name for name in (JSONL, NDJSON, SEQUENCE) if name in accept), JSON)


async def _texts(found: AsyncIterator[list[Event]], version: versions.Version, sequence: bool) -> AsyncIterator[bytes]:
    """One line of JSON for each event; RFC 7464 sets a record separator before it."""
    before = b"\x1e" if sequence else b""
    try:
        async for events in found:
            yield b"".join(before + _line(event, version) for event in events)
    finally:
        await close(found)


_lines: Final[dict[tuple[int, versions.Version], tuple[Event, bytes]]] = {}


def _line(event: Event, version: versions.Version) -> bytes:
    """The event's text, made once for all the clients that listen."""
    key = (event.time_nano, version)
    known = _lines.get(key)
    if known is None or known[0] is not event:
        if len(_lines) >= _REMEMBERED:
            _lines.clear()
        known = _lines[key] = (event, versions.encode(event, version) + b"\n")
    return known[1]


ROUTES: Final = (Route("GET", "/events", events),)
