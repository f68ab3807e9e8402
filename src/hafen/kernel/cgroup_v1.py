"""cgroup version 1, with or without a v2 hierarchy beside it ("hybrid") (Documentation/admin-guide/cgroup-v1/).

A container has a directory of the same path in every hierarchy that is mounted, named ones too. Where v2 is mounted
beside them it does what v1 cannot: kill and freeze a whole tree at once (v1's freezer leaves processes unkillable,
and a loop over `cgroup.procs` races with fork), and it takes part in clone3.
"""

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterator, Sequence

from hafen.kernel import cgroup_counters, cgroupfs
from hafen.kernel.cgroupfs import (
    CgroupMount,
    Counters,
    MountedHierarchies,
    MountedHierarchy,
    OOMWatch,
    Setting,
    read,
    read_if_there,
    write,
)


class HierarchyV1:
    version = 1

    def __init__(self, mounted: MountedHierarchies, own: dict[str, str]) -> None:
        self._v1 = mounted.v1
        self._v2 = mounted.v2
        self._own = own
        self.controllers = frozenset(name for m in self._v1 for name in m.controllers if not name.startswith("name="))
        if self._v2:
            self.controllers |= set(read_if_there(f"{self._v2.mount_point}/cgroup.controllers").split())

    def create(self, path: str) -> "CgroupV1":
        cgroup = self.open(path)
        with contextlib.ExitStack() as undo:
            for mounted, directory in cgroup.parts:
                if self._make(mounted, directory):
                    undo.callback(os.rmdir, directory)
            undo.pop_all()
        return cgroup

    def open(self, path: str) -> "CgroupV1":
        parts = [(m, m.directory(path, self._own.get(m.controllers[0], "/"))) for m in self._v1]
        unified = self._v2.directory(path, self._own.get("", "/")) if self._v2 else None
        if self._v2 and unified:
            parts.append((self._v2, unified))
        return CgroupV1(path, tuple(parts), unified)

    def has(self, file: str) -> bool:
        parent = self.open("/hafen")
        for mounted, directory in parent.parts:
            self._make_parents(mounted, directory)
        return parent.has(file)

    def tidy(self, path: str) -> None:
        for _, directory in self.open(path).parts:
            cgroupfs.remove_if_empty(directory)

    def _make(self, mounted: MountedHierarchy, directory: str) -> bool:
        """Whether the directory is new."""
        new = True
        try:
            os.mkdir(directory, 0o755)
        except FileNotFoundError:
            self._make_parents(mounted, os.path.dirname(directory))
            os.mkdir(directory, 0o755)
        except FileExistsError:
            if read(f"{directory}/cgroup.procs"):
                raise OSError(errno.EBUSY, "create cgroup: it holds processes already", directory) from None
            new = False
        if "cpuset" in mounted.controllers and not read(f"{directory}/cpuset.cpus").strip():
            self._make_parents(mounted, directory)  # the parent is not of our making
        return new

    def _make_parents(self, mounted: MountedHierarchy, directory: str) -> None:
        """Creates `directory` and what is missing above it, so that its children can be used as they are born."""
        at = mounted.mount_point.rstrip("/")
        for part in directory.removeprefix(at).strip("/").split("/"):
            above, at = at, f"{at}/{part}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(at, 0o755)
            if "cpuset" in mounted.controllers:
                # A v1 cpuset is born empty and takes no process, unless its parent says that children inherit.
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if not read(f"{at}/{file}").strip():
                        write(f"{at}/{file}", read(f"{above}/{file}").strip())
                write(f"{at}/cgroup.clone_children", "1")
            if "memory" in mounted.controllers:
                # Linux before 5.11 counts children apart unless told otherwise; refused where it is so already.
                with contextlib.suppress(OSError):
                    write(f"{at}/memory.use_hierarchy", "1")


class CgroupV1:
    def __init__(self, path: str, parts: tuple[tuple[MountedHierarchy, str], ...], unified: str | None) -> None:
        self.path = path
        self.parts = parts
        self._unified = unified
        self._directories = {
            controller: directory for mounted, directory in parts for controller in mounted.controllers
        }
        self._main = unified or self._directories.get("freezer") or parts[0][1]

    def apply(self, settings: Sequence[Setting]) -> None:
        cgroupfs.apply_settings(settings, self._directory_of)

    def add(self, pid: int) -> None:
        for _, directory in self.parts:
            write(f"{directory}/cgroup.procs", str(pid))

    def clone_fd(self) -> int | None:
        return None if self._unified is None else os.open(self._unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def entries(self, *, cloned: bool = True) -> tuple[int, ...]:
        fds: list[int] = []
        try:
            for _, directory in self.parts:
                if directory != self._unified:
                    fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
                elif not cloned:
                    fds.append(os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return tuple(fds)

    def freeze(self) -> None:
        if self._unified and os.path.exists(f"{self._unified}/cgroup.freeze"):
            cgroupfs.freeze_v2(self._unified)
            return
        directory = self._freezer()
        deadline = time.monotonic() + cgroupfs.WAIT_SECONDS
        while True:
            # A task that forks while the freezer goes through them can keep it FREEZING; writing again helps.
            write(f"{directory}/freezer.state", "FROZEN")
            if read(f"{directory}/freezer.state").strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                self.thaw()
                raise TimeoutError(errno.ETIMEDOUT, "freeze: tasks do not stop", directory)
            time.sleep(0.001)

    def thaw(self) -> None:
        if self._unified and os.path.exists(f"{self._unified}/cgroup.freeze"):
            cgroupfs.thaw_v2(self._unified)
        else:
            write(f"{self._freezer()}/freezer.state", "THAWED")

    def frozen(self) -> bool:
        if self._unified and os.path.exists(f"{self._unified}/cgroup.freeze"):
            return cgroupfs.frozen_v2(self._unified)
        freezer = self._directories.get("freezer")
        return bool(freezer) and read(f"{freezer}/freezer.state").strip() != "THAWED"

    def kill(self) -> None:
        if self._unified:
            cgroupfs.kill_v2(self._unified)
        # All where there is no v2; and who was moved out of the v2 hierarchy from inside.
        directory = self._directories.get("freezer") or self.parts[0][1]
        deadline = time.monotonic() + cgroupfs.WAIT_SECONDS
        while pids := list(cgroupfs.pids_below(directory)):
            with self._standing_still():
                # Who stands still cannot fork; SIGKILL takes effect when v1's freezer lets go.
                for pid in cgroupfs.pids_below(directory):
                    cgroupfs.kill_process(pid)
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"kill: {len(pids)} processes do not end", directory)
            time.sleep(0.001)

    def pids(self) -> list[int]:
        return list(cgroupfs.pids_below(self._main))

    def counters(self) -> Counters:
        return cgroup_counters.read_v1(self._directories)

    def oom_kills(self) -> int:
        return cgroupfs.keyed(self._read("memory", "memory.oom_control")).get("oom_kill", 0)

    def watch_oom(self) -> OOMWatch | None:
        directory = self._directories.get("memory")
        if directory is None:
            return None
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write(f"{directory}/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            raise
        return OOMWatch(event, select.POLLIN)

    def has(self, file: str) -> bool:
        try:
            return os.path.exists(f"{self._directory_of(file)}/{file}")
        except FileNotFoundError:
            return False

    def mounts(self) -> tuple[CgroupMount, ...]:
        return tuple(
            CgroupMount(
                os.path.basename(mounted.mount_point),
                "cgroup",
                ",".join(mounted.controllers),
                directory,
                mounted.controllers if len(mounted.controllers) > 1 else (),
            )
            for mounted, directory in self.parts
            if directory != self._unified
        )

    def remove(self) -> None:
        for _, directory in self.parts:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                self.kill()
                cgroupfs.remove_tree(directory)

    def _directory_of(self, file: str) -> str:
        controller = file.partition(".")[0]
        directory = self._directories.get(controller)
        if directory is None and self._unified:
            mounted = self.parts[-1][0]
            if controller in read_if_there(f"{mounted.mount_point}/cgroup.controllers").split():
                # Only a limit that needs it makes the container pay for a controller of the v2 side.
                cgroupfs.enable_below(mounted.mount_point, os.path.dirname(self._unified), (controller,))
                return self._unified
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, f"find the cgroup controller {controller}: it is not mounted", file)
        return directory

    def _read(self, controller: str, file: str) -> str:
        directory = self._directories.get(controller)
        return read_if_there(f"{directory}/{file}") if directory else ""

    def _freezer(self) -> str:
        try:
            return self._directories["freezer"]
        except KeyError:
            raise OSError(errno.ENOENT, "freeze: the cgroup controller freezer is not mounted", self.path) from None

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        freezer = self._directories.get("freezer")
        if freezer:
            write(f"{freezer}/freezer.state", "FROZEN")
        try:
            yield
        finally:
            if freezer:
                write(f"{freezer}/freezer.state", "THAWED")
