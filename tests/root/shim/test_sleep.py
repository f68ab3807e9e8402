"""A shim whose container is idle: its worker ends, and the next does whatever comes, as if nothing had been."""

import asyncio
import os
from pathlib import Path

import pytest

from hafen.engine.shimlink import LogConfig, Shim
from hafen.logs.driver import LogFile
from hafen.logs.drivers import DRIVERS
from tests.root.shim.conftest import World, exited, nothing_left, process_args
from tests.root.shim.test_recovery import gone, restart

pytestmark = pytest.mark.root


def workers(shim: Shim) -> list[int]:
    """Children of the keeper, but for the container."""
    children = Path(f"/proc/{shim.shim_pid}/task/{shim.shim_pid}/children").read_text().split()
    return [int(pid) for pid in children if int(pid) != shim.pid]


def private(pid: int) -> int:
    """KiB that a process has for itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty:"))


async def asleep(shim: Shim) -> None:
    async with asyncio.timeout(20):
        while found := workers(shim):
            await gone(found[0])


async def test_everything_works_after_each_sleep(world: World) -> None:
    request = world.request("sh", "-c", "while read x; do echo got $x; done; exit 4", open_stdin=True)
    shim = await world.spawn(request)
    for round in (b"one", b"two"):
        await asleep(shim)
        stream = world.stream(stdin=True, multiplexed=False)
        await shim.attach(stream.client)
        await stream.send(round + b"\n")
        await stream.until(b"got " + round + b"\n")
        stream.end_input()
        assert await stream.client.done == "gone"
        await asleep(shim)
        out = world.stream()
        handle = await shim.exec("e1", process_args("sh", "-c", "echo hi; exit 3"), out.client)
        assert await out.output() == (b"hi\n", b"")
        assert await handle.exited == 3
    await shim.pause()
    await asleep(shim)
    await shim.resume()
    await asleep(shim)
    await shim.signal(9)
    assert (await exited(shim)).code == 137
    nothing_left(request)


@pytest.mark.parametrize("driver", ["local", "json-file"])
async def test_output_wakes_and_no_byte_of_the_log_is_lost(world: World, driver: str) -> None:
    request = world.request("true")
    directory = request.log.directory
    script = "echo -n a; sleep 1.5; echo b; sleep 1.5; echo c; sleep 1.5; exit 5"
    request = world.request(
        "sh", "-c", script, container_id=request.container_id, log=LogConfig(driver, directory, {"max-size": "1m"})
    )
    shim = await world.spawn(request)
    assert (await exited(shim)).code == 5
    reader = DRIVERS[driver].reader(LogFile(directory, request.container_id))
    assert b"".join(entry.data for _ in range(5) for entry in reader.read()) == b"ab\nc\n"
    reader.close()


async def test_an_exit_during_sleep_is_told(world: World) -> None:
    request = world.request("sh", "-c", "sleep 2; exit 6")
    shim = await world.spawn(request)
    await asleep(shim)
    assert (await exited(shim)).code == 6
    nothing_left(request)


async def test_a_terminal_sleeps_too(world: World) -> None:
    shim = await world.spawn(world.request("sh", terminal=True, open_stdin=True))
    await asleep(shim)
    await shim.resize(21, 42)
    stream = world.stream(stdin=True, multiplexed=False)
    await shim.attach(stream.client)
    await stream.send(b"stty size; exit 7\n")
    assert b"21 42" in await stream.rest()
    assert (await exited(shim)).code == 7


async def test_an_engine_that_dies_during_sleep_and_another_that_comes(world: World) -> None:
    request = world.request("sleep", "1000")
    before = await world.spawn(request)
    await asleep(before)
    await restart(world)
    await asleep(before)
    shim = await world.link.reconnect(request.container_id, request.run_dir, request.data_dir)
    assert shim is not None
    world.shims.append(shim)
    assert (shim.pid, shim.shim_pid) == (before.pid, before.shim_pid)
    await asleep(shim)
    assert len(await shim.pids()) == 1


async def test_a_client_keeps_the_worker_awake_and_a_killed_worker_ends_the_container(world: World) -> None:
    request = world.request("cat", open_stdin=True)
    stream = world.stream(stdin=True)
    shim = await world.spawn(request, [stream])
    await asyncio.sleep(2.5)
    (worker,) = workers(shim)
    os.kill(worker, 9)
    assert (await exited(shim)).code == 137
    nothing_left(request)


async def test_a_killed_keeper_ends_a_sleeping_container(world: World) -> None:
    request = world.request("sleep", "1000")
    shim = await world.spawn(request)
    await asleep(shim)
    os.kill(shim.shim_pid, 9)
    assert (await exited(shim)).code == 137
    nothing_left(request)


async def test_an_idle_shim_costs_little(world: World) -> None:
    """Beyond what all share: 1.2 MiB of proportional memory at twenty containers is 0.9 MiB of its own."""
    shim = await world.spawn(world.request("sleep", "1000"))
    await asleep(shim)
    assert private(shim.shim_pid) < 900
