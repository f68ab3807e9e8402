"""A container from spawn to exit: exit codes, signals, streams, pause, exec, and what is left: nothing."""

import asyncio
import os
import signal

import pytest

from hafen import errors
from hafen.engine.shimlink import read_exit
from tests.root.shim.conftest import World, exited, nothing_left, process_args, ps

pytestmark = pytest.mark.root


async def test_output_and_exit_code(world: World) -> None:
    exit, out, err = await world.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (exit.code, out, err) == (7, b"out\n", b"err\n")
    assert exit.error == ""
    assert not exit.oom_killed


async def test_killed_by_a_signal_is_128_plus_it(world: World) -> None:
    shim = await world.spawn(world.request("sleep", "1000"))
    await shim.signal(signal.SIGKILL)
    assert (await exited(shim)).code == 137
    exit, _, _ = await world.run("sh", "-c", "sh -c 'kill -TERM $$'; exit $?")
    assert exit.code == 143


async def test_exit_is_on_disk_and_nothing_else_is_left(world: World) -> None:
    request = world.request("sh", "-c", "exit 3")
    shim = await world.spawn(request)
    exit = await exited(shim)
    assert read_exit(request.data_dir) == exit
    nothing_left(request)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        (["/etc"], 126, 'exec: "/etc": is a directory'),
    ],
)
async def test_what_cannot_start_says_why_and_leaves_nothing(
    world: World, args: list[str], code: int, text: str
) -> None:
    request = world.request(*args)
    stream = world.stream()
    with pytest.raises(errors.StartFailed) as caught:
        await world.spawn(request, [stream])
    assert caught.value.exit_code == code
    assert text in str(caught.value)
    assert await stream.rest() == b""
    nothing_left(request)


async def test_an_unknown_log_driver_is_refused(world: World) -> None:
    for driver, kind in (("bogus", errors.InvalidArgument), ("awslogs", errors.NotImplemented)):
        request = world.request("true")
        request = world.request("true", log=type(request.log)(driver, request.log.directory))
        with pytest.raises(kind, match=driver):
            await world.spawn(request)
        nothing_left(request)


async def test_signals_are_delivered_and_dispositions_are_clean(world: World) -> None:
    stream = world.stream()
    script = "trap 'echo got; exit 5' USR1; grep Sig /proc/self/status; echo ready; while :; do sleep 0.01; done"
    shim = await world.spawn(world.request("sh", "-c", script), [stream])
    status = (await stream.until(b"ready")).decode()
    assert "SigIgn:\t0000000000000000" in status
    assert "SigBlk:\t0000000000000000" in status
    await shim.signal(signal.SIGUSR1)
    assert (await exited(shim)).code == 5
    assert b"got" in await stream.rest()


async def test_stdin_half_close_ends_the_input(world: World) -> None:
    stream = world.stream(stdin=True)
    shim = await world.spawn(world.request("sh", "-c", "wc -c; echo end", open_stdin=True, stdin_once=True), [stream])
    await stream.send(b"x" * 3_000_000)
    stream.end_input()
    assert (await stream.output())[0] == b"3000000\nend\n"
    assert (await exited(shim)).code == 0


async def test_bytes_read_before_the_hand_over_come_first(world: World) -> None:
    stream = world.stream(stdin=True, prefix=b"first ", multiplexed=False)
    shim = await world.spawn(world.request("cat", open_stdin=True, stdin_once=True), [stream])
    await stream.send(b"second")
    stream.end_input()
    assert await stream.rest() == b"first second"
    assert (await exited(shim)).code == 0


async def test_stdin_stays_open_for_the_next_client_unless_once(world: World) -> None:
    shim = await world.spawn(world.request("cat", open_stdin=True))
    for word in (b"one\n", b"two\n"):
        stream = world.stream(stdin=True, multiplexed=False)
        await shim.attach(stream.client)
        await stream.send(word)
        assert await stream.until(word) == word
        stream.end_input()
        assert await stream.rest() == b""
        assert await stream.client.done == "gone"
    assert not shim.exited.done()


async def test_no_stdin_reads_as_empty(world: World) -> None:
    exit, out, _ = await world.run("sh", "-c", "wc -c; readlink /proc/self/fd/0")
    assert (exit.code, out) == (0, b"0\n/dev/null\n")


async def test_a_user_can_reopen_its_streams(world: World) -> None:
    script = "echo out > /dev/stdout; echo err > /dev/stderr"
    _, out, err = await world.run("sh", "-c", script, user={"uid": 1000, "gid": 1000})
    assert (out, err) == (b"out\n", b"err\n")


async def test_pause_and_resume(world: World) -> None:
    shim = await world.spawn(world.request("sh", "-c", "sleep 1000 & wait"))
    await shim.pause()
    with pytest.raises(errors.Conflict, match="is already paused"):
        await shim.pause()
    with pytest.raises(errors.Conflict, match="is paused, unpause the container before exec"):
        await shim.exec("e1", process_args("true"))
    await shim.resume()
    with pytest.raises(errors.Conflict, match="is not paused"):
        await shim.resume()
    handle = await shim.exec("e1", process_args("true"))
    assert await handle.exited == 0


async def test_pids_counters_update_and_signal_to_all(world: World) -> None:
    stream = world.stream()
    shim = await world.spawn(world.request("sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"), [stream])
    await stream.until(b"ready")
    assert len(await shim.pids()) == 3
    assert shim.pid in await shim.pids()
    assert (await shim.counters())["pids"] == 3
    await shim.update({"pids": {"limit": 17}})
    assert (await shim.counters())["pids_limit"] == 17
    with pytest.raises(errors.InvalidArgument):
        await shim.update({"pids": {"limit": "many"}})
    await shim.signal(signal.SIGKILL, all=True)
    assert (await exited(shim)).code == 137


async def test_host_pid_mode_takes_descendants_along(world: World) -> None:
    stream = world.stream(multiplexed=False)
    request = world.request("sh", "-c", "sleep 1000 & echo $!; exit 4", pid="host")
    shim = await world.spawn(request, [stream])
    assert (await exited(shim)).code == 4
    assert ps(int(await stream.rest())) == ""


async def test_oom_kill_is_told(world: World) -> None:
    limit = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    exit, _, _ = await world.run("sh", "-c", "tail -c 200m /dev/zero", linux={"resources": limit})
    assert exit.oom_killed


async def test_a_shim_that_is_killed_takes_its_container_along(world: World) -> None:
    request = world.request("sleep", "1000")
    shim = await world.spawn(request)
    os.kill(shim.shim_pid, signal.SIGKILL)
    exit = await exited(shim)
    assert exit.code == 137
    assert "shim was killed" in exit.error
    assert ps(shim.pid)[:1] in ("", "Z")  # whoever adopted it may not have reaped it yet
    nothing_left(request)


async def test_as_an_unprivileged_user_the_container_dies_with_its_shim_too(world: World) -> None:
    """PR_SET_PDEATHSIG is lost at setuid (prctl(2)): it has to be set after it. Without any engine's help here."""
    request = world.request("sleep", "1000", user={"uid": 1000, "gid": 1000})
    shim = await world.spawn(request)
    pidfd = os.pidfd_open(shim.pid)
    await world.link.close()
    os.kill(shim.shim_pid, signal.SIGKILL)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    async with asyncio.timeout(5):
        await gone.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    world.shims.clear()
    world.link = type(world.link)()
    await world.link.start()
    assert await world.link.reconnect(request.container_id, request.run_dir, request.data_dir) is None
