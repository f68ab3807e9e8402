"""When a volume is mounted and unmounted, and what an engine that starts finds of that."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hafen.engine.scope import Scope
from hafen.engine.volumemounts import VolumeMounts
from hafen.engine.volumerecords import VolumeRecord
from hafen.errors import NotFound, System
from hafen.storage.database import Database
from hafen.storage.volumes import Found, Volume, VolumeDriver

Many = list[VolumeDriver]


class Memory:
    """A driver and the drivers of an engine: what was done, in order; `gate` holds mounts, `refuse` lets them fail."""

    name = "memory"
    scope = "local"
    instant = False

    def __init__(self) -> None:
        self.done: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.refuse = False
        self.away = False

    def create(self, volume: Volume) -> None:
        self.done.append(f"create {volume.name}")

    def remove(self, volume: Volume) -> Callable[[], None] | None:
        self.done.append(f"remove {volume.name}")
        return None

    def needs_mount(self, volume: Volume) -> bool:
        return True

    def mount(self, volume: Volume) -> str:
        self.asked.set()
        self.gate.wait(10)
        if self.refuse:
            raise System("refused")
        self.done.append(f"mount {volume.name}")
        return f"/{volume.name}"

    def unmount(self, volume: Volume) -> None:
        self.done.append(f"unmount {volume.name}")

    def path(self, volume: Volume) -> str:
        return ""

    def get(self, name: str) -> Found | None:
        return None

    def list(self) -> list[Found]:
        return []

    def find(self, name: str) -> VolumeDriver:
        if self.away:
            raise NotFound("away")
        return self

    def built_in(self) -> Many:
        return []

    def known(self) -> Many:
        return [self]


ONE = VolumeRecord("one", "", driver="memory")


class Engine:
    """What has mounts; `start` is that of the next one, after a crash."""

    def __init__(self, path: Path) -> None:
        self.driver = Memory()
        self.database = Database(path)
        self.database.execute("INSERT INTO volumes (name, record) VALUES ('one', '{}')")
        self.start()

    def start(self) -> None:
        self.scope = Scope()
        self.mounts = VolumeMounts(self.database, self.driver, self.scope)

    def row(self) -> object:
        """What the database has of the mount."""
        found = self.database.row("SELECT mountpoint FROM volumes WHERE name = 'one'")
        assert found
        return found[0]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    made = Engine(tmp_path / "db")
    yield made
    await made.scope.close()
    made.mounts.close()
    made.database.close()


async def test_once_for_all_users(engine: Engine) -> None:
    mounts, driver = engine.mounts, engine.driver
    paths = await asyncio.gather(mounts.mount(ONE, "a"), mounts.mount(ONE, "b"))
    assert [*paths] == ["/one", "/one"]
    assert (driver.done, engine.row()) == (["mount one"], "/one")
    mounts.release(ONE, "a")
    mounts.release(ONE, "a")
    await mounts.settle(ONE)
    assert driver.done == ["mount one"]
    mounts.release(ONE, "b")
    await mounts.settle(ONE)
    assert (driver.done, engine.row()) == (["mount one", "unmount one"], None)
    assert mounts.mountpoint(ONE) == ""


async def test_who_comes_before_the_unmount_keeps_it(engine: Engine) -> None:
    await engine.mounts.mount(ONE, "a")
    engine.mounts.release(ONE, "a")
    assert await engine.mounts.mount(ONE, "b") == "/one"
    await engine.mounts.settle(ONE)
    assert engine.driver.done == ["mount one"]


async def test_the_row_comes_first_and_a_refusal_takes_it_back(engine: Engine) -> None:
    engine.driver.gate.clear()
    engine.driver.refuse = True
    trying = asyncio.ensure_future(engine.mounts.mount(ONE, "a"))
    await asyncio.to_thread(engine.driver.asked.wait, 10)
    assert engine.row() == ""
    engine.driver.gate.set()
    with pytest.raises(System, match="refused"):
        await trying
    assert engine.row() is None
    engine.driver.refuse = False
    assert await engine.mounts.mount(ONE, "a") == "/one"


async def test_the_next_engine_keeps_what_is_used_and_gives_back_the_rest(engine: Engine) -> None:
    await engine.mounts.mount(ONE, "a")
    engine.start()
    engine.mounts.recover([ONE], {"one": ["a"]})
    assert await engine.mounts.mount(ONE, "b") == "/one"
    engine.mounts.release(ONE, "b")
    await engine.mounts.settle(ONE)
    assert engine.driver.done == ["mount one"]
    engine.start()
    engine.mounts.recover([ONE], {})
    await engine.mounts.settle(ONE)
    assert (engine.driver.done, engine.row()) == (["mount one", "unmount one"], None)


async def test_what_cannot_be_unmounted_is_tried_by_the_next_engine(engine: Engine) -> None:
    await engine.mounts.mount(ONE, "a")
    engine.driver.away = True
    engine.mounts.release(ONE, "a")
    await engine.mounts.settle(ONE)
    assert engine.row() == "/one"
    engine.driver.away = False
    engine.start()
    engine.mounts.recover([ONE], {})
    await engine.mounts.settle(ONE)
    assert engine.driver.done[-1] == "unmount one"
