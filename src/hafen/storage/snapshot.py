"""`Snapshotter` protocol: file trees that build on one another, and how they live.

A snapshot is a row in the database and a directory of a driver. Two kinds:

- *committed*: one layer of an image, never written again; its key is the layer's chain id;
- *active*: the writable top of a container (key: the container's id) or of an operation.

A container's life:

    snapshotter.prepare("4f1c...", parent="sha256:ab...")    # mkdirs and one row: no sync, well below 1 ms
    snapshotter.mounts("4f1c...")                            # what the runtime mounts; the same after a restart
    list(snapshotter.changes("4f1c..."))                     # docker diff
    snapshotter.remove("4f1c...")                            # renamed away at once, deleted in the background

A layer's life. The heavy part needs no parent and no database, so it runs in a thread, several layers at a time:

    staged = snapshotter.stage()                             # an empty directory that no one else sees
    applied = layers.apply(stream, staged, ...)              # in a thread: unpack, verify
    snapshotter.adopt(staged, "sha256:ab...", parent, applied.implicit)   # heavy for vfs; None on the loop after
    with database.transaction(): snapshotter.register(...)

Keys are unique; a second `prepare` of one is Conflict. A snapshot with children cannot be removed (Conflict). Unknown
keys are NotFound. Directories no row knows, from a crash in between, are deleted by `recover()`.

A *layer directory* (what `stage` gives and overlay keeps) holds only what one layer brings, in overlayfs' own format:
a character device 0/0 hides a name of the layers below, `trusted.overlay.opaque=y` on a directory hides all of them
(https://docs.kernel.org/filesystems/overlayfs.html, "whiteouts and opaque directories").
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from hafen.spec.runtime_config import RootMount

OPAQUE = "trusted.overlay.opaque"


class Usage(NamedTuple):
    """What a snapshot itself takes, without its parents."""

    bytes: int
    inodes: int


class ChangeKind(IntEnum):
    """As the Engine API numbers them."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2

    @property
    def letter(self) -> str:
        """C, A or D as `docker diff` prints."""
        return "CAD"[self]


class Change(NamedTuple):
    """One path of a container that differs from its image; absolute, sorted."""

    kind: ChangeKind
    path: str


class SnapshotInfo(NamedTuple):
    """A snapshot as the database knows it."""

    key: str
    parent: str | None
    committed: bool
    created_at: float


class Snapshotter(Protocol):
    """A driver of snapshots. `prepare`, `remove`, `register` and the look-ups use the database: loop thread only.
    `adopt`, `usage`, `changes` and `open_root` only read what the look-ups returned: any thread."""

    name: str
    separate: bool
    """Whether a layer directory holds what that layer brings and nothing else."""

    def prepare(self, key: str, parent: str | None) -> tuple[RootMount, ...]:
        """A new active snapshot on a committed parent (None: empty)."""

    def mounts(self, key: str) -> tuple[RootMount, ...]:
        """How to mount it: read-write for an active snapshot, read-only for a committed one."""

    def remove(self, key: str) -> None:
        """Forget it; its files go in the background."""

    def info(self, key: str) -> SnapshotInfo: ...

    def all(self) -> list[SnapshotInfo]: ...

    def layer_directories(self, key: str) -> list[str]:
        """Layer directories from the top (its own) down to the bottom."""

    def tree(self, key: str) -> "Tree":
        """A handle on the snapshot for heavy reading in any thread."""

    def stage(self) -> str:
        """A new empty layer directory, seen by nobody; removed by `recover` unless it was registered."""

    def unstage(self, directory: str) -> None:
        """Throw a staged directory away."""

    def adopt(self, directory: str, parents: Sequence[str], implicit: Sequence[str]) -> str:
        """Make a staged layer directory into what this driver keeps on these parents (`layer_directories` of the
        parent). `implicit` are directories the layer needed but did not describe: they look as the parent's. Heavy."""

    def has(self, key: str) -> bool: ...

    def directory(self, key: str) -> str:
        """The snapshot's own layer directory; its recipe's `kept` is beside it."""

    def register(self, directory: str, key: str, parent: str | None) -> None:
        """Record an adopted directory as the committed snapshot `key`. Conflict where that exists."""

    def register_root(self, key: str, directories: Sequence[str]) -> None:
        """Record (or change) the committed snapshot `key` that consists of this machine's own directories, top first.
        NotImplemented where the driver cannot build on what it does not own."""

    def replace(self, key: str, directory: str) -> None:
        """The committed snapshot's files are from now on those of an adopted directory; the old ones go. Nothing may
        have it mounted."""

    def strays(self) -> list[str]:
        """Directories of no snapshot, that nobody is filling or removing."""

    def remove_stray(self, directory: str) -> None:
        """Delete a stray directory, in the background."""

    def absent(self, key: str) -> list[str]:
        """Directories that the snapshot needs and that are not there."""

    def remake(self, key: str) -> None:
        """Make what an active snapshot lacks: it begins anew from its parent. Conflict for a committed one."""

    def close(self) -> None:
        """Begin nothing more in the background, and wait for none of it."""

    def wait_removed(self) -> None:
        """Until everything removed so far is off the disk."""

    def recover(self) -> list[str]:
        """On start: delete directories that no row knows; returns what was deleted."""


class Tree(Protocol):
    """One snapshot to be read at length, without the database."""

    def usage(self) -> Usage: ...

    def changes(self) -> Iterator[Change]:
        """What differs from the parent, sorted by path."""

    def open_changed(self) -> int:
        """A directory descriptor below which every added or modified path is found; the caller closes it."""

    def open_root(self, *, readonly: bool = True) -> int:
        """A directory descriptor of the merged tree, mounted nowhere; the caller closes it."""

    def place(self, path: str, link: str = "") -> None:
        """An empty file, or a symbolic link to `link`, at "name" or "directory/name", where nothing is there yet and
        the directory is one. For a snapshot that is new: nothing is mounted for it. OSError."""


def shown_driver(name: str) -> str:
    """Docker's name of a snapshotter, which clients compare."""
    return "overlay2" if name == "overlay" else name
