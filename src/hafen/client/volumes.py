"""Calls about volumes; each is one request."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from hafen.client.engine import Document, Engine, Query, filters_query, segment
from hafen.client.transport import Body, Response


def listing(engine: Engine, filters: Iterable[str] = ()) -> list[Document]:
    return engine.get("/volumes", {"filters": filters_query(list(filters))})["Volumes"] or []


def inspect(engine: Engine, name: str) -> Document:
    answer: Document = engine.get(f"/volumes/{segment(name)}")
    return answer


def create(engine: Engine, body: Document) -> Document:
    answer: Document = engine.post("/volumes/create", None, body)
    return answer


class Removal(NamedTuple):
    """`protected` and `dry_run` are of our own engine."""

    force: bool = False
    protected: bool = False
    dry_run: bool = False

    def query(self) -> Query:
        given = {"force": self.force, "force-protected": self.protected, "dry-run": self.dry_run}
        return {name: True for name, on in given.items() if on}


def remove(engine: Engine, name: str, how: Removal) -> None:
    engine.delete(f"/volumes/{segment(name)}", how.query())


def prune(engine: Engine, filters: Iterable[str], how: Removal | None = None) -> Document:
    query: Query = {"filters": filters_query(list(filters)), **(how or Removal()).query()}
    answer: Document = engine.post("/volumes/prune", query)
    return answer


# Calls of our own engine.


def export(engine: Engine, name: str, *, live: bool) -> Response:
    return engine.call("GET", f"/volumes/{segment(name)}/export", {"live": live})


def import_(engine: Engine, name: str, archive: Body, labels: Iterable[str]) -> Document:
    headers = {"Content-Type": "application/x-tar"}
    query: Query = {"label": list(labels)}
    response = engine.call("POST", f"/volumes/{segment(name)}/import", query, stream=archive, headers=headers)
    answer: Document = json.loads(response.read())
    return answer


def clone(engine: Engine, name: str, target: str, *, snapshot: str, live: bool, labels: Iterable[str]) -> Document:
    query: Query = {"name": target, "snapshot": snapshot, "live": live, "label": list(labels)}
    answer: Document = engine.post(f"/volumes/{segment(name)}/clone", query)
    return answer


def snapshots(engine: Engine, name: str) -> list[Document]:
    answer: list[Document] = engine.get(f"/volumes/{segment(name)}/snapshots")
    return answer


def snapshot(engine: Engine, name: str, snapshot: str, *, live: bool) -> Document:
    answer: Document = engine.post(f"/volumes/{segment(name)}/snapshots", {"name": snapshot, "live": live})
    return answer


def remove_snapshot(engine: Engine, name: str, snapshot: str) -> None:
    engine.delete(f"/volumes/{segment(name)}/snapshots/{segment(snapshot)}")


def restore(engine: Engine, name: str, snapshot: str) -> None:
    engine.post(f"/volumes/{segment(name)}/restore", {"snapshot": snapshot})
