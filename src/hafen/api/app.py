"""One request from its path to its answer: version, route, handler, errors."""

from __future__ import annotations

import asyncio
import logging
import posixpath
from collections.abc import Callable, Coroutine
from urllib.parse import quote, unquote

from hafen.api import errors, response, versions
from hafen.api.message import Body, Head, HijackReply, JsonReply, Reply, Request
from hafen.api.query import Query
from hafen.api.router import Route, Router
from hafen.api.stream import JSON
from hafen.engine.services import Services
from hafen.errors import HafenError, NotModified
from hafen.http.message import Answer

_log = logging.getLogger(__name__)


class Api:
    """The application that the server serves."""

    heads = response.HEADS

    def __init__(self, router: Router, services: Services) -> None:
        self._router = router
        self._services = services

    def refusal(self, status: int, message: str) -> Reply:
        return Reply(status, errors.body(message), JSON)

    async def __call__(
        self, head: Head, body: Body, own: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
    ) -> Answer:
        moved = redirect(head.target)
        if moved:
            return Reply(301, headers=(("Location", moved),))
        try:
            route, request = self._route(head, body)
        except HafenError as error:
            return failure(error)
        if not route.finish:
            return await self._answer(route, request)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        own(self._finish(route, request, answer))
        return await answer

    async def _finish(self, route: Route, request: Request, answer: asyncio.Future[Answer]) -> None:
        """Work that ends though nobody waits for the answer any more."""
        result = await self._answer(route, request)
        if not answer.done():
            answer.set_result(result)
        elif isinstance(result, HijackReply):
            result.session.abandon()

    def _route(self, head: Head, body: Body) -> tuple[Route, Request]:
        path, _, query = head.target.partition("?")
        asked, path = versions.split(unquote(path))
        version = versions.parse(asked)
        route, params = self._router.find(head.method, path, version)
        versions.check(asked)
        return route, Request(head.method, path, version, params, Query(query), head.headers, body)

    async def _answer(self, route: Route, request: Request) -> Answer:
        """The boundary of a request: whatever is raised below becomes an answer, the unexpected also a log entry."""
        try:
            answer = await route.handler(request, self._services)
            if isinstance(answer, JsonReply):
                return Reply(answer.status, versions.encode(answer.value, request.version) + b"\n", JSON)
            return answer
        except HafenError as error:
            reply = failure(error)
            if reply.status == 500:
                cause = error.__cause__  # what Docker answers with 500 may be the client's mistake: no traceback
                trace = None if cause is None or isinstance(cause, HafenError) else error
                _log.error("%s %s: %s", request.method, request.path, error.message, exc_info=trace)
            return reply
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            _log.exception("%s %s failed", request.method, request.path)
            return Reply(500, errors.body(f"{type(error).__name__}: {error}"), JSON)


def redirect(target: str) -> str:
    """Where Docker's router sends a client whose path is not in its shortest form; empty where it is."""
    path, mark, query = target.partition("?")
    if "//" not in (path := unquote(path)) and "/." not in path:
        return ""
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if path.endswith("/") and clean != "/":
        clean += "/"
    return "" if clean == path else quote(clean) + mark + query


def failure(error: HafenError) -> Reply:
    if isinstance(error, NotModified):
        return Reply(304)
    return Reply(errors.status(error), errors.body(error.message), JSON)
