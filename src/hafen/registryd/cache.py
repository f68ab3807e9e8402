"""Other registries, cached: what is asked for under their prefixes is fetched when it is not here, and kept.

A tag is taken for right for a while, then revalidated by a HEAD, which no registry counts as a pull. Where the other
registry is away, or answers that it is asked too often, what is here is given out, and it is left in peace for a
moment. What has a digest is right for ever. Clients that want one thing at the same time share one request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

from hafen.errors import HafenError, Unavailable
from hafen.registryd import manifest as manifests
from hafen.registryd.cacherows import CacheRows
from hafen.registryd.download import Download
from hafen.registryd.errors import BlobUnknown, ManifestUnknown, TooManyRequests
from hafen.registryd.proxies import Proxy, of_name
from hafen.registryd.rows import Rows, Stored
from hafen.registryd.store import Blobs
from hafen.registryd.upstream import Away, Upstream
from hafen.spec.digest import Digest
from hafen.spec.wire.image import Descriptor
from hafen.storage import partial as partials
from hafen.storage.collect import Leases
from hafen.storage.partial import Partial

PEACE: Final = 30.0  # seconds in which a registry that was away is not asked whether a tag is still right

T = TypeVar("T")
InThread = Callable[..., Awaitable[object]]

log = logging.getLogger(__name__)


class Cache:
    """Loop thread; `async with`: fetches end with it, and go on from what has arrived when they are wanted again."""

    def __init__(
        self, proxies: Sequence[Proxy], certificates: tuple[str, ...], agent: str, root: str, rows: Rows,
        cached: CacheRows, blobs: Blobs, leases: Leases, in_thread: InThread,
    ) -> None:  # fmt: skip
        self.proxies = tuple(proxies)
        self._upstreams = {proxy.prefix: Upstream(proxy, certificates, agent) for proxy in proxies}
        self._folder = f"{root}/fetching"
        self._rows = rows
        self._cached = cached
        self._blobs = blobs
        self._leases = leases
        self._in_thread = in_thread
        self._running: dict[tuple[str, ...], asyncio.Task[object]] = {}
        self._downloads: dict[Digest, Download] = {}
        self._peace: dict[str, float] = {}  # until when, by prefix
        self._open = AsyncExitStack()
        self._tasks = asyncio.TaskGroup()
        self.fetched = 0  # bytes of blobs, since the start
        self.stale = 0  # tags that could not be revalidated
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    async def __aenter__(self) -> Self:
        for upstream in self._upstreams.values():
            await self._open.enter_async_context(upstream)
        await self._open.enter_async_context(self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running.values():
            task.cancel()
        await self._open.__aexit__(kind, error, trace)

    def proxy(self, name: str) -> Proxy | None:
        """The registry that a name belongs to."""
        return of_name(self.proxies, name)

    def _upstream(self, name: str) -> tuple[Proxy, Upstream]:
        proxy = self.proxy(name)
        assert proxy is not None
        return proxy, self._upstreams[proxy.prefix]

    async def _once(self, key: tuple[str, ...], work: Callable[[], Coroutine[object, object, T]]) -> T:
        """The result of work that is done once for all who want it now. Who leaves does not stop it."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = self._tasks.create_task(_settled(work()))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        result = await asyncio.shield(task)
        if isinstance(result, HafenError):
            raise result
        return result  # type: ignore[return-value]  # the key says what kind of work it is

    # Manifests

    async def freshen(self, name: str, reference: str) -> None:
        """After this the rows have the manifest. ManifestUnknown where there is none, Unavailable where it is neither
        here nor to be had."""
        stored = self._stored(name, reference)
        if stored is not None:
            self._cached.touch(name, stored.digest)
            if ":" in reference or self._is_right(name, reference):
                return
        await self._once(("manifest", name, reference), lambda: self._fresh(name, reference))

    def _stored(self, name: str, reference: str) -> Stored | None:
        """What is here of it; what has been lost is not."""
        found = self._rows.manifest(name, reference)
        return found if found is not None and self._blobs.size(found.digest) == found.size else None

    def _is_right(self, name: str, tag: str) -> bool:
        return time.time() - self._cached.checked_at(name, tag) < self._upstream(name)[0].ttl

    async def _fresh(self, name: str, reference: str) -> None:
        stored = self._stored(name, reference)
        try:
            if stored is not None and not await self._moved(name, reference, stored.digest):
                return
            await self._fetch_manifest(name, reference)
        except ManifestUnknown:
            if stored is not None:
                self._rows.remove_tag(name, reference)
            raise
        except HafenError as error:
            if stored is None:
                raise
            self.stale += 1
            log.warning("%s:%s is given out as it was: %s", name, reference, error.message)

    async def _moved(self, name: str, tag: str, digest: Digest) -> bool:
        """Whether a tag means something else now. Unavailable where that is not to be learned."""
        _, upstream = self._upstream(name)
        found = await self._if_not_away(name, lambda: upstream.digest(name, tag))
        if found == digest:
            self._cached.check(name, tag)
            return False
        return True

    async def _if_not_away(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Where there is something to give in its place: Unavailable at once where the registry was away lately."""
        proxy = self._upstream(name)[0]
        if time.monotonic() < self._peace.get(proxy.prefix, 0.0):
            raise Unavailable(f"{proxy.url} was away a moment ago")
        try:
            return await work()
        except (Away, TooManyRequests):  # not a refusal, which may concern this repository alone
            self._peace[proxy.prefix] = time.monotonic() + PEACE
            raise

    async def _fetch_manifest(self, name: str, reference: str) -> None:
        proxy, upstream = self._upstream(name)
        found = await upstream.manifest(name, reference)
        manifest = manifests.parse(found.data, found.media_type)
        with self._leases.operation() as lease:
            lease.hold(found.digest)
            if not self._rows.knows_manifest(found.digest) or self._blobs.size(found.digest) != len(found.data):
                await self._in_thread(self._blobs.put, found.data, found.digest)
            tag = "" if ":" in reference else reference
            self._cached.put(name, proxy.url, found.digest, len(found.data), manifest, tag)

    async def tags(self, name: str) -> list[str]:
        """All tags of the other registry; those that are here where it is away."""
        _, upstream = self._upstream(name)
        if not self._rows.exists(name):
            return await self._once(("tags", name), lambda: upstream.tags(name))
        try:
            return await self._if_not_away(name, lambda: self._once(("tags", name), lambda: upstream.tags(name)))
        except Unavailable:
            return self._rows.tags(name, "", 1 << 30)

    async def referrers(self, name: str, subject: Digest) -> list[Descriptor] | None:
        """What the other registry has about a manifest; None where it is away."""
        _, upstream = self._upstream(name)
        try:
            return await self._if_not_away(name, lambda: upstream.referrers(name, subject))
        except Unavailable:
            return None

    # Blobs

    def holder(self, name: str, digest: Digest, may_read: Callable[[str], bool]) -> str | None:
        """The repository to give the blob out of: this one, or another that may be read. It does not become this one's:
        who may read this one alone would get what only the other gives."""
        for holder in (name, *self._rows.holders(digest)):
            size = self._rows.linked(holder, digest)
            if size is not None and self._blobs.size(digest) == size and (holder == name or may_read(holder)):
                self._cached.touch(holder, digest)
                return holder
        return None

    async def size(self, name: str, digest: Digest) -> int:
        """Of a blob that is not here; BlobUnknown where there is none."""
        known = self._cached.expected(name, digest)
        if known is not None:
            return known
        size = await self._upstream(name)[1].size(name, digest)
        if size is None:
            raise BlobUnknown(f"blob unknown to registry: {digest}")
        return size

    async def download(self, name: str, digest: Digest) -> Download:
        """The blob on its way: begun, or joined."""
        size = await self.size(name, digest)
        found = self._downloads.get(digest)
        if found is None:
            path = f"{self._folder}/{digest.replace(':', '-')}"
            partial = Partial(path, digest, size, lambda whole: self._blobs.adopt(whole, digest))
            found = self._downloads[digest] = Download(partial, self._blobs.open, self._in_thread)
            key = "blob", digest
            self._running[key] = task = self._tasks.create_task(_settled(self._fetch_blob(name, digest, found)))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return found

    async def _fetch_blob(self, name: str, digest: Digest, download: Download) -> None:
        proxy, upstream = self._upstream(name)

        def kept() -> None:
            self.fetched += download.size
            self._cached.link(name, proxy.url, digest, download.size)

        with self._leases.operation() as lease:
            lease.hold(digest)
            try:
                await download.run(lambda offset: upstream.blob(name, digest, download.size, offset), kept)
            except HafenError as error:
                log.warning("%s: blob %s: %s", name, digest, error.message)
            finally:
                del self._downloads[digest]

    def expire(self) -> None:
        """Drop what was not asked for in its time, and what is over the limits."""
        for proxy in self.proxies:
            self._cached.expire(proxy.prefix, time.time() - proxy.keep, proxy.limit)
        partials.expire(self._folder, self._downloads)


async def _settled(work: Coroutine[object, object, object]) -> object:
    """A result, or the error as one: who waits raises it, and nobody may be waiting any more."""
    try:
        return await work
    except HafenError as error:
        return error
    except Exception as error:  # the boundary of a task that nobody else awaits
        log.exception("a fetch failed")
        return Unavailable(f"internal error: the registry's log has it: {type(error).__name__}")
