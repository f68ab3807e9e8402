"""/_ping, /version, /info, /auth, /system/df and our own /system/fsck."""

from __future__ import annotations

from typing import Final

from hafen.api import registryauth, versions
from hafen.api.message import Answer, JsonReply, Reply, Request, StreamReply
from hafen.api.router import Route
from hafen.api.stream import JSON, lines
from hafen.engine.services import Services
from hafen.errors import InvalidArgument
from hafen.spec.wire.system import AuthConfig

_PING: Final = (
    ("Builder-Version", "1"),  # the classic builder; BuildKit's sessions are not served
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
)
_PONG: Final = Reply(200, b"OK", "text/plain; charset=utf-8", _PING)
_PONG_HEAD: Final = Reply(200, b"", "text/plain; charset=utf-8", _PING)

_USAGES: Final = {
    "image": "image_usage",
    "container": "container_usage",
    "volume": "volume_usage",
    "build-cache": "build_cache_usage",
}


async def ping(request: Request, services: Services) -> Answer:
    return _PONG


async def ping_head(request: Request, services: Services) -> Answer:
    return _PONG_HEAD


async def version(request: Request, services: Services) -> Answer:
    return JsonReply(await services.system.version())


async def info(request: Request, services: Services) -> Answer:
    return JsonReply(await services.system.info())


async def auth(request: Request, services: Services) -> Answer:
    return JsonReply(await services.registry.login(await request.json(AuthConfig)))


async def disk_usage(request: Request, services: Services) -> Answer:
    types = request.query.all("type") if request.version >= (1, 42) else ()
    for name in types:
        if name not in _USAGES:
            raise InvalidArgument(f"unknown object type: {name}")
    usage = await services.system.df(types)
    if request.version >= (1, 52) and not request.query.flag("verbose"):
        return JsonReply(versions.brief_disk_usage(usage))
    return JsonReply(usage)


async def fsck(request: Request, services: Services) -> Answer:
    """Ours alone: the whole store checked against itself, and mended with `repair`."""
    query = request.query
    messages = services.fsck.check(
        repair=query.flag("repair"), dry_run=query.flag("dry-run"), auths=registryauth.by_registry(request.headers)
    )
    return StreamReply(lines(messages, request.version), JSON)


ROUTES: Final = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping_head),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("POST", "/auth", auth),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/system/fsck", fsck),
)
