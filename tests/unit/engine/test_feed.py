"""Streams between the event loop and a thread: order, back-pressure, errors on either side, cancellation."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from hafen.engine.feed import Reporter, consume, produce

CHUNK = bytes(1 << 20)


async def chunks(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%d," % number


async def test_everything_arrives_in_order() -> None:
    assert await consume(chunks(1000), b"".join) == b"".join([chunk async for chunk in chunks(1000)])


async def test_a_slow_reader_is_waited_for() -> None:
    given = taken = widest = 0
    go = threading.Event()

    async def source() -> AsyncIterator[bytes]:
        nonlocal given, widest
        for _ in range(40):
            given += len(CHUNK)
            widest = max(widest, given - taken)
            if given > 9 << 20:
                go.set()
            yield CHUNK

    def read(stream: Iterator[bytes]) -> int:
        nonlocal taken
        go.wait(10)
        for chunk in stream:
            taken += len(chunk)
        return taken

    asyncio.get_running_loop().call_later(0.05, go.set)
    assert await consume(source(), read) == 40 << 20
    assert widest <= 11 << 20


async def test_the_readers_error_ends_the_stream() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield CHUNK
        finally:
            ended.set()

    def read(stream: Iterator[bytes]) -> None:
        next(stream)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        await consume(endless(), read)


async def test_the_streams_error_is_the_readers() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await consume(broken(), b"".join)


async def test_a_cancelled_reader_has_ended_when_the_cancellation_returns() -> None:
    began, ended = asyncio.Event(), threading.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        began.set()
        await asyncio.Event().wait()

    def read(stream: Iterator[bytes]) -> None:
        try:
            b"".join(stream)
        finally:
            ended.set()

    task = asyncio.ensure_future(consume(stuck(), read))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_a_thread_makes_is_read_by_the_loop() -> None:
    closed = threading.Event()

    def numbers() -> Iterator[bytes]:
        try:
            for number in range(100):
                yield b"%d" % number
        finally:
            closed.set()

    assert len([piece async for piece in produce(numbers)]) == 100
    assert closed.is_set()
    closed.clear()
    stream = produce(numbers)
    assert await anext(stream) == b"0"
    await stream.aclose()
    assert closed.is_set()


async def test_messages_come_before_the_end_and_the_error() -> None:
    async def operation(report: Reporter[str]) -> None:
        report("first")
        await asyncio.to_thread(report, "second")
        raise KeyError("then")

    heard: list[str] = []

    async def listen() -> None:
        async for message in Reporter[str]().messages(operation):
            heard.append(message)

    with pytest.raises(KeyError, match="then"):
        await listen()
    assert heard == ["first", "second"]


async def test_a_listener_that_leaves_cancels_the_operation() -> None:
    cancelled = asyncio.Event()

    async def operation(report: Reporter[str]) -> None:
        report("first")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    messages = Reporter[str]().messages(operation)
    assert await anext(messages) == "first"
    await messages.aclose()  # type: ignore[attr-defined] # it is an async generator
    assert cancelled.is_set()


async def test_what_a_thread_still_produces_is_closed_when_the_reader_is_cancelled() -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        try:
            begun.set()
            go_on.wait(10)
            yield b"late"
        finally:
            closed.set()

    async def read() -> None:
        async for _ in produce(slow):
            pass

    task = asyncio.ensure_future(read())
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
