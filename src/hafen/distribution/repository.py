"""One repository of a registry: manifests, tags and blobs, from whichever endpoint has them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Endpoint, Rules, endpoints
from hafen.distribution.lookup import looked_up
from hafen.distribution.transport import (
    MANIFEST_LIMIT,
    Refusal,
    Response,
    Target,
    Transport,
    Unreachable,
    read,
    refusal,
    worded,
)
from hafen.errors import Corrupt, HafenError, InvalidArgument, NotFound, System, Unauthorized, Unavailable
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec.digest import Digest
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor

ATTEMPTS = 6
_MIRROR_ATTEMPTS = 2  # to go on where a mirror's line broke: there is another place to ask
_SMALL = 8 << 20
_TRIES = 3  # of a configuration that arrives damaged
_LONGEST = 60.0  # seconds that a Retry-After is obeyed for
_V1 = "application/vnd.docker.distribution.manifest.v1"
_SCHEMA_1 = frozenset((f"{_V1}+json", f"{_V1}+prettyjws"))
_ACCEPT = ", ".join((*sorted(documents.MANIFESTS), *sorted(documents.INDEXES), *sorted(_SCHEMA_1)))
_PASSING = frozenset((408, 429, 500, 502, 503, 504))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ManifestData:
    """A manifest or index as it came, verified where a digest was asked for."""

    media_type: str
    digest: Digest
    data: bytes


class _Again(Unavailable):
    """Try the same request once more, not before `after` seconds."""

    def __init__(self, message: str, after: float | None) -> None:
        super().__init__(message)
        self.after = after


class Repository:
    """Open with `open_repository`. Errors have Docker's texts; Unavailable after `ATTEMPTS` broken attempts."""

    def __init__(self, transport: Transport, name: Reference, candidates: list[Endpoint], actions: str) -> None:
        self.transport = transport
        self.name = name
        self._candidates = candidates
        self._settled = False  # which endpoint has the name at all
        self._gave: dict[str, set[Endpoint]] = {}  # by the digest of a blob
        self.scope = (f"repository:{name.path}:{actions}",)

    @property
    def endpoint(self) -> Endpoint:
        """Where manifests were found: the first of those that say what a tag means."""
        return next((one for one in self._candidates if one.resolve), self._candidates[0])

    def url(self, rest: str, endpoint: Endpoint | None = None) -> str:
        return f"{(endpoint or self.endpoint).base}/{self.name.path}/{rest}"

    async def manifest(self, reference: str) -> ManifestData:
        """By tag or digest, from the first endpoint that has it; a mirror is asked once. A mirror that lacks the first
        one is not asked any more. NotFound, Corrupt, InvalidArgument (schema 1)."""
        *mirrors, last = [one for one in self._candidates if one.resolve or ":" in reference] or self._candidates
        lacking: list[Endpoint] = []
        for endpoint in mirrors:
            try:
                found = await self._manifest(endpoint, reference)
            except (NotFound, Unavailable, System, Unauthorized, Corrupt):
                lacking.append(endpoint)
            else:
                break
        else:
            found = await persistent(partial(self._manifest, last, reference))
        if not self._settled:
            self._candidates = [one for one in self._candidates if one not in lacking]
            self._settled = True
        return found

    async def digest(self, reference: str) -> Digest | None:
        """What a tag means now, by a HEAD that is not repeated; None where the registry does not say. NotFound; and
        Unauthorized, which need not mean that it is gone."""
        target = Target("HEAD", self.url(f"manifests/{reference}"), self.scope, {"Accept": _ACCEPT})
        async with self.transport.request(self.endpoint, target) as response:
            if response.status in (401, 403):
                raise Unauthorized(f'Head "{target.url}": {(await refusal(response)).text}')
            if response.status != 200:
                raise await self._refused(response, target, reference)
            said = response.headers.get("Docker-Content-Digest", "")
            return digests.parse(said) if said else None

    async def _manifest(self, endpoint: Endpoint, reference: str) -> ManifestData:
        target = Target("GET", self.url(f"manifests/{reference}", endpoint), self.scope, {"Accept": _ACCEPT})
        async with self.transport.request(endpoint, target) as response:
            if response.status != 200:
                raise await self._refused(response, target, reference)
            data = await read(response, MANIFEST_LIMIT)
            return checked_manifest(self.name, reference, response.headers, data)

    async def _refused(self, response: Response, target: Target, reference: str) -> HafenError:
        check_passing(response, target)
        found = await refusal(response)
        separator = "@" if ":" in reference else ":"
        shown = f"{self.name.familiar_name}{separator}{reference}"
        if found.code in ("DENIED", "UNAUTHORIZED") and found.status in (401, 403):
            return NotFound(
                f"pull access denied for {self.name.familiar_name}, repository does not exist or may require "
                f"'docker login': {found.text}"
            )
        if found.code == "NAME_UNKNOWN":
            return NotFound(f"repository {self.name.familiar_name} not found: {found.text}")
        if found.status == 404:
            return NotFound(f"manifest for {shown} not found: {_unknown(found)}")
        return System(f'{target.method.title()} "{target.url}": {found.text}')

    async def tags(self) -> list[str]:
        """All tags, page by page."""
        found: list[str] = []
        path = "tags/list?n=1000"
        for _ in range(10_000):
            target = Target("GET", self.url(path), self.scope)
            data, link = await persistent(partial(self._page, target))
            try:
                page = msgspec.json.decode(data, type=_Tags).tags or []
            except msgspec.DecodeError as error:
                raise Corrupt(f"{target.url}: no list of tags: {error}") from error
            found += page
            query = following(link)
            if not query or not page:
                return found
            path = f"tags/list?{query}"
        raise Corrupt(f"{self.url('tags/list')}: the list of tags has no end")

    async def _page(self, target: Target) -> tuple[bytes, str]:
        async with self.transport.request(self.endpoint, target) as response:
            if response.status != 200:
                raise await self._refused(response, target, "latest")
            return await read(response, MANIFEST_LIMIT), response.headers.get("Link", "")

    async def small(self, descriptor: Descriptor) -> bytes:
        """A configuration, verified; Corrupt where it is something else, or too large for one."""
        if not 0 < descriptor.size <= _SMALL:
            raise Corrupt(f"image configuration {descriptor.digest} has {descriptor.size} bytes")
        for _ in range(_TRIES):
            data = b""
            async with aclosing(self.blob(descriptor)) as pieces:
                async for piece in pieces:
                    data += piece
            if digests.of(data, digests.algorithm_of(Digest(descriptor.digest))) == descriptor.digest:
                return data
            self.distrust(descriptor.digest)
        raise Corrupt(f"image config verification failed for digest {descriptor.digest}")

    def distrust(self, digest: str) -> None:
        """A blob was not what its digest says: mirrors that gave a part of it are not asked any more."""
        gave = self._gave.pop(digest, set())
        trusted = [one for one in self._candidates if not one.mirror or one not in gave]
        self._candidates = trusted or self._candidates

    async def blob(self, descriptor: Descriptor, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A blob from `offset`, resumed where the connection breaks; nothing is verified but its length."""
        attempt = 0
        places = list(self._candidates)
        while offset < descriptor.size:
            self._gave.setdefault(descriptor.digest, set()).add(places[0])
            try:
                async with aclosing(self._range(places[0], descriptor, offset)) as pieces:
                    async for piece in pieces:
                        offset += len(piece)
                        attempt = 0
                        yield piece
                if offset < descriptor.size:
                    raise Unavailable(f"blob {descriptor.digest}: unexpected EOF")
            except (NotFound, System, Corrupt):
                if len(places) == 1:
                    raise
                del places[0]
            except Unavailable as error:
                attempt += 1
                if len(places) > 1 and (isinstance(error, _Again) or attempt >= _MIRROR_ATTEMPTS):
                    del places[0]
                    attempt = 0
                elif attempt >= ATTEMPTS:
                    raise
                else:
                    await pause(attempt, error)

    async def _range(self, endpoint: Endpoint, descriptor: Descriptor, offset: int) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        target = Target("GET", self.url(f"blobs/{descriptor.digest}", endpoint), self.scope, headers)
        async with self.transport.request(endpoint, target) as response:
            if response.status not in (200, 206):
                check_passing(response, target)
                found = await refusal(response)
                if found.status == 404:
                    raise NotFound(_unknown(found, "blob unknown: blob unknown to registry"))
                if found.status == 416:
                    raise Corrupt(f"blob {descriptor.digest} is shorter than its {descriptor.size} bytes")
                raise System(f'Get "{target.url}": {found.text}')
            skip = _skipped(response, offset)
            left = descriptor.size - offset
            with worded("GET", target.url):
                async for chunk in response.content.iter_any():
                    piece = chunk[skip:]
                    skip -= len(chunk) - len(piece)
                    left -= len(piece)
                    if left < 0:
                        raise Corrupt(f"blob {descriptor.digest} is longer than its {descriptor.size} bytes")
                    if piece:
                        yield piece


class _Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


def following(link: str) -> str:
    """The query of the next page (RFC 8288)."""
    if 'rel="next"' not in link:
        return ""
    return link.partition("<")[2].partition(">")[0].partition("?")[2]


def _unknown(found: Refusal, otherwise: str = "manifest unknown: manifest unknown") -> str:
    return found.text if found.code else otherwise


def _skipped(response: Response, offset: int) -> int:
    """Bytes at the start of the answer that are here already: a server need not know ranges."""
    if response.status == 200:
        return offset
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    if unit != "bytes" or rest.partition("-")[0] != str(offset):
        raise Corrupt(f"{response.url}: asked for bytes from {offset}, got {rest!r}")
    return 0


def check_passing(response: Response, target: Target) -> None:
    """Raises where the status is one that passes."""
    if response.status not in _PASSING:
        return
    after = response.headers.get("Retry-After", "")
    words = "toomanyrequests: " if response.status == 429 else ""
    raise _Again(
        f'{target.method.title()} "{target.url}": {words}received unexpected HTTP status: {response.status} '
        f"{response.reason or ''}".rstrip(),
        float(after) if after.isdigit() else None,
    )


async def pause(attempt: int, error: Unavailable) -> None:
    """Longer each time, and as long as the server says; the spread keeps clients from coming back all at once."""
    seconds = min(0.1 * 3 ** (attempt - 1), 10.0) * random.uniform(0.7, 1.3)
    if isinstance(error, _Again) and error.after is not None:
        seconds = min(error.after, _LONGEST)
    await asyncio.sleep(seconds)


async def persistent(work: Callable[[], Awaitable[T]]) -> T:
    """The result of a request that may be repeated; where nobody listens, it is not."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await work()
        except Unreachable:
            raise
        except Unavailable as error:
            await pause(attempt, error)
    return await work()


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    manifests: object = msgspec.UNSET
    layers: object = msgspec.UNSET
    config: object = msgspec.UNSET
    fs_layers: object = msgspec.UNSET


def checked_manifest(name: Reference, reference: str, headers: object, data: bytes) -> ManifestData:
    """The manifest in an answer; Corrupt where it is not what was asked for, or says that it is two things at once
    (CVE-2021-41190)."""
    assert hasattr(headers, "get")
    said = str(headers.get("Content-Type", "")).partition(";")[0].strip().lower()
    wanted = reference if ":" in reference else str(headers.get("Docker-Content-Digest", ""))
    found = digests.of(data, digests.algorithm_of(digests.parse(wanted)) if wanted else "sha256")
    if wanted and found != wanted:
        raise Corrupt(f"manifest verification failed for digest {wanted}")
    try:
        shape = msgspec.json.decode(data, type=_Shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Corrupt(f"manifest of {name.familiar_name}: {error}") from error
    if said in _SCHEMA_1 or (shape.schema_version == 1 and shape.fs_layers is not msgspec.UNSET):
        raise InvalidArgument(
            "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has "
            f"been removed. Suggest the author of {name.familiar_name}:{reference} to upgrade the image to the OCI "
            "Format or Docker Image manifest v2, schema 2. More information at "
            "https://docs.docker.com/go/deprecated-image-specs/"
        )
    media_type = shape.media_type or said
    known = documents.INDEXES | documents.MANIFESTS
    if shape.media_type and said in known and shape.media_type != said:
        raise Corrupt(f"mediaType in manifest should be '{said}' not '{shape.media_type}'")
    if media_type not in known:
        media_type = documents.OCI_INDEX if shape.manifests is not msgspec.UNSET else documents.OCI_MANIFEST
    is_index = media_type in documents.INDEXES
    wrong = (shape.layers, shape.config) if is_index else (shape.manifests,)
    if any(part is not msgspec.UNSET for part in wrong) or shape.schema_version != 2:
        raise Corrupt(f"manifest of {name.familiar_name} is not what its type {media_type} says")
    return ManifestData(media_type, found, data)


@asynccontextmanager
async def open_repository(
    name: Reference, credentials: Credentials, rules: Rules, agent: str, *, push: bool = False
) -> AsyncIterator[Repository]:
    """A repository with the endpoints that answer, each asked once what it wants to know of us."""
    rules = await looked_up(name.domain, rules)
    async with Transport(rules, credentials, agent) as transport:
        candidates = [one for one in endpoints(name.domain, rules) if not (push and one.mirror)]
        reached = await reachable(transport, candidates)
        yield Repository(transport, name, reached, "pull,push" if push else "pull")


async def reachable(transport: Transport, candidates: list[Endpoint]) -> list[Endpoint]:
    """The mirrors that answer, then the one endpoint of the registry itself that does; its error where none does."""
    found: list[Endpoint] = []
    failed: HafenError | None = None
    for endpoint in candidates:
        ask = partial(_ping, transport, endpoint)
        try:
            await (ask() if endpoint.mirror else persistent(ask))
        except (Unavailable, System, NotFound) as error:
            failed = error
            continue
        found.append(endpoint)
        if not endpoint.mirror:
            break
    if not found:
        raise failed or System("there is no endpoint to ask")
    return found


async def _ping(transport: Transport, endpoint: Endpoint) -> None:
    """`GET /v2/`: whether a registry is there, and how it wants to be authenticated to."""
    target = Target("GET", f"{endpoint.base}/")
    async with transport.ping(endpoint, target) as response:
        if response.status not in (200, 401, 404):  # 404: a proxy's path may serve repositories alone
            check_passing(response, target)
            raise System(f'Get "{target.url}": {(await refusal(response)).text}')
