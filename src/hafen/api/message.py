"""What a route is given and what it answers; the server reads the one and writes the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hafen.api.query import Query
from hafen.api.versions import Version
from hafen.engine.services import Session
from hafen.errors import InvalidArgument
from hafen.spec.wire import gojson

T = TypeVar("T")

Headers = Mapping[str, str]  # names in lower case

MAX_JSON_BODY = 16 << 20


class Body(Protocol):
    """A request's body, read from the client only as fast as it is iterated."""

    @property
    def length(self) -> int | None:
        """Bytes announced; None where the body comes in chunks."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def read(self, limit: int) -> bytes:
        """All of it; InvalidArgument where it is longer than `limit` bytes."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request as it came: target is path and query, still percent-encoded."""

    method: str
    target: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has found its route. `path` is decoded and without the version; `params` come from the path."""

    method: str
    path: str
    version: Version
    params: Mapping[str, str]
    query: Query
    headers: Headers
    body: Body

    async def json(self, cls: type[T]) -> T:
        """The body as a wire struct; defaults where there is none (moby: httputils.ReadJSON)."""
        if self.body.length == 0:
            return gojson.read({}, cls)
        return gojson.decode(await self.json_text(), cls)

    async def json_text(self) -> bytes:
        """The body's bytes, where the content type says JSON."""
        self._check_json()
        return await self.body.read(MAX_JSON_BODY)

    def _check_json(self) -> None:
        content_type = self.headers.get("content-type", "")
        if not content_type and self.body.length == 0:
            return
        media_type = content_type.partition(";")[0].strip().lower()
        if not media_type:
            raise InvalidArgument(f"malformed Content-Type header ({content_type}): mime: no media type")
        if media_type != "application/json":
            raise InvalidArgument(f"unsupported Content-Type header ({content_type}): must be 'application/json'")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JsonReply:
    """A wire struct, or a list of one kind of struct, to be written as the client's version knows it."""

    value: object
    status: int = 200


@dataclass(frozen=True, slots=True)
class StreamReply:
    """An answer that goes on: the head is sent at once, then each chunk as it comes. The iterator is closed at the end,
    also where the client goes away."""

    chunks: AsyncIterator[bytes]
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HijackReply:
    """The connection itself is handed to a session, after the bytes of `head`."""

    session: Session
    head: bytes


Answer = Reply | JsonReply | StreamReply | HijackReply

NO_CONTENT = Reply(204)
