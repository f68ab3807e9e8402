"""Calls about the engine as a whole; each is one request."""

from collections.abc import Iterable, Iterator

from hafen.client.engine import Document, Engine, filters_query
from hafen.client.transport import Response


def version(engine: Engine) -> Document:
    answer: Document = engine.get("/version")
    return answer


def info(engine: Engine) -> Document:
    answer: Document = engine.get("/info")
    return answer


_USAGES = {
    "Images": "ImageUsage", "Containers": "ContainerUsage", "Volumes": "VolumeUsage", "BuildCache": "BuildCacheUsage"
}  # fmt: skip


def disk_usage(engine: Engine) -> Document:
    """In the shape that the API had until 1.51, whichever of the two the engine answers in."""
    answer: Document = engine.get("/system/df", {"verbose": "1"})
    for old, new in _USAGES.items():
        if new in answer:
            answer[old] = answer[new].get("Items") or []
    if "ImageUsage" in answer:
        answer["LayersSize"] = answer["ImageUsage"].get("TotalSize", 0)
    return answer


def events(engine: Engine, *, since: str = "", until: str = "", filters: Iterable[str] = ()) -> Response:
    return engine.call("GET", "/events", {"since": since, "until": until, "filters": filters_query(list(filters))})


def authenticate(engine: Engine, body: Document) -> Document:
    answer: Document = engine.post("/auth", None, body) or {}
    return answer


def build_prune(engine: Engine, query: dict[str, bool]) -> Document:
    answer: Document = engine.post("/build/prune", query)
    return answer


def fsck(engine: Engine, *, repair: bool, dry_run: bool, auths: str) -> Iterator[Document]:
    """Our own engine's: messages of a check of its store. `auths` is an X-Registry-Config, or empty."""
    query = {"repair": repair, "dry-run": dry_run}
    headers = {"X-Registry-Config": auths} if auths else {}
    return engine.documents(engine.call("POST", "/system/fsck", query, headers=headers))
