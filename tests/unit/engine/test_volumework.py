"""Copies of volumes and their intents, in every state that an engine may leave them in."""

import itertools
import os
from pathlib import Path

import msgspec
import pytest

from hafen.engine.events import Events
from hafen.engine.pausing import Pauser
from hafen.engine.records import Containers
from hafen.engine.volumeholds import Holds
from hafen.engine.volumework import VolumeWork, Work
from hafen.errors import System
from hafen.storage.database import MIGRATIONS, Database


class Engine:
    def __init__(self, path: Path) -> None:
        self.root = path / "volumes"
        self.database = Database(path / "db", MIGRATIONS)
        containers = Containers(self.database)
        numbers = itertools.count(1)
        pauser = Pauser(containers, Events(self.database, lambda: 0))
        self.work = VolumeWork(self.database, str(self.root), pauser, Holds(), lambda: f"job{next(numbers)}")

    def intents(self) -> int:
        return len(self.database.query("SELECT 1 FROM volume_work"))

    def everything(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def files(self) -> list[str]:
        """Of all directories, relative to that of all volumes."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


def make(path: Path | str) -> None:
    """A file, and the directories on the way to it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").close()


class Full(Exception):
    """What a commit raises on a full disk."""


async def test_a_copy_comes_to_its_place(engine: Engine) -> None:
    async with engine.work.job("x/_data") as job:
        make(f"{job.path}/file")
        assert engine.intents() == 1
        with engine.database.transaction():
            engine.work.put(job)
        assert engine.intents() == 0
    assert engine.files() == ["x/_data/file"]


async def test_a_commit_that_fails_takes_it_back(engine: Engine) -> None:
    async def copy() -> None:
        async with engine.work.job("x/snapshots/one") as job:
            make(f"{job.path}/file")
            with engine.database.transaction():
                engine.work.put(job)
                assert engine.files() == ["x/snapshots/one/file"]
                raise Full

    with pytest.raises(Full):
        await copy()
    assert engine.files() == []
    assert engine.intents() == 0


async def test_what_is_in_the_place_stays(engine: Engine) -> None:
    make(engine.root / "x/_data/theirs")
    with pytest.raises(System, match="directory not empty"):
        async with engine.work.job("x/_data") as job:
            engine.work.put(job)
    assert engine.files() == ["x/_data/theirs"]


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_removal_that_a_crash_cut_short(engine: Engine, renamed: bool) -> None:
    """After its commit, before or after the rename."""
    make(engine.root / (".work/left" if renamed else "x/snapshots/one") / "file")
    make(engine.root / "x/_data/file")
    record = msgspec.json.encode(Work("x/snapshots/one"))
    engine.database.execute("INSERT INTO volume_work (id, record) VALUES (?, ?)", ("left", record))
    await engine.work.recover()
    assert engine.files() == ["x/_data/file"]
    assert engine.intents() == 0


async def test_a_removal(engine: Engine) -> None:
    make(engine.root / "x/snapshots/one/deep/file")
    for _ in range(2):  # the second finds nothing
        await engine.work.remove("x/snapshots/one", lambda: None)
    assert engine.everything() == [".work", "x", "x/snapshots"]
    assert engine.intents() == 0


async def test_what_no_intent_knows_goes(engine: Engine) -> None:
    make(engine.root / ".work/made before its intent/file")
    await engine.work.recover()
    assert engine.everything() == [".work"]
