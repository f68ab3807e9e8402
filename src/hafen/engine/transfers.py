"""What the transfers of one engine share: locks by digest, and how many run at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from hafen.spec.digest import Digest

DOWNLOADS = 3  # Docker's max-concurrent-downloads and -uploads
UPLOADS = 5


Open = Callable[[int], AsyncIterator[bytes]]
"""The bytes of a blob from an offset on."""


class Uploader(Protocol):
    """What is needed of `distribution.upload.Uploader`."""

    async def size(self, digest: Digest) -> int | None: ...

    async def mount(self, digest: Digest, path: str) -> bool: ...

    async def upload(self, digest: Digest, size: int, open: Open, sent: Callable[[int], None]) -> None: ...

    async def manifest(self, reference: str, media_type: str, data: bytes) -> None: ...


class Transfers:
    """Loop thread only."""

    def __init__(self, downloads: int = DOWNLOADS, uploads: int = UPLOADS) -> None:
        self.downloads = asyncio.Semaphore(downloads)
        self.uploads = asyncio.Semaphore(uploads)
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """One at a time for each key: who comes second finds what the first has brought. Keys say what they are of
        beside the digest: a stranger's manifest may call one blob the configuration and a layer, and who holds the one
        waits for the other."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1


def first_error(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Several layers can fail at once, and mostly of one cause."""
    error = failed.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
