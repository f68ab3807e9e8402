"""What both cgroup versions share: settings, counters, mount table, the files' reading, writing and removal.

Every function raises OSError with call and path; what is written is part of the call's name.
"""

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from hafen.values import NamedTuple

CGROUP_ROOT = "/sys/fs/cgroup"
WAIT_SECONDS = 10.0


class Setting(NamedTuple):
    """`value` to be written to the cgroup's `file`; `alternative` is for kernels that do not have that file."""

    file: str
    value: str
    alternative: "Setting | None" = None

    def describe(self) -> str:
        return f"write {self.value!r} to {self.file}"


class BlkioEntry(NamedTuple):
    """One counter of one block device; `op` as the kernel names it: Read, Write, ... (v1), read, write (v2)."""

    major: int
    minor: int
    op: str
    value: int


class Counters(NamedTuple):
    """What the cgroup has used so far. Times in nanoseconds, memory in bytes; None is "no limit" or "not counted"."""

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    per_cpu: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    memory_usage: int = 0
    memory_max_usage: int | None = None
    memory_limit: int | None = None
    memory_failures: int = 0
    memory_stat: tuple[tuple[str, int], ...] = ()
    swap_usage: int | None = None
    pids: int = 0
    pids_limit: int | None = None
    io_service_bytes: tuple[BlkioEntry, ...] = ()
    io_serviced: tuple[BlkioEntry, ...] = ()


class OOMWatch(NamedTuple):
    """A descriptor (caller closes) that polls with `events` when an OOM kill happened; `rearm` after each."""

    fd: int
    events: int

    def rearm(self) -> None:
        """Makes the descriptor quiet again until the next kill."""
        if self.events == select.POLLPRI:
            os.pread(self.fd, 4096, 0)  # kernfs reports POLLPRI until the file has been read again
        else:
            os.read(self.fd, 8)


class CgroupMount(NamedTuple):
    """One hierarchy as a container sees it below /sys/fs/cgroup; `name` is empty where it is mounted right there.

    In a new cgroup namespace: mount(`type`, options=`options`); in the host's: bind-mount `source`, which is the
    container's own cgroup. `links` are further names for the directory ("cpu" for "cpu,cpuacct").
    """

    name: str
    type: str
    options: str
    source: str
    links: tuple[str, ...] = ()


class MountedHierarchy(NamedTuple):
    """`root` is the cgroup that appears at `mount_point`; `controllers` has "name=x" for a named hierarchy."""

    mount_point: str
    root: str
    controllers: tuple[str, ...]

    def directory(self, path: str, own: str) -> str:
        """Where `path` lies; `own` is the caller's cgroup in this hierarchy."""
        if path.startswith("/"):
            return self.mount_point.rstrip("/") + normalise(path)
        inside = own.removeprefix(self.root.rstrip("/")) if own.startswith(self.root.rstrip("/") + "/") else ""
        return self.mount_point.rstrip("/") + inside.rstrip("/") + normalise(path)


class MountedHierarchies(NamedTuple):
    v1: tuple[MountedHierarchy, ...]
    v2: MountedHierarchy | None


# Mount options that are not controllers.
_V1_FLAGS = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"})


def parse_mountinfo(lines: Iterable[str]) -> MountedHierarchies:
    """cgroup mounts in /proc/self/mountinfo (proc_pid_mountinfo(5)), each hierarchy once: the first below /sys."""
    v1: dict[tuple[str, ...], MountedHierarchy] = {}
    v2: MountedHierarchy | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        fstype, _, rest = after.partition(" ")
        if fstype not in ("cgroup", "cgroup2"):
            continue
        root, mount_point = (_unescape(field) for field in before.split(" ")[3:5])
        if fstype == "cgroup2":
            mounted = MountedHierarchy(mount_point, root, ())
            if v2 is None or _preferred(mounted, v2):
                v2 = mounted
            continue
        options = rest.rstrip("\n").rpartition(" ")[2].split(",")
        names = tuple(o for o in options if o not in _V1_FLAGS and not o.startswith("release_agent="))
        mounted = MountedHierarchy(mount_point, root, names)
        if names not in v1 or _preferred(mounted, v1[names]):
            v1[names] = mounted
    return MountedHierarchies(tuple(v1.values()), v2)


def parse_own(lines: Iterable[str]) -> dict[str, str]:
    """/proc/self/cgroup: controller (or "name=x", or "" for v2) -> path."""
    own: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.rstrip("\n").split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    return own


def normalise(path: str) -> str:
    """`path` below "/", without "." and ".."."""
    return "/" + os.path.normpath("/" + path).lstrip("/")


def enable_below(top: str, directory: str, controllers: Iterable[str]) -> None:
    """Creates `directory` of a v2 hierarchy that is mounted at `top`, and gives its children the controllers."""
    at = top.rstrip("/")
    enable_controllers(at, controllers)
    for part in directory.removeprefix(at).strip("/").split("/"):
        if part:
            at = f"{at}/{part}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(at, 0o755)
            enable_controllers(at, controllers)


def enable_controllers(directory: str, controllers: Iterable[str]) -> None:
    """Gives the children of a v2 cgroup these controllers, as far as it has them itself."""
    have = read(f"{directory}/cgroup.controllers").split()
    enabled = read(f"{directory}/cgroup.subtree_control").split()
    wanted = " ".join(f"+{name}" for name in controllers if name in have and name not in enabled)
    if not wanted:
        return
    try:
        write(f"{directory}/cgroup.subtree_control", wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # "No internal processes": inside a container or a unit the top holds our own processes. They move down.
        leaf = f"{directory}/init"
        with contextlib.suppress(FileExistsError):
            os.mkdir(leaf, 0o755)
        for pid in read(f"{directory}/cgroup.procs").split():
            with contextlib.suppress(ProcessLookupError):
                write(f"{leaf}/cgroup.procs", pid)
        write(f"{directory}/cgroup.subtree_control", wanted)


def freeze_v2(directory: str) -> None:
    write(f"{directory}/cgroup.freeze", "1")
    wait_event(directory, "frozen 1")


def thaw_v2(directory: str) -> None:
    write(f"{directory}/cgroup.freeze", "0")
    wait_event(directory, "frozen 0")


def frozen_v2(directory: str) -> bool:
    return read(f"{directory}/cgroup.freeze").strip() == "1"


def kill_v2(directory: str) -> None:
    """SIGKILL to everything in a v2 cgroup and below; returns when nothing runs there any more."""
    if not os.path.exists(directory):
        return
    try:
        write(f"{directory}/cgroup.kill", "1")
    except FileNotFoundError:  # Linux before 5.14
        # Who stands still cannot fork, and SIGKILL ends frozen tasks of v2.
        freeze_v2(directory)
        for pid in pids_below(directory):
            kill_process(pid)
        write(f"{directory}/cgroup.freeze", "0")
    wait_event(directory, "populated 0")


def wait_event(directory: str, line: str) -> None:
    """Waits until `cgroup.events` has this line. ETIMEDOUT after WAIT_SECONDS (a process in a dead file system).

    The kernel reports changes to who polls the file at most every 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV), and SIGKILL
    or a freeze takes a fraction of one: reading again is quicker.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    pause = 0.0001
    fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while line.encode() not in os.pread(fd, 4096, 0).split(b"\n"):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"wait for {line!r}: timed out", directory)
            time.sleep(pause)
            pause = min(pause * 2, 0.01)
    except OSError as error:
        if error.errno != errno.ENODEV:  # somebody removed it meanwhile
            raise
    finally:
        os.close(fd)


def remove_if_empty(directory: str) -> None:
    try:
        os.rmdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise


def remove_tree(directory: str) -> None:
    """Removes a cgroup directory of either version with all below; what still runs there is killed.

    A cgroup stays busy for a moment after its last process was killed; ENOENT at any point is what we want.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        for name in child_names(directory):
            remove_tree(f"{directory}/{name}")
        for pid in read_if_there(f"{directory}/cgroup.procs").split():
            kill_process(int(pid))
        time.sleep(pause)  # there is no event on v1
        pause = min(pause * 2, 0.05)


def apply_settings(settings: Sequence[Setting], directory_of: "DirectoryOf") -> None:
    """See `Cgroup.apply`."""
    refused: list[Setting] = []
    for setting in settings:
        try:
            _apply(setting, directory_of)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBUSY):
                raise
            refused.append(setting)
    for setting in refused:
        _apply(setting, directory_of)


class DirectoryOf(Protocol):
    def __call__(self, file: str, /) -> str:
        """The directory that holds this file. ENOENT when its controller is not there."""


def _apply(setting: Setting, directory_of: DirectoryOf) -> None:
    try:
        write(f"{directory_of(setting.file)}/{setting.file}", setting.value)
    except FileNotFoundError:
        if setting.alternative is None:
            raise
        _apply(setting.alternative, directory_of)


def pids_below(directory: str) -> Iterator[int]:
    try:
        yield from map(int, read(f"{directory}/cgroup.procs").split())
        for name in child_names(directory):
            yield from pids_below(f"{directory}/{name}")
    except (FileNotFoundError, OSError) as error:
        # A nested cgroup went away, or is threaded (its processes are listed by its parent).
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise


def child_names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def kill_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)


def keyed(text: str) -> dict[str, int]:
    """A "flat keyed" file: `KEY VALUE` in each line."""
    return {key: int(value) for key, _, value in (line.partition(" ") for line in text.splitlines()) if value.isdigit()}


def read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.readall().decode()


def read_if_there(path: str) -> str:
    try:
        return read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def write(path: str, value: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {error.strerror}", path) from None


def _preferred(new: MountedHierarchy, old: MountedHierarchy) -> bool:
    return new.mount_point.startswith(CGROUP_ROOT) and not old.mount_point.startswith(CGROUP_ROOT)


def _unescape(field: str) -> str:
    r"""Undoes mountinfo's `\040` and the like."""
    if "\\" not in field:
        return field
    head, *rest = field.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
