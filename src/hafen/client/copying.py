"""What `cp` makes of its source and its destination: where to unpack, and under which name; pure but for `local_*`."""

import os
from typing import NamedTuple

from hafen.client.engine import Document
from hafen.errors import InvalidArgument, NotFound

MODE_DIRECTORY = 1 << 31  # Go's os.FileMode bits, in X-Docker-Container-Path-Stat
MODE_SYMLINK = 1 << 27


class Place(NamedTuple):
    """One side of a copy. `path` keeps a trailing `/` or `/.`, which say what the user meant."""

    path: str
    exists: bool = True
    directory: bool = False
    rebase: str = ""  # the name to use for what a followed link led to


class Rename(NamedTuple):
    """The first part of every name in the archive, and what it becomes."""

    old: str
    new: str

    def apply(self, name: str) -> str:
        if self.old == ".":
            return f"{self.new}/{name}" if name not in ("", ".") else self.new
        if name == self.old or name.startswith(self.old + "/"):
            return self.new + name[len(self.old) :]
        return name


def prepare(source: Place, target: Place) -> tuple[str, Rename | None]:
    """(directory to unpack in, renaming); the cases are those of `docker cp`'s manual page."""
    name = source.rebase or base_name(source.path)
    if target.exists and target.directory:
        return target.path, None
    directory, last = split(target.path)
    if target.exists and source.directory:
        raise InvalidArgument("cannot copy directory")
    if not target.exists and target.path.endswith("/") and not source.directory:
        raise NotFound("no such directory")
    return directory, None if name == last else Rename(name, last)


def base_name(path: str) -> str:
    """`.` for `dir/.`: the contents are meant; the last part otherwise."""
    last = path.rstrip("/").rpartition("/")[2]
    return last or "/"


def split(path: str) -> tuple[str, str]:
    directory, _, last = path.rstrip("/").rpartition("/")
    return directory or "/", last


def container_place(path: str, stat: Document | None) -> Place:
    if stat is None:
        return Place(path, exists=False)
    return Place(path, directory=bool(int(stat.get("mode", 0)) & MODE_DIRECTORY))


def link_target(path: str, stat: Document) -> str | None:
    """Where a symbolic link in a container leads, as a path in it; None for what is no link."""
    if not int(stat.get("mode", 0)) & MODE_SYMLINK:
        return None
    return os.path.join(os.path.dirname(path), str(stat.get("linkTarget") or ""))


def local_path(path: str) -> str:
    """Absolute, with the trailing `/` or `/.` that `os.path` drops."""
    absolute = os.path.abspath(path)
    if path.endswith("/.") or path == ".":
        return absolute.rstrip("/") + "/."
    return absolute.rstrip("/") + "/" if path.endswith("/") else absolute


def local_source(path: str, *, follow: bool) -> Place:
    """A file or directory of this machine; NotFound where it is not there."""
    path = local_path(path)
    if follow and os.path.islink(path.rstrip("/.") or "/"):
        real = os.path.realpath(path)
        return Place(
            real + ("/." if path.endswith("/.") else ""), directory=os.path.isdir(real), rebase=base_name(path)
        )
    try:
        os.stat(path) if path.endswith(("/", "/.")) else os.lstat(path)
    except OSError as error:
        raise NotFound(f"lstat {path}: {(error.strerror or '').lower()}") from error
    if path.endswith(("/", "/.")):
        return Place(path, directory=os.path.isdir(path))
    return Place(path, directory=os.path.isdir(path) and not os.path.islink(path))


def local_target(path: str) -> Place:
    """A destination: symbolic links are followed, its parent must be there."""
    path = local_path(path)
    if os.path.exists(path):
        return Place(path, directory=os.path.isdir(path))
    if os.path.islink(path):
        path = os.path.realpath(path)
    parent = split(path)[0]
    if not os.path.isdir(parent):
        raise NotFound(f'invalid output path: directory "{parent}" does not exist')
    return Place(path, exists=False)
