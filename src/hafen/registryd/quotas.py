"""Quotas: how many bytes the repositories under a prefix may have together.

A blob or manifest counts once under a prefix, however many of its repositories have it. `team` is the repository `team`
and all of `team/...`; `*` is everything. An upload counts by itself until it is a blob: several at a time may fill the
disk beyond the quota, and all but those that fit are refused at their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from hafen.errors import InvalidArgument
from hafen.registryd.errors import QuotaExceeded
from hafen.registryd.quotarows import QuotaRows
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.spec.units import parse_size

ALL: Final = ""  # the prefix of every name


def parse(words: Iterable[str]) -> dict[str, int]:
    """Bytes by prefix, of PREFIX=SIZE words; InvalidArgument."""
    quotas: dict[str, int] = {}
    for word in words:
        prefix, equals, size = word.partition("=")
        if not equals or not (prefix == "*" or reference.is_path(prefix)):
            raise InvalidArgument(f"a quota is PREFIX=SIZE, for example team=20g or *=1t, not {word!r}")
        quotas[ALL if prefix == "*" else prefix] = parse_size(size)
    return quotas


class Quotas:
    def __init__(self, rows: QuotaRows, limits: Mapping[str, int]) -> None:
        rows.settle(limits)
        self._rows = rows
        self._limits = limits

    def room(self, name: str, digest: Digest | None = None) -> int | None:
        """Bytes that may come to a repository; None for any number, also where `digest` is counted already."""
        free = [
            limit - self._rows.used(prefix)
            for prefix, limit in self._limits.items()
            if (prefix in (ALL, name) or name.startswith(f"{prefix}/"))
            and not (digest is not None and self._rows.held(prefix, digest))
        ]
        return min(free) if free else None

    def require(self, name: str, digest: Digest, size: int) -> None:
        """QuotaExceeded where these bytes are too many."""
        room = self.room(name, digest)
        if room is not None and size > room:
            raise exceeded(name, size, room)


def exceeded(name: str, size: int, room: int) -> QuotaExceeded:
    return QuotaExceeded(f"quota exceeded: {name} may take {max(room, 0)} bytes more, this is {size}")
