"""`hafen registry serve`: flags, wiring, listening, the end."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hafen.errors import HafenError, InvalidArgument, System
from hafen.http.server import Server
from hafen.http.sockets import server_context, tcp_socket
from hafen.registryd import access, quotas, webhooks
from hafen.registryd.app import Registry
from hafen.registryd.collect import Collector, Limits
from hafen.registryd.metrics import Metrics
from hafen.registryd.request import Parts
from hafen.registryd.rows import MIGRATIONS, Rows
from hafen.registryd.store import LocalBlobs
from hafen.registryd.uploads import Uploads
from hafen.registryd.webhooks import Hook, Webhooks
from hafen.storage.collect import Leases
from hafen.storage.database import Database

DEFAULT_ADDRESS = "127.0.0.1:5000"
DEFAULT_ROOT = "/var/lib/hafen/registry"
THREADS = 16  # they wait for the disk, or hash

log = logging.getLogger("hafen.registryd")


@dataclass(frozen=True, slots=True)
class Config:
    """What was asked for. Paths are as given; empty where absent."""

    address: str
    root: str
    certificate: str
    key: str
    htpasswd: str
    rules: str
    may_delete: bool
    limits: Limits
    quotas: Mapping[str, int] = field(default_factory=dict)  # bytes by prefix
    webhooks: Sequence[Hook] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after an orderly end, 1 where the registry cannot start, with the reason on stderr."""
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(parse(sys.argv[1:] if arguments is None else arguments)))
    except HafenError as error:
        print(f"hafen registry: {error.message}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: Sequence[str]) -> Config:
    """InvalidArgument for what makes no sense, exit 2 with a usage text for unknown flags."""
    defaults = Limits()
    parser = argparse.ArgumentParser(prog="hafen registry serve", description="Run a registry in the foreground.")
    add = parser.add_argument
    add("--addr", default=DEFAULT_ADDRESS, metavar="HOST:PORT", help=f"where to listen (default {DEFAULT_ADDRESS})")
    add("--root", default=DEFAULT_ROOT, metavar="DIR", help=f"where everything is kept (default {DEFAULT_ROOT})")
    add("--tls-cert", default="", metavar="FILE", help="certificate chain, PEM")
    add("--tls-key", default="", metavar="FILE", help="its key")
    add("--htpasswd", default="", metavar="FILE", help="users and their passwords (htpasswd -B)")
    add("--rules", default="", metavar="FILE", help="lines WHO REPOSITORIES pull,push,delete")
    add("--no-delete", action="store_true", help="refuse to delete tags, manifests and blobs")
    add("--gc-interval", type=float, default=defaults.interval, metavar="SECONDS", help="between collections")
    add("--gc-grace", type=float, default=defaults.grace, metavar="SECONDS", help="a blob may wait for its manifest")
    add("--upload-expiry", type=float, default=defaults.upload, metavar="SECONDS", help="an upload may rest")
    add("--quota", action="append", default=[], metavar="PREFIX=SIZE", help="team=20g; * is everything; repeatable")
    add("--webhook", action="append", default=[], metavar="URL[,OPTION...]",
        help="tell of changes: events=push+delete, secret-file=FILE; repeatable")  # fmt: skip
    flags = parser.parse_args(arguments)
    if bool(flags.tls_cert) != bool(flags.tls_key):
        raise InvalidArgument("TLS needs --tls-cert and --tls-key")
    if flags.rules and not flags.htpasswd:
        raise InvalidArgument("--rules needs --htpasswd")
    if flags.gc_interval <= 0 or flags.gc_grace < 0 or flags.upload_expiry < 0:
        raise InvalidArgument("times are seconds from 0 on, and an interval is more than 0")
    limits = Limits(flags.gc_interval, flags.gc_grace, flags.upload_expiry)
    return Config(
        flags.addr, flags.root, flags.tls_cert, flags.tls_key, flags.htpasswd, flags.rules, not flags.no_delete, limits,
        quotas.parse(flags.quota), [webhooks.parse(word, _text) for word in flags.webhook],
    )  # fmt: skip


def _access(config: Config) -> access.Access:
    if not config.htpasswd:
        return access.Access()
    rules = access.parse_rules(_text(config.rules)) if config.rules else None
    return access.Htpasswd(access.parse_htpasswd(_text(config.htpasswd)), rules)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {error}") from error


async def serve(config: Config) -> None:
    """Run a registry until it is told to stop."""
    context = server_context(config.certificate, config.key) if config.certificate else None
    allowed = _access(config)
    try:
        os.makedirs(config.root, mode=0o700, exist_ok=True)
    except OSError as error:
        raise System(f"cannot make {config.root}: {error.strerror}") from error
    database = Database(f"{config.root}/registry.db", MIGRATIONS)  # locked: one registry for a root
    executor = ThreadPoolExecutor(THREADS, "registry")
    try:
        rows, blobs, leases = Rows(database), LocalBlobs(config.root), Leases()
        uploads = Uploads(config.root, rows)
        collector = Collector(rows, blobs, uploads, leases, config.limits)
        hooks = Webhooks(rows, config.webhooks, "https" if context else "http")
        parts = Parts(
            rows, blobs, uploads, collector, leases, allowed, executor, quotas.Quotas(rows, config.quotas), hooks,
            Metrics(), config.may_delete,
        )  # fmt: skip
        sock = tcp_socket(config.address)
        async with asyncio.TaskGroup() as tasks, Server(Registry(parts)) as server:
            await server.listen(sock, context)
            collecting = tasks.create_task(collector.run(parts.in_thread))
            telling = tasks.create_task(hooks.run())
            host, port = sock.getsockname()[:2]
            _warn(host, context is not None, allowed.asks)
            log.info("listening on %s port %d", host, port)
            await _wait_told()
            collecting.cancel()
            telling.cancel()
    finally:
        executor.shutdown()
        database.close()


def _warn(host: str, tls: bool, asks: bool) -> None:
    if ipaddress.ip_address(host).is_loopback:
        return
    if not asks:
        log.warning("whoever reaches %s may push and delete: --htpasswd asks who they are", host)
    elif not tls:
        log.warning("passwords cross the network in clear: --tls-cert and --tls-key hide them")


async def _wait_told() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
