"""Lists whose rows the engine keeps from one answer to the next: what did not change is not encoded again."""

from __future__ import annotations

from collections.abc import Sequence

from hafen.api import versions
from hafen.api.versions import Version


class Rows:
    """The rows of the last list of each version, by identity; a kept row's identity is not another's meanwhile."""

    def __init__(self) -> None:
        self._last: dict[Version, dict[int, tuple[object, bytes]]] = {}

    def encode(self, rows: Sequence[object], version: Version) -> bytes:
        """As `versions.encode` of the list."""
        before = self._last.get(version, {})
        now = self._last[version] = {}
        for row in rows:
            now[id(row)] = before.get(id(row)) or (row, versions.encode(row, version))
        return b"[" + b",".join([text for _, text in now.values()]) + b"]"
