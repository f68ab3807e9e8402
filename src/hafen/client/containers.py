"""Calls about containers; each is one request."""

import json
from collections.abc import Iterable, Mapping

from hafen.client.engine import Document, Engine, Hijacked, Query, filters_query, segment
from hafen.client.transport import Response


def path_of(reference: str, action: str = "") -> str:
    return f"/containers/{segment(reference)}" + (f"/{action}" if action else "")


def create(engine: Engine, body: Document, name: str = "", platform: str = "") -> Document:
    answer: Document = engine.post("/containers/create", {"name": name, "platform": platform}, body)
    return answer


def start(engine: Engine, reference: str, detach_keys: str = "") -> None:
    engine.call("POST", path_of(reference, "start"), {"detachKeys": detach_keys}).read()


def act(engine: Engine, reference: str, action: str, query: Query | None = None) -> None:
    """stop, restart, kill, pause, unpause, rename: an action without an answer."""
    engine.call("POST", path_of(reference, action), query).read()


def wait(engine: Engine, reference: str, condition: str = "") -> Response:
    """Returns when the engine has registered the wait; the body comes with the exit."""
    return engine.call("POST", path_of(reference, "wait"), {"condition": condition})


def attach(engine: Engine, reference: str, query: Query) -> Hijacked:
    return engine.hijack(path_of(reference, "attach"), query)


def resize(engine: Engine, reference: str, height: int, width: int) -> None:
    engine.call("POST", path_of(reference, "resize"), {"h": height, "w": width}).read()


def remove(engine: Engine, reference: str, *, volumes: bool = False, force: bool = False, link: bool = False) -> None:
    engine.delete(path_of(reference), {"v": volumes, "force": force, "link": link})


def inspect(engine: Engine, reference: str, *, size: bool = False) -> Document:
    answer: Document = engine.get(path_of(reference, "json"), {"size": size})
    return answer


def listing(
    engine: Engine, *, all_states: bool = False, limit: int = 0, size: bool = False, filters: Iterable[str] = ()
) -> list[Document]:
    query: Query = {"all": all_states, "limit": limit or None, "size": size, "filters": filters_query(list(filters))}
    answer: list[Document] = engine.get("/containers/json", query)
    return answer


def logs(engine: Engine, reference: str, query: Query) -> Response:
    return engine.call("GET", path_of(reference, "logs"), query)


def changes(engine: Engine, reference: str) -> list[Document]:
    return engine.get(path_of(reference, "changes")) or []


def top(engine: Engine, reference: str, arguments: str) -> Document:
    answer: Document = engine.get(path_of(reference, "top"), {"ps_args": arguments})
    return answer


def export(engine: Engine, reference: str) -> Response:
    return engine.call("GET", path_of(reference, "export"))


def stats(engine: Engine, reference: str, *, stream: bool) -> Response:
    query: Query = {"stream": "true"} if stream else {"stream": "false"}
    return engine.call("GET", path_of(reference, "stats"), query)


def update(engine: Engine, reference: str, body: Document) -> Document:
    answer: Document = engine.post(path_of(reference, "update"), None, body)
    return answer


def commit(engine: Engine, query: Query, config: Document | None = None) -> Document:
    answer: Document = engine.post("/commit", query, config)
    return answer


def prune(engine: Engine, filters: Iterable[str]) -> Document:
    answer: Document = engine.post("/containers/prune", {"filters": filters_query(list(filters))})
    return answer


def path_stat(engine: Engine, reference: str, path: str) -> Document:
    return _decode_stat(engine.head(path_of(reference, "archive"), {"path": path}))


def archive(engine: Engine, reference: str, path: str) -> tuple[Document, Response]:
    response = engine.call("GET", path_of(reference, "archive"), {"path": path})
    return _decode_stat(response.headers), response


def put_archive(engine: Engine, reference: str, path: str, stream: Iterable[bytes], *, copy_owner: bool) -> None:
    query: Query = {"path": path, "noOverwriteDirNonDir": "true", "copyUIDGID": copy_owner}
    headers = {"Content-Type": "application/x-tar"}
    engine.call("PUT", path_of(reference, "archive"), query, stream=stream, headers=headers).read()


def _decode_stat(headers: Mapping[str, str]) -> Document:
    import base64  # `cp` alone needs it

    answer: Document = json.loads(base64.b64decode(headers.get("x-docker-container-path-stat", "e30=")))
    return answer


def exec_create(engine: Engine, reference: str, body: Document) -> str:
    return str(engine.post(path_of(reference, "exec"), None, body)["Id"])


def exec_start(engine: Engine, exec_id: str, body: Document) -> None:
    engine.call("POST", f"/exec/{exec_id}/start", None, body).read()


def exec_attach(engine: Engine, exec_id: str, body: Document) -> Hijacked:
    return engine.hijack(f"/exec/{exec_id}/start", None, body)


def exec_resize(engine: Engine, exec_id: str, height: int, width: int) -> None:
    engine.call("POST", f"/exec/{exec_id}/resize", {"h": height, "w": width}).read()


def exec_inspect(engine: Engine, exec_id: str) -> Document:
    answer: Document = engine.get(f"/exec/{exec_id}/json")
    return answer
