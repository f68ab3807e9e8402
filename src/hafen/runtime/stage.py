"""What the steps of a plan share while the child performs them, and the `Step` protocol."""

import errno
import os
import stat
import time
from typing import Any, Protocol

from hafen.errors import HafenError, InvalidArgument, OutOfSpace, System
from hafen.kernel import consts as k
from hafen.kernel import fs, mount
from hafen.kernel.cgroup import CgroupMount
from hafen.kernel.tty import Pty
from hafen.runtime.sync import Channel


class Step(Protocol):
    """One change of the system, decided by the plan; a frozen value."""

    def describe(self) -> str:
        """What it does, as a phrase that can follow "while": "mounting proc at /proc"."""

    def __hash__(self) -> int: ...

    def perform(self, stage: "Stage") -> None:
        """Do it. OSError and HafenError; the child adds `describe()`."""


class Phase:
    """A part of the straight line that is no step of the plan, by name: for errors and the trace."""

    def __init__(self, text: str) -> None:
        self.text = text

    def describe(self) -> str:
        return self.text


class Describes(Protocol):
    def describe(self) -> str: ...


class Stage:
    """The child's working state. Descriptors here are closed by the `close_range` before exec."""

    def __init__(
        self,
        channel: Channel,
        *,
        bundle: str,
        state: dict[str, Any],
        cgroup_mounts: tuple[CgroupMount, ...] = (),
        sources: dict[Step, int] | None = None,
        root_layers: "list[int | None] | None" = None,
        user_namespace: bool = False,
        trace: bool = False,
    ) -> None:
        self.channel = channel
        self.bundle = bundle
        self.state = state  # for hooks: the OCI state of this container
        self.cgroup_mounts = cgroup_mounts
        self.sources = sources if sources is not None else {}  # of bind steps: mounts opened beforehand
        self.root_layers = root_layers  # the same for the root
        self.user_namespace = user_namespace
        self.root = -1  # O_PATH descriptor of the container's root
        self.proc = -1  # the host's procfs, verified
        self.empty = -1  # a read-only tmpfs attached in this namespace, to clone
        self.console: Pty | None = None
        self.warnings: list[str] = []
        self.current: Describes = Phase("starting")
        self._trace: list[tuple[Describes, int]] | None = [] if trace else None

    def doing(self, what: Describes) -> None:
        """`what` begins now: named by an error, timed by the trace."""
        self.current = what
        if self._trace is not None:
            self._trace.append((what, time.monotonic_ns()))

    def trace(self) -> list[tuple[str, int]]:
        """(what, monotonic nanoseconds at its begin) so far; empty unless tracing."""
        return [(what.describe(), at) for what, at in self._trace or ()]

    def open_proc(self) -> None:
        """Keep the host's /proc, which no image or mount of the container can have replaced."""
        self.proc = os.open("/proc", k.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not fs.is_procfs_root(self.proc):
            raise System("the runtime's own /proc is not a procfs")

    def null_device(self) -> int:
        """The host's /dev/null, verified to be that device (CVE-2025-31133)."""
        fd = os.open("/dev/null", k.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            raise System("the host's /dev/null is not the null device")
        return fd

    def empty_directory(self) -> int:
        """A detached mount of a read-only empty tmpfs."""
        if self.empty >= 0:
            return mount.bind_fd("", recursive=False, dirfd=self.empty)
        self.empty = mount.new_mount("tmpfs", "tmpfs", (("size", "0"), ("nr_inodes", "1")), k.MOUNT_ATTR_RDONLY)
        return self.empty

    def attach(self, mount_fd: int, target: int, destination: str) -> None:
        """Put a detached mount on `target`, unless that is a place inside /proc (CVE-2019-16884)."""
        if fs.filesystem_type(target) == k.PROC_SUPER_MAGIC:
            path = os.readlink(f"{target}", dir_fd=self._own_descriptors())
            inside = path.rpartition("/proc/")[2] if not path.endswith("/proc") else ""
            if inside not in _PROC_MOUNTABLE:
                raise InvalidArgument(f'"{destination}" cannot be mounted because it is inside /proc')
        mount.attach(mount_fd, target)

    def _own_descriptors(self) -> int:
        return os.open("self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.proc)


# Files of procfs that lxcfs and its like replace; runc allows the same ones (rootfs_linux.go, checkProcMount).
_PROC_MOUNTABLE = frozenset((
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
    "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
))  # fmt: skip


def typed(error: OSError, what: Describes) -> HafenError:
    """An OSError of the kernel as one of ours, with the step that met it."""
    path = f": {error.filename!r}" if error.filename else ""
    message = f"{what.describe()}: {error.strerror}{path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(message)
    return System(message)
