"""(container record, host facts, what the start found) -> OCI runtime configuration; pure.

What it writes is what moby's `daemon/oci_linux.go` writes, field by field; the tests compare it with configurations
recorded from Docker. What needs the file system (devices, volumes, namespaces of others) the start has looked up
and hands over in `Found`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hafen.engine.hostfacts import TINI, HostFacts
from hafen.engine.records import Record
from hafen.errors import InvalidArgument
from hafen.spec.mounts import MountPoint
from hafen.spec.runtime_config import (
    CPU,
    BlockIO,
    Box,
    Capabilities,
    Config,
    Device,
    DeviceRule,
    Linux,
    Memory,
    Mount,
    Namespace,
    Pids,
    Process,
    Resources,
    Rlimit,
    Root,
    ThrottleDevice,
    User,
    WeightDevice,
)
from hafen.spec.wire.hostconfig import HostConfig
from hafen.spec.wire.hostconfig import Resources as WireResources

OCI_VERSION = "1.2.0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_SIZE = 64 * 1024 * 1024
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DEFAULT_DEVICE_RULES = (
    DeviceRule(allow=False, access="rwm"),
    *(DeviceRule(True, "c", major, minor, "rwm") for major, minor in ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))),
    DeviceRule(False, "c", 10, 229, "rwm"),
)
_ALL_DEVICES_RULE = DeviceRule(allow=True, access="rwm")


@dataclass(frozen=True, slots=True)
class Found:
    """What the start looked up on the host for this container.

    `mounts` are its own (volumes, binds, tmpfs), sources on the host; `files` are /etc/hosts and its like, by
    destination; `linked` are variables that tell of linked containers; `namespaces` are paths of namespaces of others
    by type, "host" meaning the host's own; `shm` is a directory that is shared as /dev/shm; `without_ipv6` are the
    interfaces that get no IPv6, unless the container's own sysctls say otherwise.
    """

    rootfs: str
    cgroup: str
    mounts: tuple[Mount, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    shm: str | None = None
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    device_numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    linked: Sequence[str] = ()
    without_ipv6: Sequence[str] = ()


def build(record: Record, host: HostFacts, found: Found) -> Config:
    """The configuration of one container. Seccomp is left out: it travels compiled."""
    wanted = record.host_config
    destinations = {mount.destination for mount in found.mounts}
    mounts = [
        *(mount for mount in _default_mounts(wanted, host, found) if mount.destination not in destinations),
        *sorted(found.mounts, key=lambda mount: mount.destination.count("/")),
        *_file_mounts(wanted, found.files, destinations),
    ]
    if wanted.init:
        mounts.append(Mount("/sbin/docker-init", "bind", TINI, ("bind", "ro")))
    hostname = record.config.hostname
    shares_uts = "uts" in found.namespaces
    return Config(
        oci_version=OCI_VERSION,
        process=process(
            record, host, host.hostname if found.namespaces.get("uts") == "host" else hostname, linked=found.linked
        ),
        root=Root(found.rootfs, wanted.readonly_rootfs),
        hostname="" if shares_uts else hostname,
        domainname="" if shares_uts else record.config.domainname,
        mounts=tuple(mounts),
        annotations=wanted.annotations,
        linux=Linux(
            sysctl=_sysctls(wanted, found),
            resources=resources(wanted, found),
            cgroups_path=found.cgroup,
            namespaces=_namespaces(wanted, host, found.namespaces),
            devices=found.devices,
            rootfs_propagation=_root_propagation(found.mounts),
            masked_paths=() if wanted.privileged else tuple(wanted.masked_paths or ()),
            readonly_paths=() if wanted.privileged else tuple(wanted.readonly_paths or ()),
        ),
    )


def process(record: Record, host: HostFacts, hostname: str, init: bool = True, linked: Sequence[str] = ()) -> Process:
    """The container's first process; an exec takes it as its pattern, without `--init`."""
    config, wanted = record.config, record.host_config
    given = capabilities(wanted, host)
    args = (record.path, *record.args)
    size = tuple(wanted.console_size)
    return Process(
        args=("/sbin/docker-init", "--", *args) if wanted.init and init else args,
        cwd=config.working_dir or "/",
        env=environment(hostname, config.tty, (*linked, *(config.env or ()))),
        terminal=config.tty,
        console_size=Box(*size) if config.tty and len(size) == 2 and any(size) else None,
        user=User(name=config.user, group_add=tuple(wanted.group_add or ())),
        capabilities=Capabilities(bounding=given, effective=given, permitted=given),
        rlimits=_rlimits(wanted, host),
        no_new_privileges=security_option(wanted, "no-new-privileges") in ("", "true"),
        apparmor_profile=_apparmor(wanted, host),
        oom_score_adj=wanted.oom_score_adj,
    )


def _rlimits(wanted: HostConfig, host: HostFacts) -> tuple[Rlimit, ...]:
    found = {f"RLIMIT_{limit.name.upper()}": (limit.soft, limit.hard) for limit in wanted.ulimits or ()}
    if host.descriptors:
        found.setdefault("RLIMIT_NOFILE", host.descriptors)
    return tuple(Rlimit(name, hard, soft) for name, (soft, hard) in found.items())


def environment(hostname: str, tty: bool, own: Sequence[str]) -> tuple[str, ...]:
    """Docker's variables, then the container's own; a name without `=` removes one."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if tty:
        found["TERM"] = "xterm"
    for entry in own:
        name, equals, value = entry.partition("=")
        if equals:
            found[name] = value
        else:
            found.pop(name, None)
    return tuple(f"{name}={value}" for name, value in found.items())


def capability_name(name: str) -> str:
    """`CAP_NET_ADMIN` for `net_admin`."""
    name = name.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def capabilities(wanted: HostConfig, host: HostFacts) -> tuple[str, ...]:
    """What the container gets (moby `oci/caps.TweakCapabilities`)."""
    if wanted.privileged:
        return host.capabilities
    add = [capability_name(name) for name in wanted.cap_add or ()]
    drop = {capability_name(name) for name in wanted.cap_drop or ()}
    if "ALL" in add:
        base: Sequence[str] = host.capabilities
    elif "ALL" in drop:
        base = ()
    else:
        base = DEFAULT_CAPABILITIES
    kept = [name for name in base if name not in drop]
    kept += [name for name in add if name not in kept and name != "ALL"]
    return tuple(name for name in kept if name in host.capabilities)


def security_option(wanted: HostConfig, name: str) -> str | None:
    """The value of one of `--security-opt`; empty where it has none, None where it was not given."""
    for option in wanted.security_opt or ():
        key, _, value = option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
        if key == name:
            return value
    return None


def _apparmor(wanted: HostConfig, host: HostFacts) -> str:
    profile = security_option(wanted, "apparmor")
    return profile if profile and host.apparmor else ""


def _default_mounts(wanted: HostConfig, host: HostFacts, found: Found) -> list[Mount]:
    access = () if wanted.privileged else ("ro",)
    mounts = [
        Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", *access)),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*access, "nosuid", "noexec", "nodev")),
        Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ]
    if found.namespaces.get("ipc") == "host" and host.mqueue:
        mounts = [mount for mount in mounts if mount.type != "mqueue"]
        mounts.append(Mount("/dev/mqueue", "bind", "/dev/mqueue", ("rbind", "nosuid", "noexec", "nodev")))
    if wanted.ipc_mode == "none":  # its own namespace, and no shared memory in it
        return mounts
    if found.shm is not None:
        mounts.append(Mount("/dev/shm", "bind", found.shm, ("rbind", "rprivate")))
    else:
        size = wanted.shm_size or DEFAULT_SHM_SIZE
        mounts.append(Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", f"size={size}")))
    return mounts


def _file_mounts(wanted: HostConfig, files: Mapping[str, str], taken: set[str]) -> list[Mount]:
    options = ("rbind", "ro", "rprivate") if wanted.readonly_rootfs else ("rbind", "rprivate")
    return [Mount(where, "bind", source, options) for where, source in files.items() if where not in taken]


def bind_options(point: MountPoint) -> tuple[str, ...]:
    """Mount options of a bind or a volume's directory."""
    options = ["bind" if point.nonrecursive else "rbind"]
    if not point.rw:
        options.append("ro" if point.read_only_nonrecursive or point.nonrecursive else "rro")
    if point.propagation:
        options.append(point.propagation)
    if point.idmap:
        options.append("idmap" if point.nonrecursive else "ridmap")
    return tuple(options)


def tmpfs_mount(point: MountPoint) -> Mount:
    return Mount(point.destination, "tmpfs", "tmpfs", (*point.tmpfs_options, "rprivate"))


def _root_propagation(mounts: Sequence[Mount]) -> str:
    """A shared or slave mount needs a root that is not private above it (moby `oci_linux.go`, WithMounts)."""
    options = {option for mount in mounts for option in mount.options}
    if options & {"shared", "rshared"}:
        return "shared"
    if options & {"slave", "rslave"}:
        return "rslave"
    return ""


def _namespaces(wanted: HostConfig, host: HostFacts, others: Mapping[str, str]) -> tuple[Namespace, ...]:
    kinds = ["mount", "network", "uts", "pid", "ipc"]
    if private_cgroup_namespace(wanted, host.cgroup_version):
        kinds.append("cgroup")
    return tuple(Namespace(kind, others.get(kind, "")) for kind in kinds if others.get(kind) != "host")


def private_cgroup_namespace(wanted: HostConfig, version: int) -> bool:
    """Docker's default: private on v2, the host's on v1 and for privileged containers."""
    if wanted.cgroupns_mode:
        return wanted.cgroupns_mode == "private"
    return version == 2 and not wanted.privileged


def _sysctls(wanted: HostConfig, found: Found) -> dict[str, str]:
    defaults = {}
    if "network" not in found.namespaces:
        defaults["net.ipv4.ip_unprivileged_port_start"] = "0"
        defaults["net.ipv4.ping_group_range"] = "0 2147483647"
        for interface in found.without_ipv6:  # a dot in a name is written as a slash (sysctl.d(5))
            defaults[f"net.ipv6.conf.{interface.replace('.', '/')}.disable_ipv6"] = "1"
    return {**defaults, **wanted.sysctls}


def parse_device_rule(text: str) -> DeviceRule:
    """One of `--device-cgroup-rule`: `c 42:* rmw`."""
    try:
        kind, numbers, access = text.split()
        major, minor = (None if number == "*" else int(number) for number in numbers.split(":"))
    except ValueError:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'") from None
    if kind not in ("a", "b", "c") or not access or set(access) - set("rwm"):
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    return DeviceRule(True, kind, major, minor, access)


def resources(wanted: WireResources, found: Found) -> Resources:
    """Limits; also what `update` applies to a running container."""
    privileged = isinstance(wanted, HostConfig) and wanted.privileged
    rules = (*_DEFAULT_DEVICE_RULES, *((_ALL_DEVICES_RULE,) if privileged else found.device_rules))
    return Resources(
        devices=rules,
        memory=Memory(
            limit=wanted.memory or None,
            reservation=wanted.memory_reservation or None,
            swap=max(wanted.memory_swap, -1) or None,
            swappiness=None if wanted.memory_swappiness == -1 else wanted.memory_swappiness,
            disable_oom_killer=wanted.oom_kill_disable or None,
        ),
        cpu=_cpu(wanted),
        pids=Pids(wanted.pids_limit) if wanted.pids_limit else None,
        block_io=_block_io(wanted, found.device_numbers),
    )


def _cpu(wanted: WireResources) -> CPU:
    quota, period = wanted.cpu_quota or None, wanted.cpu_period or None
    if wanted.nano_cpus:
        period = 100_000
        quota = wanted.nano_cpus * period // 1_000_000_000
    return CPU(
        shares=wanted.cpu_shares or None,
        quota=quota,
        period=period,
        realtime_runtime=wanted.cpu_realtime_runtime or None,
        realtime_period=wanted.cpu_realtime_period or None,
        cpus=wanted.cpuset_cpus,
        mems=wanted.cpuset_mems,
    )


def _block_io(wanted: WireResources, numbers: Mapping[str, tuple[int, int]]) -> BlockIO:
    def throttles(name: str) -> tuple[ThrottleDevice, ...]:
        return tuple(ThrottleDevice(*numbers[limit.path], limit.rate) for limit in getattr(wanted, name) or ())

    return BlockIO(
        weight=wanted.blkio_weight or None,
        weight_device=tuple(
            WeightDevice(*numbers[limit.path], weight=limit.weight) for limit in wanted.blkio_weight_device or ()
        ),
        throttle_read_bps_device=throttles("blkio_device_read_bps"),
        throttle_write_bps_device=throttles("blkio_device_write_bps"),
        throttle_read_iops_device=throttles("blkio_device_read_iops"),
        throttle_write_iops_device=throttles("blkio_device_write_iops"),
    )


def limited_devices(wanted: WireResources) -> set[str]:
    """Paths of the block devices whose numbers `Found.device_numbers` must have."""
    lists = (
        wanted.blkio_weight_device,
        wanted.blkio_device_read_bps,
        wanted.blkio_device_write_bps,
        wanted.blkio_device_read_iops,
        wanted.blkio_device_write_iops,
    )
    return {limit.path for limits in lists for limit in limits or ()}
