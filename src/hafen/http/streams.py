"""Iterators of bodies are ended where they are, not when they are collected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


async def close(iterator: AsyncIterator[object]) -> None:
    """End an iterator now; where it is a generator, its `finally` runs."""
    if isinstance(iterator, _Closable):
        await iterator.aclose()
