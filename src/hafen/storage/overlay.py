"""The overlayfs snapshotter: one directory per layer, stacked by the kernel.

    <root>/<n>/fs      what the snapshot itself brings (lower layer, or the container's upper directory)
    <root>/<n>/work    overlayfs' scratch directory, active snapshots only
    <root>/<n>/kept    contents that only a layer's recipe needs

`n` is a short number: with mount(2) all layers' paths share one page, with `lowerdir+` their count is 500.

Mount options, as far as the kernel's own default (a module parameter) is another one:

- `metacopy=off`: with it `chown` of a large file copies only its metadata up, and the upper directory alone no longer
  holds the file: diff, commit and a power cut would have to follow. Docker turns it off as well.
- `redirect_dir=off`: a renamed directory is then copied by the program that renames (EXDEV), and every layer means
  what it says without looking at the others. A redirect is never followed: layers come from strangers.
- `index=off`: the index ties an upper directory to one set of lower ones by file handle and refuses the mount when the
  layers were moved or restored; what it buys is hard links that survive copy-up.
- nothing `volatile`: a database in a container's writable layer may call fsync and mean it.

`trusted.overlay.*` attributes are never taken from an archive, so nothing in a layer can speak to the kernel.
"""

import contextlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count

from hafen.errors import Conflict, InvalidArgument, NotFound
from hafen.kernel import mount
from hafen.spec.runtime_config import RootMount
from hafen.storage import merge
from hafen.storage.database import Database
from hafen.storage.snapshot import Change, SnapshotInfo, Usage

log = logging.getLogger(__name__)

_PARAMETERS = "/sys/module/overlay/parameters"
_OFF = ("index", "metacopy", "redirect_dir")


def options_beside_default(parameters: str = _PARAMETERS) -> tuple[str, ...]:
    """The mount options that are needed because this kernel's defaults are others."""
    needed = []
    for name in _OFF:
        try:
            with open(f"{parameters}/{name}", encoding="ascii") as file:
                if file.read().strip() not in ("N", "0", "off"):
                    needed.append(f"{name}=off")
        except OSError:
            continue  # a kernel without the feature
    return tuple(needed)


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    parent: str | None
    committed: bool
    lower: str | None
    created_at: float


class OverlaySnapshotter:
    """See `snapshot.Snapshotter`."""

    name = "overlay"

    def __init__(self, database: Database, root: str) -> None:
        if ":" in root or "," in root or "\\" in root:
            raise InvalidArgument(f"data root {root!r}: overlayfs cannot be told of paths with ':', ',' or '\\'")
        self._database = database
        self._root = root
        os.makedirs(root, mode=0o711, exist_ok=True)
        self._options = options_beside_default()
        self._rows: dict[str, _Row] = {}
        self._lowers: dict[str, tuple[str, ...]] = {}
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remove-snapshots")
        rows = database.query("SELECT key, number, parent, kind, lower, created_at FROM snapshots")
        for key, number, parent, kind, lower, created_at in rows:
            assert isinstance(key, str)
            assert isinstance(number, int)
            assert isinstance(created_at, float)
            self._rows[key] = _Row(
                number, None if parent is None else str(parent), kind == "committed",
                None if lower is None else str(lower), created_at,
            )  # fmt: skip
        highest = max((int(name) for name in os.listdir(root) if name.isdigit()), default=0)
        self._numbers = count(max(highest, max((row.number for row in self._rows.values()), default=0)) + 1)

    def close(self) -> None:
        """Wait for the deletions in the background."""
        self._remover.shutdown(wait=True)

    def wait_removed(self) -> None:
        """Until everything removed so far is off the disk."""
        self._remover.submit(lambda: None).result()

    # -- look-ups

    def _row(self, key: str) -> _Row:
        row = self._rows.get(key)
        if row is None:
            raise NotFound(f"snapshot {key} does not exist")
        return row

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

    def directory(self, key: str) -> str:
        return self._own(self._row(key))[0]

    def layer_directories(self, key: str) -> list[str]:
        row = self._row(key)
        return [*self._own(row), *self._below(row)]

    def _below(self, row: _Row) -> tuple[str, ...]:
        return () if row.parent is None else self._lower(row.parent)

    def _own(self, row: _Row) -> tuple[str, ...]:
        if row.lower is not None:
            return tuple(row.lower.split(":"))
        return (f"{self._directory(row.number)}/fs",)

    def _lower(self, key: str) -> tuple[str, ...]:
        """Directories of a committed snapshot, top first; they never change, so they are remembered."""
        found = self._lowers.get(key)
        if found is None:
            row = self._row(key)
            if not row.committed:
                raise Conflict(f"snapshot {key} is still being written and cannot be a parent")
            found = (*self._own(row), *self._below(row))
            self._lowers[key] = found
        return found

    # -- life

    def prepare(self, key: str, parent: str | None) -> tuple[RootMount, ...]:
        if key in self._rows:
            raise Conflict(f"snapshot {key} exists already")
        lower = () if parent is None else self._lower(parent)
        number = next(self._numbers)
        directory = self._directory(number)
        os.mkdir(directory, 0o700)
        os.mkdir(f"{directory}/fs", 0o755)
        if lower:
            # The root of the merged tree shows the upper directory's attributes.
            status = os.stat(lower[0])
            if stat.S_IMODE(status.st_mode) != 0o755:
                os.chmod(f"{directory}/fs", stat.S_IMODE(status.st_mode))
            if status.st_uid or status.st_gid:
                os.chown(f"{directory}/fs", status.st_uid, status.st_gid)
            os.mkdir(f"{directory}/work", 0o700)
        self._insert(number, key, parent, "active", None)
        return self.mounts(key)

    def _insert(self, number: int, key: str, parent: str | None, kind: str, lower: str | None) -> None:
        now = time.time()
        self._database.execute(
            "INSERT INTO snapshots (number, key, parent, kind, lower, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (number, key, parent, kind, lower, now),
        )
        self._rows[key] = _Row(number, parent, kind == "committed", lower, now)
        self._database.if_undone(lambda: self._forget(key, number))

    def mounts(self, key: str) -> tuple[RootMount, ...]:
        row = self._row(key)
        directory = self._directory(row.number)
        lower = self._below(row)
        if row.committed:
            layers = self._lower(key)
            if len(layers) == 1:
                return (RootMount("bind", layers[0], ("bind", "ro")),)
            return (RootMount("overlay", "overlay", (f"lowerdir={':'.join(layers)}", *self._options)),)
        if not lower:
            return (RootMount("bind", f"{directory}/fs", ("bind",)),)
        options = (f"lowerdir={':'.join(lower)}", f"upperdir={directory}/fs", f"workdir={directory}/work")
        return (RootMount("overlay", "overlay", options + self._options),)

    def remove(self, key: str) -> None:
        row = self._row(key)
        child = next((other for other, below in self._rows.items() if below.parent == key), None)
        if child is not None:
            raise Conflict(f"snapshot {key} is the parent of {child}")
        self._database.execute("DELETE FROM snapshots WHERE key = ?", (key,))
        # Without its row a directory means nothing: numbers are not used twice. So it needs no renaming, and should the
        # engine die before it is gone, `recover` deletes it.
        del self._rows[key]
        self._lowers.pop(key, None)
        self._remover.submit(_delete, self._directory(row.number))

    def stage(self) -> str:
        directory = self._directory(next(self._numbers))
        os.mkdir(directory, 0o700)
        os.mkdir(f"{directory}/fs", 0o755)
        return f"{directory}/fs"

    def unstage(self, directory: str) -> None:
        self._remover.submit(_delete, os.path.dirname(directory))

    def adopt(self, directory: str, parents: Sequence[str], implicit: Sequence[str]) -> str:
        describe_implied(directory, parents, implicit)
        return directory

    def register(self, directory: str, key: str, parent: str | None) -> None:
        if key in self._rows:
            raise Conflict(f"snapshot {key} exists already")
        if parent is not None:
            self._lower(parent)
        number = int(os.path.basename(os.path.dirname(directory)))
        self._insert(number, key, parent, "committed", None)

    def register_root(self, key: str, directories: Sequence[str]) -> None:
        lower = ":".join(directories)
        row = self._rows.get(key)
        if row is None:
            self._insert(next(self._numbers), key, None, "committed", lower)
        elif row.lower != lower:
            self._database.execute("UPDATE snapshots SET lower = ? WHERE key = ?", (lower, key))
            self._rows[key] = replace(row, lower=lower)
            self._lowers.clear()

    def recover(self) -> list[str]:
        known = {str(row.number) for row in self._rows.values()}
        stray = [f"{self._root}/{name}" for name in os.listdir(self._root) if name not in known]
        for directory in stray:
            self._remover.submit(_delete, directory)
        return stray

    def _forget(self, key: str, number: int) -> None:
        """The transaction that had made the row was undone."""
        self._rows.pop(key, None)
        self._lowers.pop(key, None)
        self._remover.submit(_delete, self._directory(number))

    def tree(self, key: str) -> "OverlayTree":
        row = self._row(key)
        directory = self._directory(row.number)
        own, *below = self.layer_directories(key)
        return OverlayTree(own, tuple(below), None if row.committed else f"{directory}/work")


def _delete(directory: str) -> None:
    """Delete a snapshot's directory; what cannot be deleted is logged, and tried again on the next start."""

    def failed(_: object, path: str, info: object) -> None:
        log.warning("cannot delete %s of a removed snapshot: %s", path, info)

    if os.path.isdir(directory) and not os.path.islink(directory):
        shutil.rmtree(directory, onerror=failed)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory)


def describe_implied(directory: str, parents: Sequence[str], implicit: Sequence[str]) -> None:
    """Give directories that a layer did not describe the look of the parent's, which they would otherwise hide."""
    for path in implicit:
        for parent in parents:
            try:
                status = os.stat(f"{parent}/{path}", follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(status.st_mode):
                target = f"{directory}/{path}"
                os.chown(target, status.st_uid, status.st_gid)
                os.chmod(target, stat.S_IMODE(status.st_mode))
                os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
            break


@dataclass(frozen=True, slots=True)
class OverlayTree:
    """See `snapshot.Tree`."""

    upper: str
    lower: tuple[str, ...]
    work: str | None

    def usage(self) -> Usage:
        return merge.usage(self.upper)

    def open_changed(self) -> int:
        return os.open(self.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_root(self, *, readonly: bool = True) -> int:
        if not self.lower:
            return mount.bind_fd(self.upper, recursive=False)
        if readonly or self.work is None:
            return mount.overlay_fd((self.upper, *self.lower), None, None, readonly=True)
        return mount.overlay_fd(self.lower, self.upper, self.work)

    def changes(self) -> Iterator[Change]:
        return merge.changes(self.upper, self.lower)
