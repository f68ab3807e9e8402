"""What goes in and out of containers: attach, logs, resize, archives and export."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Final

from hafen.api import errors, hijack
from hafen.api.message import Answer, Reply, Request, StreamReply
from hafen.api.router import Route
from hafen.api.stream import MULTIPLEXED, RAW, TAR, begun
from hafen.engine.services import AttachOptions, Services
from hafen.errors import HafenError, InvalidArgument
from hafen.spec.wire import container, gojson

OK: Final = Reply(200)


async def attach(request: Request, services: Services) -> Answer:
    try:
        session = await services.attach.attach(request.params["id"], _attach_options(request))
    except HafenError as error:  # Docker has taken over the connection by then, and says it in plain text
        return Reply(errors.status(error), f"{error.message}\r\n".encode(), RAW)
    return hijack.answer(request, session)


async def attach_websocket(request: Request, services: Services) -> Answer:
    from hafen.api import websocket  # few clients ask for it

    options = replace(_attach_options(request), multiplexed=False)
    if request.version < (1, 42):  # a WebSocket was always one of all the streams
        options = replace(options, stdin=True, stdout=True, stderr=True)
    session = await services.attach.attach(request.params["id"], options)
    try:
        return websocket.answer(request, session)
    except InvalidArgument:
        session.abandon()
        raise


def _attach_options(request: Request) -> AttachOptions:
    query = request.query
    return AttachOptions(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        detach_keys=query.text("detachKeys") or None,
    )


async def resize(request: Request, services: Services) -> Answer:
    await services.attach.resize(request.params["id"], *size(request))
    return OK


def size(request: Request) -> tuple[int, int]:
    """Height and width of a terminal; both are required."""
    height, width = (required(request, name) for name in ("h", "w"))
    return height, width


def required(request: Request, name: str) -> int:
    value = request.query.integer(name)
    if value is None:
        raise InvalidArgument('strconv.Atoi: parsing "": invalid syntax')
    if not 0 <= value < 1 << 32:
        raise InvalidArgument(f'strconv.Atoi: parsing "{value}": value out of range')
    return value


async def logs(request: Request, services: Services) -> Answer:
    query = request.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    found = await services.logs.read(
        request.params["id"],
        stdout=stdout,
        stderr=stderr,
        since=query.text("since") or None,
        until=query.text("until") or None,
        tail=query.text("tail") or None,
        timestamps=query.flag("timestamps"),
        follow=query.flag("follow"),
        details=query.flag("details"),
    )
    multiplexed = not found.tty and request.version >= (1, 42)
    return StreamReply(found.chunks, MULTIPLEXED if multiplexed else RAW)


async def export(request: Request, services: Services) -> Answer:
    return StreamReply(await begun(await services.copy.export(request.params["id"])), TAR)


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: pathcannot be empty")  # Docker's own spelling
    return path


def _stat_header(stat: container.PathStat) -> tuple[tuple[str, str], ...]:
    return (("X-Docker-Container-Path-Stat", base64.b64encode(gojson.encode(stat)).decode()),)


async def archive_stat(request: Request, services: Services) -> Answer:
    stat = await services.copy.stat(request.params["id"], _path(request))
    return Reply(200, headers=_stat_header(stat))


async def archive_get(request: Request, services: Services) -> Answer:
    stat, chunks = await services.copy.get(request.params["id"], _path(request))
    return StreamReply(await begun(chunks), TAR, _stat_header(stat))


async def archive_put(request: Request, services: Services) -> Answer:
    await services.copy.put(
        request.params["id"],
        _path(request),
        aiter(request.body),
        no_overwrite_dir_non_dir=request.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid=request.query.flag("copyUIDGID"),
    )
    return OK


ROUTES: Final = (
    Route("POST", "/containers/{id:path}/attach", attach),
    Route("GET", "/containers/{id:path}/attach/ws", attach_websocket),
    Route("POST", "/containers/{id:path}/resize", resize),
    Route("GET", "/containers/{id:path}/logs", logs),
    Route("GET", "/containers/{id:path}/export", export),
    Route("HEAD", "/containers/{id:path}/archive", archive_stat),
    Route("GET", "/containers/{id:path}/archive", archive_get),
    Route("PUT", "/containers/{id:path}/archive", archive_put),
)
