"""Files and directories that Hafen makes in a container's root, most of them to mount there.

Docker keeps them in a layer of their own below the container's, so that neither `diff` nor `commit` sees them. Here
they are in the container's layer, and left out where its changes are told.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from itertools import zip_longest

from hafen.storage.snapshot import Change, ChangeKind, Tree

MARK = ".dockerenv"  # by which programs know that they are in a container
_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
_MTAB = "etc/mtab"  # where getmntent(3)'s callers look, Java's among them

TARGETS = frozenset(("/dev", "/proc", "/sys", "/etc", "/sbin/docker-init")) | {
    f"/{path}" for path in (MARK, _MTAB, *_FILES)
}
_PARENTS = frozenset(posixpath.dirname(target) for target in TARGETS)


def place(tree: Tree) -> None:
    """Into a new container's root, before volumes are filled from it, whose /etc is to have them too. OSError."""
    for path in (MARK, *_FILES):
        tree.place(path)
    tree.place(_MTAB, "/proc/mounts")


def without_targets(changes: Iterable[Change]) -> list[Change]:
    """What the container changed itself; also without the directories that changed for a target's sake alone.

    `changes` are sorted by path, so that what changed below a directory follows it.
    """
    kept = [change for change in changes if change.kind is not ChangeKind.ADDED or change.path not in TARGETS]
    found = []
    for change, following in zip_longest(kept, kept[1:]):
        changed_below = following is not None and following.path.startswith(f"{change.path}/")
        if changed_below or change.path not in _PARENTS or change.kind is not ChangeKind.MODIFIED:
            found.append(change)
    return found
