"""`hafen engine`: parse, wire, listen, run, shut down."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import sys
from collections.abc import Sequence
from typing import IO

from hafen.daemon import config as configuration
from hafen.daemon import listen, signals
from hafen.daemon.config import DaemonConfig
from hafen.errors import Conflict, HafenError

log = logging.getLogger("hafen.daemon")

_LEVELS = {"warn": "warning", "fatal": "critical"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after an orderly end, 1 where the engine cannot start, with the reason on stderr."""
    try:
        config = configuration.load(sys.argv[1:] if arguments is None else arguments)
        if os.geteuid() != 0:
            raise HafenError("the engine needs root: it makes namespaces, mounts and cgroups; start it with sudo")
        _set_up_logging(config)
        with lock(config.data_root), lock(config.run_root):
            # For nobody else to enter: volumes have programs with set-uid bits, of containers' users (CVE-2021-41091).
            os.chmod(config.data_root, 0o710)
            asyncio.run(serve(config))
    except HafenError as error:
        print(f"hafen engine: {error.message}", file=sys.stderr)
        return 1
    return 0


def lock(root: str) -> IO[str]:
    """Hold a root for this process; Conflict where another engine does."""
    os.makedirs(root, mode=0o711, exist_ok=True)
    file = open(os.path.join(root, "engine.lock"), "a+", encoding="ascii")  # noqa: SIM115 - held until the end
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise Conflict(f"another engine (pid {owner}) uses {root}") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


async def serve(config: DaemonConfig) -> None:
    """Run an engine until it is told to stop."""
    from hafen.api.app import Api
    from hafen.api.routes.table import router
    from hafen.daemon.wire import wire
    from hafen.http.server import Server

    stop = asyncio.Event()
    signals.install(asyncio.get_running_loop(), stop)
    engine = wire(config)
    try:
        await engine.start()
        async with Server(Api(router(), engine.services)) as server:
            for sock, tls in listen.sockets(config, os.environ):
                await server.listen(sock, listen.tls_context(config) if tls else None)
            log.info("listening on %s", ", ".join(config.addresses))
            # What is here now stays: later collections need not look at it, and its pages stay shared and untouched.
            gc.collect()
            gc.freeze()
            await stop.wait()
            engine.events.end()
    finally:
        await engine.close()
        for address in config.addresses:
            _unlink_socket(address)


def _unlink_socket(address: str) -> None:
    scheme, _, path = address.partition("://")
    if scheme == "unix":
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _set_up_logging(config: DaemonConfig) -> None:
    level = "debug" if config.debug else _LEVELS.get(config.log_level, config.log_level)
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
