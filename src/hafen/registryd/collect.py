"""Collection by reference, while pushes go on: links that no manifest needs, then bytes that no row names.

A push brings its blobs before the manifest that needs them, so a link that nothing needs stays for a time of grace,
which begins anew whenever a client is told that the blob is there: a client that was told so does not push it again.
These renewals live in memory, so for the time of grace after a start no link is taken for needless.

What is being committed has no row yet; its digest is held as a lease until it has. Everything that decides runs on the
loop's thread without a pause between the last question and the deed, as the handlers of requests do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from hafen.registryd.rows import Rows
from hafen.registryd.store import Blobs
from hafen.registryd.uploads import Uploads
from hafen.spec.digest import Digest
from hafen.storage.collect import Leases

_BATCH = 200  # blobs looked at before other work has its turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """All in seconds: how often to collect, and to apply the rules of retention; how long a blob may wait for its
    manifest, an upload for its next byte."""

    interval: float = 600.0
    retention: float = 3600.0
    grace: float = 24 * 3600.0
    upload: float = 24 * 3600.0


InThread = Callable[[Callable[[], object]], Awaitable[object]]


class Sweep(Protocol):
    """Removal of blobs that nothing needs."""

    async def __call__(self, in_thread: InThread) -> int:
        """How many went away."""


class BlobSweep:
    """Over a content store that is the registry's alone."""

    def __init__(self, rows: Rows, blobs: Blobs, leases: Leases) -> None:
        self._rows = rows
        self._blobs = blobs
        self._leases = leases

    async def __call__(self, in_thread: InThread) -> int:
        found: list[Digest] = []
        await in_thread(lambda: found.extend(self._blobs.all()))
        removed = 0
        for start in range(0, len(found), _BATCH):
            for digest in found[start : start + _BATCH]:
                if digest not in self._leases.held and not self._rows.known(digest):
                    self._blobs.bury(digest)
                    removed += 1
            await asyncio.sleep(0)
        await in_thread(self._blobs.empty_grave)
        return removed


class Collector:
    def __init__(self, rows: Rows, uploads: Uploads, sweep: Sweep, limits: Limits) -> None:
        self._rows = rows
        self._uploads = uploads
        self._sweep = sweep
        self._limits = limits
        self._started = time.time()
        self._renewed: dict[tuple[str, Digest], float] = {}
        self.collections = 0  # since the start, as the next two
        self.failed = 0
        self.removed = 0  # blobs

    def renew(self, repository: str, digest: Digest) -> None:
        """A client has been told that the blob or manifest is there."""
        self._renewed[repository, digest] = time.time()

    def fresh(self, repository: str, digest: Digest, since: float) -> bool:
        """Whether a manifest that was last pushed then may wait for an index that is about to need it."""
        return max(since, self._renewed.get((repository, digest), 0.0)) >= time.time() - self._limits.grace

    async def run(self, in_thread: InThread, before: Callable[[], Awaitable[None]]) -> None:
        """Collect again and again, each time after `before`, which may make something needless. What fails is told in
        the log, and tried again the next time."""
        while True:
            await asyncio.sleep(self._limits.interval)
            try:
                await before()
                await self.collect(in_thread)
            except Exception:
                self.failed += 1
                log.exception("garbage collection failed")

    async def collect(self, in_thread: InThread) -> None:
        expired = self._uploads.expire(self._limits.upload)
        await self._drop_needless()
        removed = await self._sweep(in_thread)
        self.removed += removed
        self.collections += 1
        if removed or expired:
            log.info("garbage collection: %d blobs, %d abandoned uploads", removed, expired)

    async def _drop_needless(self) -> None:
        """Looked for one repository at a time; what is found and has been needed or renewed meanwhile stays."""
        before = time.time() - self._limits.grace
        self._renewed = {key: at for key, at in self._renewed.items() if at >= before}
        if self._started >= before:
            return
        found: list[tuple[str, Digest]] = []
        for name in self._rows.pushed_to():
            found += [(name, digest) for digest in self._rows.needless(name, before)]
            await asyncio.sleep(0)
        self._rows.drop([key for key in found if key not in self._renewed], before)
