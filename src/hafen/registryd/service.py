"""A registry put together and at work: its files, its parts, its sockets, its tasks."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from hafen.errors import System
from hafen.http.server import Server
from hafen.http.sockets import server_context, tcp_socket
from hafen.registryd import admin, config, quotas
from hafen.registryd.accesstokens import AccessTokens, signing_key
from hafen.registryd.admin import Admin
from hafen.registryd.app import Registry
from hafen.registryd.authentication import Authentication
from hafen.registryd.collect import BlobSweep, Collector, InThread, Sweep
from hafen.registryd.config import Config
from hafen.registryd.expiry import Expiry
from hafen.registryd.metrics import Metrics
from hafen.registryd.request import Parts
from hafen.registryd.rows import MIGRATIONS, Rows
from hafen.registryd.store import Blobs, LocalBlobs
from hafen.registryd.uploads import Uploads
from hafen.registryd.webhooks import Webhooks
from hafen.spec.digest import Digest
from hafen.storage.collect import Leases
from hafen.storage.database import Database

THREADS = 16  # they wait for the disk, or hash

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
        """A blob that is in the content store already becomes the repository's. NotFound, QuotaExceeded."""
        parts = self._parts
        with parts.leases.operation() as lease:
            lease.hold(digest)
            await parts.in_thread(parts.blobs.sync, digest)
            parts.quotas.require(name, digest, size)
            parts.rows.link(name, digest, size)


@asynccontextmanager
async def serving(chosen: Config, kept: Kept) -> AsyncIterator[Served]:
    """The registry listens for the time of the block, and collects, and tells its webhooks."""
    context = server_context(chosen.certificate, chosen.key) if chosen.certificate else None
    allowed, known = config.access(chosen), config.passwords(chosen)
    executor = ThreadPoolExecutor(THREADS, "registry")
    try:
        uploads = Uploads(kept.root, kept.rows)
        collector = Collector(kept.rows, uploads, kept.sweep, chosen.limits)
        hooks = Webhooks(kept.rows, chosen.webhooks, "https" if context else "http")
        expiry = Expiry(kept.rows, hooks, chosen.retention, collector.fresh)
        issued = AccessTokens(kept.database)
        key = signing_key(kept.database)
        parts = Parts(
            rows=kept.rows,
            blobs=kept.blobs,
            uploads=uploads,
            collector=collector,
            leases=kept.leases,
            access=allowed,
            authentication=Authentication(allowed, known, issued, key, chosen.url, context is not None),
            access_tokens=issued,
            expiry=expiry,
            executor=executor,
            quotas=quotas.Quotas(kept.rows, chosen.quotas),
            webhooks=hooks,
            metrics=Metrics(),
            may_delete=chosen.may_delete,
        )
        sock = tcp_socket(chosen.address)
        async with asyncio.TaskGroup() as tasks, Server(Registry(parts)) as server, Server(Admin(parts)) as private:
            await server.listen(sock, context)
            await private.listen(admin.listening(kept.root))
            work = [tasks.create_task(collector.run(parts.in_thread, expiry)), tasks.create_task(hooks.run())]
            host, port = sock.getsockname()[:2]
            _warn(host, context is not None, allowed.asks)
            log.info("listening on %s port %d", host, port)
            try:
                yield Served(parts, host, port)
            finally:
                for task in work:
                    task.cancel()
    finally:
        executor.shutdown()


def _warn(host: str, tls: bool, asks: bool) -> None:
    if ipaddress.ip_address(host).is_loopback:
        return
    if not asks:
        log.warning("whoever reaches %s may push and delete: --htpasswd asks who they are", host)
    elif not tls:
        log.warning("passwords cross the network in clear: --tls-cert and --tls-key hide them")
