"""`stats`: counters of running containers, refreshed once a second."""

import json
import sys
import threading
import time

from hafen.cli import terminal
from hafen.cli.command import Call, Command
from hafen.cli.formats import show
from hafen.cli.output import binary_size, err, human_size, short_id
from hafen.client import containers
from hafen.client.engine import Document, Engine
from hafen.errors import HafenError, NotFound
from hafen.spec.evaluate import Row

_HEADERS = {
    "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
_DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


def _stats(call: Call) -> int:
    flags = call.flags
    once = flags.on("no-stream")
    if call.arguments:
        names = call.arguments
        for name in names:
            containers.inspect(call.engine, name)  # what is not there is said before anything is shown
    else:
        names = []
    while True:
        shown = names or [item["Id"] for item in containers.listing(call.engine, all_states=flags.on("all"))]
        rows = _sample(call.engine, shown, truncate=not flags.on("no-trunc"))
        if not once and terminal.is_terminal(1):
            sys.stdout.write("\x1b[H\x1b[2J")
        show(rows, _HEADERS, _DEFAULT, flags.text("format"))
        sys.stdout.flush()
        if once:
            return 0
        time.sleep(0.5)  # the samples themselves take a second: the engine measures between two readings


def _sample(engine: Engine, names: list[str], *, truncate: bool) -> list[Row]:
    """All containers at the same time, one connection each."""
    found: dict[str, Document] = {}

    def fetch(name: str) -> None:
        try:
            with Engine(engine.endpoint) as own:
                sample = containers.stats(own, name, stream=False).read()
                if sample:  # of one that goes just now there is none
                    found[name] = json.loads(sample)
        except NotFound:
            pass  # it has gone since it was listed
        except HafenError as error:
            err(error.message)

    threads = [threading.Thread(target=fetch, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [_row(name, found[name], truncate) for name in names if name in found]


def _row(name: str, stats: Document, truncate: bool) -> Row:
    used, limit = _memory(stats)
    receive = sum(item["rx_bytes"] for item in (stats.get("networks") or {}).values())
    send = sum(item["tx_bytes"] for item in (stats.get("networks") or {}).values())
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read = sum(item["value"] for item in blocks if item["op"].lower().startswith("r"))
    write = sum(item["value"] for item in blocks if item["op"].lower().startswith("w"))
    identifier = str(stats.get("id") or name)
    return Row("*container.statsContext", {
        "Container": name, "ID": short_id(identifier) if truncate else identifier,
        "Name": str(stats.get("name", "")).lstrip("/"),
        "CPUPerc": f"{_cpu(stats):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(receive, 3)} / {human_size(send, 3)}",
        "BlockIO": f"{human_size(read, 3)} / {human_size(write, 3)}",
        "PIDs": str((stats.get("pids_stats") or {}).get("current", 0)),
    })  # fmt: skip


def _memory(stats: Document) -> tuple[int, int]:
    """Usage without the page cache that can be given back, as docker shows it."""
    memory = stats.get("memory_stats") or {}
    details, used = memory.get("stats") or {}, int(memory.get("usage") or 0)
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    return used - inactive if inactive < used else used, int(memory.get("limit") or 0)


def _cpu(stats: Document) -> float:
    now, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    used = now.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    whole = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    processors = now.get("online_cpus") or len(now.get("cpu_usage", {}).get("percpu_usage") or []) or 1
    return used / whole * processors * 100 if used > 0 and whole > 0 else 0.0


STATS = Command(
    _stats, "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics",
    """
-a, --all             Show all containers (default shows just running)
    --format string   @table
    --no-stream       Disable streaming stats and only pull the first result
    --no-trunc        Do not truncate output
""",
)  # fmt: skip
