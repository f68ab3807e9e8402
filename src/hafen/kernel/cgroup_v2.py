"""The unified cgroup hierarchy, version 2 (Documentation/admin-guide/cgroup-v2.rst)."""

import errno
import os
import select
from collections.abc import Sequence

from hafen.kernel import bpf, cgroup_counters, cgroupfs
from hafen.kernel.cgroupfs import CgroupMount, Counters, MountedHierarchy, OOMWatch, Setting, read, read_if_there, write


class HierarchyV2:
    version = 2

    def __init__(self, mounted: MountedHierarchy, own: str) -> None:
        self._mounted = mounted
        self._own = own
        self.controllers = frozenset(read(f"{mounted.mount_point}/cgroup.controllers").split())

    def create(self, path: str) -> "CgroupV2":
        cgroup = self.open(path)
        parent = os.path.dirname(cgroup.directory)
        try:
            os.mkdir(cgroup.directory, 0o755)
        except FileNotFoundError:
            cgroupfs.enable_below(self._mounted.mount_point, parent, self.controllers)
            os.mkdir(cgroup.directory, 0o755)
        except FileExistsError:
            if read(f"{cgroup.directory}/cgroup.procs"):
                raise OSError(errno.EBUSY, "create cgroup: it holds processes already", cgroup.directory) from None
        if not self.controllers.issubset(read(f"{cgroup.directory}/cgroup.controllers").split()):
            cgroupfs.enable_below(self._mounted.mount_point, parent, self.controllers)  # a parent not of our making
        return cgroup

    def open(self, path: str) -> "CgroupV2":
        return CgroupV2(path, self._mounted.directory(path, self._own))

    def has(self, file: str) -> bool:
        parent = self._mounted.directory("/hafen", "/")
        cgroupfs.enable_below(self._mounted.mount_point, parent, self.controllers)
        return os.path.exists(f"{parent}/{file}")

    def tidy(self, path: str) -> None:
        cgroupfs.remove_if_empty(self.open(path).directory)


class CgroupV2:
    def __init__(self, path: str, directory: str) -> None:
        self.path = path
        self.directory = directory

    def apply(self, settings: Sequence[Setting]) -> None:
        files = [s for s in settings if not s.file.startswith("devices.")]
        cgroupfs.apply_settings(files, lambda file: self.directory)
        if len(files) < len(settings):
            rules = [(s.file == "devices.allow", s.value) for s in settings if s.file.startswith("devices.")]
            bpf.restrict_devices(self.directory, bpf.device_program(rules))

    def add(self, pid: int) -> None:
        write(f"{self.directory}/cgroup.procs", str(pid))

    def clone_fd(self) -> int | None:
        return os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def entries(self, *, cloned: bool = True) -> tuple[int, ...]:
        return () if cloned else (os.open(f"{self.directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC),)

    def freeze(self) -> None:
        cgroupfs.freeze_v2(self.directory)

    def thaw(self) -> None:
        cgroupfs.thaw_v2(self.directory)

    def frozen(self) -> bool:
        return cgroupfs.frozen_v2(self.directory)

    def kill(self) -> None:
        cgroupfs.kill_v2(self.directory)

    def pids(self) -> list[int]:
        return list(cgroupfs.pids_below(self.directory))

    def counters(self) -> Counters:
        return cgroup_counters.read_v2(self.directory)

    def oom_kills(self) -> int:
        return cgroupfs.keyed(read_if_there(f"{self.directory}/memory.events")).get("oom_kill", 0)

    def watch_oom(self) -> OOMWatch | None:
        try:
            watch = OOMWatch(os.open(f"{self.directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI)
        except FileNotFoundError:
            return None
        watch.rearm()
        return watch

    def has(self, file: str) -> bool:
        return os.path.exists(f"{self.directory}/{file}")

    def mounts(self) -> tuple[CgroupMount, ...]:
        return (CgroupMount("", "cgroup2", "", self.directory),)

    def remove(self) -> None:
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            self.kill()
            cgroupfs.remove_tree(self.directory)
