"""What a route of the Engine API is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hafen.api.query import Query
from hafen.api.versions import Version
from hafen.errors import InvalidArgument
from hafen.http import message
from hafen.http.message import Body, Head, Headers, HijackReply, Reply, StreamReply
from hafen.spec.wire import gojson

T = TypeVar("T")

__all__ = ["Answer", "Body", "Head", "HijackReply", "JsonReply", "Reply", "Request", "StreamReply"]

MAX_JSON_BODY = 16 << 20


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
class JsonReply:
    """A wire struct, or a list of one kind of struct, to be written as the client's version knows it."""

    value: object
    status: int = 200


Answer = message.Answer | JsonReply

NO_CONTENT = Reply(204)
