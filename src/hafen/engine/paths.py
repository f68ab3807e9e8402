"""Where things are: the one place that knows the directories of a run root and a data root."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hafen.engine.records import Record
from hafen.kernel import fs


@dataclass(frozen=True, slots=True)
class Paths:
    """`run_root` is emptied by a reboot, `data_root` is not."""

    run_root: str
    data_root: str
    cgroup_parent: str = "/hafen"

    @property
    def database(self) -> str:
        return os.path.join(self.data_root, "hafen.db")

    @property
    def volumes(self) -> str:
        return os.path.join(self.data_root, "volumes")

    @property
    def runs(self) -> str:
        return os.path.join(self.run_root, "containers")

    @property
    def containers(self) -> str:
        return os.path.join(self.data_root, "containers")

    @property
    def subpaths(self) -> str:
        """Mounts of paths inside volumes, for the time of a start."""
        return os.path.join(self.run_root, "subpaths")

    def make(self) -> None:
        """The directories that everything else is put into."""
        os.makedirs(self.containers, mode=0o710, exist_ok=True)
        os.makedirs(self.runs, mode=0o700, exist_ok=True)
        for directory in (self.containers, self.runs):
            fs.spread_directories(directory)

    def run(self, container_id: str) -> str:
        """The shim's directory; exists while the container runs."""
        return os.path.join(self.run_root, "containers", container_id)

    def rootfs(self, container_id: str) -> str:
        """Where the root is mounted, inside the container's own mount namespace."""
        return os.path.join(self.run_root, "containers", container_id, "rootfs")

    def container(self, container_id: str) -> str:
        """What is kept of a container beside its root: files of /etc, logs, exit code."""
        return os.path.join(self.data_root, "containers", container_id)

    def ensure_container(self, container_id: str) -> str:
        """`container`, made where it is missing."""
        directory = self.container(container_id)
        try:
            os.mkdir(directory, 0o710)
        except FileExistsError:
            pass
        return directory

    def logs(self, container_id: str) -> str:
        return os.path.join(self.data_root, "containers", container_id, "logs")

    def cgroup(self, record: Record) -> str:
        """The container's cgroup, as a path below each hierarchy's mount point."""
        parent = record.host_config.cgroup_parent or self.cgroup_parent
        return os.path.join(parent if parent.startswith("/") else f"/{parent}", record.id)
