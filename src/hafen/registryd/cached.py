"""Requests for names of other registries: what is missing is fetched first, the rest goes as for what was pushed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hafen.errors import Forbidden
from hafen.http.message import Answer, Reply, StreamReply
from hafen.registryd import blobs, manifests
from hafen.registryd.request import Parts, Request
from hafen.spec import image as documents
from hafen.spec.wire.image import Descriptor

if TYPE_CHECKING:  # its HTTP library is imported where something is cached
    from hafen.registryd.cache import Cache

Handler = Callable[[Request, Parts], Awaitable[Answer]]


async def answer(cache: Cache, request: Request, parts: Parts, handler: Handler) -> Answer:
    """Forbidden for what would push."""
    if request.method == "DELETE" and request.kind != "uploads":
        return await handler(request, parts)  # of what is cached; it may come again
    if request.method not in ("GET", "HEAD") or request.kind == "uploads":
        proxy = cache.proxy(request.name)
        raise Forbidden(f"{request.name} is cached from {proxy.url if proxy else ''}: nothing can be pushed to it here")
    if request.kind == "manifests":
        await cache.freshen(request.name, request.rest if ":" not in request.rest else request.digest())
    elif request.kind == "blobs":
        return await _blob(cache, request, parts)
    elif request.kind == "tags" and request.rest == "list":
        return manifests.listing(request, await cache.tags(request.name))
    elif request.kind == "referrers":
        found = await cache.referrers(request.name, request.digest())
        if found is not None:
            return _referrers(found, request.first("artifactType"))
    return await handler(request, parts)


def _referrers(found: list[Descriptor], wanted: str) -> Answer:
    chosen = [one for one in found if not wanted or one.artifact_type == wanted]
    index = documents.encode(documents.Index(media_type=documents.OCI_INDEX, manifests=chosen))
    return Reply(200, index, documents.OCI_INDEX, (("OCI-Filters-Applied", "artifactType"),) if wanted else ())


async def _blob(cache: Cache, request: Request, parts: Parts) -> Answer:
    digest = request.digest()
    holder = cache.holder(request.name, digest, lambda name: parts.access.grants(request.who, name, "pull"))
    if holder is not None:
        return await blobs.get(replace(request, name=holder), parts)
    headers: tuple[tuple[str, str], ...] = (
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
    )
    if request.method == "HEAD":
        return Reply(200, b"", blobs.OCTETS, headers, length=await cache.size(request.name, digest))
    download = await cache.download(request.name, digest)
    await download.wait_begun()
    wanted = blobs.byte_range(request.headers.get("range", ""), download.size)
    if wanted is None:
        return StreamReply(download.read(0, download.size), blobs.OCTETS, headers, length=download.size)
    first, count = wanted
    headers = (*headers, ("Content-Range", f"bytes {first}-{first + count - 1}/{download.size}"))
    return StreamReply(download.read(first, count), blobs.OCTETS, headers, 206, count)
