"""A crowded machine: `python -m bench.load --engine hafen=unix:///run/hafen/hafen.sock [--engine docker=unix://...]`

Reports, for each engine in turn: `docker ps` while a thousand containers run and fifty come and go, the rhythm of
`stats` for a hundred containers, five hundred attached and listening clients at once, and the engine's memory over
cycles of create, start, remove. It judges nothing: tests hold what must be right, this tells how fast and how steady.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import selectors
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from bench import memory
from bench.api import ApiError, Engine
from bench.images import cli
from bench.workloads import IMAGE

_LABEL = "bench.load"


def start_sleepers(engine: Engine, count: int) -> list[str]:
    idents = []
    for _ in range(count):
        ident = engine.create(IMAGE, ["sleep", "86400"], network="none", Labels={_LABEL: "1"})
        idents.append(ident)
        engine.start(ident)
    return idents


@contextmanager
def churn(engine: Engine, width: int) -> Iterator[list[int]]:
    """`width` containers come and go all the time, from one thread; yields a list whose item counts the cycles."""
    cycles = [0]
    over = threading.Event()

    def work() -> None:
        own = Engine(engine.name, engine.address)
        while not over.is_set():
            idents = start_sleepers(own, width)
            for ident in idents:
                own.remove(ident)
            cycles[0] += width

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield cycles
    finally:
        over.set()
        worker.join()


def listing(engine: Engine, width: int, runs: int) -> None:
    quiet = [cli(engine, "ps", "-a") for _ in range(runs)]
    with churn(engine, width) as cycles:
        busy = [cli(engine, "ps", "-a") for _ in range(runs)]
    print(f"  docker ps -a              p50 {statistics.median(quiet):7.1f} ms   at rest")
    print(
        f"  docker ps -a              p50 {statistics.median(busy):7.1f} ms   max {max(busy):.1f}"
        f"   while {cycles[0]} containers came and went"
    )


def cpu_seconds(pid: int) -> float:
    fields = (memory.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(engine: Engine, head: str) -> socket.socket:
    """A connection with `head` (request line and headers) sent."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(60)
    stream.connect(engine.path)
    stream.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return stream


def stats(engine: Engine, idents: Sequence[str], seconds: float) -> None:
    """Streams the statistics of all of them at once: how far apart one container's samples come."""
    streams = {request(engine, f"GET /containers/{ident}/stats HTTP/1.1\nHost: x"): ident for ident in idents}
    seen: dict[str, list[float]] = {ident: [] for ident in idents}
    pid = memory.listener(engine.path)
    begin, spent = time.monotonic(), cpu_seconds(pid)
    with selectors.DefaultSelector() as selector:
        for opened in streams:
            selector.register(opened, selectors.EVENT_READ, opened)
        while time.monotonic() - begin < seconds:
            for key, _ in selector.select(1):
                stream: socket.socket = key.data
                if b'"read"' in stream.recv(65536):
                    seen[streams[stream]].append(time.monotonic())
    spent = cpu_seconds(pid) - spent
    for opened in streams:
        opened.close()
    gaps = [after - before for times in seen.values() for before, after in itertools.pairwise(times)]
    silent = sum(1 for times in seen.values() if len(times) < 2)
    print(
        f"  stats of {len(idents):<4}             p50 {statistics.median(gaps):7.2f} s    max {max(gaps):.2f}"
        f"   between samples; {silent} silent; the engine used {100 * spent / seconds:.0f} % of a core"
    )


def clients(engine: Engine, ident: str, count: int) -> None:
    """`count` clients attached to one container and `count` listening for events; one line reaches them all."""
    begin = time.monotonic()
    attached = [engine.hijack(f"/containers/{ident}/attach?stream=1&stdout=1") for _ in range(count)]
    listening = [request(engine, "GET /events HTTP/1.1\nHost: x") for _ in range(count)]
    connected = time.monotonic() - begin
    for stream in listening:
        stream.recv(4096)  # the head: it listens
    begin = time.monotonic()
    engine.exec(ident, ["sh", "-c", "echo hello >/proc/1/fd/1"])
    for stream in attached:
        head = stream.recv(8, socket.MSG_WAITALL)
        assert stream.recv(struct.unpack(">I", head[4:])[0], socket.MSG_WAITALL) == b"hello\n"
    for stream in listening:
        stream.recv(1)
    print(
        f"  {count} attached, {count} listening   {connected:5.2f} s to connect, {time.monotonic() - begin:.2f} s"
        " until one line and one event had reached them all"
    )
    for stream in (*attached, *listening):
        stream.close()


def steady(engine: Engine, cycles: int) -> None:
    """The engine's PSS after each tenth of many cycles of create, start, exec, remove; and its slope."""
    pid = memory.listener(engine.path)

    def cycle(_: int) -> None:
        own = Engine(engine.name, engine.address)
        ident = own.create(IMAGE, ["true"], network="bridge")
        own.start(ident)
        own.wait_exit(ident)
        own.remove(ident)

    values = []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            list(pool.map(cycle, range(cycles // 10)))
            values.append(memory.pss(pid) / 2**20)
    slope = statistics.linear_regression(range(5, 10), values[5:]).slope * 10_000 / cycles
    print(f"  memory over {cycles} cycles  " + " ".join(f"{value:.1f}" for value in values) + " MiB")
    print(f"                            {slope:+.2f} MiB per 1,000 cycles in the second half")


def remove_all(engine: Engine) -> None:
    filters = json.dumps({"label": [_LABEL]})
    for row in engine.call("GET", f"/containers/json?all=1&filters={filters.replace(' ', '')}"):
        with suppress(ApiError):
            engine.remove(row["Id"])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", action="append", metavar="NAME=unix://SOCKET", required=True)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--cycles", type=int, default=1000)
    options = parser.parse_args()
    for text in options.engine:
        engine = Engine(*text.split("=", 1))
        try:
            begin = time.monotonic()
            idents = start_sleepers(engine, options.containers)
            print(f"{engine.name}\n  {len(idents)} containers started    {time.monotonic() - begin:7.1f} s")
            listing(engine, 50, 20)
            stats(engine, idents[:100], 20)
            clients(engine, idents[0], options.clients)
            steady(engine, options.cycles)
        finally:
            remove_all(engine)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
