"""Eight clients at one engine: pulls, loads, removals, prunes, saves and runs of images that share layers."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.upstream import Registry, layer, publish

CLIENTS = 8
SECONDS = 12.0
SEED = int(os.environ.get("HAFEN_TEST_SEED", time.time_ns() % 10**6))
# What another client's removal may make of a command; anything else is a fault of the engine's.
_ANOTHER_CAME_FIRST = re.compile(
    r"No such image|reference does not exist|is using its referenced image|is being used by|must be forced"
    r"|repository does not exist|tag does not exist"
)


class Storm:
    """The images by name, with what the file `which` says in each."""

    def __init__(self, engine: EngineProcess, registry: Registry, folder: Path) -> None:
        self.engine = engine
        self.done: Counter[str] = Counter()
        chance = random.Random(SEED)
        shared = [layer({f"shared{number}": chance.randbytes(300_000)}) for number in range(4)]
        self.names: dict[str, str] = {}
        for number in range(6):
            layers = [busybox_tar(), *shared[: number % 4 + 1], layer({"which": str(number).encode()})]
            publish(registry, f"storm{number}", "1", layers, oci=number % 2 == 0)
            self.names[f"{registry.host}/storm{number}:1"] = str(number)
        self.archives = []
        for number, name in enumerate(list(self.names)[:3]):
            engine.docker("pull", "-q", name)
            engine.docker("tag", name, f"stormed:{number}")
            self.archives.append(folder / f"storm{number}.tar")
            engine.docker("save", "-o", str(self.archives[-1]), f"stormed:{number}")
            self.names[f"stormed:{number}"] = self.names[name]
        engine.docker("rmi", *(f"stormed:{number}" for number in range(3)), *list(self.names)[:3])

    def client(self, number: int) -> None:
        chance, until = random.Random(SEED + number), time.monotonic() + SECONDS
        while time.monotonic() < until:
            name = chance.choice(list(self.names))
            verb = chance.choice(("pull", "pull", "load", "run", "run", "rmi", "prune", "save"))
            self._one(verb, name, chance)

    def _one(self, verb: str, name: str, chance: random.Random) -> None:
        if verb == "run":
            arguments = ["run", "--rm", "--net", "none", "--pull", "never", name, "cat", "/which"]
        elif verb == "load":
            arguments = ["load", "-q", "-i", str(chance.choice(self.archives))]
        elif verb == "prune":
            arguments = ["image", "prune", "-f"] if chance.random() < 0.7 else ["image", "prune", "-af"]
        elif verb == "save":
            arguments = ["save", name]
        elif verb == "pull":
            arguments = ["pull", "-q", chance.choice([one for one in self.names if "/" in one])]
        else:
            arguments = ["rmi", "-f", name]
        ran = self.engine.docker(*arguments, check=False)
        if ran.code != 0:
            assert verb not in ("pull", "load", "prune"), (arguments, ran)
            assert _ANOTHER_CAME_FIRST.search(ran.stderr), (arguments, ran)
        elif verb == "run":
            assert ran.stdout == self.names[name], (arguments, ran)
        self.done[f"{verb}{'' if ran.code == 0 else ' too late'}"] += 1


def test_a_storm_at_one_engine(engine: EngineProcess, registry: Registry, folder: Path) -> None:
    print(f"seed: {SEED}")
    storm = Storm(engine, registry, folder)
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(storm.client, range(CLIENTS)))
    print(storm.done)
    assert engine.fsck() == []
    assert min(storm.done[verb] for verb in ("pull", "load", "run", "rmi", "prune")) > 0, storm.done
    for name, which in storm.names.items():
        if "/" in name:
            assert engine.docker("run", "--rm", "--pull", "always", "-q", name, "cat", "/which").stdout == which
    for archive in storm.archives:
        engine.docker("load", "-q", "-i", str(archive))
    engine.docker("rmi", "-f", *storm.names)
    assert engine.fsck() == []
    assert "Traceback" not in engine.log.read_text()
