"""A blob on its way from another registry: fetched once, kept when it is whole, read by many while it arrives.

Readers are fed from the file, each as fast as it goes, and hold nothing up; one that leaves changes nothing. The last
byte is given out when all have been verified, so nobody gets a whole blob that is another one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import BinaryIO, Final

from hafen.errors import HafenError, Unavailable
from hafen.spec.digest import Digest
from hafen.storage.partial import Partial

_BATCH: Final = 1 << 20  # bytes that are written at a time, and then are there to be read
_DELAY: Final = 0.1  # seconds that fewer bytes wait for more
_READ: Final = 1 << 20


class Download:
    """Loop thread. `partial` is open, and closed by `run`; `blob` opens what it has become."""

    def __init__(
        self, partial: Partial, blob: Callable[[Digest], BinaryIO], in_thread: Callable[..., Awaitable[object]]
    ) -> None:
        self._partial = partial
        self._blob = blob
        self._in_thread = in_thread
        self._arrived = 0
        self._whole = False
        self._failed: HafenError | None = None
        self._changed = asyncio.Event()
        self.size = partial.size

    async def run(self, source: Callable[[int], AsyncGenerator[bytes, None]], kept: Callable[[], None]) -> None:
        """Fetch it; `source` gives the bytes from an offset. `kept` is called when it is a blob of the store."""
        try:
            with self._partial as partial:
                await self._completed(_consume, partial.arrived())
                self._progress(partial.offset)
                async with aclosing(source(partial.offset)) as pieces:
                    await self._store(pieces)
                if not await self._completed(partial.commit):
                    raise Unavailable(f"what came for {partial.digest} is something else")
            kept()
            self._whole = True
        except HafenError as error:
            self._failed = error
            raise
        except BaseException as error:
            self._failed = Unavailable(f"the download of {self._partial.digest} was given up: {error}")
            raise
        finally:
            self._notify()

    async def _store(self, pieces: AsyncIterator[bytes]) -> None:
        batch: list[bytes] = []
        size, since = 0, time.monotonic()
        async for piece in pieces:
            batch.append(piece)
            size += len(piece)
            if size >= _BATCH or time.monotonic() - since > _DELAY:
                await self._write(batch)
                batch, size, since = [], 0, time.monotonic()
        await self._write(batch)

    async def _write(self, batch: list[bytes]) -> None:
        await self._completed(self._partial.write, b"".join(batch))
        self._progress(self._partial.offset)

    async def _completed(self, function: Callable[..., object], *arguments: object) -> object:
        """In a thread, and to its end also where this is cancelled: its descriptor must not be closed under it."""
        work = asyncio.ensure_future(self._in_thread(function, *arguments))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait((work,))
            raise

    def _progress(self, arrived: int) -> None:
        self._arrived = arrived
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_begun(self) -> None:
        """Until there is something to read. Unavailable where nothing comes."""
        while not (self._arrived or self._whole):
            if self._failed is not None:
                raise self._failed
            await self._changed.wait()

    async def read(self, position: int, count: int) -> AsyncGenerator[bytes, None]:
        """These bytes as they come. Unavailable where they do not."""
        end = position + count
        with self._file() as file:
            while position < end:
                ready = self.size if self._whole else min(self._arrived, self.size - 1)
                if position < min(ready, end):
                    data = await self._in_thread(
                        os.pread, file.fileno(), min(ready - position, end - position, _READ), position
                    )
                    assert isinstance(data, bytes)
                    position += len(data)
                    yield data
                elif self._failed is not None:
                    raise self._failed
                else:
                    await self._changed.wait()

    def _file(self) -> BinaryIO:
        try:
            return open(self._partial.path, "rb", buffering=0)
        except FileNotFoundError:
            if self._failed is not None:
                raise self._failed from None
            return self._blob(self._partial.digest)


def _consume(pieces: Iterable[bytes]) -> None:
    for _ in pieces:
        pass
