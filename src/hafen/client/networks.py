"""Calls about networks; each is one request."""

from collections.abc import Iterable

from hafen.client.engine import Document, Engine, filters_query, segment


def listing(engine: Engine, filters: Iterable[str] = ()) -> list[Document]:
    return engine.get("/networks", {"filters": filters_query(list(filters))}) or []


def inspect(engine: Engine, reference: str, *, verbose: bool = False) -> Document:
    answer: Document = engine.get(f"/networks/{segment(reference)}", {"verbose": verbose})
    return answer


def create(engine: Engine, body: Document) -> Document:
    answer: Document = engine.post("/networks/create", None, body)
    return answer


def remove(engine: Engine, reference: str) -> None:
    engine.delete(f"/networks/{segment(reference)}")


def connect(engine: Engine, reference: str, body: Document) -> None:
    engine.post(f"/networks/{segment(reference)}/connect", None, body)


def disconnect(engine: Engine, reference: str, container: str, *, force: bool) -> None:
    engine.post(f"/networks/{segment(reference)}/disconnect", None, {"Container": container, "Force": force})


def prune(engine: Engine, filters: Iterable[str]) -> Document:
    answer: Document = engine.post("/networks/prune", {"filters": filters_query(list(filters))})
    return answer
