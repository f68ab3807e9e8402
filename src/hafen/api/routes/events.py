"""/events."""

from __future__ import annotations

from typing import Final

from hafen.api.message import Answer, Request, StreamReply
from hafen.api.router import Route
from hafen.api.stream import JSON, lines
from hafen.engine.services import Services

NDJSON: Final = "application/x-ndjson"
JSONL: Final = "application/jsonl"


async def events(request: Request, services: Services) -> Answer:
    query = request.query
    found = services.events.subscribe(query.text("since") or None, query.text("until") or None, query.filters())
    return StreamReply(lines(found, request.version), _content_type(request))


def _content_type(request: Request) -> str:
    """Since 1.52 a client may ask for lines under another name."""
    accept = request.headers.get("accept", "")
    wanted = (NDJSON, JSONL) if request.version >= (1, 53) else (NDJSON,) if request.version >= (1, 52) else ()
    return next((name for name in wanted if name in accept), JSON)


ROUTES: Final = (Route("GET", "/events", events),)
