"""info, version, disk usage: the truth about this host and engine."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

import msgspec

from hafen.engine import imageplatforms, imageusage
from hafen.engine.cdi import Registry
from hafen.engine.events import Events
from hafen.engine.hostfacts import HostFacts
from hafen.engine.images import Images
from hafen.engine.listing import Listing
from hafen.engine.paths import Paths
from hafen.engine.records import Containers
from hafen.engine.volumes import Volumes
from hafen.kernel.cgroup import Hierarchy
from hafen.spec import units
from hafen.spec.lifecycle import State
from hafen.spec.wire import system as wire
from hafen.storage.snapshot import Snapshotter, shown_driver

_NETWORK_DRIVERS = ["bridge", "host", "ipvlan", "macvlan", "null"]


@dataclass(frozen=True, slots=True)
class System:
    """`Services.system`."""

    containers: Containers
    images: Images
    volumes: Volumes
    snapshotter: Snapshotter
    listing: Listing
    events: Events
    host: HostFacts
    hierarchy: Hierarchy
    paths: Paths
    runtimes: Mapping[str, str]
    engine_id: str
    log_driver: str
    log_drivers: list[str]
    labels: tuple[str, ...]
    debug: bool
    api_versions: tuple[str, str]
    cdi: Registry
    registries: wire.RegistryConfig

    async def version(self) -> wire.SystemVersion:
        version = metadata.version("hafen")
        newest, oldest = self.api_versions
        details = {
            "ApiVersion": newest,
            "Arch": self.host.architecture,
            "Experimental": "false",
            "KernelVersion": self.host.kernel,
            "MinAPIVersion": oldest,
            "Os": "linux",
            "Python": sys.version.split()[0],
        }
        return wire.SystemVersion(
            platform=wire.PlatformName(name="Hafen"),
            components=[wire.ComponentVersion(name="Engine", version=version, details=details)],
            version=version,
            api_version=newest,
            min_api_version=oldest,
            go_version="",
            os="linux",
            arch=self.host.architecture,
            kernel_version=self.host.kernel,
        )

    async def info(self) -> wire.SystemInfo:
        states = [container.status.state for container in self.containers]
        running = states.count(State.RUNNING)
        paused = states.count(State.PAUSED)
        release = os_release()
        has = self.hierarchy.controllers
        old = self.host.cgroup_version == 1
        info = wire.SystemInfo(
            id=self.engine_id,
            containers=len(states),
            containers_running=running,
            containers_paused=paused,
            containers_stopped=len(states) - running - paused,
            images=len(await self.images.list()),
            driver=shown_driver(self.snapshotter.name),
            driver_status=_driver_status(self.snapshotter.name, self.paths.data_root),
            plugins=await self._plugins(),
            memory_limit="memory" in has,
            swap_limit="memory" in has and _swap_accounting(old),
            cpu_cfs_period="cpu" in has,
            cpu_cfs_quota="cpu" in has,
            cpu_shares="cpu" in has,
            cpu_set="cpuset" in has,
            pids_limit="pids" in has,
            oom_kill_disable=old and "memory" in has,
            ipv4_forwarding=_first_line("/proc/sys/net/ipv4/ip_forward") == "1",
            debug=self.debug,
            n_fd=len(os.listdir("/proc/self/fd")),
            n_goroutines=len(asyncio.all_tasks()),
            system_time=units.format_timestamp(time.time_ns()),
            logging_driver=self.log_driver,
            cgroup_driver="cgroupfs",
            cgroup_version=str(self.host.cgroup_version),
            n_events_listener=self.events.listeners,
            kernel_version=self.host.kernel,
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            os_type="linux",
            architecture=os.uname().machine,
            registry_config=self.registries,
            ncpu=len(self.host.cpus),
            mem_total=self.host.memory,
            docker_root_dir=self.paths.data_root,
            http_proxy=os.environ.get("HTTP_PROXY", ""),
            https_proxy=os.environ.get("HTTPS_PROXY", ""),
            no_proxy=os.environ.get("NO_PROXY", ""),
            name=self.host.hostname,
            labels=list(self.labels),
            server_version=metadata.version("hafen"),
            runtimes={name: wire.RuntimeInfo(path=path) for name, path in self.runtimes.items()},
            default_runtime="hafen",
            live_restore_enabled=True,
            cdi_spec_dirs=list(self.cdi.directories),
            discovered_devices=[wire.DeviceInfo(source="cdi", id=name) for name in sorted(self.cdi.devices())],
            init_binary="tini" if self.host.init else "",
            firewall_backend=wire.FirewallInfo(driver="nftables"),
            security_options=["name=seccomp,profile=builtin", *(["name=apparmor"] if self.host.apparmor else [])]
            + (["name=cgroupns"] if not old else []),
        )
        return msgspec.structs.replace(info, warnings=_warnings(info, old) or None)

    async def _plugins(self) -> wire.PluginsInfo:
        volume = [*await self.volumes.driver_names()]
        return wire.PluginsInfo(volume=volume, network=_NETWORK_DRIVERS, log=self.log_drivers)

    async def df(self, types: tuple[str, ...] = ()) -> wire.DiskUsage:
        """`types` empty means all: container, image, volume, build-cache."""
        wanted = types or ("container", "image", "volume", "build-cache")
        usage = wire.DiskUsage()
        if "container" in wanted:
            usage = _with(usage, container_usage=await self._containers())
        if "image" in wanted:
            usage = await self._images(usage)
        if "volume" in wanted:
            volumes = list(await self.volumes.usage())
            free = [one for one in volumes if one.usage_data and not one.usage_data.ref_count]
            usage = _with(
                usage,
                volume_usage=wire.VolumeUsageSummary(
                    active_count=len(volumes) - len(free),
                    items=volumes,
                    reclaimable=sum(one.usage_data.size for one in free if one.usage_data),
                    total_count=len(volumes),
                    total_size=sum(one.usage_data.size for one in volumes if one.usage_data),
                ),
            )
        if "build-cache" in wanted:
            usage = _with(usage, build_cache_usage=wire.BuildCacheUsage())
        return usage

    async def _containers(self) -> wire.ContainerUsage:
        items = list(await self.listing.list(all=True, size=True))
        active = [one for one in items if one.state in ("running", "paused", "restarting")]
        return wire.ContainerUsage(
            active_count=len(active),
            items=items,
            reclaimable=sum(one.size_rw for one in items if one not in active),
            total_count=len(items),
            total_size=sum(one.size_rw for one in items),
        )

    async def _images(self, usage: wire.DiskUsage) -> wire.DiskUsage:
        used = Counter(container.record.image_id for container in self.containers)
        store = self.images.store
        listed = await self.images.list()
        apart = {one.id for one in listed}
        groups = {
            one.id: [one.id, *(other.id for other in imageplatforms.others(store, one.id) if other.id not in apart)]
            for one in listed
        }
        disk = imageusage.measure(store).grouped(groups)
        shared = disk.shared()
        items = [
            msgspec.structs.replace(
                one,
                containers=sum(used[member] for member in groups[one.id]),
                size=disk.of(one.id),
                shared_size=shared.get(one.id, 0),
            )
            for one in listed
        ]
        images = wire.ImageUsage(
            active_count=sum(one.containers > 0 for one in items),
            items=items,
            reclaimable=disk.total - sum(one.size - one.shared_size for one in items if one.containers),
            total_count=len(items),
            total_size=disk.total,
        )
        others = wire.RegistryUsage(total_count=len(disk.others), total_size=sum(disk.others.values()))
        return _with(usage, image_usage=images, registry_usage=others if disk.others else None)


def _with(usage: wire.DiskUsage, **parts: object) -> wire.DiskUsage:
    return msgspec.structs.replace(usage, **parts)


def _driver_status(driver: str, root: str) -> list[list[str]]:
    """What Docker tells of its overlay driver, as far as it is so here."""
    if driver != "overlay":
        return []
    return [
        ["Backing Filesystem", _filesystem(root)],
        ["Supports d_type", "true"],  # overlayfs refuses to be writable without
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ]


def _filesystem(path: str) -> str:
    """Docker's name of the file system that holds a path; proc_pid_mountinfo(5)."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            if fields.split(" ", 3)[2] == number:
                kind = rest.split(" ", 1)[0]
                return {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs"}.get(kind, kind)
    return "<unknown>"


def _warnings(info: wire.SystemInfo, old: bool) -> list[str]:
    """What this kernel cannot limit, in Docker's words, which `docker info` prints."""
    has = {
        "No memory limit support": info.memory_limit,
        "No swap limit support": info.swap_limit,
        "No oom kill disable support": info.oom_kill_disable or not old,
        "No cpu cfs quota support": info.cpu_cfs_quota,
        "No cpu cfs period support": info.cpu_cfs_period,
        "No cpu shares support": info.cpu_shares,
        "No cpuset support": info.cpu_set,
        "IPv4 forwarding is disabled": info.ipv4_forwarding,
    }
    return [f"WARNING: {text}" for text, there in has.items() if not there]


def os_release() -> dict[str, str]:
    """os-release(5)."""
    found = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    name, equals, value = line.strip().partition("=")
                    if equals and not name.startswith("#"):
                        found[name] = value.strip("\"'")
            return found
        except OSError:
            continue
    return found


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _swap_accounting(old: bool) -> bool:
    return not old or os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
