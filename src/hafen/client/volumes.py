"""Calls about volumes; each is one request."""

from collections.abc import Iterable

from hafen.client.engine import Document, Engine, filters_query, segment


def listing(engine: Engine, filters: Iterable[str] = ()) -> list[Document]:
    return engine.get("/volumes", {"filters": filters_query(list(filters))})["Volumes"] or []


def inspect(engine: Engine, name: str) -> Document:
    answer: Document = engine.get(f"/volumes/{segment(name)}")
    return answer


def create(engine: Engine, body: Document) -> Document:
    answer: Document = engine.post("/volumes/create", None, body)
    return answer


def remove(engine: Engine, name: str, *, force: bool) -> None:
    engine.delete(f"/volumes/{segment(name)}", {"force": force})


def prune(engine: Engine, filters: Iterable[str]) -> Document:
    answer: Document = engine.post("/volumes/prune", {"filters": filters_query(list(filters))})
    return answer
