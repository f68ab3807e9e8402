"""Measure engines side by side: `python -m bench --engine hafen=unix:///run/hafen/hafen.sock --engine docker=unix://...`

The engines take turns run by run (A B A B ...), so that a machine whose speed drifts slows both alike. Ratios are
the first engine's median to the last one's. `--endpoint 'GET /images/json'` measures any Engine API endpoint.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench.api import Engine
from bench.images import Stocked
from bench.workloads import WORKLOADS, Crowd, Sleeper, Workload


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def endpoint(text: str) -> Workload:
    method, path, *body = text.split(" ", 2)
    payload = json.loads(body[0]) if body else None

    def once(engine: Engine) -> float:
        begin = time.perf_counter()
        engine.call(method, path, payload)
        return (time.perf_counter() - begin) * 1e3

    return Workload(text, "ms", 50, once, None, "one call over a kept connection")


def measure(workload: Workload, engines: list[Engine], scale: float) -> dict[str, list[float]]:
    runs = max(1, round(workload.runs * scale))
    values: dict[str, list[float]] = {engine.name: [] for engine in engines}
    if runs > 1:
        for engine in engines:
            workload.run(engine)  # not counted: caches warm
    for _ in range(runs):
        for engine in engines:
            values[engine.name].append(workload.run(engine))
    return values


def report(workload: Workload, values: dict[str, list[float]]) -> None:
    print(f"{workload.name}  ({workload.about})")
    for name, figures in values.items():
        columns = {
            "min": min(figures),
            "p50": statistics.median(figures),
            "p90": percentile(figures, 0.9),
            "p99": percentile(figures, 0.99),
            "max": max(figures),
        }
        row = "  ".join(f"{label} {value:9.2f}" for label, value in columns.items())
        print(f"  {name:8} n={len(figures):<3} {row} {workload.unit}")
    names = list(values)
    if len(names) < 2:
        return
    ratio = statistics.median(values[names[0]]) / statistics.median(values[names[-1]])
    verdict = ""
    if workload.budget is not None:
        met = ratio >= workload.budget if workload.unit.endswith("/s") else ratio <= workload.budget
        bound = "at least" if workload.unit.endswith("/s") else "at most"
        verdict = f"   budget {bound} {workload.budget:.3f}: {'met' if met else 'MISSED'}"
    print(f"  ratio {names[0]}/{names[-1]} {ratio:.3f}{verdict}", flush=True)


def own_process(label: str, command: list[str], budget_ms: float, runs: int = 20) -> None:
    """A command of ours that no peer has: wall times against a fixed budget."""

    def once() -> float:
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return (time.perf_counter() - begin) * 1e3

    timed: Callable[[], float] = once
    timed()
    values = [timed() for _ in range(runs)]
    median = statistics.median(values)
    print(f"{label}\n  p50 {median:.1f} ms  p90 {percentile(values, 0.9):.1f} ms   budget {budget_ms:g} ms: ", end="")
    print("met" if median <= budget_ms else "MISSED", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", action="append", metavar="NAME=unix://SOCKET", required=True)
    parser.add_argument("--only", action="append", metavar="WORKLOAD", choices=[w.name for w in WORKLOADS])
    parser.add_argument("--endpoint", action="append", metavar="'METHOD PATH [JSON]'", default=[])
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of runs")
    parser.add_argument("--own", action="store_true", help="also `hafen version` and the lean set's start-up")
    options = parser.parse_args()
    engines = [Engine(*text.split("=", 1)) for text in options.engine]
    chosen = [endpoint(text) for text in options.endpoint] or [
        w for w in WORKLOADS if not options.only or w.name in options.only
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with the end of what was started for it
    try:
        for workload in chosen:
            report(workload, measure(workload, engines, options.scale))
    finally:
        Sleeper.remove_all(engines)
        Crowd.remove_all(engines)
        Stocked.close_all()
    if options.own:
        own_process("hafen version", ["./hafen", "-H", engines[0].address, "version"], 80)
        lean = "import sys; sys.path.insert(0, 'src'); import hafen.shim.zygote, hafen.shim.main, hafen.runtime.parent"
        own_process("lean set", [sys.executable, "-SI", "-c", lean], 40)
    return 0


if __name__ == "__main__":
    sys.exit(main())
