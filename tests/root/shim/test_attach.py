"""Clients: several at once, detaching, hanging up, slow and stalled ones; terminals."""

import asyncio

import pytest

from hafen import errors
from tests.root.shim.conftest import Stream, World, exited, process_args

pytestmark = pytest.mark.root

KEYS = b"\x10\x11"
MEGABYTE = 1 << 20


async def test_several_clients_get_what_they_asked_for(world: World) -> None:
    script = "read x; echo out; echo err >&2"
    typing, first, second = world.stream(stdin=True), world.stream(stderr=False), world.stream(stdout=False)
    shim = await world.spawn(world.request("sh", "-c", script, open_stdin=True), [typing, first])
    await shim.attach(second.client)
    await typing.send(b"go\n")
    assert await first.output() == (b"out\n", b"")
    assert await second.output() == (b"", b"err\n")
    assert await typing.output() == (b"out\n", b"err\n")
    assert [await stream.client.done for stream in (first, second, typing)] == ["exit"] * 3


async def test_detach_keys_across_reads(world: World) -> None:
    stream = world.stream(stdin=True, multiplexed=False, detach_keys=KEYS)
    shim = await world.spawn(world.request("cat", terminal=True, open_stdin=True), [stream])
    await stream.send(b"abc\n")
    await stream.until(b"abc\r\nabc\r\n")
    await stream.send(b"\x10")
    await stream.send(b"\x11ignored")
    assert await stream.rest() == b""
    assert await stream.client.done == "detach"
    assert not shim.exited.done()


async def test_a_beginning_of_the_keys_is_passed_on_when_it_goes_on_otherwise(world: World) -> None:
    stream = world.stream(stdin=True, multiplexed=False, detach_keys=KEYS)
    await world.spawn(
        world.request("sh", "-c", "stty raw -echo; echo ready; cat", terminal=True, open_stdin=True), [stream]
    )
    await stream.until(b"ready")
    await stream.send(b"\x10")
    await stream.send(b"x\x10\x10z")
    assert (await stream.until(b"z")).endswith(b"\x10x\x10\x10z")


async def test_without_a_terminal_the_keys_are_data(world: World) -> None:
    stream = world.stream(stdin=True, multiplexed=False, detach_keys=KEYS)
    await world.spawn(world.request("cat", open_stdin=True, stdin_once=True), [stream])
    await stream.send(KEYS)
    stream.end_input()
    assert await stream.rest() == KEYS


async def test_a_client_that_hangs_up_is_noticed_and_harms_nobody(world: World) -> None:
    gone, stays = world.stream(stdin=True), world.stream(stdin=True, multiplexed=False)
    shim = await world.spawn(world.request("cat", open_stdin=True), [gone, stays])
    gone.close()
    async with asyncio.timeout(5):
        assert await gone.client.done == "gone"
    await stays.send(b"hello")
    await stays.until(b"hello")
    assert not shim.exited.done()


async def test_a_slow_client_loses_nothing(world: World) -> None:
    stream = world.stream(multiplexed=False)
    shim = await world.spawn(world.request("sh", "-c", "dd if=/dev/zero bs=1M count=24 2>/dev/null"), [stream])
    got = 0
    while data := await stream.receive():
        got += len(data)
        await asyncio.sleep(0.002)
    assert got == 24 * MEGABYTE
    assert (await exited(shim)).code == 0


async def test_a_stalled_client_stops_neither_the_container_nor_others_and_gets_all_later(world: World) -> None:
    stalled, reading = world.stream(multiplexed=False), world.stream(multiplexed=False)
    script = "dd if=/dev/zero bs=1M count=16 2>/dev/null"
    shim = await world.spawn(world.request("sh", "-c", script), [stalled, reading])
    assert len(await reading.rest()) == 16 * MEGABYTE
    assert (await exited(shim)).code == 0
    assert len(await stalled.rest()) == 16 * MEGABYTE


async def test_a_client_that_never_reads_is_closed_at_the_limit(world: World) -> None:
    stalled = world.stream(multiplexed=False)
    shim = await world.spawn(world.request("sh", "-c", "dd if=/dev/zero bs=1M count=100 2>/dev/null"), [stalled])
    async with asyncio.timeout(30):
        assert await stalled.client.done == "stalled"
    assert (await exited(shim)).code == 0


async def test_typing_more_than_is_read_holds_the_client_back_and_not_the_shim(world: World) -> None:
    stream = world.stream(stdin=True, multiplexed=False)
    request = world.request("sh", "-c", "echo ready; sleep 0.5; wc -c", open_stdin=True, stdin_once=True)
    shim = await world.spawn(request, [stream])
    await stream.until(b"ready\n")
    sending = asyncio.ensure_future(stream.send(b"x" * 8 * MEGABYTE))
    await shim.pids()
    await sending
    stream.end_input()
    assert await stream.rest() == b"%d\n" % (8 * MEGABYTE)


async def test_a_terminal_has_the_size_it_was_given_and_gets_new_ones(world: World) -> None:
    stream = world.stream(stdin=True, multiplexed=False)
    script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done"
    request = world.request("sh", "-c", script, terminal=True, open_stdin=True, console_size=(33, 77))
    shim = await world.spawn(request, [stream])
    assert b"33 77" in await stream.until(b"ready")
    await shim.resize(40, 120)
    assert b"40 120" in await stream.until(b"120")
    await stream.send(b"\x03")
    await stream.rest()
    assert (await exited(shim)).code == 130


async def test_the_end_of_a_terminal_clients_input_ends_its_session_only(world: World) -> None:
    stream = world.stream(stdin=True, multiplexed=False)
    request = world.request("cat", terminal=True, open_stdin=True, stdin_once=True)
    shim = await world.spawn(request, [stream])
    stream.end_input()
    assert await stream.rest() == b""
    assert not shim.exited.done()


async def test_exec_has_streams_and_an_exit_of_its_own(world: World) -> None:
    other = world.stream(stdin=True)
    shim = await world.spawn(world.request("sleep", "1000"))
    handle = await shim.exec("e1", process_args("sh", "-c", "cat; echo err >&2; exit 9"), other.client)
    await other.send(b"typed")
    other.end_input()
    assert await other.output() == (b"typed", b"err\n")
    assert await handle.exited == 9
    assert await other.client.done == "exit"


async def test_exec_detached_with_terminal_and_signal(world: World) -> None:
    shim = await world.spawn(world.request("sleep", "1000"))
    handle = await shim.exec("e1", process_args("sleep", "1000", terminal=True))
    assert handle.pid in await shim.pids()
    await shim.signal(15, exec_id="e1")
    assert await handle.exited == 143
    stream = world.stream(stdin=True, multiplexed=False)
    handle = await shim.exec(
        "e2", process_args("sh", "-c", "stty size; read x", terminal=True), stream.client, console_size=(11, 22)
    )
    await stream.until(b"11 22")
    await shim.resize(12, 23, exec_id="e2")
    await stream.send(b"\n")
    assert await handle.exited == 0


async def test_an_exec_that_cannot_start_leaves_the_container_alone(world: World) -> None:
    stream = world.stream()
    shim = await world.spawn(world.request("sleep", "1000"))
    with pytest.raises(errors.StartFailed) as caught:
        await shim.exec("e1", process_args("nosuch"), stream.client)
    assert caught.value.exit_code == 127
    assert await stream.rest() == b""
    with pytest.raises(errors.NotFound, match="e1"):
        await shim.signal(9, exec_id="e1")
    assert await (await shim.exec("e1", process_args("true"))).exited == 0


async def test_a_descendant_that_keeps_the_output_delays_the_end_of_an_exec_by_two_seconds_at_most(
    world: World,
) -> None:
    stream: Stream = world.stream(multiplexed=False)
    shim = await world.spawn(world.request("sleep", "1000"))
    script = "(sleep 0.2; echo late; exec sleep 1000) & echo now"
    handle = await shim.exec("e1", process_args("sh", "-c", script), stream.client)
    async with asyncio.timeout(5):
        assert await stream.rest() == b"now\nlate\n"
        assert await handle.exited == 0


async def test_execs_end_with_their_container(world: World) -> None:
    stream = world.stream()
    shim = await world.spawn(world.request("sleep", "1000"))
    handle = await shim.exec("e1", process_args("sleep", "1000"), stream.client)
    await shim.signal(9)
    assert (await exited(shim)).code == 137
    assert await handle.exited == 137
    assert await stream.rest() == b""
