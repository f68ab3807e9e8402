"""Where the time of one start, exec or `docker run` goes: `python -m bench.trace [start|exec|run] --root DIR`.

Starts an engine of its own whose functions are wrapped (`bench.steps`), in the engine, the zygote and the shims that
it forks, lets it do the work a few times, and prints one time line: microseconds since the request, duration, step,
each the first quartile of the runs, so that what else the machine does shows less. Steps within (or beside) others are
indented. The marks themselves cost about 10 us each; `--archive` is an image archive to load first (busybox).
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.api import Engine
from bench.images import cli
from bench.workloads import IMAGE

IDENT = re.compile(r"\b[0-9a-f]{12,64}\b|/[^ ]*/containers/")
ROOT = Path(__file__).resolve().parent.parent


class Line(NamedTuple):
    begin: int
    end: int
    pid: int
    depth: int
    label: str


def serve(path: str, arguments: list[str]) -> int:
    """The engine process, with marks."""
    from bench import marks, steps
    from hafen.daemon import main
    from hafen.engine import zygote

    missing = marks.install(steps.ENGINE, marks.Recorder(path))
    for name in missing:
        sys.stderr.write(f"bench.trace: no {name} any more\n")
    zygote._PROGRAM = (
        f"import sys; sys.path[:0] = [sys.argv[1], {str(ROOT)!r}]; "
        f"from bench.marks import zygote; zygote(int(sys.argv[2]), {path!r})"
    )
    return main.main(arguments)


def read(path: Path) -> list[Line]:
    lines = []
    for text in path.read_text().splitlines():
        begin, end, pid, depth, label = text.split(" ", 4)
        lines.append(Line(int(begin), int(end), int(pid), int(depth), label))
    return sorted(lines, key=lambda line: (line.begin, -line.end))


def quartile(values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[len(ordered) // 4]


def typical(lines: list[Line], times: list[tuple[int, int]]) -> list[Line]:
    """One time line: each step's begin (since its run's begin) and duration, over the runs that have it."""
    seen: dict[tuple[str, int], list[Line]] = {}
    for begin, end in times:
        count: Counter[str] = Counter()
        for line in lines:
            if begin <= line.begin <= end:
                relative = line._replace(begin=line.begin - begin, end=line.end - begin)
                label = IDENT.sub("<id>", line.label)
                seen.setdefault((label, count[label]), []).append(relative)
                count[label] += 1
    result = []
    for (label, _), found in seen.items():
        if len(found) * 2 > len(times):
            start = quartile(line.begin for line in found)
            takes = quartile(line.end - line.begin for line in found)
            result.append(Line(start, start + takes, 0, found[0].depth, label))
    return sorted(result, key=lambda line: (line.begin, -line.end))


def show(lines: list[Line]) -> None:
    print(f"{'at us':>8} {'takes us':>9}  step")
    inside: list[Line] = []
    for line in lines:
        inside = [outer for outer in inside if outer.end > line.begin]
        print(f"{line.begin // 1000:8} {(line.end - line.begin) // 1000:9}  {'  ' * len(inside)}{line.label}")
        inside.append(line)


def start(engine: Engine, network: str) -> tuple[int, int]:
    ident = engine.create(IMAGE, ["sleep", "60"], network=network)
    begin = time.monotonic_ns()
    engine.start(ident)
    end = time.monotonic_ns()
    time.sleep(0.2)  # what goes on after the answer is of another time line
    engine.remove(ident)
    return begin, end


def execute(engine: Engine, ident: str) -> tuple[int, int]:
    begin = time.monotonic_ns()
    engine.exec(ident, ["true"])
    end = time.monotonic_ns()
    time.sleep(0.1)
    return begin, end


def run(engine: Engine, network: str) -> tuple[int, int]:
    """The docker command, with its own time before, between and after its requests."""
    begin = time.monotonic_ns()
    cli(engine, "run", "--rm", "--net", network, IMAGE, "true")
    end = time.monotonic_ns()
    time.sleep(0.2)
    return begin, end


def runs(engine: Engine, what: str, network: str, count: int) -> list[tuple[int, int]]:
    if what == "run":
        return [run(engine, network) for _ in range(count)]
    if what == "start":
        return [start(engine, network) for _ in range(count)]
    ident = engine.create(IMAGE, ["sleep", "3600"], network=network)
    engine.start(ident)
    try:
        return [execute(engine, ident) for _ in range(count)]
    finally:
        engine.remove(ident)


def wait_listening(process: "subprocess.Popen[bytes]", address: str) -> Engine:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            engine = Engine("hafen", address)
            engine.call("GET", "/_ping")
            return engine
        except OSError:
            time.sleep(0.05)
    raise SystemExit("bench.trace: the engine does not answer")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.trace", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("start", "exec", "run"), default="start")
    parser.add_argument("--root", required=True, help="directory for the engine's data and this trace")
    parser.add_argument("--archive", help="image archive to load first, with an image named busybox")
    parser.add_argument("--net", default="none")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--engine-flag", action="append", default=[], metavar="FLAG=VALUE", help="for the engine too")
    options = parser.parse_args()
    root = Path(options.root)
    root.mkdir(parents=True, exist_ok=True)
    path = Path(f"/dev/shm/hafen-trace-{os.getpid()}")  # a file system on disk would be part of what is measured
    program = f"import sys; from bench.trace import serve; sys.exit(serve({str(path)!r}, sys.argv[1:]))"
    flags = ["--root", str(root / "lib"), "--run", str(root / "run"), *options.engine_flag]
    process = subprocess.Popen([sys.executable, "-c", program, *flags], cwd=ROOT)
    address = f"unix://{root / 'run/hafen.sock'}"
    try:
        engine = wait_listening(process, address)
        if options.archive:
            environment = {**os.environ, "DOCKER_HOST": address}
            subprocess.run(["docker", "load", "-q", "-i", options.archive], env=environment, check=True)
        times = runs(engine, options.what, options.net, options.runs)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    lines = read(path)
    path.unlink()
    durations = sorted(end - begin for begin, end in times)
    show(typical(lines, times))
    median = statistics.median(durations)
    print(f"{options.what}: min {durations[0] / 1e6:.1f} ms, median {median / 1e6:.1f} ms of {len(times)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
