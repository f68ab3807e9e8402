"""Requests for names of the engine's images: they are read, never pushed to or deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from hafen.errors import Forbidden
from hafen.http.message import Answer, FileReply, Reply, StreamReply
from hafen.registryd import blobs, manifests
from hafen.registryd.errors import BlobUnknown, ManifestUnknown, NameUnknown
from hafen.registryd.request import Parts, Request

if TYPE_CHECKING:  # a registry by itself has no engine
    from hafen.engine.offer import Offer

Handler = Callable[[Request, Parts], Awaitable[Answer]]


async def answer(offer: Offer, request: Request, parts: Parts, handler: Handler) -> Answer:
    """Forbidden for what would change something."""
    path = request.name.removeprefix(f"{offer.prefix}/")
    if request.method not in ("GET", "HEAD") or request.kind == "uploads":
        raise Forbidden(f"{request.name} is an image of this machine's engine: it can only be pulled here")
    if request.kind == "manifests":
        return await _manifest(offer, path, request)
    if request.kind == "blobs":
        return await _blob(offer, path, request, parts)
    if request.kind == "tags" and request.rest == "list":
        tags = offer.tags(path)
        if not tags:
            raise NameUnknown(f"repository name not known to registry: {request.name}")
        return manifests.listing(request, tags)
    return await handler(request, parts)  # there are no referrers


async def _manifest(offer: Offer, path: str, request: Request) -> Answer:
    found = await offer.manifest(path, request.digest() if ":" in request.rest else request.rest)
    if found is None:
        raise ManifestUnknown(f"manifest unknown: {request.name} has no {request.rest}")
    headers = (("Docker-Content-Digest", found.digest), ("ETag", f'"{found.digest}"'))
    if request.method == "HEAD":
        return Reply(200, b"", found.media_type, headers, length=len(found.data))
    return Reply(200, found.data, found.media_type, headers)


async def _blob(offer: Offer, path: str, request: Request, parts: Parts) -> Answer:
    digest = request.digest()
    found = await offer.blob(path, digest)
    if found is None:
        raise BlobUnknown(f"blob unknown to registry: {digest}")
    size = found if isinstance(found, int) else found.size
    headers: tuple[tuple[str, str], ...] = (("Docker-Content-Digest", digest), ("Accept-Ranges", "bytes"))
    if request.method == "HEAD":
        return Reply(200, b"", blobs.OCTETS, headers, length=size)
    wanted = blobs.byte_range(request.headers.get("range", ""), size)
    first, count = wanted or (0, size)
    if wanted is not None:
        headers = (*headers, ("Content-Range", f"bytes {first}-{first + count - 1}/{size}"))
    status = 200 if wanted is None else 206
    if isinstance(found, int):
        return FileReply(parts.blobs.open(digest), first, count, blobs.OCTETS, headers, status)
    return StreamReply(offer.chunks(found, first, count), blobs.OCTETS, headers, status, count)
