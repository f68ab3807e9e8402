"""A request that has found its place in the specification, and what all handlers share."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qs, unquote

from hafen.errors import HafenError, InvalidArgument
from hafen.http.message import Body, Head, Headers
from hafen.registryd.access import Access, Identity
from hafen.registryd.accesstokens import AccessTokens
from hafen.registryd.authentication import Authentication
from hafen.registryd.collect import Collector
from hafen.registryd.errors import DigestInvalid, NameInvalid, PageInvalid
from hafen.registryd.expiry import Expiry
from hafen.registryd.metrics import Metrics
from hafen.registryd.quotas import Quotas
from hafen.registryd.rows import Rows
from hafen.registryd.store import Blobs
from hafen.registryd.uploads import Uploads
from hafen.registryd.webhooks import Origin, Webhooks
from hafen.spec import digest as digests
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.storage.collect import Leases

if TYPE_CHECKING:  # what not every registry has is imported where it is
    from hafen.engine.offer import Offer
    from hafen.registryd.cache import Cache

T = TypeVar("T")

log = logging.getLogger(__name__)

# Names may hold words such as `blobs`: the last one that fits counts.
_PATH: Final = re.compile(
    r"/v2/(?P<name>.+)/(?:(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>[^/]+)"
    r"|blobs/(?P<uploads>uploads)(?:/(?P<upload>[^/]*))?)"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the registry is made of. `executor` does what reads, writes and hashes; `tasks` owns what must not end with
    the request that began it."""

    rows: Rows
    blobs: Blobs
    uploads: Uploads
    collector: Collector
    leases: Leases
    access: Access
    authentication: Authentication
    access_tokens: AccessTokens
    expiry: Expiry
    executor: Executor
    tasks: asyncio.TaskGroup
    quotas: Quotas
    webhooks: Webhooks
    metrics: Metrics
    cache: Cache | None = None
    offer: Offer | None = None
    may_delete: bool = True

    def in_thread(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    async def completed(self, work: Coroutine[object, object, T]) -> T:
        """The result of work that goes to its end also where its client leaves meanwhile, which cancels requests."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.tasks.create_task(_run(work, done))
        return await done


async def _run(work: Coroutine[object, object, T], done: asyncio.Future[T]) -> None:
    """The boundary of a task for which nobody may be waiting any more."""
    try:
        result = await work
        if not done.done():
            done.set_result(result)
    except Exception as error:
        if not done.done():
            done.set_exception(error)
        else:
            log.warning("%s, and its client has gone", error, exc_info=not isinstance(error, HafenError))
    finally:
        done.cancel()  # where this is cancelled itself


@dataclass(frozen=True, slots=True)
class Request:
    """`kind` is manifests, blobs, tags, referrers or uploads; `rest` what follows it: a tag, a digest, an upload's id.
    The name is valid, `rest` is as it came."""

    method: str
    name: str
    kind: str
    rest: str
    query: Mapping[str, list[str]]
    headers: Headers
    body: Body
    who: Identity

    def digest(self) -> Digest:
        """`rest` as a digest; DigestInvalid where it is none."""
        return parse_digest(self.rest)

    def origin(self) -> Origin:
        """For what is told of it elsewhere."""
        return Origin(self.method, self.headers, self.who.user)

    def first(self, name: str) -> str:
        """A query parameter; empty where it is absent."""
        return self.query.get(name, [""])[0]

    def page(self, default: int) -> tuple[str, int]:
        """(last, n): where a listing goes on, and how many results are wanted."""
        return self.first("last"), page_size(self.first("n"), default)


def page_size(text: str, default: int) -> int:
    """PageInvalid where it is no number of results."""
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise PageInvalid(f"invalid number of results requested: {text}")
    return min(int(text), default)


def parse_digest(text: str) -> Digest:
    try:
        return digests.parse(text)
    except InvalidArgument as error:
        raise DigestInvalid(f"{error.message}: sha256 and sha512 are known") from None


def split(head: Head) -> tuple[str, str, str, dict[str, list[str]]] | None:
    """(name, kind, rest, query) of a request; None where the path is not in the specification. NameInvalid."""
    path, _, query = head.target.partition("?")
    found = _PATH.fullmatch(unquote(path))
    if found is None:
        return None
    name = found["name"]
    if not reference.is_path(name):
        raise NameInvalid(f"invalid repository name: {name}")
    return name, found["kind"] or "uploads", found["rest"] or found["upload"] or "", parse_query(query)


def warning(digest: Digest, needing: Sequence[Digest]) -> tuple[tuple[str, str], ...]:
    """What a client is told that deletes what manifests need, which the specification lets it do.

    https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#warnings
    """
    if not needing:
        return ()
    more = f" and {len(needing) - 1} more" if len(needing) > 1 else ""
    return (("Warning", f'299 - "{digest} was part of {needing[0]}{more}: incomplete now"'),)


def parse_query(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise InvalidArgument(f"invalid query: {error}") from error
