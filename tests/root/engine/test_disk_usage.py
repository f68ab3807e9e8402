"""`system df` tells what is on disk: its sizes beside those of `du` on the data root."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.upstream import Registry, layer, publish

ROOM = 1 << 20  # of an image, that no rounding hides
BASE = layer({"base": os.urandom(ROOM)})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as process:
        yield process


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="hafen-df-") as folder, EngineProcess(Path(folder) / "e") as process:
        yield process


def du(*paths: Path) -> tuple[int, int]:
    """Bytes that the files below take as `du` counts them: regular ones alone, and all with what whole blocks add."""
    run = subprocess.run(["du", "-sb", *map(str, paths)], capture_output=True, text=True, check=True)
    others = ["find", *map(str, paths), "!", "-type", "f"]
    names = subprocess.run(others, capture_output=True, text=True, check=True)
    whole = sum(int(line.split()[0]) for line in run.stdout.splitlines())
    return whole - sum(os.lstat(name).st_size for name in names.stdout.splitlines()), whole


def df(engine: EngineProcess) -> Any:
    status, usage = call(engine, "GET", "/system/df")
    assert status == 200
    return usage


def images_on_disk(engine: EngineProcess) -> tuple[int, int]:
    """Of layers and blobs, not of containers."""
    own = [path for path in (engine.data / "snapshots/overlay").iterdir() if not (path / "work").exists()]
    return du(engine.data / "content", *own)


def test_what_is_told_is_on_disk(engine: EngineProcess, registry: Registry) -> None:
    host = registry.host
    publish(registry, "one", "latest", [BASE, busybox_tar(), layer({"one": os.urandom(ROOM)})])
    publish(registry, "two", "latest", [BASE, layer({"two": os.urandom(ROOM)})])
    publish(registry, "three", "latest", [layer({"three": os.urandom(ROOM)}), BASE])
    engine.docker("pull", "-q", f"{host}/two")
    usage = df(engine)
    assert sum(item["Size"] for item in usage["Images"]) == usage["LayersSize"]  # with the host image's documents
    for name in ("one", "three"):
        engine.docker("pull", "-q", f"{host}/{name}")
    engine.docker("run", "--name", "df", "-v", "df:/v", f"{host}/one", "sh", "-c",
                  "dd if=/dev/urandom of=/mine bs=1M count=2; dd if=/dev/urandom of=/v/mine bs=1M count=3")  # fmt: skip
    engine.docker("commit", "df", "df-made")
    usage = df(engine)

    least, most = images_on_disk(engine)
    assert least - 4096 <= usage["LayersSize"] <= most  # links to files of the layer may count or not
    by_name = {(item["RepoTags"] or [""])[0]: item for item in usage["Images"]}
    one, made = by_name[f"{host}/one:latest"], by_name["df-made:latest"]
    two, three = by_name[f"{host}/two:latest"], by_name[f"{host}/three:latest"]
    assert one["SharedSize"] >= 2 * ROOM + 2 * len(busybox_tar()) // 3  # with its child, all but a few documents
    assert one["Size"] - one["SharedSize"] < 4096
    assert made["Size"] - made["SharedSize"] >= 2 * ROOM
    assert ROOM <= two["SharedSize"] <= ROOM * 2.5
    assert three["SharedSize"] < ROOM * 1.1  # the same contents on another parent are files of their own, one blob
    assert one["Containers"] == 1

    unique = sum(item["Size"] - item["SharedSize"] for item in usage["Images"])
    assert unique + ROOM < usage["LayersSize"] < sum(item["Size"] for item in usage["Images"]) - ROOM
    (container,) = usage["Containers"]
    (upper,) = [path.parent for path in (engine.data / "snapshots/overlay").glob("*/work")]
    least, most = du(upper / "fs")
    assert least - 4096 <= container["SizeRw"] <= most  # links do not count, /etc/mtab for one
    assert container["SizeRw"] >= 2 << 20
    (volume,) = usage["Volumes"]
    least, most = du(engine.data / "volumes/df/_data")
    assert least <= volume["UsageData"]["Size"] <= most
    assert usage["BuildCache"] in (None, [])


def test_prune_gives_back_what_it_says(engine: EngineProcess, registry: Registry) -> None:
    before = images_on_disk(engine)[0]
    assert df(engine)["LayersSize"] == pytest.approx(before, abs=4096)
    engine.docker("rm", "-v", "df")
    engine.docker("volume", "rm", "df")
    status, pruned = call(engine, "POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D")
    assert status == 200
    assert isinstance(pruned, dict)
    engine.stop()  # what is removed in the background is gone after the next start
    engine.start()
    assert engine.fsck() == []
    assert pruned["SpaceReclaimed"] == pytest.approx(before - images_on_disk(engine)[0], abs=8192)
    assert df(engine)["LayersSize"] < 8192
