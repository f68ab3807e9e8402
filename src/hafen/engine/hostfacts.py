"""What this machine has that containers are made of: capabilities, CPUs, memory, devices; read once or on demand."""

from __future__ import annotations

import os
import platform
import resource
import stat
from dataclasses import dataclass, replace

from hafen.errors import System
from hafen.kernel import caps
from hafen.spec import units
from hafen.spec.runtime_config import Device

TINI = "/usr/bin/tini-static"
# Only cgroup v1 has it, and only where the kernel was built with CONFIG_RT_GROUP_SCHED.
_CPU_REALTIME = ("/sys/fs/cgroup/cpu/cpu.rt_runtime_us", "/sys/fs/cgroup/cpu,cpuacct/cpu.rt_runtime_us")
_ABOUT_DEVICE = "error gathering device information while adding custom device"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Read once when the engine starts. `memory` is bytes; `capabilities` what this host can give at all."""

    hostname: str
    cgroup_version: int
    capabilities: tuple[str, ...]
    cpus: frozenset[int]
    memory_nodes: frozenset[int]
    memory: int
    architecture: str
    kernel: str
    apparmor: bool
    init: bool
    cpu_realtime: bool = False
    mqueue: bool = True  # /dev/mqueue is there to be shared
    descriptors: tuple[int, int] | None = None  # RLIMIT_NOFILE (soft, hard) of containers, where ours is another


def read(cgroup_version: int) -> HostFacts:
    """The facts of the machine this process runs on."""
    return HostFacts(
        hostname=os.uname().nodename,
        cgroup_version=cgroup_version,
        capabilities=caps.names(caps.bounding()),
        cpus=units.parse_cpu_set(_read("/sys/devices/system/cpu/online", "0"), "cpuset cpus"),
        memory_nodes=units.parse_cpu_set(_read("/sys/devices/system/node/online", "0"), "cpuset mems"),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        kernel=os.uname().release,
        apparmor=_read("/sys/module/apparmor/parameters/enabled", "N").startswith("Y"),
        init=os.path.exists(TINI),
        mqueue=os.path.isdir("/dev/mqueue"),
        cpu_realtime=any(os.path.exists(path) for path in _CPU_REALTIME),
    )


def raise_descriptor_limit(facts: HostFacts) -> HostFacts:
    """A client takes a descriptor in the engine or a shim, which inherit the limit; containers keep what we had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return facts
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return replace(facts, descriptors=(soft, hard))


def _read(path: str, default: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip() or default
    except OSError:
        return default


def device(path: str, shown_as: str) -> Device | None:
    """The device node at `path` as a container is to see it; None for what is no device."""
    status = os.stat(path)
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return Device(
        path=shown_as,
        type=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        file_mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def devices_at(path: str, shown_as: str) -> tuple[Device, ...]:
    """The device, or every device below the directory; System with Docker's text where there is none."""
    try:
        if os.path.isdir(path):
            return tuple(_devices_below(path, shown_as))
        found = device(path, shown_as)
    except OSError as error:
        raise System(f'{_ABOUT_DEVICE} "{path}": {os.strerror(error.errno or 0).lower()}') from error
    if found is None:
        raise System(f'{_ABOUT_DEVICE} "{path}": not a device node')
    return (found,)


def all_devices() -> tuple[Device, ...]:
    """Every device of the host's /dev, for privileged containers; without terminals, which they get of their own."""
    return tuple(_devices_below("/dev", "/dev"))


_NOT_SHARED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"))


def _devices_below(directory: str, shown_as: str) -> list[Device]:
    found: list[Device] = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _NOT_SHARED or entry.is_symlink():
                continue
            if entry.is_dir():
                found.extend(_devices_below(entry.path, f"{shown_as}/{entry.name}"))
                continue
            try:
                node = device(entry.path, f"{shown_as}/{entry.name}")
            except OSError:  # it went away
                continue
            if node is not None:
                found.append(node)
    return found
