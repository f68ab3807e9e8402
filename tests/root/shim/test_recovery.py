"""What survives what: zygote, engine and shim ended at any instant."""

import asyncio
import json
import os
import signal
import socket

import pytest

from hafen import errors
from hafen.engine.shimlink import Shim, ShimLink, SocketSpec, read_exit
from hafen.shim import protocol
from tests.root.shim.conftest import World, exited, nothing_left, process_args

pytestmark = pytest.mark.root


async def restart(world: World) -> None:
    """The engine's side ends without a word, as by kill -9; another begins."""
    await world.link.close()
    world.shims.clear()
    world.link = ShimLink(idle_shims=1, idle_netns=1)
    await world.link.start()


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


async def test_a_container_outlives_the_engine_and_can_be_used_by_the_next(world: World) -> None:
    request = world.request("cat", open_stdin=True)
    before = await world.spawn(request)
    await restart(world)
    shim = await world.link.reconnect(request.container_id, request.run_dir, request.data_dir)
    assert isinstance(shim, Shim)
    assert (shim.pid, shim.shim_pid, shim.started_at) == (before.pid, before.shim_pid, before.started_at)
    stream = world.stream(stdin=True, multiplexed=False)
    await shim.attach(stream.client)
    await stream.send(b"still here")
    await stream.until(b"still here")
    assert await (await shim.exec("e1", process_args("true"))).exited == 0
    await shim.signal(9)
    assert (await exited(shim)).code == 137
    nothing_left(request)


async def test_an_exit_while_no_engine_is_there_is_found_later(world: World) -> None:
    request = world.request("sh", "-c", "read x; exit 6", open_stdin=True, stdin_once=True)
    stream = world.stream(stdin=True)
    shim = await world.spawn(request, [stream])
    await restart(world)
    await stream.send(b"\n")
    assert await stream.rest() == b""
    await gone(shim.shim_pid)
    assert await world.link.reconnect(request.container_id, request.run_dir, request.data_dir) is None
    exit = read_exit(request.data_dir)
    assert exit is not None
    assert exit.code == 6
    nothing_left(request)


async def test_an_execs_exit_while_no_engine_is_there_is_told_to_the_next(world: World) -> None:
    request = world.request("sleep", "1000")
    stream = world.stream(stdin=True)
    shim = await world.spawn(request)
    await shim.exec("e1", process_args("sh", "-c", "read x; exit 8"), stream.client)
    await restart(world)
    await stream.send(b"\n")
    await stream.rest()
    again = await world.link.reconnect(request.container_id, request.run_dir, request.data_dir)
    assert again is not None
    world.shims.append(again)
    assert again.exec_exits == {"e1": 8}


async def test_an_exec_that_was_being_made_is_told_to_the_next(world: World) -> None:
    request = world.request("sleep", "1000")
    shim = await world.spawn(request)
    made = asyncio.Event()
    shim.on_exec = lambda exec_id: made.set()
    with open(f"{request.run_dir}/exec-e1.json", "w") as file:  # noqa: ASYNC230 - a few bytes on tmpfs
        json.dump(process_args("sleep", "1000"), file)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as engine:  # one that dies as soon as it has asked
        engine.connect(f"{request.run_dir}/shim.sock")
        assert protocol.receive(engine)  # what is unread would make its end a reset, and the request be lost
        wanted = protocol.Exec("e1", False, False, 0, 0, None)
        protocol.send(engine, {"id": 1, "op": "exec", **protocol.exec_to_wire(wanted)})
    async with asyncio.timeout(10):
        await made.wait()
    handle = shim.watch_exec("e1")
    assert handle.pid == shim.execs["e1"] > 0
    await shim.signal(signal.SIGKILL, "e1")
    assert await handle.exited == 137


async def test_a_killed_zygote_is_replaced_and_running_containers_do_not_notice(world: World) -> None:
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]  # an engine has many: a zygote's have high numbers
    try:
        await restart(world)
        shim = await world.spawn(world.request("sleep", "1000"))
        await kill_three_zygotes(world)
        assert await (await shim.exec("e1", process_args("true"))).exited == 0
    finally:
        for descriptor in many:
            os.close(descriptor)


async def kill_three_zygotes(world: World) -> None:
    async with asyncio.timeout(60):  # whose traceback tells what was waited for
        for _ in range(3):
            pid = world.link.zygote_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            for _ in range(2):  # more than are kept warm
                (await world.link.netns()).close()
            exit, out, _ = await world.run("sh", "-c", "sleep 0.2; echo hi")  # meanwhile the pools are filled
            assert (exit.code, out) == (0, b"hi\n")
            assert world.link.zygote_pid != pid


async def test_spawns_that_meet_the_zygotes_death_succeed(world: World) -> None:
    async def one() -> int:
        exit, _, _ = await world.run("true")
        return exit.code

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(one()) for _ in range(8)]
        for _ in range(4):
            await asyncio.sleep(0.01)
            if world.link.zygote_pid is not None:
                try:
                    os.kill(world.link.zygote_pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    assert [run.result() for run in runs] == [0] * 8


async def test_a_shim_killed_during_the_start_leaves_nothing(world: World) -> None:
    for delay in (0.0, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016):
        request = world.request("sleep", "1000")
        zygote = world.link._zygote
        assert zygote is not None
        idle = await zygote.shim()
        zygote._shims._ready.appendleft(idle)
        spawning = asyncio.ensure_future(world.link.spawn(request))
        await asyncio.sleep(delay)
        os.kill(idle.pid, signal.SIGKILL)
        try:
            shim = await spawning
        except errors.HafenError:
            pass
        else:
            assert (await exited(shim)).code == 137
        nothing_left(request)


async def test_a_cancelled_start_leaves_nothing(world: World) -> None:
    for delay in (0.0, 0.004, 0.008):
        request = world.request("sleep", "1000")
        spawning = asyncio.ensure_future(world.link.spawn(request))
        await asyncio.sleep(delay)
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        async with asyncio.timeout(10):
            while os.path.exists(request.run_dir):  # noqa: ASYNC110, ASYNC240 - nobody tells a caller who has gone
                await asyncio.sleep(0.01)
        nothing_left(request)


async def test_the_zygote_and_idle_shims_end_with_the_engine(world: World) -> None:
    pid = world.link.zygote_pid
    assert pid is not None
    zygote = world.link._zygote
    assert zygote is not None
    idle = await zygote.shim()
    zygote._shims._ready.appendleft(idle)
    await world.link.close()
    await gone(pid)
    await gone(idle.pid)
    world.link = ShimLink()
    await world.link.start()


async def test_a_shim_speaks_its_version_and_refuses_what_it_does_not_know(world: World) -> None:
    request = world.request("sleep", "1000")
    await world.spawn(request)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(f"{request.run_dir}/shim.sock")
        assert os.stat(f"{request.run_dir}/shim.sock").st_mode & 0o777 == 0o600
        hello = protocol.receive(sock)
        assert hello is not None
        assert hello[0]["version"] == protocol.VERSION
        for message, error in (
            ({"id": 1, "op": "dance"}, "NotImplemented"),
            ({"id": 2, "op": "signal"}, "InvalidArgument"),
            ({"id": 3, "op": "attach", "client": {"client": 1}}, "InvalidArgument"),
            ({"id": 4, "op": "resize", "height": "x", "width": 1}, "InvalidArgument"),
            ({"id": 5, "op": "spawn"}, "Conflict"),
        ):
            protocol.send(sock, message)
            answer = protocol.receive(sock)
            assert answer is not None
            assert (answer[0]["id"], answer[0]["error"]) == (message["id"], error)
        sock.send(b"not json")
        assert protocol.receive(sock) is None


async def test_a_namespace_handle_has_loopback_up_and_sockets_can_be_bound_inside(world: World) -> None:
    handle = await world.link.netns()
    specs = [SocketSpec(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.11", 53), SocketSpec(2, 1, "127.0.0.11", 53)]
    udp, tcp = await world.link.sockets(handle.fd, specs)
    assert udp.getsockname() == tcp.getsockname() == ("127.0.0.11", 53)
    with pytest.raises(errors.System, match="Cannot assign requested address"):
        await world.link.sockets(handle.fd, [SocketSpec(2, 1, "192.0.2.1", 53)])
    assert os.fstat(handle.fd).st_ino != os.stat("/proc/self/ns/net").st_ino
    for sock in (udp, tcp, handle):
        sock.close()
