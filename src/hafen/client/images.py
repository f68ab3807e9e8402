"""Calls about images; each is one request."""

import json
from collections.abc import Iterable

from hafen.client.engine import Document, Engine, Query, filters_query, segment
from hafen.client.transport import Body, Response
from hafen.spec import platform as platforms


def listing(
    engine: Engine, *, all_images: bool = False, digests: bool = False, filters: Iterable[str] = ()
) -> list[Document]:
    query: Query = {"all": all_images, "digests": digests, "filters": filters_query(list(filters))}
    answer: list[Document] = engine.get("/images/json", query)
    return answer


def platform_json(text: str) -> str:
    """`linux/arm64` as the API takes it in queries; empty for the empty text."""
    if not text:
        return ""
    place = platforms.parse(text)
    document = {"os": place.os, "architecture": place.architecture, "variant": place.variant}
    return json.dumps({name: value for name, value in document.items() if value})


def inspect(engine: Engine, reference: str, *, platform: str = "") -> Document:
    answer: Document = engine.get(f"/images/{segment(reference)}/json", {"platform": platform_json(platform)})
    return answer


def history(engine: Engine, reference: str, *, platform: str = "") -> list[Document]:
    query = {"platform": platform_json(platform)}
    answer: list[Document] = engine.get(f"/images/{segment(reference)}/history", query)
    return answer


def tag(engine: Engine, reference: str, repository: str, name: str) -> None:
    engine.call("POST", f"/images/{segment(reference)}/tag", {"repo": repository, "tag": name}).read()


def remove(
    engine: Engine, reference: str, *, force: bool, no_prune: bool, chosen: Iterable[str] = ()
) -> list[Document]:
    """`chosen` platforms of it alone."""
    query: Query = {"force": force, "noprune": no_prune, "platforms": [platform_json(text) for text in chosen]}
    return engine.delete(f"/images/{segment(reference)}", query) or []


def load(engine: Engine, archive: Body, *, quiet: bool, platform: str = "") -> Response:
    headers = {"Content-Type": "application/x-tar"}
    query: Query = {"quiet": quiet, "platform": platform_json(platform)}
    return engine.call("POST", "/images/load", query, stream=archive, headers=headers)


def save(engine: Engine, references: list[str], *, platform: str = "") -> Response:
    return engine.call("GET", "/images/get", {"names": references, "platform": platform_json(platform)})


def create(
    engine: Engine, query: Query, archive: Body | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Pull (`fromImage`), import (`fromSrc`), or bootstrap: a stream of progress documents."""
    return engine.call("POST", "/images/create", query, stream=archive, headers=headers)


def referrers(engine: Engine, reference: str, *, platform: str = "") -> list[Document]:
    """Our own engine's: signatures, SBOMs and attestations that are kept about an image."""
    query = {"platform": platform_json(platform)}
    answer: list[Document] = engine.get(f"/images/{segment(reference)}/referrers", query)
    return answer


def push(
    engine: Engine, reference: str, name: str, headers: dict[str, str], *, platform: str = "", referrers: bool = False
) -> Response:
    query: Query = {"tag": name, "platform": platform_json(platform), "referrers": referrers}
    return engine.call("POST", f"/images/{segment(reference)}/push", query, headers=headers)


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
