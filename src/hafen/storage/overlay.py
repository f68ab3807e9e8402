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

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hafen.errors import InvalidArgument, NotImplemented
from hafen.kernel import mount
from hafen.spec.runtime_config import RootMount
from hafen.storage import merge
from hafen.storage.database import Database
from hafen.storage.directories import DirectorySnapshots, Row
from hafen.storage.snapshot import Change, Usage

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


class OverlaySnapshotter(DirectorySnapshots):
    """See `snapshot.Snapshotter`."""

    name = "overlay"
    separate = True

    def __init__(self, database: Database, root: str) -> None:
        if any(mark in root for mark in ":,|\\"):
            raise InvalidArgument(f"data root {root!r}: overlayfs cannot be told of paths with ':', ',', '|' or '\\'")
        super().__init__(database, root)
        self._options = options_beside_default()
        self._lowers: dict[str, tuple[str, ...]] = {}

    def _changed(self, key: str) -> None:
        self._lowers.pop(key, None)

    def _changed_below(self, key: str) -> None:
        self._lowers.clear()

    def _needed(self, row: Row) -> list[str]:
        directory = self._directory(row.number)
        return [f"{directory}/fs", *([] if row.committed or row.parent is None else [f"{directory}/work"])]

    def layer_directories(self, key: str) -> list[str]:
        row = self._row(key)
        return [*self._own(row), *self._below(row)]

    def _below(self, row: Row) -> tuple[str, ...]:
        return () if row.parent is None else self._lower(row.parent)

    def _lower(self, key: str) -> tuple[str, ...]:
        """Directories of a committed snapshot, top first; they never change, so they are remembered."""
        found = self._lowers.get(key)
        if found is None:
            row = self._committed(key)
            found = (*self._own(row), *self._below(row))
            self._lowers[key] = found
        return found

    def _base(self, key: str | None) -> tuple[str, ...]:
        """This machine's own directories at the bottom of a snapshot, if it is based on them."""
        while key is not None:
            row = self._row(key)
            if row.lower is not None:
                return self._own(row)
            key = row.parent
        return ()

    def prepare(self, key: str, parent: str | None) -> tuple[RootMount, ...]:
        self._absent(key)
        if parent is not None:
            self._committed(parent)
        number = next(self._numbers)
        self._fill(number, parent)
        self._insert(number, key, parent, "active", None)
        return self.mounts(key)

    def _fill(self, number: int, parent: str | None) -> None:
        directory = self._directory(number)
        _mkdir(directory, 0o700)
        _mkdir(f"{directory}/fs", 0o755)
        if parent is None:
            return
        _mkdir(f"{directory}/work", 0o700)
        # The root of the merged tree shows the upper directory's attributes.
        status = os.stat(self._lower(parent)[0])
        if stat.S_IMODE(status.st_mode) != 0o755:
            os.chmod(f"{directory}/fs", stat.S_IMODE(status.st_mode))
        if status.st_uid or status.st_gid:
            os.chown(f"{directory}/fs", status.st_uid, status.st_gid)

    def mounts(self, key: str) -> tuple[RootMount, ...]:
        row = self._row(key)
        if row.committed:
            layers = mountable(self._lower(key), self._base(key))
            if len(layers) == 1:
                return (RootMount("bind", layers[0], ("bind", "ro")),)
            return (RootMount("overlay", "overlay", (f"lowerdir={':'.join(layers)}", *self._options)),)
        directory = self._directory(row.number)
        if row.parent is None:
            return (RootMount("bind", f"{directory}/fs", ("bind",)),)
        lower = mountable(self._lower(row.parent), self._base(row.parent))
        options = (f"lowerdir={':'.join(lower)}", f"upperdir={directory}/fs", f"workdir={directory}/work")
        return (RootMount("overlay", "overlay", options + self._options),)

    def adopt(self, directory: str, parents: Sequence[str], implicit: Sequence[str]) -> str:
        describe_implied(directory, parents, implicit)
        return directory

    def register_root(self, key: str, directories: Sequence[str]) -> None:
        lower = ":".join(directories)
        row = self._rows.get(key)
        if row is None:
            self._insert(next(self._numbers), key, None, "committed", lower)
        elif row.lower != lower:
            self._database.execute("UPDATE snapshots SET lower = ? WHERE key = ?", (lower, key))
            self._rows[key] = replace(row, lower=lower)
            self._lowers.clear()

    def tree(self, key: str) -> "OverlayTree":
        row = self._row(key)
        own, *below = self.layer_directories(key)
        work = None if row.committed else f"{self._directory(row.number)}/work"
        return OverlayTree(own, tuple(below), work, self._base(key), self._options)


def _mkdir(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass


def mountable(layers: Sequence[str], base: Sequence[str]) -> tuple[str, ...]:
    """Layers (top first) as overlayfs takes them: this machine's own directories, when others lie above them, merged
    into one (see `kernel.mount.merged_layer`)."""
    if not base or len(layers) == len(base):
        return tuple(layers)
    return (*layers[: -len(base)], mount.merged_layer(base))


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
    base: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def usage(self) -> Usage:
        return merge.usage(self.upper)

    def open_changed(self) -> int:
        return os.open(self.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_root(self, *, readonly: bool = True) -> int:
        if not self.lower and not readonly:
            return mount.bind_fd(self.upper, recursive=False)
        extra = tuple((name, value) for name, _, value in (option.partition("=") for option in self.options))
        try:
            if not readonly and self.work is not None:
                return mount.overlay_fd(mountable(self.lower, self.base), self.upper, self.work, extra=extra)
            layers = mountable((self.upper, *self.lower), self.base)
            return mount.overlay_fd(layers, None, None, readonly=True, extra=extra)
        except OSError as error:
            if self.base and error.errno == errno.EINVAL:
                raise NotImplemented(
                    "files on this machine's own root can be read from outside since Linux 6.15"
                ) from error
            raise

    def place(self, path: str, link: str = "") -> None:
        merge.place(self.upper, self.lower, path, link)

    def changes(self) -> Iterator[Change]:
        return merge.changes(self.upper, self.lower)
