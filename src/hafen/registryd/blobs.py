"""Blobs: GET and HEAD with ranges, DELETE; uploads in one request, in two, in chunks; mounts."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from typing import BinaryIO, Final

from hafen.errors import HafenError, NotFound
from hafen.http.message import Answer, FileReply, Reply
from hafen.registryd.errors import (
    BlobUnknown,
    DigestInvalid,
    Headers,
    QuotaExceeded,
    RangeInvalid,
    SizeInvalid,
    Unsupported,
)
from hafen.registryd.quotas import exceeded
from hafen.registryd.request import Parts, Request, parse_digest, warning
from hafen.registryd.uploads import Upload
from hafen.spec.digest import Digest

BATCH: Final = 2 << 20  # bytes of an upload that are written and hashed at a time
OCTETS: Final = "application/octet-stream"
_FOREVER: Final = ("Cache-Control", "max-age=31536000")  # seconds: content by digest does not change

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_CHUNK_RANGE: Final = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/.*)?", re.ASCII)


async def get(request: Request, parts: Parts) -> Answer:
    """A blob whose file is lost, or is of another size, is not there: a client that is told so pushes it again."""
    digest = request.digest()
    size = parts.rows.linked(request.name, digest)
    if size is None:
        raise _unknown(digest)
    headers: Headers = (
        ("Docker-Content-Digest", digest), ("ETag", f'"{digest}"'), _FOREVER, ("Accept-Ranges", "bytes"),
    )  # fmt: skip
    if request.method == "HEAD":
        if parts.blobs.size(digest) != size:
            raise _unknown(digest)
        parts.collector.renew(request.name, digest)
        return Reply(200, b"", OCTETS, headers, length=size)
    if request.headers.get("if-none-match") == f'"{digest}"':
        return Reply(304, headers=headers)
    wanted = byte_range(request.headers.get("range", ""), size)
    file = _opened(digest, size, parts)
    if wanted is None:
        return FileReply(file, 0, size, OCTETS, headers)
    first, count = wanted
    headers = (*headers, ("Content-Range", f"bytes {first}-{first + count - 1}/{size}"))
    return FileReply(file, first, count, OCTETS, headers, status=206)


def _opened(digest: Digest, size: int, parts: Parts) -> BinaryIO:
    try:
        file = parts.blobs.open(digest)
    except NotFound:
        raise _unknown(digest) from None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise _unknown(digest)
    return file


def _unknown(digest: Digest) -> BlobUnknown:
    return BlobUnknown(f"blob unknown to registry: {digest}")


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """(first byte, how many) of a Range header; None for all of it, also where several ranges are asked for, which a
    server may ignore (RFC 9110, section 14.2). RangeInvalid where there is no such byte."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    if found[1] == "":
        count = min(_position(found[2]), size)
        first = size - count
    else:
        first = _position(found[1])
        count = min(_position(found[2]) + 1 if found[2] else size, size) - first
    if count <= 0:
        raise RangeInvalid(
            f"invalid range {header!r} of a blob of {size} bytes", (("Content-Range", f"bytes */{size}"),)
        )
    return first, count


def _position(digits: str) -> int:
    """Of numbers that no file reaches, one that none reaches either: `int` refuses those of thousands of digits."""
    return int(digits.lstrip("0")[:19] or "0")


async def delete(request: Request, parts: Parts) -> Answer:
    if not parts.may_delete:
        raise Unsupported("deletion is switched off")
    digest = request.digest()
    if not parts.rows.unlink(request.name, digest):
        raise _unknown(digest)
    broken = warning(digest, parts.rows.needing(request.name, digest))
    return Reply(202, headers=(("Docker-Content-Digest", digest), *broken))


# Uploads


async def begin(request: Request, parts: Parts) -> Answer:
    """POST: a mount, a whole blob, or the begin of an upload."""
    if "mount" in request.query and (mounted := _mount(request, parts)) is not None:
        return mounted
    whole = request.first("digest")
    digest = parse_digest(whole) if whole else None
    algorithm = (whole.partition(":")[0] if whole else request.first("digest-algorithm")) or "sha256"
    if algorithm not in ("sha256", "sha512"):
        raise DigestInvalid(f"unsupported digest algorithm {algorithm!r}: sha256 and sha512 are known")
    upload = parts.uploads.begin(request.name, algorithm)
    if digest is None:
        return Reply(202, headers=_progress(request, upload))
    try:
        await _receive(request, parts, upload, upload.begin(0), digest)
    except BaseException:
        await parts.completed(_drop(parts, upload))
        raise
    return await parts.completed(_commit_or_drop(request, parts, upload, digest))


def _mount(request: Request, parts: Parts) -> Answer | None:
    """None where the blob is not where the client says, or may not be read there: it has to be pushed."""
    digest = parse_digest(request.first("mount"))
    source = request.first("from")
    holders = [source] if source else parts.rows.holders(digest)
    for holder in holders:
        size = parts.rows.linked(holder, digest)
        if size is not None and parts.blobs.size(digest) == size and parts.access.may(request.who, holder, "pull"):
            parts.quotas.require(request.name, digest, size)
            parts.rows.link(request.name, digest, size)
            return _created(request, digest)
    return None


async def status(request: Request, parts: Parts) -> Answer:
    return Reply(204, headers=_progress(request, parts.uploads.find(request.name, request.rest)))


async def cancel(request: Request, parts: Parts) -> Answer:
    upload = parts.uploads.find(request.name, request.rest)
    await parts.completed(_drop(parts, upload))
    return Reply(204)


async def append(request: Request, parts: Parts) -> Answer:
    """PATCH: the next bytes."""
    upload = parts.uploads.find(request.name, request.rest)
    await _receive(request, parts, upload, await _turn(request, parts, upload))
    return Reply(202, headers=_progress(request, upload))


async def finish(request: Request, parts: Parts) -> Answer:
    """PUT: the last bytes, if any, and the digest of all."""
    upload = parts.uploads.find(request.name, request.rest)
    digest = parse_digest(request.first("digest"))
    await _receive(request, parts, upload, await _turn(request, parts, upload), digest)
    return await parts.completed(_commit(request, parts, upload, digest))


async def _turn(request: Request, parts: Parts, upload: Upload) -> int:
    """A turn at writing; a client whose chunk does not fit is told which one does."""
    try:
        return await parts.in_thread(upload.begin, _chunk_start(request))
    except RangeInvalid as error:
        raise RangeInvalid(error.message, _progress(request, upload)) from None


def _chunk_start(request: Request) -> int | None:
    """Where the chunk says that it begins; SizeInvalid where it has another length than it says."""
    header = request.headers.get("content-range")
    if header is None:
        return None
    found = _CHUNK_RANGE.fullmatch(header.strip())
    if found is None:
        raise RangeInvalid(f"invalid Content-Range {header!r}")
    first, last = int(found[1]), int(found[2])
    if request.body.length is not None and last - first + 1 != request.body.length:
        raise SizeInvalid(f"Content-Range {header!r} does not agree with Content-Length {request.body.length}")
    return first


async def _receive(request: Request, parts: Parts, upload: Upload, turn: int, digest: Digest | None = None) -> None:
    """The body into the upload. QuotaExceeded, and the upload is over, where it cannot become a blob; what of a body is
    too much is not waited for."""
    room = parts.quotas.room(request.name, digest)
    try:
        if room is not None and upload.size + (request.body.length or 0) > room:
            raise exceeded(request.name, upload.size + (request.body.length or 0), room)
        await _write(request, parts, upload, turn, room)
    except QuotaExceeded:
        await parts.completed(_drop(parts, upload))
        raise


async def _write(request: Request, parts: Parts, upload: Upload, turn: int, room: int | None) -> None:
    """A batch is written while the next one arrives."""
    total = upload.size
    pieces: list[bytes] = []
    size = 0
    writing: asyncio.Future[None] | None = None
    try:
        async for piece in request.body:
            pieces.append(piece)
            size += len(piece)
            total += len(piece)
            if room is not None and total > room:
                raise exceeded(request.name, total, room)
            if size >= BATCH:
                if writing:
                    await writing
                writing = parts.in_thread(upload.write, turn, pieces)
                pieces, size = [], 0
    finally:
        # Also where the client has gone: what has arrived counts, for it to go on from.
        if pieces:
            if writing:
                with suppress(HafenError, OSError):  # the next write meets the same, and tells of it
                    await writing
            writing = parts.in_thread(upload.write, turn, pieces)
        if writing:
            await writing


async def _commit(request: Request, parts: Parts, upload: Upload, digest: Digest) -> Answer:
    """The upload becomes the repository's blob; where that fails it may stay, for another try. A client that gives up
    waiting finds the blob there later: it was sent whole."""
    with parts.leases.operation() as lease:
        lease.hold(digest)
        try:
            await parts.in_thread(upload.finish, digest, parts.blobs)
        except DigestInvalid:
            parts.uploads.forget(upload)
            raise
        parts.uploads.forget(upload)
        parts.quotas.require(request.name, digest, upload.size)  # others may have been quicker
        parts.rows.link(request.name, digest, upload.size)
    return _created(request, digest)


async def _commit_or_drop(request: Request, parts: Parts, upload: Upload, digest: Digest) -> Answer:
    """Of an upload whose client has no place to try again at."""
    try:
        return await _commit(request, parts, upload, digest)
    except BaseException:
        await _drop(parts, upload)
        raise


async def _drop(parts: Parts, upload: Upload) -> None:
    await parts.in_thread(upload.drop)  # which waits for a write in progress
    parts.uploads.forget(upload)


def _created(request: Request, digest: Digest) -> Reply:
    location = f"/v2/{request.name}/blobs/{digest}"
    return Reply(201, headers=(("Location", location), ("Docker-Content-Digest", digest)))


def _progress(request: Request, upload: Upload) -> Headers:
    """Where to go on, and what is here: `Range` ends with the last byte's offset, 0 also where there is none."""
    return (
        ("Location", f"/v2/{request.name}/blobs/uploads/{upload.identifier}"),
        ("Range", f"0-{max(upload.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.identifier),
    )
