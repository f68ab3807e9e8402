"""Images in and out: `load` of an archive, `push` to and `pull` from an empty registry on the engine's own loopback.

Each engine has a registry to itself, on the same disk and in its own network namespace, so that the way to it is as
long for one as for the other. What earlier work left to be written is written before the clock starts.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import archive, memory
from bench.api import Engine
from bench.registry import debians, free_port, ours

Serve = Callable[[int, Path], list[str]]
_LISTENING = "0A"  # TCP_LISTEN, include/net/tcp_states.h


def cli(engine: Engine, *arguments: str) -> float:
    """Wall time of one docker command against the engine, in ms."""
    env = {**os.environ, "DOCKER_HOST": engine.address}
    begin = time.perf_counter()
    subprocess.run(["docker", *arguments], env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1e3


def load_debian(engine: Engine) -> float:
    return _load(engine, archive.debian(), archive.DEBIAN)


def load_tree(engine: Engine) -> float:
    return _load(engine, archive.tree(), archive.TREE)


def _load(engine: Engine, path: str, name: str) -> float:
    os.sync()
    spent = cli(engine, "load", "-q", "-i", path)
    cli(engine, "rmi", name)
    return spent


def push_debian(engine: Engine) -> float:
    return _push(engine, debians)


def push_debian_to_ours(engine: Engine) -> float:
    return _push(engine, ours)


def _push(engine: Engine, serve: Serve) -> float:
    with registry(engine, serve) as host:
        cli(engine, "load", "-q", "-i", archive.debian())
        cli(engine, "tag", archive.DEBIAN, f"{host}/debian")
        os.sync()
        spent = cli(engine, "push", "-q", f"{host}/debian")
        cli(engine, "rmi", archive.DEBIAN, f"{host}/debian")
    return spent


def pull_debian(engine: Engine) -> float:
    return _pull(engine, debians, archive.debian(), archive.DEBIAN)


def pull_debian_from_ours(engine: Engine) -> float:
    return _pull(engine, ours, archive.debian(), archive.DEBIAN)


def pull_tree(engine: Engine) -> float:
    return _pull(engine, debians, archive.tree(), archive.TREE)


def _pull(engine: Engine, serve: Serve, path: str, name: str) -> float:
    there = Stocked.of(engine, serve, path, name)
    os.sync()
    spent = cli(engine, "pull", "-q", there)
    cli(engine, "rmi", there)
    return spent


class Stocked:
    """A registry with one image for each engine, kept for the whole run."""

    _open = ExitStack()
    _names: dict[tuple[str, Serve, str], str] = {}  # noqa: RUF012 - the benchmark's own registry

    @classmethod
    def of(cls, engine: Engine, serve: Serve, path: str, name: str) -> str:
        """The image's name there; the engine has it no longer."""
        key = (engine.name, serve, name)
        if key not in cls._names:
            host = cls._open.enter_context(registry(engine, serve))
            cls._names[key] = there = f"{host}/image"
            cli(engine, "load", "-q", "-i", path)
            cli(engine, "tag", name, there)
            cli(engine, "push", "-q", there)
            cli(engine, "rmi", name, there)
        return cls._names[key]

    @classmethod
    def close_all(cls) -> None:
        cls._names.clear()
        cls._open.close()


@contextmanager
def registry(engine: Engine, serve: Serve) -> Iterator[str]:
    """HOST:PORT of an empty registry, as the engine reaches it."""
    with tempfile.TemporaryDirectory(prefix="hafen-bench-registry-") as folder:
        port = free_port()
        network = f"--net=/proc/{memory.listener(engine.path)}/ns/net"
        process = subprocess.Popen(
            ["nsenter", network, *serve(port, Path(folder))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not _listens(process.pid, port):
                if process.poll() is not None:
                    sys.exit(f"{process.args!r} ended")
                time.sleep(0.01)
            yield f"127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def _listens(pid: int, port: int) -> bool:
    """Whether somebody listens there in the network namespace of this process (proc_pid_net(5))."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == _LISTENING for row in rows)
