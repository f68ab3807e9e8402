"""A registry put together and at work: its files, its parts, its sockets, its tasks."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hafen.errors import Forbidden, System
from hafen.http.server import Server
from hafen.http.sockets import server_context, tcp_socket
from hafen.registryd import admin, config, quotas
from hafen.registryd.accesstokens import AccessTokens, signing_key
from hafen.registryd.address import Address
from hafen.registryd.admin import Admin
from hafen.registryd.app import Registry
from hafen.registryd.authentication import Authentication
from hafen.registryd.cacherows import CacheRows
from hafen.registryd.collect import BlobSweep, Collector, InThread, Sweep
from hafen.registryd.config import Config
from hafen.registryd.expiry import Expiry
from hafen.registryd.metrics import Metrics
from hafen.registryd.quotarows import QuotaRows
from hafen.registryd.request import Parts
from hafen.registryd.rows import Rows
from hafen.registryd.schema import MIGRATIONS
from hafen.registryd.store import Blobs, LocalBlobs
from hafen.registryd.uploads import Uploads
from hafen.registryd.webhooks import Webhooks
from hafen.spec.digest import Digest
from hafen.storage.collect import Leases
from hafen.storage.database import Database

if TYPE_CHECKING:  # what not every registry has is imported where it is
    from hafen.engine.offer import Offer
    from hafen.registryd.cache import Cache

THREADS = 16  # they wait for the disk, or hash blobs
HASHERS = 2  # threads for passwords
SILENCE = 300.0  # seconds for which a client may say nothing, between requests or within one

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a registry keeps, open: nobody else can open it meanwhile. `sweep` removes blobs that nothing needs."""

    root: str
    database: Database
    rows: Rows
    blobs: Blobs
    leases: Leases
    sweep: Sweep


@contextmanager
def opened(root: str) -> Iterator[Kept]:
    """A registry with a content store of its own. Conflict where another one has it open."""
    database = database_in(root)
    try:
        rows, blobs, leases = Rows(database), LocalBlobs(root, f"{root}/content"), Leases()
        yield Kept(root, database, rows, blobs, leases, BlobSweep(rows, blobs, leases))
    finally:
        database.close()


@contextmanager
def opened_beside(root: str, content: str, leases: Leases, sweep: Callable[[], int]) -> Iterator[Kept]:
    """A registry over somebody else's content store: `leases` and `sweep` are theirs; its rows say what it needs."""
    database = database_in(root)
    try:
        yield Kept(root, database, Rows(database), LocalBlobs(root, content), leases, _TheirSweep(sweep))
    finally:
        database.close()


class _TheirSweep:
    def __init__(self, sweep: Callable[[], int]) -> None:
        self._sweep = sweep

    async def __call__(self, in_thread: InThread) -> int:
        return self._sweep()


def database_in(root: str) -> Database:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
    except OSError as error:
        raise System(f"cannot make {root}: {error.strerror}") from error
    return Database(f"{root}/registry.db", MIGRATIONS)


class Served:
    """A registry at work, for whoever is in the same process."""

    def __init__(self, parts: Parts, host: str, port: int) -> None:
        self._parts = parts
        self._port = port
        address = ipaddress.ip_address(host)
        self._names = {host}
        if address.is_loopback or address.is_unspecified:
            self._names |= {"localhost", "127.0.0.1", "::1"}
        if address.is_unspecified:
            self._names.add(socket.gethostname())

    def serves(self, domain: str) -> bool:
        """Whether `host:port` is where it listens. Other names of this machine are not known to be."""
        found = urlsplit(f"//{domain}")
        return found.port == self._port and found.hostname in self._names

    async def link(self, name: str, digest: Digest, size: int) -> None:
        """A blob that is in the content store already becomes the repository's. NotFound, Forbidden."""
        parts = self._parts
        if (parts.cache and parts.cache.proxy(name)) or (parts.offer and parts.offer.covers(name)):
            raise Forbidden(f"{name} is not this registry's own: nothing can be pushed to it here")
        with parts.leases.operation() as lease:
            lease.hold(digest)
            await parts.in_thread(parts.blobs.sync, digest)
            parts.quotas.require(name, digest, size)
            parts.rows.link(name, digest, size)


@asynccontextmanager
async def serving(chosen: Config, kept: Kept, offer: Offer | None = None) -> AsyncIterator[Served]:
    """The registry listens for the time of the block, and collects, and tells its webhooks. `offer`: images of an
    engine in the same process, under a prefix."""
    context = server_context(chosen.certificate, chosen.key) if chosen.certificate else None
    executor, hashers = ThreadPoolExecutor(THREADS, "registry"), ThreadPoolExecutor(HASHERS, "password")
    tasks = asyncio.TaskGroup()
    try:
        # What can go wrong comes before the task group, which would wrap it.
        parts = _parts(chosen, kept, executor, hashers, tasks, context is not None, offer)
        doors = [(Registry(parts), tcp_socket(chosen.address), context)]
        doors += [
            (Registry(parts, one.prefix), tcp_socket(one.mirror), context) for one in chosen.proxies if one.mirror
        ]
        private = admin.listening(kept.root)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(tasks)
            if parts.cache is not None:
                await stack.enter_async_context(parts.cache)
            for application, sock, tls in doors:
                await (await stack.enter_async_context(Server(application, silence=SILENCE))).listen(sock, tls)
            await (await stack.enter_async_context(Server(Admin(parts)))).listen(private)
            for work in (parts.collector.run(parts.in_thread, lambda: _make_needless(parts)), parts.webhooks.run()):
                stack.callback(tasks.create_task(work).cancel)
            host, port = doors[0][1].getsockname()[:2]
            _warn(host, context is not None, parts.access.asks)
            for proxy in chosen.proxies:
                log.info(
                    "%s/... is %s%s", proxy.prefix, proxy.url, f", mirrored on {proxy.mirror}" if proxy.mirror else ""
                )
            log.info("listening on %s port %d", host, port)
            yield Served(parts, host, port)
    finally:
        executor.shutdown()
        hashers.shutdown(cancel_futures=True)


async def _make_needless(parts: Parts) -> None:
    """What has had its time goes before each collection."""
    await parts.expiry.perform_when_due()
    parts.access_tokens.forget_ended()
    if parts.cache is not None:
        parts.cache.expire()


def _parts(
    chosen: Config, kept: Kept, executor: ThreadPoolExecutor, hashers: ThreadPoolExecutor, tasks: asyncio.TaskGroup,
    tls: bool, offer: Offer | None,
) -> Parts:  # fmt: skip
    cached = CacheRows(kept.database)
    cached.settle({proxy.prefix: proxy.url for proxy in chosen.proxies}, offer.prefix if offer else "")
    rows, limits = kept.rows, chosen.limits
    uploads = Uploads(kept.root, rows)
    collector = Collector(rows, uploads, kept.sweep, limits)
    address = Address(chosen.url, tls)
    hooks = Webhooks(rows, chosen.webhooks, address)
    issued = AccessTokens(kept.database)
    allowed = config.access(chosen)
    key = signing_key(kept.database)
    return Parts(
        rows=rows,
        blobs=kept.blobs,
        uploads=uploads,
        collector=collector,
        leases=kept.leases,
        access=allowed,
        authentication=Authentication(allowed, config.passwords(chosen, hashers), issued, key, address),
        access_tokens=issued,
        expiry=Expiry(rows, hooks, chosen.retention, collector.fresh, limits.retention),
        executor=executor,
        tasks=tasks,
        quotas=quotas.Quotas(QuotaRows(kept.database), chosen.quotas),
        webhooks=hooks,
        metrics=Metrics(),
        cache=_cache(chosen, kept, cached, executor),
        offer=offer,
        may_delete=chosen.may_delete,
    )


def _cache(chosen: Config, kept: Kept, cached: CacheRows, executor: ThreadPoolExecutor) -> Cache | None:
    if not chosen.proxies:
        return None
    from hafen.registryd.cache import Cache

    def in_thread(function: Callable[..., object], *arguments: object) -> Awaitable[object]:
        return asyncio.get_running_loop().run_in_executor(executor, function, *arguments)

    agent = f"hafen-registry/{version('hafen')}"
    return Cache(
        chosen.proxies, chosen.certificates, agent, kept.root, kept.rows, cached, kept.blobs, kept.leases, in_thread
    )


def _warn(host: str, tls: bool, asks: bool) -> None:
    if ipaddress.ip_address(host).is_loopback:
        return
    if not asks:
        log.warning("whoever reaches %s may push and delete: --htpasswd asks who they are", host)
    elif not tls:
        log.warning("passwords cross the network in clear: --tls-cert and --tls-key hide them")
