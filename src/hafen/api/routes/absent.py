"""What this engine does not have, answered so that clients know: Docker's 503 for Swarm, 501 by name for the rest."""

from __future__ import annotations

from typing import Final

from hafen.api.message import Answer, Reply, Request
from hafen.api.router import Handler, Route
from hafen.api.stream import JSON
from hafen.engine.services import Services
from hafen.errors import NOT_A_MANAGER, NotFound, NotImplemented, Unavailable


async def swarm(request: Request, services: Services) -> Answer:
    raise Unavailable(NOT_A_MANAGER)


async def leave(request: Request, services: Services) -> Answer:
    raise Unavailable("This node is not part of a swarm")


async def no_plugins(request: Request, services: Services) -> Answer:
    return Reply(200, b"[]\n", JSON)


async def no_plugin(request: Request, services: Services) -> Answer:
    raise NotFound(f'plugin "{request.params["name"]}" not found')


async def no_build_cache(request: Request, services: Services) -> Answer:
    return Reply(200, b'{"CachesDeleted":null,"SpaceReclaimed":0}\n', JSON)


def missing(what: str) -> Handler:
    """A handler that names what is not implemented."""

    async def handler(request: Request, services: Services) -> Answer:
        raise NotImplemented(f"{what} is not implemented by this engine")

    return handler


_SWARM: Final = (
    ("GET", "/swarm"), ("GET", "/swarm/unlockkey"), ("POST", "/swarm/update"), ("POST", "/swarm/unlock"),
    ("GET", "/nodes"), ("GET", "/nodes/{id}"), ("DELETE", "/nodes/{id}"), ("POST", "/nodes/{id}/update"),
    ("GET", "/services"), ("POST", "/services/create"), ("GET", "/services/{id}"), ("DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"), ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"), ("GET", "/tasks/{id}"), ("GET", "/tasks/{id}/logs"),
    ("GET", "/secrets"), ("POST", "/secrets/create"), ("GET", "/secrets/{id}"), ("DELETE", "/secrets/{id}"),
    ("POST", "/secrets/{id}/update"),
    ("GET", "/configs"), ("POST", "/configs/create"), ("GET", "/configs/{id}"), ("DELETE", "/configs/{id}"),
    ("POST", "/configs/{id}/update"),
)  # fmt: skip

ROUTES: Final = (
    *(Route(method, path, swarm) for method, path in _SWARM),
    Route("POST", "/swarm/leave", leave),
    Route("POST", "/swarm/init", missing("swarm mode")),
    Route("POST", "/swarm/join", missing("swarm mode")),
    Route("GET", "/plugins", no_plugins, since=(1, 25)),
    Route("GET", "/plugins/privileges", missing("installing plugins"), since=(1, 25)),
    Route("POST", "/plugins/pull", missing("installing plugins"), since=(1, 25)),
    Route("POST", "/plugins/create", missing("creating plugins"), since=(1, 25)),
    Route("GET", "/plugins/{name:path}/json", no_plugin, since=(1, 25)),
    Route("POST", "/plugins/{name:path}/enable", no_plugin, since=(1, 25)),
    Route("POST", "/plugins/{name:path}/disable", no_plugin, since=(1, 25)),
    Route("POST", "/plugins/{name:path}/upgrade", no_plugin, since=(1, 26)),
    Route("POST", "/plugins/{name:path}/push", no_plugin, since=(1, 25)),
    Route("POST", "/plugins/{name:path}/set", no_plugin, since=(1, 25)),
    Route("DELETE", "/plugins/{name:path}", no_plugin, since=(1, 25)),
    Route("POST", "/build", missing("building images")),
    Route("POST", "/build/prune", no_build_cache, since=(1, 31)),
    Route("POST", "/build/cancel", missing("building images"), since=(1, 39)),
    Route("POST", "/session", missing("BuildKit"), since=(1, 31)),
    Route("POST", "/grpc", missing("BuildKit"), since=(1, 31)),
    Route("GET", "/containers/{id:path}/checkpoints", missing("checkpoint and restore")),
    Route("POST", "/containers/{id:path}/checkpoints", missing("checkpoint and restore")),
    Route("DELETE", "/containers/{id:path}/checkpoints/{checkpoint}", missing("checkpoint and restore")),
)
