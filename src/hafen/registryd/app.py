"""The registry as an application of the HTTP server: path to handler, rights, errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final
from urllib.parse import unquote

from hafen.errors import HafenError, NotFound, Unauthorized
from hafen.http.message import Answer, Body, Head, Reply
from hafen.http.response import Heads
from hafen.registryd import blobs, errors, manifests, search
from hafen.registryd.access import ANYBODY
from hafen.registryd.errors import Unsupported
from hafen.registryd.request import Parts, Request, parse_query, split

Handler = Callable[[Request, Parts], Awaitable[Answer]]

# (kind, method) -> handler, and the right it takes. An upload's own path is told from that of all uploads by its id.
_ROUTES: Final[dict[tuple[str, str], tuple[Handler, str]]] = {
    ("manifests", "GET"): (manifests.get, "pull"),
    ("manifests", "HEAD"): (manifests.get, "pull"),
    ("manifests", "PUT"): (manifests.put, "push"),
    ("manifests", "DELETE"): (manifests.delete, "delete"),
    ("blobs", "GET"): (blobs.get, "pull"),
    ("blobs", "HEAD"): (blobs.get, "pull"),
    ("blobs", "DELETE"): (blobs.delete, "delete"),
    ("uploads", "POST"): (blobs.begin, "push"),
    ("upload", "GET"): (blobs.status, "push"),
    ("upload", "PATCH"): (blobs.append, "push"),
    ("upload", "PUT"): (blobs.finish, "push"),
    ("upload", "DELETE"): (blobs.cancel, "push"),
    ("tags", "GET"): (manifests.tags, "pull"),
    ("referrers", "GET"): (manifests.referrers, "pull"),
}

_PAGES: Final = frozenset(("/v2/", "/v2", "/v2/_catalog", "/v1/_ping", "/v1/search", "/metrics"))

log = logging.getLogger(__name__)


class Registry:
    """Serves what its parts hold."""

    heads = Heads(("Docker-Distribution-Api-Version", "registry/2.0"), ("X-Content-Type-Options", "nosniff"))

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def refusal(self, status: int, message: str) -> Reply:
        return errors.failure(status, "UNKNOWN", message)

    async def __call__(
        self, head: Head, body: Body, own: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
    ) -> Answer:
        """The boundary of a request: whatever is raised below becomes an answer, the unexpected also a log entry."""
        metrics = self._parts.metrics
        try:
            answer = await self._answer(head, metrics.received(body))
        except HafenError as error:
            challenge = (("WWW-Authenticate", f'Basic realm="{self._parts.access.realm}"'),)
            answer = errors.reply(error, challenge if isinstance(error, Unauthorized) else ())
            if answer.status >= 500:
                log.error("%s %s: %s", head.method, head.target, error.message, exc_info=error)
        except Exception:
            log.exception("%s %s failed", head.method, head.target)
            answer = errors.failure(500, "UNKNOWN", "internal error: the registry's log has it")
        metrics.answered(head, answer)
        return answer

    async def _answer(self, head: Head, body: Body) -> Answer:
        parts = self._parts
        user = await parts.access.user(head.headers, parts.in_thread)
        path, _, query = head.target.partition("?")
        if unquote(path) in _PAGES:
            return await self._page(head, unquote(path), parse_query(query), user)
        found = split(head)
        if found is None:
            raise NotFound(f"no such page: {path}")
        name, kind, rest, values = found
        route = _ROUTES.get(("upload" if kind == "uploads" and rest else kind, head.method))
        if route is None:
            raise Unsupported(f"the operation is unsupported: {head.method} {path}")
        handler, action = route
        parts.access.require(user, name, action)
        return await handler(Request(head.method, name, kind, rest, values, head.headers, body, user), parts)

    async def _page(self, head: Head, path: str, query: dict[str, list[str]], user: str) -> Answer:
        """What belongs to no repository. Where names are asked for, all but the ping take one."""
        parts = self._parts
        if parts.access.asks and user == ANYBODY and path != "/v1/_ping":
            raise Unauthorized("authentication required")  # which is how clients learn of the need
        if head.method not in ("GET", "HEAD"):
            raise Unsupported(f"the operation is unsupported: {head.method} {path}")
        if path == "/v2/_catalog":
            return await manifests.catalogue(query, user, parts)
        if path == "/v1/search":
            return search.search(query, user, head.headers, parts)
        if path == "/v1/_ping":
            return search.PING
        if path == "/metrics":
            return parts.metrics.page(parts.rows, parts.collector)
        return Reply(200, b"{}", "application/json")
