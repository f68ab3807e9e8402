"""Execs on disk, and for how long an ended one is remembered.

A row is written when an exec is created and when it has ended; in between its shim knows. A probe of a health check
has no row: a later engine recognises by that what it has to end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from hafen.engine.records import Containers, Exec
from hafen.spec.wire.exec import ExecConfig
from hafen.storage.database import Database

KEPT_FOR = 300.0
"""Seconds that an ended exec can be inspected; in Docker it is five to ten minutes."""


class ExecRecords:
    """All execs that have a row; loop thread only. Rows are not synced: no exec survives the machine."""

    def __init__(self, database: Database, containers: Containers) -> None:
        self._database = database
        self._containers = containers
        self._ended: deque[tuple[float, Exec]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def load(self) -> None:
        """Read every row; called once, after the containers'."""
        for exec_id, container_id, config, pid, exit_code in self._database.query(
            "SELECT id, container, config, pid, exit_code FROM execs ORDER BY rowid"
        ):
            assert isinstance(config, bytes)
            container = self._containers.lookup(str(container_id))
            if container is None:  # a crash came in between
                self._delete([str(exec_id)])
                continue
            one = Exec(str(exec_id), container, msgspec.json.decode(config, type=ExecConfig), pid=int(pid or 0))
            self._containers.execs[one.id] = container.execs[one.id] = one
            if exit_code is not None:
                one.started, one.exit_code = True, int(exit_code)
                self._forget_later(one)

    def insert(self, one: Exec) -> None:
        with self._database.transaction(durable=False):
            self._database.execute(
                "INSERT INTO execs (id, container, config) VALUES (?, ?, ?)",
                (one.id, one.container.id, msgspec.json.encode(one.config)),
            )

    def ended(self, one: Exec) -> None:
        """Its exit code is known: write it down, and forget it after a while."""
        with self._database.transaction(durable=False):
            self._database.execute(
                "UPDATE execs SET pid = ?, exit_code = ? WHERE id = ?", (one.pid, one.exit_code, one.id)
            )
        self._forget_later(one)

    def forget(self, execs: Sequence[Exec]) -> None:
        for one in execs:
            self._containers.execs.pop(one.id, None)
            one.container.execs.pop(one.id, None)
        self._delete(one.id for one in execs)

    def _delete(self, ids: Iterable[str]) -> None:
        with self._database.transaction(durable=False):
            for exec_id in ids:
                self._database.execute("DELETE FROM execs WHERE id = ?", (exec_id,))

    def _forget_later(self, one: Exec) -> None:
        loop = asyncio.get_running_loop()
        self._ended.append((loop.time() + KEPT_FOR, one))
        if self._timer is None:
            self._timer = loop.call_later(KEPT_FOR, self._forget_old)

    def _forget_old(self) -> None:
        loop = asyncio.get_running_loop()
        old = []
        while self._ended and self._ended[0][0] <= loop.time():
            old.append(self._ended.popleft()[1])
        self._timer = loop.call_at(self._ended[0][0], self._forget_old) if self._ended else None
        self.forget(old)
