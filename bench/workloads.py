"""What is measured: each workload runs once on one engine and returns seconds (or bytes for memory)."""

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench import memory
from bench.api import Engine

IMAGE = "busybox"


class Workload(NamedTuple):
    name: str
    unit: str  # "ms", "MiB" or "1/s"
    runs: int
    run: Callable[[Engine], float]
    budget: float | None  # the most that Hafen's median may be of the peer's ("1/s": the least)
    about: str


def cli(engine: Engine, *arguments: str) -> float:
    """Wall time of one docker command against the engine, in ms."""
    env = {**os.environ, "DOCKER_HOST": engine.address}
    begin = time.perf_counter()
    subprocess.run(["docker", *arguments], env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1e3


def run_bridge(engine: Engine) -> float:
    return cli(engine, "run", "--rm", IMAGE, "true")


def run_none(engine: Engine) -> float:
    return cli(engine, "run", "--rm", "--net", "none", IMAGE, "true")


def api_run(engine: Engine, network: str) -> float:
    begin = time.perf_counter()
    ident = engine.create(IMAGE, ["true"], network=network)
    engine.start(ident)
    engine.wait_exit(ident)
    engine.remove(ident)
    return (time.perf_counter() - begin) * 1e3


def api_run_bridge(engine: Engine) -> float:
    return api_run(engine, "bridge")


def api_run_none(engine: Engine) -> float:
    return api_run(engine, "none")


def api_start(engine: Engine) -> float:
    """Only POST /start: from the request to a running process."""
    ident = engine.create(IMAGE, ["sleep", "60"], network="none")
    begin = time.perf_counter()
    engine.start(ident)
    spent = (time.perf_counter() - begin) * 1e3
    engine.remove(ident)
    return spent


class Sleeper:
    """A running container to exec into, one per engine, kept for the whole run."""

    _by_engine: dict[str, str] = {}  # noqa: RUF012 - the benchmark's own registry

    @classmethod
    def of(cls, engine: Engine) -> str:
        if engine.name not in cls._by_engine:
            ident = engine.create(IMAGE, ["sleep", "3600"], network="none")
            engine.start(ident)
            cls._by_engine[engine.name] = ident
        return cls._by_engine[engine.name]

    @classmethod
    def remove_all(cls, engines: list[Engine]) -> None:
        for engine in engines:
            if ident := cls._by_engine.pop(engine.name, None):
                engine.remove(ident)


def exec_cli(engine: Engine) -> float:
    return cli(engine, "exec", Sleeper.of(engine), "true")


def exec_api(engine: Engine) -> float:
    ident = Sleeper.of(engine)
    begin = time.perf_counter()
    engine.exec(ident, ["true"])
    return (time.perf_counter() - begin) * 1e3


def parallel(engine: Engine) -> float:
    """40 `docker run --rm`, 8 at a time: containers a second."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: run_bridge(engine), range(40)))
    return 40 / (time.perf_counter() - begin)


def remove_forty(engine: Engine) -> float:
    names = [engine.create(IMAGE, ["sleep", "3600"], network="none") for _ in range(40)]
    for name in names:
        engine.start(name)
    return cli(engine, "rm", "-f", *names)


def shim_pids(engine: Engine, idents: list[str]) -> set[int]:
    return {memory.parent(int(engine.call("GET", f"/containers/{ident}/json")["State"]["Pid"])) for ident in idents}


def idle_container(engine: Engine) -> float:
    """PSS of what an engine keeps per idle container beyond the container's own processes, mean of 20; MiB."""
    idents = [engine.create(IMAGE, ["sleep", "3600"], network="none") for _ in range(20)]
    try:
        for ident in idents:
            engine.start(ident)
        time.sleep(1)
        shims = shim_pids(engine, idents)
        return sum(map(memory.pss, shims)) / len(shims) / 2**20
    finally:
        for ident in idents:
            engine.remove(ident)


def engine_at_rest(engine: Engine) -> float:
    """PSS of the engine's own processes (dockerd with containerd; hafend with its zygote), without shims; MiB."""
    running = [row["Id"] for row in engine.call("GET", "/containers/json")]
    return memory.engine(memory.listener(engine.path), shim_pids(engine, running)) / 2**20


def listing(engine: Engine) -> float:
    begin = time.perf_counter()
    engine.call("GET", "/containers/json?all=1")
    return (time.perf_counter() - begin) * 1e3


def ping(engine: Engine) -> float:
    begin = time.perf_counter()
    engine.call("GET", "/_ping")
    return (time.perf_counter() - begin) * 1e3


WORKLOADS = (
    Workload("memory-rest", "MiB", 1, engine_at_rest, None, "engine's processes at rest, PSS (budget 70 MiB)"),
    Workload("ping", "ms", 100, ping, None, "GET /_ping over a kept connection"),
    Workload("run-bridge", "ms", 30, run_bridge, 1 / 6, "docker run --rm busybox true"),
    Workload("run-none", "ms", 30, run_none, 1 / 5, "docker run --rm --net none busybox true"),
    Workload("api-run-bridge", "ms", 30, api_run_bridge, None, "create, start, wait, remove, kept connection"),
    Workload("api-run-none", "ms", 30, api_run_none, None, "the same without a network"),
    Workload("api-start", "ms", 30, api_start, None, "POST /containers/x/start alone, --net none"),
    Workload("exec", "ms", 30, exec_cli, 1 / 2, "docker exec x true"),
    Workload("api-exec", "ms", 50, exec_api, 1 / 5, "exec create and start to the end of its stream"),
    Workload("parallel", "1/s", 3, parallel, 6.0, "40 docker runs, 8 at a time"),
    Workload("rm-40", "ms", 3, remove_forty, 1 / 4, "docker rm -f of 40 running containers in one call"),
    Workload("memory-idle", "MiB", 1, idle_container, None, "per idle container beyond its processes (budget 1.2 MiB)"),
    Workload("ps", "ms", 30, listing, None, "GET /containers/json?all=1"),
)  # fmt: skip
