"""/networks/*."""

from __future__ import annotations

from typing import Final

from hafen.api import oldrequests
from hafen.api.message import NO_CONTENT, Answer, JsonReply, Reply, Request
from hafen.api.router import Route
from hafen.engine.services import Services
from hafen.spec.wire.network import NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest


async def list_all(request: Request, services: Services) -> Answer:
    found = await services.networks.list(request.query.filters())
    if request.version >= (1, 28):
        return JsonReply(list(found))
    # containers were part of the list before 1.28
    return JsonReply([await services.networks.inspect(network.id) for network in found])


async def inspect(request: Request, services: Services) -> Answer:
    return JsonReply(await services.networks.inspect(request.params["id"], request.query.text("scope")))


async def create(request: Request, services: Services) -> Answer:
    config = oldrequests.network_create(await request.json(NetworkCreateRequest), request.version)
    return JsonReply(await services.networks.create(config), 201)


async def connect(request: Request, services: Services) -> Answer:
    await services.networks.connect(request.params["id"], await request.json(NetworkConnectRequest))
    return Reply(200)


async def disconnect(request: Request, services: Services) -> Answer:
    await services.networks.disconnect(request.params["id"], await request.json(NetworkDisconnectRequest))
    return Reply(200)


async def remove(request: Request, services: Services) -> Answer:
    await services.networks.remove(request.params["id"])
    return NO_CONTENT


async def prune(request: Request, services: Services) -> Answer:
    return JsonReply(await services.networks.prune(request.query.filters()))


ROUTES: Final = (
    Route("GET", "/networks", list_all),
    Route("GET", "/networks/", list_all),
    Route("POST", "/networks/create", create, finish=True),
    Route("POST", "/networks/prune", prune, finish=True),
    Route("GET", "/networks/{id}", inspect),
    Route("DELETE", "/networks/{id}", remove, finish=True),
    Route("POST", "/networks/{id}/connect", connect, finish=True),
    Route("POST", "/networks/{id}/disconnect", disconnect, finish=True),
)
