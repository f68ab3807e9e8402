"""/volumes/*."""

from __future__ import annotations

from typing import Final

from hafen.api import oldrequests
from hafen.api.message import NO_CONTENT, Answer, JsonReply, Request, StreamReply
from hafen.api.router import Route
from hafen.api.stream import TAR, begun
from hafen.engine.services import Services
from hafen.engine.volumerecords import Removal
from hafen.errors import InvalidArgument, Unavailable
from hafen.spec.filters import Filters
from hafen.spec.wire.volume import VolumeCreateRequest


async def list_all(request: Request, services: Services) -> Answer:
    try:
        filters = request.query.filters()
    except InvalidArgument as error:
        raise InvalidArgument(f"error reading volume filters: {error.message}") from error
    return JsonReply(await services.volumes.list(filters))


async def inspect(request: Request, services: Services) -> Answer:
    return JsonReply(await services.volumes.inspect(request.params["name"]))


async def create(request: Request, services: Services) -> Answer:
    config = oldrequests.volume_create(await request.json(VolumeCreateRequest), request.version)
    return JsonReply(await services.volumes.create(config), 201)


async def update(request: Request, services: Services) -> Answer:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(request: Request, services: Services) -> Answer:
    await services.volumes.remove(request.params["name"], _removal(request))
    return NO_CONTENT


async def prune(request: Request, services: Services) -> Answer:
    filters = request.query.filters()
    if request.version < (1, 42):  # those with a name, too
        filters = Filters({**filters.fields, "all": ("true",)})
    return JsonReply(await services.volumes.prune(filters, _removal(request)))


def _removal(request: Request) -> Removal:
    """`force` is Docker's, the others are ours."""
    query = request.query
    return Removal(query.flag("force"), query.flag("force-protected"), query.flag("dry-run"))


# What follows is ours: Docker has no such routes.


async def export(request: Request, services: Services) -> Answer:
    chunks = await services.volume_copies.export(request.params["name"], request.query.flag("live"))
    return StreamReply(await begun(chunks), TAR)


async def import_(request: Request, services: Services) -> Answer:
    name, labels = request.params["name"], _labels(request)
    return JsonReply(await services.volume_copies.import_(name, aiter(request.body), labels), 201)


async def clone(request: Request, services: Services) -> Answer:
    query = request.query
    made = await services.volume_copies.clone(
        request.params["name"], query.text("name"), query.text("snapshot"), query.flag("live"), _labels(request)
    )
    return JsonReply(made, 201)


async def list_snapshots(request: Request, services: Services) -> Answer:
    return JsonReply(await services.volume_copies.snapshots(request.params["name"]))


async def snapshot(request: Request, services: Services) -> Answer:
    query = request.query
    made = await services.volume_copies.snapshot(request.params["name"], query.text("name"), query.flag("live"))
    return JsonReply(made, 201)


async def remove_snapshot(request: Request, services: Services) -> Answer:
    await services.volume_copies.remove_snapshot(request.params["name"], request.params["snapshot"])
    return NO_CONTENT


async def restore(request: Request, services: Services) -> Answer:
    await services.volume_copies.restore(request.params["name"], request.query.text("snapshot"))
    return NO_CONTENT


def _labels(request: Request) -> dict[str, str] | None:
    """`label=a=b`, any number of times."""
    given = (text.partition("=") for text in request.query.all("label"))
    return {name: value for name, _, value in given} or None


ROUTES: Final = (
    Route("GET", "/volumes", list_all),
    Route("POST", "/volumes/create", create, finish=True),
    Route("POST", "/volumes/prune", prune, finish=True),
    Route("GET", "/volumes/{name}", inspect),
    Route("PUT", "/volumes/{name}", update),
    Route("DELETE", "/volumes/{name}", remove, finish=True),
    Route("GET", "/volumes/{name}/export", export),
    Route("POST", "/volumes/{name}/import", import_, finish=True),
    Route("POST", "/volumes/{name}/clone", clone, finish=True),
    Route("GET", "/volumes/{name}/snapshots", list_snapshots),
    Route("POST", "/volumes/{name}/snapshots", snapshot, finish=True),
    Route("DELETE", "/volumes/{name}/snapshots/{snapshot}", remove_snapshot, finish=True),
    Route("POST", "/volumes/{name}/restore", restore, finish=True),
)
