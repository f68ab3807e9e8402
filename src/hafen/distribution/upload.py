"""Bring blobs and manifests to a registry: look first, mount from a neighbour, upload, resume.

distribution-spec 1.1, "Push"
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, urlsplit

from hafen.distribution.repository import ATTEMPTS, Repository, check_passing, pause, persistent
from hafen.distribution.transport import Refusal, Response, Target, refusal, resolved
from hafen.errors import Corrupt, Forbidden, HafenError, System, Unauthorized, Unavailable
from hafen.spec.digest import Digest

# What beginning anew can help against: a session that is gone, bytes that were spoilt on their way.
_LOST = ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID")

Open = Callable[[int], AsyncIterator[bytes]]
"""A blob's bytes from an offset, anew at each call."""


@dataclass(frozen=True, slots=True)
class _Blob:
    """What to upload: `size` in bytes."""

    digest: Digest
    size: int
    open: Open


class Uploader:
    """Uploads to one repository that was opened for pushing."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def size(self, digest: Digest) -> int | None:
        """Bytes of a blob that the repository has; None where it has it not."""
        return await persistent(partial(self._size, digest))

    async def _size(self, digest: Digest) -> int | None:
        target = self._target("HEAD", f"blobs/{digest}")
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status == 200:
                length = response.headers.get("Content-Length", "")
                return int(length) if length.isdigit() else None
            if response.status != 404:
                raise await _refused(response, target)
            return None

    async def mount(self, digest: Digest, path: str) -> bool:
        """Take a blob from the repository `path` of the same registry; whether that was possible."""
        try:
            return await persistent(partial(self._mount, digest, path))
        except Unauthorized:
            return False  # of the other repository

    async def _mount(self, digest: Digest, path: str) -> bool:
        scope = (*self._repository.scope, f"repository:{path}:pull")
        target = self._target("POST", f"blobs/uploads/?mount={digest}&from={quote(path, safe='/')}", scope)
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status == 202:
                await self._cancel(_location(response, target))
            elif response.status not in (201, 401, 403, 404, 405):
                raise await _refused(response, target)
            return response.status == 201

    async def _cancel(self, location: str) -> None:
        """A session that nobody uses: some registries limit how many there are."""
        async with self._repository.transport.request(self._repository.endpoint, self._target("DELETE", location)):
            pass

    async def upload(self, digest: Digest, size: int, open: Open, sent: Callable[[int], None]) -> None:
        """The whole blob; `sent` is told how many bytes are there. Goes on where a broken connection left off."""
        blob = _Blob(digest, size, open)
        attempt, location, offset, reached = 0, "", 0, 0
        while True:
            try:
                if attempt and await self.size(digest) is not None:
                    return  # only the last answer was lost
                if not location:
                    location, offset = await self._begin(), 0
                elif attempt:
                    location, offset = await self._progress(location)
                    if offset > reached:  # only what was in vain is counted
                        attempt, reached = 1, offset
                location = await self._send(blob, location, offset, sent)
                await self._finish(blob, location)
                return
            except Unavailable as error:
                location = "" if isinstance(error, _Gone) else location
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise
                await pause(attempt, error)

    async def _begin(self) -> str:
        target = self._target("POST", "blobs/uploads/")
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status != 202:
                raise await _refused(response, target)
            return _location(response, target)

    async def _progress(self, location: str) -> tuple[str, int]:
        """Where an upload goes on, and from which byte."""
        target = self._target("GET", location)
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status not in (202, 204):
                check_passing(response, target)
                raise _Gone(f"upload session is lost: status {response.status}")
            last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")[2]
            if not last.isdigit() or last == "0":  # registries say 0-0 of nothing, too
                raise _Gone(f"upload session is lost: it has the range {response.headers.get('Range')}")
            return _location(response, target), int(last) + 1

    async def _send(self, blob: _Blob, location: str, offset: int, sent: Callable[[int], None]) -> str:
        if offset >= blob.size:
            return location
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size - offset)}
        if offset:
            headers["Content-Range"] = f"{offset}-{blob.size - 1}"

        async def pieces() -> AsyncIterator[bytes]:
            position = offset
            async for piece in blob.open(offset):
                yield piece
                position += len(piece)
                sent(position)

        target = self._target("PATCH", location, headers=headers, body=pieces())
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status in (404, 416):
                raise _Gone(f"upload session is lost: status {response.status}")
            if response.status not in (201, 202, 204):
                raise await _refused(response, target)
            return _location(response, target)

    async def _finish(self, blob: _Blob, location: str) -> None:
        separator = "&" if urlsplit(location).query else "?"
        headers = {"Content-Length": "0", "Content-Type": "application/octet-stream"}
        target = self._target("PUT", f"{location}{separator}digest={quote(blob.digest)}", headers=headers, body=b"")
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status not in (201, 204):
                check_passing(response, target)
                found = await refusal(response)
                raise _Gone(found.text) if found.status == 404 or found.code in _LOST else _error(found)

    async def manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Name it by a tag or its digest."""
        target = self._target("PUT", f"manifests/{reference}", headers={"Content-Type": media_type}, body=data)
        await persistent(partial(self._manifest, target))

    async def _manifest(self, target: Target) -> None:
        async with self._repository.transport.request(self._repository.endpoint, target) as response:
            if response.status not in (200, 201, 202):
                raise await _refused(response, target)

    def _target(
        self,
        method: str,
        where: str,
        scope: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> Target:
        url = where if "://" in where else self._repository.url(where)
        return Target(method, url, scope or self._repository.scope, headers or {}, body, method in ("HEAD", "GET"))


class _Gone(Unavailable):
    """The registry has forgotten the upload: it begins anew."""


def _location(response: Response, target: Target) -> str:
    location = response.headers.get("Location", "")
    found = resolved(str(response.url), location)
    if found is None:
        raise Corrupt(f'{target.method.title()} "{target.url}": the answer names no place to upload to')
    return found


async def _refused(response: Response, target: Target) -> HafenError:
    check_passing(response, target)
    if target.method == "HEAD":  # an answer without a body tells no more
        words = {
            401: "unauthorized: authentication required",
            403: "denied: requested access to the resource is denied",
        }
        if response.status in words:
            return Forbidden(words[response.status])
    return _error(await refusal(response))


def _error(found: Refusal) -> HafenError:
    return Forbidden(found.text) if found.status in (401, 403) else System(found.text)
