"""Answers that go on: JSON lines, progress with its errors, and looking at the first piece before the head is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from hafen.api import versions
from hafen.errors import HafenError
from hafen.http.streams import close
from hafen.spec.wire.image import ErrorDetail, Progress

RAW: Final = "application/vnd.docker.raw-stream"
MULTIPLEXED: Final = "application/vnd.docker.multiplexed-stream"
JSON: Final = "application/json"
TAR: Final = "application/x-tar"


async def lines(values: AsyncIterator[object], version: versions.Version) -> AsyncIterator[bytes]:
    """Each value as one line of JSON."""
    try:
        async for value in values:
            yield versions.encode(value, version) + b"\n"
    finally:
        await close(values)


async def progress(
    messages: AsyncIterator[object], version: versions.Version, begun: bool = False
) -> AsyncIterator[bytes]:
    """Progress messages as lines; an error after the first one becomes the last, as the head has gone. `begun`: it has
    gone before the first."""
    try:
        async for message in messages:
            yield versions.encode(message, version) + b"\r\n"
            begun = True
    except HafenError as error:
        if not begun:
            raise
        detail = ErrorDetail(message=error.message)
        yield versions.encode(Progress(error_detail=detail, error=error.message), version) + b"\r\n"
    finally:
        await close(messages)


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, once the first is there: what goes wrong before it can still be a status code."""
    first = await anext(chunks, None)
    return _continued(first, chunks)


async def _continued(first: bytes | None, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield first
            async for chunk in chunks:
                yield chunk
    finally:
        await close(chunks)
