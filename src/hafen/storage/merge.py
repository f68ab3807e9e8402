"""Layer directories seen as the kernel merges them: what is visible, what one changes of those below, what it takes.

https://docs.kernel.org/filesystems/overlayfs.html; done without mounting, so it needs no privilege and no cleaning up.
"""

import os
import stat
from collections.abc import Iterator, Sequence

from hafen.kernel import consts, fs
from hafen.storage.snapshot import OPAQUE, Change, ChangeKind, Usage


def usage(directory: str) -> Usage:
    """Bytes on disk and inodes below a directory; a file with many names counts once."""
    seen: set[tuple[int, int]] = set()
    total = inodes = 0
    for status in inside(directory):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        inodes += 1
        if stat.S_ISREG(status.st_mode):
            total += status.st_size
    return Usage(total, inodes)


def inside(directory: str) -> Iterator[os.stat_result]:
    """Of all that is below a directory whose owner may change it meanwhile: what goes away does not count, and no link
    is followed."""
    root = os.open(directory, consts.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pending = [""]
        while pending:
            path = pending.pop()
            opened = fs.open_directory_beneath(root, path)
            if opened is None:
                continue
            try:
                found = _statuses(opened)
            finally:
                os.close(opened)
            for name, status in found.items():
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{path}/{name}" if path else name)
            yield from found.values()
    finally:
        os.close(root)


def is_opaque(directory: str | int) -> bool:
    """Whether a directory of a layer (a path or a descriptor) hides those of the layers below."""
    try:
        return os.getxattr(directory, OPAQUE, follow_symlinks=isinstance(directory, int)) == b"y"
    except OSError:
        return False


def lstat(path: str, directory: int | None = None) -> os.stat_result | None:
    """None where there is nothing."""
    try:
        return os.stat(path, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def visible(lower: Sequence[str], name: str) -> tuple[os.stat_result | None, list[str]]:
    """What `name` is in the merged view of directories (top first), and the directories that merge there."""
    found: os.stat_result | None = None
    merged: list[str] = []
    for directory in lower:
        path = f"{directory}/{name}"
        status = lstat(path)
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


def place(upper: str, lower: Sequence[str], path: str, link: str) -> None:
    """`snapshot.Tree.place` in a directory that lies over others (top first), and has at most their directories."""
    parent, _, name = path.rpartition("/")
    layers = list(lower)
    if parent:
        status, layers = visible(lower, parent)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return
        if lstat(f"{upper}/{parent}") is None:  # it shows in place of those below it
            os.mkdir(f"{upper}/{parent}")
            os.chown(f"{upper}/{parent}", status.st_uid, status.st_gid)
            os.chmod(f"{upper}/{parent}", stat.S_IMODE(status.st_mode))
    if visible(layers, name)[0] is not None:
        return
    if link:
        os.symlink(link, f"{upper}/{path}")
    else:
        os.close(os.open(f"{upper}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755))


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
    """What a layer directory changes of those below it (top first), sorted by path within each directory. Who owns the
    layer may change it meanwhile; no link that is put into it is followed."""
    root = os.open(upper, consts.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _compare(root, list(lower), "", False)
    finally:
        os.close(root)


def _statuses(directory: int) -> dict[str, os.stat_result]:
    found = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
    return found


def _compare(root: int, lower: list[str], path: str, opaque: bool) -> Iterator[Change]:
    """`opaque`: a directory above hides all of `lower`, whose names are then gone unless they are in the layer."""
    upper = fs.open_directory_beneath(root, path[1:])
    if upper is None:
        return  # removed by the container meanwhile
    try:
        opaque = opaque or is_opaque(upper)
        mine = _statuses(upper)
    finally:
        os.close(upper)
    gone = merged_names(lower) - mine.keys() if opaque else set()
    for name in sorted(mine.keys() | gone):
        here = f"{path}/{name}"
        if name in gone:
            yield Change(ChangeKind.DELETED, here)
            continue
        status = mine[name]
        below, merged = visible(lower, name)
        if fs.is_whiteout(status):
            if below is not None:
                yield Change(ChangeKind.DELETED, here)
            continue
        yield Change(ChangeKind.ADDED if below is None else ChangeKind.MODIFIED, here)
        if stat.S_ISDIR(status.st_mode):
            yield from _compare(root, merged, here, opaque)
