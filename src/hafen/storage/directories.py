"""What snapshotters of directories share: numbered directories, their rows, and removal in the background.

A directory `<root>/<n>` holds `fs` (the files), `work` (overlayfs' own) and `kept` (contents that only a layer's recipe
needs). Numbers are never used twice, so a directory whose row is gone means nothing to anybody.
"""

import logging
import os
import queue
import threading
import time
from dataclasses import dataclass, replace
from itertools import count

from hafen.errors import Conflict, NotFound
from hafen.kernel import fs
from hafen.storage import treedelete
from hafen.storage.database import Database
from hafen.storage.snapshot import SnapshotInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A snapshot; `lower` are directories of the machine, joined by colons, in place of its own."""

    number: int
    parent: str | None
    committed: bool
    lower: str | None
    created_at: float


class DirectorySnapshots:
    """Rows and directories of one driver. Loop thread only, but for `stage` and `unstage`."""

    def __init__(self, database: Database, root: str) -> None:
        self._database = database
        self._root = root
        os.makedirs(root, mode=0o711, exist_ok=True)
        fs.spread_directories(root)
        self._rows: dict[str, Row] = {}
        self._closed = False
        self._busy: set[str] = set()  # directories without a row that somebody fills, or that are on their way out
        self._doomed: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._delete_all, name="remove-snapshots", daemon=True).start()
        rows = database.query("SELECT key, number, parent, kind, lower, created_at FROM snapshots")
        for key, number, parent, kind, lower, created_at in rows:
            assert isinstance(key, str)
            assert isinstance(number, int)
            assert isinstance(created_at, float)
            self._rows[key] = Row(
                number, None if parent is None else str(parent), kind == "committed",
                None if lower is None else str(lower), created_at,
            )  # fmt: skip
        highest = max((int(name) for name in os.listdir(root) if name.isdigit()), default=0)
        self._numbers = count(max(highest, max((row.number for row in self._rows.values()), default=0)) + 1)

    def close(self) -> None:
        """Begin no more deletions. An engine that ends waits for none: `recover` of the next one finishes them."""
        self._closed = True
        self._doomed.put(None)

    def wait_removed(self) -> None:
        """Until everything removed so far is off the disk."""
        self._doomed.join()

    def _row(self, key: str) -> Row:
        row = self._rows.get(key)
        if row is None:
            raise NotFound(f"snapshot {key} does not exist")
        return row

    def _committed(self, key: str) -> Row:
        """The row of a snapshot that others may build on."""
        row = self._row(key)
        if not row.committed:
            raise Conflict(f"snapshot {key} is still being written and cannot be a parent")
        return row

    def _absent(self, key: str) -> None:
        if key in self._rows:
            raise Conflict(f"snapshot {key} exists already")

    def info(self, key: str) -> SnapshotInfo:
        row = self._row(key)
        return SnapshotInfo(key, row.parent, row.committed, row.created_at)

    def all(self) -> list[SnapshotInfo]:
        return [self.info(key) for key in self._rows]

    def has(self, key: str) -> bool:
        """Whether there is a snapshot of that key."""
        return key in self._rows

    def _directory(self, number: int) -> str:
        return f"{self._root}/{number}"

    def _own(self, row: Row) -> tuple[str, ...]:
        """What the snapshot itself consists of, top first."""
        if row.lower is not None:
            return tuple(row.lower.split(":"))
        return (f"{self._directory(row.number)}/fs",)

    def directory(self, key: str) -> str:
        return self._own(self._row(key))[0]

    def _changed(self, key: str) -> None:
        """A key went away: forget what was derived from it."""

    def _changed_below(self, key: str) -> None:
        """A key has another directory: forget what was derived from it, and for all that lies on it."""

    def _insert(self, number: int, key: str, parent: str | None, kind: str, lower: str | None) -> None:
        now = time.time()
        self._database.execute(
            "INSERT INTO snapshots (number, key, parent, kind, lower, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (number, key, parent, kind, lower, now),
        )
        self._rows[key] = Row(number, parent, kind == "committed", lower, now)
        self._database.if_undone(lambda: self._forget(key, number))

    def remove(self, key: str) -> None:
        row = self._row(key)
        if row.committed:
            child = next((other for other, below in self._rows.items() if below.parent == key), None)
            if child is not None:
                raise Conflict(f"snapshot {key} is the parent of {child}")
        self._database.execute("DELETE FROM snapshots WHERE key = ?", (key,))
        del self._rows[key]
        self._changed(key)
        self._database.if_undone(lambda: self._rows.update({key: row}))
        # Without its row a directory means nothing, so it needs no renaming first; should the engine die before it is
        # gone, `recover` deletes it.
        self._database.when_done(lambda: self._delete_later(self._directory(row.number)))

    def _delete_later(self, directory: str) -> None:
        self._busy.add(directory)
        self._doomed.put(directory)

    def _delete_all(self) -> None:
        while (directory := self._doomed.get()) is not None:
            if not self._closed:
                _delete(directory)
            self._busy.discard(directory)
            self._doomed.task_done()
        self._doomed.task_done()

    def stage(self) -> str:
        directory = self._directory(next(self._numbers))
        self._busy.add(directory)
        os.mkdir(directory, 0o700)
        os.mkdir(f"{directory}/fs", 0o755)
        return f"{directory}/fs"

    def unstage(self, directory: str) -> None:
        self._delete_later(os.path.dirname(directory))

    def register(self, directory: str, key: str, parent: str | None) -> None:
        self._absent(key)
        if parent is not None:
            self._committed(parent)
        number = _number(directory)
        self._insert(number, key, parent, "committed", None)
        self._busy.discard(self._directory(number))

    def replace(self, key: str, directory: str) -> None:
        row = self._committed(key)
        number = _number(directory)
        self._database.execute("UPDATE snapshots SET number = ? WHERE key = ?", (number, key))
        self._rows[key] = replace(row, number=number)
        self._busy.discard(self._directory(number))
        self._changed_below(key)

        def undone() -> None:
            self._rows[key] = row
            self._busy.add(self._directory(number))
            self._changed_below(key)

        self._database.if_undone(undone)
        self._database.when_done(lambda: self._delete_later(self._directory(row.number)))

    def strays(self) -> list[str]:
        known = {self._directory(row.number) for row in self._rows.values()} | self._busy
        return [path for name in os.listdir(self._root) if (path := f"{self._root}/{name}") not in known]

    def remove_stray(self, directory: str) -> None:
        if directory in self.strays():
            self._delete_later(directory)

    def absent(self, key: str) -> list[str]:
        row = self._row(key)
        wanted = [] if row.lower is not None else self._needed(row)
        return [path for path in wanted if not os.path.isdir(path)]

    def _needed(self, row: Row) -> list[str]:
        """The directories that a snapshot consists of."""
        return [f"{self._directory(row.number)}/fs"]

    def remake(self, key: str) -> None:
        row = self._row(key)
        if row.committed:
            raise Conflict(f"snapshot {key} is a layer: its files come from elsewhere")
        self._fill(row.number, row.parent)

    def recover(self) -> list[str]:
        known = {str(row.number) for row in self._rows.values()}
        stray = [f"{self._root}/{name}" for name in os.listdir(self._root) if name not in known]
        for directory in stray:
            self._delete_later(directory)
        for key, row in self._rows.items():
            if not row.committed and not os.path.isdir(self._own(row)[0]):
                log.warning("the files of %s are gone with the power; it starts anew from its image", key)
                self._fill(row.number, row.parent)
        return stray

    def _fill(self, number: int, parent: str | None) -> None:
        """Make the directories of an active snapshot, those that are missing."""
        raise NotImplementedError  # each driver has its own

    def _forget(self, key: str, number: int) -> None:
        """The transaction that had made the row was undone."""
        self._rows.pop(key, None)
        self._changed(key)
        self._delete_later(self._directory(number))


def _number(directory: str) -> int:
    """Of a staged directory, `<root>/<n>/fs`."""
    return int(os.path.basename(os.path.dirname(directory)))


def _delete(directory: str) -> None:
    """Delete a snapshot's directory; what cannot be deleted is logged, and tried again on the next start."""
    if not treedelete.delete(directory):
        log.warning("cannot delete all of %s, which a removed snapshot had", directory)
