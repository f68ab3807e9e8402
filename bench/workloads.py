"""What is measured: each workload runs once on one engine and returns a figure in its unit."""

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench import images, memory, network
from bench.api import Engine
from bench.images import cli

IMAGE = "busybox"


class Workload(NamedTuple):
    name: str
    unit: str  # "ms", "MiB"; "1/s", "MB/s": more is better
    runs: int
    run: Callable[[Engine], float]
    budget: float | None  # the most that Hafen's median may be of the peer's ("/s": the least)
    about: str


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


def counted(engine: Engine, arguments: list[str], counter: list[str]) -> tuple[int, float]:
    """`docker arguments | wc counter`: the count and the seconds it took."""
    env = {**os.environ, "DOCKER_HOST": engine.address}
    begin = time.perf_counter()
    with subprocess.Popen(["docker", *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as source:
        count = int(subprocess.run(["wc", *counter], stdin=source.stdout, capture_output=True, check=True).stdout)
    return count, time.perf_counter() - begin


def attach_rate(engine: Engine) -> float:
    """MB/s of a container's output through an attached client; not logged, as the disk is not what is measured."""
    command = ["dd", "if=/dev/zero", "bs=1M", "count=500", "status=none"]
    count, seconds = counted(engine, ["run", "--rm", "--net", "none", "--log-driver", "none", IMAGE, *command], ["-c"])
    assert count == 500 << 20, f"{count} bytes came"
    return count / 1e6 / seconds


def attach_logged_rate(engine: Engine) -> float:
    """The same with the engine's default log driver beside it."""
    command = ["dd", "if=/dev/zero", "bs=1M", "count=500", "status=none"]
    count, seconds = counted(engine, ["run", "--rm", "--net", "none", IMAGE, *command], ["-c"])
    assert count == 500 << 20, f"{count} bytes came"
    return count / 1e6 / seconds


def write_lines(engine: Engine) -> tuple[str, float]:
    """A container that logged a million lines, and the ms from its start to its end."""
    ident = engine.create(IMAGE, ["seq", "1000000"], network="none")
    begin = time.perf_counter()
    engine.start(ident)
    engine.wait_exit(ident)
    return ident, (time.perf_counter() - begin) * 1e3


def log_write(engine: Engine) -> float:
    ident, spent = write_lines(engine)
    engine.remove(ident)
    return spent


def log_read(engine: Engine) -> float:
    ident, _ = write_lines(engine)
    count, seconds = counted(engine, ["logs", ident], ["-l"])
    engine.remove(ident)
    assert count == 1_000_000, f"{count} lines came"
    return seconds * 1e3


class Crowd:
    """A thousand containers that were created and not started, one crowd per engine, kept for the whole run."""

    SIZE = 1000
    _by_engine: dict[str, list[str]] = {}  # noqa: RUF012 - the benchmark's own registry

    @classmethod
    def gather(cls, engine: Engine) -> None:
        if engine.name not in cls._by_engine:
            cls._by_engine[engine.name] = [engine.create(IMAGE, ["true"], network="none") for _ in range(cls.SIZE)]

    @classmethod
    def remove_all(cls, engines: list[Engine]) -> None:
        for engine in engines:
            for ident in cls._by_engine.pop(engine.name, []):
                engine.remove(ident)


def ps_crowd(engine: Engine) -> float:
    Crowd.gather(engine)
    return cli(engine, "ps", "-a")


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
    Workload("attach", "MB/s", 3, attach_rate, None, "docker run --log-driver none busybox dd bs=1M count=500 | wc -c"),
    Workload("attach-logged", "MB/s", 3, attach_logged_rate, 5.0, "the same with the default log driver"),
    Workload("log-write", "ms", 3, log_write, 1 / 2, "a container that writes a million lines, start to end"),
    Workload("log-read", "ms", 3, log_read, 1 / 2, "docker logs | wc -l of them"),
    Workload("load", "ms", 5, images.load_debian, 1 / 1.5, "docker load of an archive of a Debian of 171 MB"),
    Workload("push", "ms", 5, images.push_debian, 1 / 2, "docker push of it to docker-registry"),
    Workload("pull", "ms", 5, images.pull_debian, 1 / 1.5, "docker pull of it from there"),
    Workload("push-ours", "ms", 5, images.push_debian_to_ours, 1 / 2, "docker push of it to hafen registry serve"),
    Workload("pull-ours", "ms", 5, images.pull_debian_from_ours, 1 / 1.5, "docker pull of it from there"),
    Workload("load-tree", "ms", 3, images.load_tree, 1.0, "docker load of 50,000 files of 2 KB"),
    Workload("pull-tree", "ms", 3, images.pull_tree, 1.0, "docker pull of them from docker-registry"),
    Workload("network", "ms", 20, network.create_and_remove, 1 / 3, "a network made and removed, kept connection"),
    Workload("bridge-cost", "ms", 3, network.bridge_cost, None, "a start on a bridge beyond --net none (budget 3 ms)"),
    Workload("500-ports", "x", 3, network.start_beside_ports, None, "a start beside 500 ports, to one without"),
    Workload("between", "MB/s", 9, network.between_containers, 0.95, "iperf3 from one container to another"),
    Workload("published", "MB/s", 9, network.through_a_port, 0.95, "iperf3 from the host by a port"),
    Workload("ps-1000", "ms", 20, ps_crowd, None, "docker ps -a, 1,000 containers (budget 50 ms)"),
)  # fmt: skip
