"""Streams between the event loop and a thread: chunks in with back-pressure, chunks and progress out."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
M = TypeVar("M")

_ROOM = 8 << 20  # bytes that may wait for the thread
_TELL = 1 << 20  # bytes after which the thread says that it has taken them: each time wakes the loop


class Feed:
    """An async stream as the plain iterator of one thread; at most 8 MiB wait in between.

    The thread sees the stream's error as its own. When the reader goes away first, the rest is not read.
    """

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._waiting = 0
        self._room = asyncio.Event()

    def __iter__(self) -> Iterator[bytes]:
        """The chunks, in the thread."""
        taken = 0
        while (item := self._chunks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            taken += len(item)
            if taken >= _TELL:
                self._loop.call_soon_threadsafe(self._taken, taken)
                taken = 0

    def _taken(self, size: int) -> None:
        self._waiting -= size
        self._room.set()

    async def pump(self) -> None:
        """Read the stream to its end; on the loop, beside the thread."""
        try:
            async for chunk in self._stream:
                self._waiting += len(chunk)
                self._chunks.put(chunk)
                while self._waiting > _ROOM:
                    self._room.clear()
                    await self._room.wait()
        except BaseException as error:
            self._chunks.put(ConnectionAbortedError("the client went away") if _cancels(error) else error)
            raise
        self._chunks.put(None)


def _cancels(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError | GeneratorExit)


async def consume(stream: AsyncIterator[bytes], work: Callable[[Iterator[bytes]], T]) -> T:
    """`work` in a thread, on the stream's chunks. When this is cancelled the thread is told by an error and awaited:
    what it was writing is closed when this returns."""
    feed = Feed(stream)
    pump = asyncio.ensure_future(feed.pump())
    thread = asyncio.ensure_future(asyncio.to_thread(lambda: work(iter(feed))))
    try:
        return await asyncio.shield(thread)
    finally:
        pump.cancel()
        with contextlib.suppress(BaseException):  # the thread has seen it, as its own error
            await pump
        if not thread.done():
            with contextlib.suppress(Exception):
                await asyncio.shield(thread)


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """As `asyncio.to_thread`, but a cancelled caller waits for the thread: what it uses cannot be closed before."""
    thread = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(thread)
    finally:
        if not thread.done():
            with contextlib.suppress(Exception):
                await asyncio.shield(thread)


async def produce(make: Callable[[], Iterator[bytes]]) -> AsyncGenerator[bytes]:
    """Chunks of an iterator that blocks, each fetched in a thread. They should be large: a hand-over costs 50 us."""
    chunks = await asyncio.to_thread(make)
    try:
        while (chunk := await in_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


class Reporter(Generic[M]):
    """Where a long operation tells how far it is, from the loop or from a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[M | None] = asyncio.Queue()

    def __call__(self, message: M) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    async def messages(self, operation: Callable[[Reporter[M]], Awaitable[None]]) -> AsyncIterator[M]:
        """Its messages, as they come; then its error, if any. Closing the iterator cancels the operation."""

        async def whole() -> None:
            try:
                await operation(self)
            finally:
                # Through the loop's queue, as the messages: behind those that threads have sent.
                self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

        task = asyncio.ensure_future(whole())
        try:
            while (message := await self._queue.get()) is not None:
                yield message
            await task
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
