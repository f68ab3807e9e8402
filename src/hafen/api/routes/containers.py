"""/containers/*, but for what goes in and out of their streams and files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from msgspec.structs import replace

from hafen.api import oldrequests
from hafen.api.message import NO_CONTENT, Answer, JsonReply, Reply, Request, StreamReply
from hafen.api.router import Route
from hafen.api.rows import Rows
from hafen.api.stream import JSON, lines
from hafen.api.versions import Version
from hafen.engine.services import Services
from hafen.errors import InvalidArgument, System
from hafen.spec.wire import container, gojson

_ROWS: Final = Rows()


async def list_all(request: Request, services: Services) -> Answer:
    query = request.query
    found = await services.listing.list(
        all=query.flag("all"), limit=_integer(request, "limit"), size=query.flag("size"), filters=query.filters()
    )
    return Reply(body=_ROWS.encode(found, request.version) + b"\n", content_type=JSON)


async def create(request: Request, services: Services) -> Answer:
    plain = gojson.parse(await request.json_text())
    if plain is None:
        raise InvalidArgument("config cannot be empty in order to create a container")
    asked = gojson.read(plain, container.CreateRequest)
    config = oldrequests.create(asked, request.version)
    platform = request.query.text("platform") if request.version >= (1, 41) else ""
    created = await services.create.create(request.query.text("name") or None, config, platform or None)
    warnings = created.warnings + oldrequests.create_warnings(asked, request.version)
    return JsonReply(replace(created, warnings=warnings), 201)


async def inspect(request: Request, services: Services) -> Answer:
    return JsonReply(await services.inspect.inspect(request.params["id"], request.query.flag("size")))


async def top(request: Request, services: Services) -> Answer:
    return JsonReply(await services.inspect.top(request.params["id"], request.query.text("ps_args") or None))


async def changes(request: Request, services: Services) -> Answer:
    found = await services.inspect.changes(request.params["id"])
    return JsonReply(found or None)  # Docker's list is null where nothing changed


async def start(request: Request, services: Services) -> Answer:
    # a body was host configuration before 1.24; a few bytes, such as `{}` or `null`, pass as in Docker
    if request.body.length is None or request.body.length > 7:
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await services.start.start(request.params["id"], request.query.text("detachKeys") or None)
    return NO_CONTENT


async def stop(request: Request, services: Services) -> Answer:
    await services.stop.stop(request.params["id"], _signal(request), _integer(request, "t"))
    return NO_CONTENT


async def restart(request: Request, services: Services) -> Answer:
    await services.stop.restart(request.params["id"], _signal(request), _integer(request, "t"))
    return NO_CONTENT


def _integer(request: Request, name: str) -> int | None:
    """A number that Docker does not call the client's fault where it is none: its status is 500."""
    try:
        return request.query.integer(name)
    except InvalidArgument as error:
        raise System(error.message) from error


def _signal(request: Request) -> str | None:
    """Stop and restart know `signal` since 1.42."""
    return (request.query.text("signal") or None) if request.version >= (1, 42) else None


async def kill(request: Request, services: Services) -> Answer:
    await services.stop.kill(request.params["id"], request.query.text("signal") or None)
    return NO_CONTENT


async def pause(request: Request, services: Services) -> Answer:
    await services.stop.pause(request.params["id"])
    return NO_CONTENT


async def unpause(request: Request, services: Services) -> Answer:
    await services.stop.unpause(request.params["id"])
    return NO_CONTENT


async def rename(request: Request, services: Services) -> Answer:
    await services.inspect.rename(request.params["id"], request.query.text("name"))
    return NO_CONTENT


async def update(request: Request, services: Services) -> Answer:
    config = oldrequests.update(await request.json(container.UpdateRequest), request.version)
    return JsonReply(await services.update.update(request.params["id"], config))


async def remove(request: Request, services: Services) -> Answer:
    query = request.query
    await services.remove.remove(
        request.params["id"], volumes=query.flag("v"), force=query.flag("force"), link=query.flag("link")
    )
    return NO_CONTENT


async def prune(request: Request, services: Services) -> Answer:
    return JsonReply(await services.remove.prune(request.query.filters()))


async def stats(request: Request, services: Services) -> Answer:
    stream = request.query.flag("stream", True)
    one_shot = request.version >= (1, 41) and request.query.flag("one-shot")
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    samples = await services.stats.stats(request.params["id"], stream, one_shot)
    return StreamReply(lines(samples, request.version), JSON)


async def wait(request: Request, services: Services) -> Answer:
    """The head goes out once the wait is registered: clients start the container only then."""
    condition = request.query.text("condition") if request.version >= (1, 30) else ""
    result = await services.stop.wait(request.params["id"], condition or None)
    return StreamReply(_wait_line(result, request.version), JSON)


async def _wait_line(result: asyncio.Future[container.WaitResponse], version: Version) -> AsyncIterator[bytes]:
    try:
        answer = await result
        if version < (1, 34):
            answer = container.WaitResponse(status_code=answer.status_code)
        yield gojson.encode(answer) + b"\n"
    finally:
        result.cancel()


ROUTES: Final = (
    Route("GET", "/containers/json", list_all),
    Route("POST", "/containers/create", create, finish=True),
    Route("POST", "/containers/prune", prune, finish=True),
    Route("GET", "/containers/{id:path}/json", inspect),
    Route("GET", "/containers/{id:path}/top", top),
    Route("GET", "/containers/{id:path}/changes", changes),
    Route("GET", "/containers/{id:path}/stats", stats),
    Route("POST", "/containers/{id:path}/start", start, finish=True),
    Route("POST", "/containers/{id:path}/stop", stop, finish=True),
    Route("POST", "/containers/{id:path}/restart", restart, finish=True),
    Route("POST", "/containers/{id:path}/kill", kill, finish=True),
    Route("POST", "/containers/{id:path}/pause", pause, finish=True),
    Route("POST", "/containers/{id:path}/unpause", unpause, finish=True),
    Route("POST", "/containers/{id:path}/rename", rename, finish=True),
    Route("POST", "/containers/{id:path}/update", update, finish=True),
    Route("POST", "/containers/{id:path}/wait", wait),
    Route("DELETE", "/containers/{id:path}", remove, finish=True),
)
