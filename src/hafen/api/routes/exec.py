"""/exec/* and /containers/{id}/exec."""

from __future__ import annotations

from typing import Final

from hafen.api import hijack, oldrequests
from hafen.api.message import Answer, JsonReply, Reply, Request
from hafen.api.router import Route
from hafen.api.routes.streams import size
from hafen.engine.services import ExecStartOptions, Services
from hafen.errors import InvalidArgument
from hafen.spec.wire.exec import ExecConfig, ExecStartConfig
from hafen.spec.wire.image import IdResponse


async def create(request: Request, services: Services) -> Answer:
    config = oldrequests.exec_config(await request.json(ExecConfig), request.version)
    if not config.cmd:
        raise InvalidArgument("No exec command specified")
    return JsonReply(IdResponse(id=await services.exec.create(request.params["id"], config)), 201)


async def start(request: Request, services: Services) -> Answer:
    config = oldrequests.exec_start(await request.json(ExecStartConfig), request.version)
    options = ExecStartOptions(config.detach, config.tty, _console_size(config))
    session = await services.exec.start(request.params["id"], options)
    return hijack.answer(request, session) if session else Reply(200)


def _console_size(config: ExecStartConfig) -> tuple[int, int] | None:
    if config.console_size is None:
        return None
    if not config.tty:
        raise InvalidArgument("console size is only supported when TTY is enabled")
    height, width = (*config.console_size, 0, 0)[:2]  # Go fills an array that came short
    return height, width


async def resize(request: Request, services: Services) -> Answer:
    await services.exec.resize(request.params["id"], *size(request))
    return Reply(200)


async def inspect(request: Request, services: Services) -> Answer:
    return JsonReply(await services.exec.inspect(request.params["id"]))


ROUTES: Final = (
    Route("POST", "/containers/{id:path}/exec", create),
    Route("POST", "/exec/{id}/start", start, finish=True),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
)
