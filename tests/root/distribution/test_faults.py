"""A line that fails at random, and an engine killed at random points of all it does with images: the store passes its
own check each time, nothing half is visible, nothing stays behind, and what was asked for comes true in the end."""

from __future__ import annotations

import gzip
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.badline import BadLine
from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.registry import RegistryProcess
from tests.harness.upstream import Exchange, Proxy, Registry, layer, publish

Bare = tuple[set[str], tuple[set[str], int]]

SEED = int(os.environ.get("HAFEN_TEST_SEED", time.time_ns() % 10**6))


@pytest.fixture(scope="module")
def ours(folder: Path) -> Iterator[RegistryProcess]:
    with RegistryProcess(folder / "ours") as process:
        yield process


@pytest.fixture(scope="module")
def bare(engine: EngineProcess) -> Bare:
    """What an engine has that has only busybox: images' names, and what is stored."""
    return images(engine), stored(engine)


@pytest.fixture(params=["hafen", "docker-registry"])
def host(request: pytest.FixtureRequest, ours: RegistryProcess, registry: Registry) -> str:
    return f"127.0.0.1:{ours.port}" if request.param == "hafen" else registry.host


def images(engine: EngineProcess) -> set[str]:
    """Their names; ids of those that have none."""
    shown = '{{if eq .Repository "<none>"}}{{.ID}}{{else}}{{.Repository}}:{{.Tag}}{{end}}'
    return set(engine.docker("images", "-a", "--format", shown).stdout.split())


def stored(engine: EngineProcess) -> tuple[set[str], int]:
    """Blobs, and directories of layers."""
    return set(os.listdir(engine.data / "content/blobs/sha256")), len(os.listdir(engine.data / "snapshots/overlay"))


def wait_stored(engine: EngineProcess, wanted: tuple[set[str], int]) -> None:
    """Files are removed in the background, which tells nobody."""
    deadline = time.monotonic() + 30
    while stored(engine) != wanted:
        blobs, directories = stored(engine)
        assert time.monotonic() < deadline, (blobs ^ wanted[0], directories, wanted[1])
        time.sleep(0.02)


def picture(chance: random.Random, layers: int, size: int) -> list[bytes]:
    """An image's layers: what compression cannot shrink, and some hundred small files."""
    found = [busybox_tar()]
    for number in range(layers):
        small = {f"d{number}/{index}": chance.randbytes(chance.randrange(200)) for index in range(150)}
        found.append(layer({f"large{number}": chance.randbytes(chance.randrange(size)), **small}))
    return found


def test_a_line_that_fails_at_random(engine: EngineProcess, registry: Registry, host: str, bare: Bare) -> None:
    """What fails says why and is not there; what succeeds is whole; the next attempt on a good line succeeds."""
    chance, line = random.Random(SEED), BadLine(SEED)
    outcomes = []
    for number in range(4):
        publish(registry, f"rough{number}", "1", picture(chance, 3, 1 << 20))
        with line.to(registry.host) as there, line.to(host) as back:
            come, go = f"{there.host}/rough{number}:1", f"{back.host}/away{number}:1"
            line.bad = True
            pulled = engine.docker("pull", "-q", come, check=False)
            outcomes.append(pulled.code)
            line.bad = False
            if pulled.code != 0:
                assert pulled.stderr.startswith("Error"), pulled
                assert images(engine) == bare[0]
                engine.docker("pull", "-q", come)
            assert engine.fsck() == []
            assert engine.docker("run", "--rm", come, "cat", "d0/1", "d2/149").code == 0
            engine.docker("tag", come, go)
            line.bad = True
            pushed = engine.docker("push", "-q", go, check=False)
            outcomes.append(pushed.code)
            line.bad = False
            if pushed.code != 0:
                assert pushed.stderr.strip(), pushed
                engine.docker("push", "-q", go)
            assert engine.fsck() == []
            engine.docker("rmi", come, go)
            engine.docker("pull", "-q", go)
            engine.docker("rmi", go)
        assert images(engine) == bare[0]
        wait_stored(engine, bare[1])
    assert sum(line.done.values()) > 10, line.done
    assert outcomes.count(0) > len(outcomes) // 2, outcomes  # most is ridden out
    assert not os.listdir(engine.data / "content/ingest")


def test_twenty_cuts_anywhere_cost_next_to_nothing(engine: EngineProcess, registry: Registry) -> None:
    chance = random.Random(SEED)
    cuts: list[int] = []
    layers = picture(chance, 4, 4 << 20)
    publish(registry, "severed", "1", layers)

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path and len(exchange.body) > 1000 and len(cuts) < 20:
            cuts.append(chance.randrange(1 + len(exchange.body) // 4))
            exchange.cut = cuts[-1]

    with Proxy(registry.host, fault) as proxy:
        engine.docker("pull", "-q", f"{proxy.host}/severed:1")
        assert len(cuts) == 20
        assert proxy.sent <= 1.02 * sum(len(gzip.compress(one)) for one in layers)
        assert engine.fsck() == []
        engine.docker("rmi", f"{proxy.host}/severed:1")


class Work:
    """What the engine is killed in: each verb's command, with what has to be there before and may be there after."""

    def __init__(self, engine: EngineProcess, host: str, archive: Path, chance: random.Random) -> None:
        self.engine = engine
        self.host = host
        self.archive = archive
        self.chance = chance
        self.pushes = 0

    def pull(self) -> list[str]:
        return ["pull", "-q", f"{self.host}/killed:1"]

    def load(self) -> list[str]:
        return ["load", "-q", "-i", str(self.archive)]

    def push(self) -> list[str]:
        self.engine.docker("load", "-q", "-i", str(self.archive))
        self.pushes += 1
        name = f"{self.host}/pushed{self.pushes}:1"
        self.engine.docker("tag", "killed:loaded", name)
        return ["push", "-q", name]

    def remove(self) -> list[str]:
        """Collection follows each removal."""
        self.engine.docker("load", "-q", "-i", str(self.archive))
        self.engine.docker("pull", "-q", f"{self.host}/killed:1")
        return ["rmi", "killed:loaded", f"{self.host}/killed:1"]


def undisturbed(engine: EngineProcess, command: list[str], bare: Bare) -> float:
    """Seconds that it takes when nobody is killed; nothing is left of it."""
    begun = time.monotonic()
    engine.docker(*command)
    seconds = time.monotonic() - begun
    if extra := images(engine) - bare[0]:
        engine.docker("rmi", *extra)
    return seconds


def test_an_engine_killed_at_random_points(engine: EngineProcess, registry: Registry, folder: Path, bare: Bare) -> None:
    print(f"seed: {SEED}")
    chance = random.Random(SEED)
    publish(registry, "killed", "1", picture(chance, 3, 6 << 20))
    archive = folder / "killed.tar"
    engine.docker("pull", "-q", f"{registry.host}/killed:1")
    engine.docker("tag", f"{registry.host}/killed:1", "killed:loaded")
    engine.docker("save", "-o", str(archive), "killed:loaded")
    engine.docker("rmi", "killed:loaded", f"{registry.host}/killed:1")
    work = Work(engine, registry.host, archive, chance)
    verbs: list[Callable[[], list[str]]] = [work.pull, work.load, work.push, work.remove]
    lasts = {verb: undisturbed(engine, verb(), bare) for verb in verbs}
    cut_short = 0
    for verb in verbs * 5:
        command = verb()
        with engine.docker_beside(*command) as client:
            time.sleep(chance.uniform(0, lasts[verb]))  # the instant of the fault
            cut_short += client.process.poll() is None
            engine.kill()
            client.wait()
        engine.start()
        assert engine.fsck() == [], command
        extra = images(engine) - bare[0]
        for name in extra:
            assert ":" in name, "half an image is shown"
            assert engine.docker("run", "--rm", name, "cat", "d0/1", "d2/149").code == 0
        if verb == work.push:
            engine.docker("push", "-q", command[-1])
        if extra:
            engine.docker("rmi", *extra)
        assert images(engine) == bare[0]
        wait_stored(engine, bare[1])
    assert cut_short >= len(verbs), "hardly anything was cut short"
    engine.docker("pull", "-q", f"{registry.host}/killed:1")
    engine.docker("rmi", f"{registry.host}/killed:1")
    assert not os.listdir(engine.data / "content/ingest")
