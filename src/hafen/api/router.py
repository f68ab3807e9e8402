"""Route table: method, path pattern, first API version; finds the route of a path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from hafen.api.message import Answer, Reply, Request
from hafen.api.versions import OLDEST, Version
from hafen.engine.services import Services
from hafen.errors import NotFound

Handler = Callable[[Request, Services], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `{name}` in the path is one segment, `{name:path}` may hold slashes, as images' names do.

    `finish`: the verb changes something and runs to its end though the client may have gone.
    """

    method: str
    path: str
    handler: Handler
    since: Version = OLDEST
    finish: bool = False


async def _nothing(request: Request, services: Services) -> Answer:
    return Reply(200)


_OPTIONS = Route("OPTIONS", "", _nothing)  # every path has them, in Docker too


class Router:
    """Finds routes; those that come first in the table win."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" not in route.path:
                self._exact.setdefault((route.method, route.path), route)
            else:
                family = route.path.split("/", 2)[1]
                self._patterns.setdefault((route.method, family), []).append((_pattern(route.path), route))

    def find(self, method: str, path: str, version: Version) -> tuple[Route, dict[str, str]]:
        """The route and its parameters; NotFound, in Docker's words, where there is none for that version."""
        version = max(version, OLDEST)  # what is too old is told so, not that the page is missing
        route = self._exact.get((method, path))
        if route and version >= route.since:
            return route, {}
        family = path.split("/", 2)[1] if path.startswith("/") else ""
        for pattern, candidate in self._patterns.get((method, family), ()):
            found = pattern.fullmatch(path)
            if found and version >= candidate.since:
                return candidate, found.groupdict()
        if method == "OPTIONS":
            return _OPTIONS, {}
        raise NotFound("page not found")


def _pattern(path: str) -> re.Pattern[str]:
    text = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
    text = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", text)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text), re.DOTALL)
