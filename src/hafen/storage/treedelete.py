"""Delete a tree of directories, however deep, and nothing that is mounted in it.

`shutil.rmtree` goes through mounts, and takes a descriptor and a frame for each level: what a container has nested a
few thousand deep would stop it. Here one descriptor goes down and up again, as in fts(3).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from hafen.kernel import fs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete(path: str) -> bool:
    """Whether all of it is gone. What cannot be deleted stays: mounts, immutable files, and the way to them."""
    with suppress(OSError):
        _empty(os.open(path, _DIRECTORY))
    with suppress(OSError):
        if os.path.islink(path):
            os.unlink(path)
        else:
            os.rmdir(path)
    return not os.path.lexists(path)


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory on the way down: what it is, and which directories in it are still to do."""

    name: str
    identity: tuple[int, int]
    left: list[str]


def _empty(here: int) -> None:
    """Everything below; closes the descriptor."""
    try:
        way = [_entered("", here)]
        while True:
            if way[-1].left:
                name = way[-1].left.pop()
                below = _below(here, name)
                if below >= 0:
                    os.close(here)
                    here = below
                    way.append(_entered(name, here))
                continue
            done = way.pop()
            if not way:
                return
            above = os.open("..", _DIRECTORY, dir_fd=here)
            os.close(here)
            here = above
            if _identity(here) != way[-1].identity:  # somebody has moved what we were in: this is not our tree
                return
            with suppress(OSError):
                os.rmdir(done.name, dir_fd=here)
    finally:
        os.close(here)


def _entered(name: str, directory: int) -> _Level:
    """Its files are deleted."""
    left = []
    with os.scandir(directory) as scan:
        entries = list(scan)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            left.append(entry.name)
            continue
        with suppress(OSError):
            os.unlink(entry.name, dir_fd=directory)
    return _Level(name, _identity(directory), left)


def _below(directory: int, name: str) -> int:
    """A directory to go into; -1 for a mount, and for what is gone."""
    try:
        return fs.open_beneath(directory, name, _DIRECTORY)
    except OSError:
        return -1


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino
