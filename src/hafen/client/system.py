"""Calls about the engine as a whole; each is one request."""

from collections.abc import Iterable

from hafen.client.engine import Document, Engine, filters_query
from hafen.client.transport import Response


def version(engine: Engine) -> Document:
    answer: Document = engine.get("/version")
    return answer


def info(engine: Engine) -> Document:
    answer: Document = engine.get("/info")
    return answer


def disk_usage(engine: Engine) -> Document:
    answer: Document = engine.get("/system/df")
    return answer


def events(engine: Engine, *, since: str = "", until: str = "", filters: Iterable[str] = ()) -> Response:
    return engine.call("GET", "/events", {"since": since, "until": until, "filters": filters_query(list(filters))})


def authenticate(engine: Engine, body: Document) -> Document:
    answer: Document = engine.post("/auth", None, body) or {}
    return answer


def build_prune(engine: Engine, query: dict[str, bool]) -> Document:
    answer: Document = engine.post("/build/prune", query)
    return answer
