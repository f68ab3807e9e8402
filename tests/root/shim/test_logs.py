"""Logs of real containers: read while they are written, and followed to the container's end."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hafen.engine.logs import Logs, LogStream
from hafen.engine.paths import Paths
from hafen.engine.records import Containers
from hafen.engine.shimlink import LogConfig, Shim
from hafen.errors import NotImplemented
from hafen.logs.drivers import DRIVERS
from hafen.spec import stdcopy
from tests.root.shim.conftest import World, exited

pytestmark = pytest.mark.root


class Reading:
    """A container with a log, and the engine's reader of it."""

    def __init__(self, world: World, driver: str = "local", options: Mapping[str, str] | None = None) -> None:
        self.world = world
        self.driver = driver
        self.options = dict(options or {})
        self.shim: Shim | None = None
        self.terminal = False

    async def start(self, script: str, **changes: Any) -> Shim:
        request = self.world.request("sh", "-c", script, **changes)
        log = LogConfig(self.driver, request.log.directory, self.options)
        self.terminal = request.terminal
        request = self.world.request("sh", "-c", script, log=log, container_id=request.container_id, **changes)
        self.shim = await self.world.spawn(request)
        return self.shim

    async def read(self, **selection: Any) -> LogStream:
        assert self.shim is not None
        config = SimpleNamespace(tty=self.terminal)
        record = SimpleNamespace(
            config=config,
            host_config=SimpleNamespace(log_config=SimpleNamespace(type=self.driver, config=self.options)),
        )
        container = SimpleNamespace(id=self.shim.container_id, record=record, shim=self.shim)
        containers = cast(Containers, SimpleNamespace(find=lambda _: container))
        paths = cast(Paths, SimpleNamespace(logs=lambda _: str(self.world.base / "data" / container.id / "logs")))
        return await Logs(containers, paths, DRIVERS).read(container.id, **selection)


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def streams(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for stream, piece in stdcopy.Decoder().feed(data):
        found[stream] = found.get(stream, b"") + piece
    return found


@pytest.mark.parametrize("driver", ["local", "json-file"])
async def test_followed_to_the_end_over_many_rotations(world: World, driver: str) -> None:
    reading = Reading(world, driver, {"max-size": "100k", "max-file": "200"})
    await reading.start("seq 1 100000; exit 3")
    async with asyncio.timeout(60):
        data = await joined((await reading.read(follow=True)).chunks)
    assert streams(data) == {1: b"".join(b"%d\n" % n for n in range(1, 100001))}
    assert streams(await joined((await reading.read()).chunks)) == streams(data)
    assert streams(await joined((await reading.read(tail="3")).chunks)) == {1: b"99998\n99999\n100000\n"}


@pytest.mark.parametrize("driver", ["local", "json-file"])
async def test_follow_shows_a_line_when_it_is_written(world: World, driver: str) -> None:
    reading = Reading(world, driver)
    stream = world.stream(stdin=True)
    shim = await reading.start("while read x; do echo got $x; echo err $x >&2; done", open_stdin=True, stdin_once=True)
    await shim.attach(stream.client)
    chunks = (await reading.read(follow=True, stderr=False)).chunks
    for word in (b"one", b"two", b"three"):
        await stream.send(word + b"\n")
        async with asyncio.timeout(5):
            assert streams(await anext(chunks)) == {1: b"got " + word + b"\n"}
    stream.end_input()
    assert await joined(chunks) == b""
    data = await joined((await reading.read(stdout=False)).chunks)
    assert streams(data) == {2: b"err one\nerr two\nerr three\n"}


async def test_timestamps_since_and_until(world: World) -> None:
    reading = Reading(world)
    stream = world.stream(stdin=True, multiplexed=False)
    shim = await reading.start("echo -n par; echo tial; read x; echo late", open_stdin=True, stdin_once=True)
    await shim.attach(stream.client)
    chunks = (await reading.read(follow=True)).chunks
    text = b""
    while b"partial\n" not in text:
        text += streams(await anext(chunks))[1]
    await asyncio.sleep(0.01)
    now = asyncio.get_running_loop().time()
    del now
    import time

    middle = f"{time.time_ns() / 1e9:.9f}"
    await stream.send(b"\n")
    await exited(shim)
    stamped = streams(await joined((await reading.read(timestamps=True)).chunks))[1].decode().splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["partial", "late"]
    assert all(len(line.split(" ")[0]) == len("2006-01-02T15:04:05.000000000Z") for line in stamped)
    assert streams(await joined((await reading.read(since=middle)).chunks)) == {1: b"late\n"}
    assert streams(await joined((await reading.read(until=middle)).chunks)) == {1: b"partial\n"}
    assert streams(await joined((await reading.read(until=middle, follow=True)).chunks)) == {1: b"partial\n"}


async def test_a_terminals_log_is_raw(world: World) -> None:
    reading = Reading(world)
    await exited(await reading.start("echo hi", terminal=True))
    found = await reading.read()
    assert found.tty
    assert await joined(found.chunks) == b"hi\r\n"


async def test_none_keeps_nothing(world: World) -> None:
    reading = Reading(world, "none")
    await exited(await reading.start("echo hi"))
    with pytest.raises(NotImplemented, match="does not support reading"):
        await reading.read()


async def test_old_files_are_compressed_beside_the_container(world: World) -> None:
    reading = Reading(world, "local", {"max-size": "200k"})
    stream = world.stream(stdin=True)
    shim = await reading.start("seq 1 60000; read x", open_stdin=True, stdin_once=True)
    await shim.attach(stream.client)
    directory = Path(world.base / "data" / shim.container_id / "logs")
    async with asyncio.timeout(20):
        while not any(name.endswith(".log.z") for name in os.listdir(directory)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await stream.send(b"\n")
    await exited(shim)
    data = streams(await joined((await reading.read()).chunks))[1]
    assert data == b"".join(b"%d\n" % n for n in range(1, 60001))
