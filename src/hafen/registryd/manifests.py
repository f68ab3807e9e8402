"""Manifests by tag and digest, listings of tags, referrers and repositories."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote, urlencode

from hafen.errors import Corrupt, NotFound
from hafen.http.message import Answer, Reply
from hafen.registryd import manifest as manifests
from hafen.registryd.access import Identity
from hafen.registryd.errors import (
    DigestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameUnknown,
    TagInvalid,
    Unsupported,
)
from hafen.registryd.request import Parts, Request, page_size, parse_digest, warning
from hafen.registryd.rows import Stored
from hafen.registryd.webhooks import Target
from hafen.spec import digest as digests
from hafen.spec import reference
from hafen.spec.digest import Digest

MAX_PAGE: Final = 1000
MAX_PAGE_SIZE: Final = 2 << 20  # bytes of annotations in a page of referrers: clients read answers of 4 MiB
_ALL_TAGS: Final = 1 << 30  # a listing of tags without `n` is whole

Headers = tuple[tuple[str, str], ...]


async def get(request: Request, parts: Parts) -> Answer:
    stored = parts.rows.manifest(request.name, parse_digest(request.rest) if ":" in request.rest else request.rest)
    if stored is None:
        raise _unknown(request)
    headers: Headers = (("Docker-Content-Digest", stored.digest), ("ETag", f'"{stored.digest}"'))
    if request.headers.get("if-none-match") == f'"{stored.digest}"':
        return Reply(304, headers=headers)
    if request.method == "HEAD":
        if parts.blobs.size(stored.digest) != stored.size:
            raise _unknown(request)
        if ":" in request.rest:
            parts.collector.renew(request.name, stored.digest)
        return Reply(200, b"", stored.media_type, headers, length=stored.size)
    try:
        return Reply(200, parts.blobs.read(stored.digest), stored.media_type, headers)
    except (NotFound, Corrupt):
        if parts.blobs.size(stored.digest) != stored.size:
            raise _unknown(request) from None
        raise


def _unknown(request: Request) -> ManifestUnknown:
    """Also of what has been lost, so that clients push it again."""
    return ManifestUnknown(f"manifest unknown: {request.name} has no {request.rest}")


async def put(request: Request, parts: Parts) -> Answer:
    tags = request.query.get("tag", [])
    expected = parse_digest(request.rest) if ":" in request.rest else None
    every = tags if expected else [request.rest, *tags]
    for tag in every:
        if not reference.is_tag(tag):
            raise TagInvalid(f"invalid tag: {tag!r}")
    data = await _read(request)
    digest = digests.of(data, digests.algorithm_of(expected) if expected else "sha256")
    if expected is not None and digest != expected:
        raise DigestInvalid(f"provided digest did not match uploaded content: {expected}, the data is {digest}")
    manifest = manifests.parse(data, request.headers.get("content-type", ""))
    parts.rows.check(request.name, manifest)
    with parts.leases.operation() as lease:
        lease.hold(digest)
        if not (parts.rows.knows_manifest(digest) and _is_whole(digest, parts)):
            await parts.in_thread(parts.blobs.put, data, digest)
        with parts.rows.together():
            parts.quotas.require(request.name, digest, len(data))
            parts.rows.put(request.name, digest, len(data), manifest, every)
            for tag in every or [""]:
                target = Target(request.name, digest, len(data), manifest.media_type, tag)
                parts.webhooks.record("push", target, request.origin())
    headers: Headers = (
        ("Location", f"/v2/{request.name}/manifests/{digest}"), ("Docker-Content-Digest", digest),
    )  # fmt: skip
    if manifest.subject is not None:
        headers = (*headers, ("OCI-Subject", manifest.subject))
    return Reply(201, headers=(*headers, *(("OCI-Tag", tag) for tag in tags)))


def _is_whole(digest: Digest, parts: Parts) -> bool:
    try:
        parts.blobs.read(digest)
    except (NotFound, Corrupt):
        return False
    return True


async def _read(request: Request) -> bytes:
    pieces, size = [], request.body.length or 0
    if size <= manifests.MAX_SIZE:
        size = 0
        async for piece in request.body:
            pieces.append(piece)
            size += len(piece)
            if size > manifests.MAX_SIZE:
                break
    if size > manifests.MAX_SIZE:
        raise ManifestTooLarge(f"a manifest may have {manifests.MAX_SIZE} bytes")
    return b"".join(pieces)


async def delete(request: Request, parts: Parts) -> Answer:
    if not parts.may_delete:
        raise Unsupported("deletion is switched off")
    digest = parse_digest(request.rest) if ":" in request.rest else None
    with parts.rows.together():
        if digest:
            found = parts.rows.remove_manifest(request.name, digest)
        else:
            found = parts.rows.remove_tag(request.name, request.rest)
        if not found:
            raise ManifestUnknown(f"manifest unknown: {request.name} has no {request.rest}")
        target = Target(request.name, digest) if digest else Target(request.name, tag=request.rest)
        parts.webhooks.record("delete", target, request.origin())
    return Reply(202, headers=warning(digest, parts.rows.needing(request.name, digest)) if digest else ())


async def tags(request: Request, parts: Parts) -> Answer:
    if request.rest != "list":
        raise Unsupported(f"/tags/{request.rest} is not part of the specification")
    if not parts.rows.exists(request.name):
        raise NameUnknown(f"repository name not known to registry: {request.name}")
    last, limit = request.page(_ALL_TAGS)
    found = parts.rows.tags(request.name, last, limit + 1)
    names, more = found[:limit], len(found) > limit > 0
    link = next_page(f"/v2/{request.name}/tags/list", names, limit) if more else ()
    return _json({"name": request.name, "tags": names}, headers=link)


def listing(request: Request, found: list[str]) -> Reply:
    """A page of tags that are not the database's."""

    def order(tag: str) -> tuple[str, str]:
        return tag.lower(), tag

    last, limit = request.page(_ALL_TAGS)
    rest = [name for name in sorted(found, key=order) if not last or order(name) > order(last)]
    names, more = rest[:limit], len(rest) > limit > 0
    link = next_page(f"/v2/{request.name}/tags/list", names, limit) if more else ()
    return _json({"name": request.name, "tags": names}, headers=link)


async def catalogue(query: dict[str, list[str]], who: Identity, parts: Parts) -> Answer:
    limit = page_size(query.get("n", [""])[0], MAX_PAGE)
    last = query.get("last", [""])[0]
    names: list[str] = []
    while len(names) <= limit and (found := parts.rows.repositories(last, MAX_PAGE)):
        names += [name for name in found if parts.access.grants(who, name, "pull")]
        last = found[-1]
    more = len(names) > limit > 0
    link = next_page("/v2/_catalog", names[:limit], limit) if more else ()
    return _json({"repositories": names[:limit]}, headers=link)


async def referrers(request: Request, parts: Parts) -> Answer:
    subject = request.digest()
    wanted = request.first("artifactType")
    last = request.first("last")
    found, more = parts.rows.referrers(request.name, subject, wanted, last, MAX_PAGE, MAX_PAGE_SIZE)
    headers: Headers = (("OCI-Filters-Applied", "artifactType"),) if wanted else ()
    if more:
        following = {"last": found[-1].digest, **({"artifactType": wanted} if wanted else {})}
        headers = (*headers, _link(f"/v2/{request.name}/referrers/{subject}", following))
    index = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_INDEX,
        "manifests": [_descriptor(stored) for stored in found],
    }
    return _json(index, manifests.OCI_INDEX, headers)


def _descriptor(stored: Stored) -> dict[str, object]:
    descriptor: dict[str, object] = {"mediaType": stored.media_type, "digest": stored.digest, "size": stored.size}
    if stored.artifact_type:
        descriptor["artifactType"] = stored.artifact_type
    annotations = json.loads(stored.annotations)
    return {**descriptor, "annotations": annotations} if annotations else descriptor


def next_page(path: str, names: list[str], limit: int) -> Headers:
    """The header that tells where a listing goes on."""
    return (_link(path, {"last": names[-1], "n": str(limit)}),)


def _link(path: str, query: dict[str, str]) -> tuple[str, str]:
    """RFC 8288, as the specification pages."""
    return "Link", f'<{quote(path, safe="/:")}?{urlencode(query)}>; rel="next"'


def _json(value: object, content_type: str = "application/json", headers: Headers = ()) -> Reply:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Reply(200, text.encode() + b"\n", content_type, headers)
