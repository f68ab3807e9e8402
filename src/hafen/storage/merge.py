"""Layer directories seen as the kernel merges them: what is visible, what one changes of those below, what it takes.

https://docs.kernel.org/filesystems/overlayfs.html; done without mounting, so it needs no privilege and no cleaning up.
"""

import os
import stat
from collections.abc import Iterator, Sequence

from hafen.kernel import fs
from hafen.storage.snapshot import OPAQUE, Change, ChangeKind, Usage


def usage(directory: str) -> Usage:
    """Bytes on disk and inodes below a directory; a file with many names counts once."""
    seen: set[tuple[int, int]] = set()
    total = inodes = 0
    pending = [directory]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except FileNotFoundError:
            continue  # removed by the container meanwhile
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                inodes += 1
                if stat.S_ISREG(status.st_mode):
                    total += status.st_size
                elif stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
    return Usage(total, inodes)


def is_opaque(directory: str) -> bool:
    """Whether a directory of a layer hides those of the layers below."""
    try:
        return os.getxattr(directory, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def visible(lower: Sequence[str], name: str) -> tuple[os.stat_result | None, list[str]]:
    """What `name` is in the merged view of directories (top first), and the directories that merge there."""
    found: os.stat_result | None = None
    merged: list[str] = []
    for directory in lower:
        path = f"{directory}/{name}"
        status = _lstat(path)
        if status is None:
            continue
        if fs.is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            if found is None:
                found = status
            break
        found = found or status
        merged.append(path)
        if is_opaque(path):
            break
    return found, merged


def merged_names(lower: Sequence[str]) -> set[str]:
    """Names in the merged view of directories, top first."""
    names: set[str] = set()
    hidden: set[str] = set()
    for directory in lower:
        with os.scandir(directory) as entries:
            here = list(entries)
        for entry in here:
            if entry.name in names or entry.name in hidden:
                continue
            whiteout = fs.is_whiteout(entry.stat(follow_symlinks=False))
            (hidden if whiteout else names).add(entry.name)
    return names


def changes(upper: str, lower: Sequence[str]) -> Iterator[Change]:
    """What a layer directory changes of those below it (top first), sorted by path within each directory."""
    return _compare(upper, list(lower), "", False)


def _compare(upper: str, lower: list[str], path: str, opaque: bool) -> Iterator[Change]:
    """`opaque`: a directory above hides all of `lower`, whose names are then gone unless they are in `upper`."""
    try:
        with os.scandir(upper) as entries:
            mine = {entry.name: entry for entry in entries}
    except FileNotFoundError:
        return  # removed by the container meanwhile
    opaque = opaque or is_opaque(upper)
    gone = merged_names(lower) - mine.keys() if opaque else set()
    for name in sorted(mine.keys() | gone):
        here = f"{path}/{name}"
        if name in gone:
            yield Change(ChangeKind.DELETED, here)
            continue
        try:
            status = mine[name].stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        below, merged = visible(lower, name)
        if fs.is_whiteout(status):
            if below is not None:
                yield Change(ChangeKind.DELETED, here)
            continue
        yield Change(ChangeKind.ADDED if below is None else ChangeKind.MODIFIED, here)
        if stat.S_ISDIR(status.st_mode):
            yield from _compare(f"{upper}/{name}", merged, here, opaque)
