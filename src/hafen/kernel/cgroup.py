"""`Cgroup` protocol: create, limit, read, freeze, kill, events; whatever the version.

    hierarchy = open_hierarchy()                     # once per process: v2, or v1 with or without a "unified" v2
    cgroup = hierarchy.create("/hafen/<id>")         # below the mount point, so that nesting works
    cgroup.apply(settings)                           # runtime.resources.plan() says which
    fd, entries = cgroup.clone_fd(), cgroup.entries()
    ... clone3(CLONE_INTO_CGROUP, fd); in the child: enter(entries) ...
    cgroup.kill(); cgroup.remove()

A process started with `clone_fd` and `entries` is inside before it runs a line of foreign code, and at no cost.
`add(pid)` does the same from outside, but writing a pid to `cgroup.procs` takes the kernel's threadgroup lock, which
waits for an RCU grace period when nobody took it of late: 6 to 14 ms on an idle machine (kernel/cgroup/cgroup.c,
cgroup_attach_lock). A task that moves only itself (`tasks`, "0") and CLONE_INTO_CGROUP need no such lock.

Paths that begin with "/" are below the mount point of each hierarchy, others below the caller's own cgroup. Both are
normalised first, so that ".." leads out of neither.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/*.rst; cgroups(7).
"""

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from hafen.kernel.cgroup_v1 import HierarchyV1
from hafen.kernel.cgroup_v2 import HierarchyV2
from hafen.kernel.cgroupfs import BlkioEntry as BlkioEntry
from hafen.kernel.cgroupfs import CgroupMount as CgroupMount
from hafen.kernel.cgroupfs import Counters as Counters
from hafen.kernel.cgroupfs import OOMWatch as OOMWatch
from hafen.kernel.cgroupfs import Setting as Setting
from hafen.kernel.cgroupfs import parse_mountinfo, parse_own


class Cgroup(Protocol):
    """One cgroup, whatever the version. Methods raise OSError with call and path, FileNotFoundError when it is gone."""

    path: str

    def apply(self, settings: Sequence[Setting]) -> None:
        """Writes the settings; one that the kernel refuses with EINVAL is tried again after the others.

        Limits depend on each other in both directions (memory and memory+swap, runtime and period), so that the
        right order is not known without the present values.
        """

    def add(self, pid: int) -> None:
        """Moves a process with all its threads here. See the module's docstring for the cost."""

    def clone_fd(self) -> int | None:
        """A descriptor for clone3's CLONE_INTO_CGROUP, None where there is no v2 hierarchy; the caller closes it."""

    def entries(self, *, cloned: bool = True) -> tuple[int, ...]:
        """Descriptors that a single-threaded child gives to `enter`; the caller closes them.

        They work from within any user and mount namespace: the kernel checks who opened them. `cloned`: the child
        comes from `clone_fd`, which leaves out what that did.
        """

    def freeze(self) -> None:
        """Stops all processes and those they start; returns when all stand still."""

    def thaw(self) -> None: ...

    def frozen(self) -> bool: ...

    def kill(self) -> None:
        """SIGKILL to all processes, also to those started meanwhile; none runs any more on return."""

    def pids(self) -> list[int]:
        """Process ids here and in nested cgroups."""

    def counters(self) -> Counters: ...

    def oom_kills(self) -> int:
        """How many processes the kernel killed for want of memory, here and below; 0 when it does not count."""

    def watch_oom(self) -> OOMWatch | None:
        """None where the kernel offers no notification."""

    def has(self, file: str) -> bool:
        """Whether the kernel offers this file here."""

    def mounts(self) -> tuple[CgroupMount, ...]: ...

    def remove(self) -> None:
        """Removes the cgroup with what was made inside; kills what still runs there. Removing twice is fine."""


class Hierarchy(Protocol):
    """The cgroup tree of this machine, or of the container that we run in."""

    version: int
    controllers: frozenset[str]

    def create(self, path: str) -> Cgroup:
        """Creates the cgroup and its parents. EBUSY when there are processes in it already."""

    def open(self, path: str) -> Cgroup:
        """The cgroup of that path, existing or not."""

    def has(self, file: str) -> bool:
        """Whether cgroups of ours offer this file. Creates the parent "/hafen" when it is missing, to look there."""

    def tidy(self, path: str) -> None:
        """Removes the cgroup of that path where nothing is in it, neither process nor child; leaves it otherwise."""


def open_hierarchy() -> Hierarchy:
    """The hierarchies that are mounted. ENOENT where there are none."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        found = parse_mountinfo(mountinfo)
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = parse_own(file)
    if found.v1:
        return HierarchyV1(found, own)
    if found.v2 is None:
        raise OSError(errno.ENOENT, "find a cgroup hierarchy: none is mounted", "/proc/self/mountinfo")
    return HierarchyV2(found.v2, own.get("", "/"))


def enter(entries: Iterable[int]) -> None:
    """Moves the calling process, which must have one thread, into the cgroup whose `entries` these are."""
    for fd in entries:
        os.write(fd, b"0")
