"""A storm of other programs at our registry: docker, hafen and skopeo push, pull and delete while it collects."""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, Output, busybox_tar
from tests.harness.registry import RegistryProcess
from tests.harness.strangers import Strangers
from tests.harness.upstream import Registry, layer, publish
from tests.root.registryd.test_faults import blobs, every_tag, wait_until, whole

SECONDS = 16.0
SEED = int(os.environ.get("HAFEN_TEST_SEED", time.time_ns() % 10**6))
IMAGES = 6
# What a deletion that came first makes of a pull; a push is never refused.
_DELETED = re.compile(
    r"manifest unknown|blob unknown|name unknown|not found|does not exist|may not exist|No such image"
)


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None) -> Iterator[EngineProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="hafen-storm-") as folder,
        EngineProcess(Path(folder) / "e", "--idle-shims", "1", "--idle-netns", "1") as process,
    ):
        yield process


class Clients:
    """Each writes to a repository of its own and reads from all."""

    def __init__(self, engine: EngineProcess, strangers: Strangers, source: str, registry: RegistryProcess) -> None:
        self.engine = engine
        self.skopeo = strangers.skopeo
        self.source = source
        self.registry = registry
        self.host = f"127.0.0.1:{registry.port}"
        self.done: Counter[str] = Counter()

    def run(self, number: int) -> None:
        chance, until = random.Random(SEED + number), time.monotonic() + SECONDS
        own = f"{self.host}/storm/r{number}"
        work = (self.with_docker, self.with_skopeo, self.with_hafen, self.looking)[number % 4]
        while time.monotonic() < until:
            work(own, chance)

    def there(self, chance: random.Random) -> str:
        return f"{self.host}/storm/r{chance.choice((0, 1, 2, 4, 5, 6, 8))}:t{chance.randrange(IMAGES)}"

    def with_docker(self, own: str, chance: random.Random) -> None:
        self._by_engine("docker", own, chance)

    def with_hafen(self, own: str, chance: random.Random) -> None:
        self._by_engine("hafen", own, chance)

    def _by_engine(self, command: str, own: str, chance: random.Random) -> None:
        """Push what nobody has, or what some client has pushed, as one's own."""
        call = getattr(self.engine, command)
        mine = f"{own}:t{chance.randrange(IMAGES)}"
        what = chance.random()
        if what < 0.4:
            call("import", "-", mine, stdin=layer({"new": chance.randbytes(20_000)}))
        else:
            there = self.there(chance) if what < 0.8 else f"{self.source}/image{chance.randrange(IMAGES)}:1"
            if not self._told(call("pull", "-q", there, check=False), f"{command} pull"):
                return
            tagged = call("tag", there, mine, check=False)  # another client may have removed it meanwhile
            call("rmi", "-f", there, check=False)
            if tagged.code != 0:
                return
        self._told(call("push", "-q", mine, check=False), f"{command} push", mine)
        call("rmi", "-f", mine, check=False)

    def with_skopeo(self, own: str, chance: random.Random) -> None:
        what = chance.random()
        mine = f"docker://{own}:t{chance.randrange(IMAGES)}"
        if what < 0.4:
            source = f"docker://{self.source}/image{chance.randrange(IMAGES)}:1"
            self.skopeo("copy", source, mine)
            self.done["skopeo push"] += 1
        elif what < 0.6:
            copied = self.skopeo("copy", f"docker://{self.there(chance)}", mine, check=False)
            self._told(copied, "skopeo copy")
        else:
            self._told(self.skopeo("delete", f"docker://{self.there(chance)}", check=False), "skopeo delete")

    def looking(self, _: str, chance: random.Random) -> None:
        """Whether each image that is told of is whole."""
        with closing(self.registry.client()) as client:
            name, _, tag = self.there(chance).partition("/")[2].partition(":")
            self.done["whole" if whole(client, name, tag) else "not there"] += 1

    def _told(self, ran: Output, what: str, pushed: str = "") -> bool:
        """Whether it succeeded; fails where it had no reason not to."""
        if ran.code == 0:
            self.done[what] += 1
            return True
        local = "An image does not exist locally" in ran.stderr or "tag does not exist" in ran.stderr
        assert local if pushed else _DELETED.search(ran.stderr), (what, ran)
        self.done[f"{what}: too late"] += 1
        return False


def test_a_storm_of_other_programs(engine: EngineProcess, tmp_path: Path) -> None:
    print(f"seed: {SEED}")
    chance = random.Random(SEED)
    shared = [layer({f"shared{number}": chance.randbytes(200_000)}) for number in range(4)]
    flags = ("--gc-interval", "0.05", "--gc-grace", "8")
    with Registry(tmp_path / "source") as source, RegistryProcess(tmp_path / "ours", *flags) as registry:
        for number in range(IMAGES):
            layers = [busybox_tar(), *shared[number % 4 :], layer({"which": str(number).encode()})]
            publish(source, f"image{number}", "1", layers, oci=number % 2 == 0)
        strangers = Strangers(tmp_path / "strangers", (source.host, f"127.0.0.1:{registry.port}"))
        clients = Clients(engine, strangers, source.host, registry)
        with ThreadPoolExecutor(9) as pool:
            list(pool.map(clients.run, (0, 1, 2, 4, 5, 6, 8, 9, 3)))
        print(clients.done)
        with closing(registry.client()) as client:
            assert all(whole(client, name, tag) for name, tag in every_tag(client))
        for what in ("docker push", "docker pull", "hafen push", "skopeo push", "skopeo delete", "whole"):
            assert clients.done[what] > 0, clients.done
        assert engine.fsck() == []
        last = f"127.0.0.1:{registry.port}/storm/last:1"
        engine.docker("import", "-", last, stdin=layer({"last": chance.randbytes(20_000)}))
        stored = set(blobs(registry.root))
        engine.docker("push", "-q", last)
        strangers.skopeo("delete", f"docker://{last}")
        wait_until(lambda: set(blobs(registry.root)) <= stored, 30)
        registry.stop()
        assert sum(int(count) for count in re.findall(r"collection: (\d+) blobs", registry.log)) > 0
        assert "Traceback" not in registry.log
