"""Calls about images; each is one request."""

import json
from collections.abc import Iterable

from hafen.client.engine import Document, Engine, Query, filters_query, segment
from hafen.client.transport import Body, Response


def listing(
    engine: Engine, *, all_images: bool = False, digests: bool = False, filters: Iterable[str] = ()
) -> list[Document]:
    query: Query = {"all": all_images, "digests": digests, "filters": filters_query(list(filters))}
    answer: list[Document] = engine.get("/images/json", query)
    return answer


def inspect(engine: Engine, reference: str, *, platform: str = "", manifests: bool = False) -> Document:
    query: Query = {"platform": platform, "manifests": manifests}
    answer: Document = engine.get(f"/images/{segment(reference)}/json", query)
    return answer


def history(engine: Engine, reference: str) -> list[Document]:
    answer: list[Document] = engine.get(f"/images/{segment(reference)}/history")
    return answer


def tag(engine: Engine, reference: str, repository: str, name: str) -> None:
    engine.call("POST", f"/images/{segment(reference)}/tag", {"repo": repository, "tag": name}).read()


def remove(engine: Engine, reference: str, *, force: bool, no_prune: bool) -> list[Document]:
    return engine.delete(f"/images/{segment(reference)}", {"force": force, "noprune": no_prune}) or []


def load(engine: Engine, archive: Body, *, quiet: bool) -> Response:
    headers = {"Content-Type": "application/x-tar"}
    return engine.call("POST", "/images/load", {"quiet": quiet}, stream=archive, headers=headers)


def save(engine: Engine, references: list[str]) -> Response:
    return engine.call("GET", "/images/get", {"names": references})


def create(
    engine: Engine, query: Query, archive: Body | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Pull (`fromImage`), import (`fromSrc`), or bootstrap: a stream of progress documents."""
    return engine.call("POST", "/images/create", query, stream=archive, headers=headers)


def push(engine: Engine, reference: str, name: str, headers: dict[str, str]) -> Response:
    return engine.call("POST", f"/images/{segment(reference)}/push", {"tag": name}, headers=headers)


def search(engine: Engine, term: str, limit: int, filters: Iterable[str], credentials: str) -> list[Document]:
    query: Query = {"term": term, "limit": limit or None, "filters": filters_query(list(filters))}
    answer = engine.call("GET", "/images/search", query, headers={"X-Registry-Auth": credentials})
    found: list[Document] = json.loads(answer.read())
    return found


def prune(engine: Engine, filters: Iterable[str]) -> Document:
    answer: Document = engine.post("/images/prune", {"filters": filters_query(list(filters))})
    return answer


def bootstrap(engine: Engine, name: str, *, mirror: str) -> Response:
    """Our own engine's: a distribution's base system from its package archive, as progress documents."""
    return engine.call("POST", "/images/bootstrap", {"name": name, "mirror": mirror})
