"""/volumes/*."""

from __future__ import annotations

from typing import Final

from hafen.api import oldrequests
from hafen.api.message import NO_CONTENT, Answer, JsonReply, Request
from hafen.api.router import Route
from hafen.engine.services import Services
from hafen.engine.volumerecords import Removal
from hafen.errors import Unavailable
from hafen.spec.filters import Filters
from hafen.spec.wire.volume import VolumeCreateRequest


async def list_all(request: Request, services: Services) -> Answer:
    return JsonReply(await services.volumes.list(request.query.filters()))


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


ROUTES: Final = (
    Route("GET", "/volumes", list_all),
    Route("POST", "/volumes/create", create, finish=True),
    Route("POST", "/volumes/prune", prune, finish=True),
    Route("GET", "/volumes/{name}", inspect),
    Route("PUT", "/volumes/{name}", update, since=(1, 42)),
    Route("DELETE", "/volumes/{name}", remove, finish=True),
)
