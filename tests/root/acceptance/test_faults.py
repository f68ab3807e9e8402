"""Every process of ours is killed at random instants during 200 life cycles: nothing is lost, nothing is left."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.machine import leftovers, machine_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CYCLES = 200
SEED = 20260


def processes_of(engine: EngineProcess) -> dict[str, list[int]]:
    """Our processes by kind: the engine, its zygote, the shims and the containers' first processes."""
    found: dict[str, list[int]] = {"engine": [], "zygote": [], "shim": [], "init": []}
    if engine.process and engine.process.poll() is None:
        found["engine"].append(engine.process.pid)
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    for state in engine.run.glob("containers/*/state.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(state.read_text())["pid"])
            if pid in parents:
                found["init"].append(pid)
                found["shim"].append(parents[pid])
    found["zygote"] = [pid for pid, parent in parents.items() if parent in found["engine"]]
    return found


class Killer(threading.Thread):
    """Kills one process of ours after another, at random instants, until told to stop."""

    def __init__(self, engine: EngineProcess, chance: random.Random) -> None:
        super().__init__()
        self.engine = engine
        self.chance = chance
        self.over = threading.Event()
        self.killed: dict[str, int] = {}

    def run(self) -> None:
        while not self.over.wait(self.chance.uniform(0.05, 0.6)):
            kind = self.chance.choice(["engine", "zygote", "shim", "shim", "init"])
            victims = processes_of(self.engine)[kind]
            if not victims:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(victims), signal.SIGKILL)
                self.killed[kind] = self.killed.get(kind, 0) + 1
            if kind == "engine":
                self.engine.kill()
                self.engine.start()


def one_cycle(engine: EngineProcess, name: str, network: str) -> None:
    """A container's life; any step may fail because something was killed: then the next step is tried all the same."""
    for command in (
        ("create", "--name", name, "--network", network, "-v", "/data", "busybox", "sleep", "600"),
        ("start", name),
        ("exec", name, "sh", "-c", "echo x >/data/x"),
        ("stop", "-t", "0", name),
        ("rm", "-v", name),
    ):
        engine.docker(*command, check=False)


def test_two_hundred_cycles_under_fire() -> None:
    before = machine_state()
    strangers = cgroups()
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="hafen-faults-") as folder:
        engine = EngineProcess(Path(folder) / "e")
        with engine:
            engine.load_busybox()
            keeper = engine.docker(
                "run", "-d", "--name", "keeper", "busybox", "sh", "-c", "echo up; exec sleep 6000"
            ).stdout
            killer = Killer(engine, chance)
            killer.start()
            try:
                for number in range(CYCLES):
                    one_cycle(engine, f"c{number}", chance.choice(["none", "bridge"]))
            finally:
                killer.over.set()
                killer.join()
            assert sum(killer.killed.values()) > 20, killer.killed
            settle(engine)
            check_truth(engine, keeper.strip(), strangers)
            names = engine.docker("ps", "-aq").stdout.split()
            engine.docker("rm", "-f", "-v", *names)
            check_empty(engine)
    assert not leftovers(before)


def settle(engine: EngineProcess) -> None:
    if engine.process is None or engine.process.poll() is not None:
        engine.start()
    engine.stop()
    engine.start()


def cgroups() -> set[str]:
    """The containers that have a cgroup in any hierarchy."""
    return {path.name for path in Path("/sys/fs/cgroup").glob("*/hafen/*/")}


def check_truth(engine: EngineProcess, keeper: str, strangers: set[str]) -> None:
    """What the engine says is what the kernel shows; `strangers` are cgroups that were there before."""
    rows = json.loads(
        "[" + ",".join(engine.docker("ps", "-a", "--no-trunc", "--format", "json").stdout.splitlines()) + "]"
    )
    assert keeper in {row["ID"] for row in rows}
    for row in rows:
        state = json.loads(engine.docker("inspect", "-f", "{{json .State}}", row["ID"]).stdout)
        if state["Running"]:
            assert Path(f"/proc/{state['Pid']}").exists(), row
            assert engine.docker("exec", row["ID"], "echo", "alive").stdout == "alive\n"
        else:
            assert state["Pid"] == 0, row
            assert not list(Path("/sys/fs/cgroup").glob(f"*/hafen/{row['ID']}")), row
    running = {row["ID"] for row in rows if row["State"] == "running"}
    assert cgroups() - strangers == running
    assert {path.name for path in (engine.run / "containers").iterdir()} == running
    assert {path.name for path in (engine.data / "containers").iterdir()} <= {row["ID"] for row in rows}


def check_empty(engine: EngineProcess) -> None:
    """With the last container gone, its layers, directories and volumes are gone too."""
    deadline = time.monotonic() + 5
    while [
        path
        for path in (engine.data / "snapshots/overlay").iterdir()
        if path.name.startswith(".") or "trash" in path.name
    ]:
        assert time.monotonic() < deadline, "what was removed is still being deleted"
        time.sleep(0.05)
    assert list((engine.data / "containers").iterdir()) == []
    assert list((engine.run / "containers").iterdir()) == []
    engine.stop()
    with sqlite3.connect(f"file:{engine.data / 'hafen.db'}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (containers,) = database.execute("SELECT count(*) FROM containers").fetchone()
        assert containers == 0
    database.close()
    engine.start()
