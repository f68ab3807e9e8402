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
from hafen.registryd import authentication, blobs, cached, errors, manifests, offered, search, tokens
from hafen.registryd.access import Identity, InsufficientScope
from hafen.registryd.errors import Unsupported
from hafen.registryd.proxies import whole_name
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

    def __init__(self, parts: Parts, prefix: str = "") -> None:
        """With a prefix, a mirror: its clients say names without it."""
        self._parts = parts
        self._prefix = prefix

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
            challenge = (self._challenge(head, error),) if isinstance(error, Unauthorized) else ()
            answer = errors.reply(error, challenge)
            if answer.status >= 500:
                trace = error if answer.status == 500 else None  # a full disk, or somebody else's absence, has none
                log.error("%s %s: %s", head.method, head.target, error.message, exc_info=trace)
        except Exception:
            log.exception("%s %s failed", head.method, head.target)
            answer = errors.failure(500, "UNKNOWN", "internal error: the registry's log has it")
        metrics.answered(head, answer)
        return answer

    async def _answer(self, head: Head, body: Body) -> Answer:
        parts = self._parts
        path, _, query = head.target.partition("?")
        if path == authentication.PATH and head.method in ("GET", "POST"):
            service = parts.authentication
            asked = parse_query(query)
            return await service.token(head.method, asked, head.headers, body, self._space(asked))
        who = await parts.authentication.identify(head.headers)
        if unquote(path) in _PAGES:
            return await self._page(head, unquote(path), parse_query(query), who)
        found = split(head)
        if found is None:
            raise NotFound(f"no such page: {path}")
        name, kind, rest, values = found
        route = _ROUTES.get(("upload" if kind == "uploads" and rest else kind, head.method))
        if route is None:
            raise Unsupported(f"the operation is unsupported: {head.method} {path}")
        handler, action = route
        name = whole_name(self._space(values), name)
        parts.access.require(who, name, action)
        request = Request(head.method, name, kind, rest, values, head.headers, body, who)
        if parts.cache is not None and parts.cache.proxy(name) is not None:
            return await cached.answer(parts.cache, request, parts, handler)
        if parts.offer is not None and parts.offer.covers(name):
            return await offered.answer(parts.offer, request, parts, handler)
        return await handler(request, parts)

    def _space(self, query: dict[str, list[str]]) -> str:
        """The prefix of the names in a request: this mirror's, or what containerd says as `ns`. NotFound for one that
        is not cached here, rather than what may be here under that name by chance."""
        cache = self._parts.cache
        wanted = query.get("ns", [""])[0]
        if self._prefix or not wanted or cache is None:
            return self._prefix
        if wanted not in [proxy.prefix for proxy in cache.proxies]:
            raise NotFound(f"{wanted} is not cached here")
        return wanted

    def _challenge(self, head: Head, error: Unauthorized) -> tuple[str, str]:
        """What would help: a token for the scope that this request takes."""
        bearer = head.headers.get("authorization", "").partition(" ")[0].lower() == "bearer"
        kind = "insufficient_scope" if isinstance(error, InsufficientScope) else "invalid_token" if bearer else ""
        try:
            space = self._space(parse_query(head.target.partition("?")[2]))
        except HafenError:
            space = ""
        return self._parts.authentication.challenge(head.headers, _scope(head), kind, space)

    async def _page(self, head: Head, path: str, query: dict[str, list[str]], who: Identity) -> Answer:
        """What belongs to no repository. Where names are asked for, all but the ping take one."""
        parts = self._parts
        if path in ("/v2/", "/v2"):
            if who.claims is None:  # any token will do, also one for nobody in particular
                parts.access.require_name(who)  # which is how clients learn of the need
        elif path in ("/v2/_catalog", "/v1/search"):
            parts.access.require_catalogue(who)
        elif path != "/v1/_ping":
            parts.access.require_name(who)
        if head.method not in ("GET", "HEAD"):
            raise Unsupported(f"the operation is unsupported: {head.method} {path}")
        if path == "/v2/_catalog":
            return await manifests.catalogue(query, who, parts)
        if path == "/v1/search":
            return search.search(query, who, head.headers, parts)
        if path == "/v1/_ping":
            return search.PING
        if path == "/metrics":
            return parts.metrics.page(parts.rows, parts.collector, parts.cache)
        return Reply(200, b"{}", "application/json")


def _scope(head: Head) -> str:
    """What a token has to be for, to allow this request; empty where any will do."""
    path = unquote(head.target.partition("?")[0])
    if path in ("/v2/_catalog", "/v1/search"):
        return tokens.CATALOGUE
    try:
        found = None if path in _PAGES else split(head)
    except HafenError:
        found = None
    if found is None:
        return ""
    name, kind, rest, _ = found
    route = _ROUTES.get(("upload" if kind == "uploads" and rest else kind, head.method))
    actions = {"pull": "pull", "push": "pull,push", "delete": "delete"}
    return f"repository:{name}:{actions[route[1]]}" if route else ""
