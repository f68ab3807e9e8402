"""OCI resources -> settings of the cgroup files, for v1 and v2; pure, but for `impose`, which gives them to a cgroup.

    warnings = impose(cgroup, resources, hierarchy.version)      # is:
    resources, warnings = fit(resources, version, cgroup.has)    # what this kernel lacks is left out
    cgroup.apply(plan(resources, version))                       # a refusal is told by `explain`

Conversions are runc's (libcontainer/cgroups/utils.go, of the 1.1 line that Docker 26 ships), so that the same
request gives the same limits: CPU shares 2..262144 to weight 1..10000, blkio weight 10..1000 to 1..10000, "memory
plus swap" to swap alone. What v2 has no counterpart for is left out: swappiness, the OOM killer's switch, realtime.

Sources: OCI runtime specification, config-linux.md, "Control groups"; Documentation/admin-guide/cgroup-v2.rst.
"""

import errno
from collections.abc import Callable, Iterable, Iterator

from hafen.errors import Forbidden, HafenError, InvalidArgument, OutOfSpace, System
from hafen.kernel.cgroup import Cgroup, Setting
from hafen.runtime.device_rules import device_settings
from hafen.spec.runtime_config import (
    CPU,
    BlockIO,
    HugepageLimit,
    Memory,
    NetworkResources,
    Rdma,
    Resources,
    ThrottleDevice,
)
from hafen.values import NamedTuple

_MIN_SHARES, _MAX_SHARES = 2, 262144
_DEFAULT_PERIOD = 100_000


def impose(cgroup: Cgroup, resources: Resources, version: int, *, update: bool = False) -> tuple[str, ...]:
    """Limits `cgroup`; the warnings are Docker's, for limits that this kernel does not have.

    An `update` changes what it names and leaves the devices as they are. InvalidArgument for a bad limit.
    """
    fitting, warnings = fit(resources, version, cgroup.has)
    settings = plan(fitting, version)
    if update:
        settings = tuple(setting for setting in settings if not setting.file.startswith("devices."))
    try:
        cgroup.apply(settings)
    except OSError as error:
        raise explain(error) from None
    return warnings


def plan(resources: Resources, version: int) -> tuple[Setting, ...]:
    """The settings in the order to apply them. InvalidArgument for what no kernel would take.

    Device rules are always among them: without any, a container may use the default devices and no others.
    """
    return tuple(_plan_v1(resources) if version == 1 else _plan_v2(resources))


def explain(error: OSError) -> HafenError:
    """The error for a setting that the kernel refused: names file and value."""
    text = f"cgroup: {error.filename}: {error.strerror}"
    if error.errno in (errno.EINVAL, errno.ERANGE, errno.EOVERFLOW):
        return InvalidArgument(text)
    if error.errno == errno.EBUSY:
        return InvalidArgument(f"{text} (more than the new limit is in use)")
    if error.errno == errno.ENOENT:
        return System(f"{text}: your kernel does not support this limit, or the cgroup is not mounted")
    if error.errno in (errno.ENOSPC, errno.EAGAIN):  # a limit on the number of cgroups
        return OutOfSpace(text)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Forbidden(text)
    return System(text)


class _Feature(NamedTuple):
    """A limit that a kernel may lack: where it is in Resources, the files that carry it, Docker's words for it."""

    part: str
    fields: tuple[str, ...]
    v1: tuple[str, ...]
    v2: tuple[str, ...]
    warning: str


def _feature(where: str, v1: str, v2: str, warning: str) -> _Feature:
    part, _, fields = where.partition(".")
    return _Feature(part, tuple(fields.split()), tuple(v1.split()), tuple(v2.split()), warning)


_LACKS = "Your kernel does not support"
_UNMOUNTED = "or the cgroup is not mounted."
# Texts of moby, daemon/daemon_unix.go, verifyPlatformContainerResources.
_FEATURES = (
    _feature("memory.limit swap", "memory.limit_in_bytes", "memory.max",
             f"{_LACKS} memory limit capabilities {_UNMOUNTED} Limitation discarded."),
    _feature("memory.swap", "memory.memsw.limit_in_bytes", "memory.swap.max",
             f"{_LACKS} swap limit capabilities {_UNMOUNTED} Memory limited without swap."),
    _feature("memory.swappiness", "memory.swappiness", "",
             f"{_LACKS} memory swappiness capabilities {_UNMOUNTED} Memory swappiness discarded."),
    _feature("memory.reservation", "memory.soft_limit_in_bytes", "memory.low",
             f"{_LACKS} memory soft limit capabilities {_UNMOUNTED} Limitation discarded."),
    _feature("memory.disable_oom_killer", "memory.oom_control", "",
             f"{_LACKS} OomKillDisable. OomKillDisable discarded."),
    _feature("pids.limit", "pids.max", "pids.max",
             f"{_LACKS} PIDs limit capabilities {_UNMOUNTED} PIDs limit discarded."),
    _feature("cpu.shares", "cpu.shares", "cpu.weight",
             f"{_LACKS} CPU shares {_UNMOUNTED} Shares discarded."),
    _feature("cpu.quota period burst", "cpu.cfs_quota_us", "cpu.max",
             f"{_LACKS} CPU CFS scheduler. CPU period/quota discarded."),
    _feature("cpu.realtime_runtime realtime_period", "cpu.rt_runtime_us", "",
             f"{_LACKS} CPU real-time scheduler. CPU real-time period/runtime discarded."),
    _feature("cpu.cpus mems", "cpuset.cpus", "cpuset.cpus",
             f"{_LACKS} cpuset {_UNMOUNTED} Cpuset discarded."),
    _feature("block_io.weight leaf_weight", "blkio.weight blkio.bfq.weight", "io.weight io.bfq.weight",
             f"{_LACKS} Block I/O weight {_UNMOUNTED} Weight discarded."),
    _feature("block_io.weight_device", "blkio.weight_device blkio.bfq.weight_device", "io.weight io.bfq.weight",
             f"{_LACKS} Block I/O weight_device {_UNMOUNTED} Weight-device discarded."),
    _feature("block_io.throttle_read_bps_device", "blkio.throttle.read_bps_device", "io.max",
             f"{_LACKS} BPS Block I/O read limit {_UNMOUNTED} Block I/O BPS read limit discarded."),
    _feature("block_io.throttle_write_bps_device", "blkio.throttle.write_bps_device", "io.max",
             f"{_LACKS} BPS Block I/O write limit {_UNMOUNTED} Block I/O BPS write limit discarded."),
    _feature("block_io.throttle_read_iops_device", "blkio.throttle.read_iops_device", "io.max",
             f"{_LACKS} IOPS Block read limit {_UNMOUNTED} Block I/O IOPS read limit discarded."),
    _feature("block_io.throttle_write_iops_device", "blkio.throttle.write_iops_device", "io.max",
             f"{_LACKS} IOPS Block write limit {_UNMOUNTED} Block I/O IOPS write limit discarded."),
)  # fmt: skip


def fit(resources: Resources, version: int, has: Callable[[str], bool]) -> tuple[Resources, tuple[str, ...]]:
    """`resources` without what the kernel lacks, and Docker's warning for each limit that is left out.

    `has` says whether a container's cgroup has a file; it is asked only about limits that are set.
    """
    warnings = []
    for feature in _FEATURES:
        part = getattr(resources, feature.part)
        defaults = type(part)._field_defaults if part is not None else {}
        unset = {name: defaults[name] for name in feature.fields if defaults}
        if all(getattr(part, name) == default for name, default in unset.items()):
            continue
        if not any(has(file) for file in (feature.v1 if version == 1 else feature.v2)):
            resources = resources._replace(**{feature.part: part._replace(**unset)})
            warnings.append(feature.warning)
    memory = resources.memory
    if memory and memory.disable_oom_killer and (memory.limit or 0) <= 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return resources, tuple(warnings)


def _plan_v1(resources: Resources) -> Iterator[Setting]:
    if resources.unified:
        raise InvalidArgument("linux.resources.unified: these limits need cgroup v2, and this machine has v1")
    yield from device_settings(resources.devices)
    if resources.memory:
        yield from _memory_v1(resources.memory)
    if resources.cpu:
        yield from _cpu_v1(resources.cpu)
    if resources.pids:
        yield from _pids(resources.pids.limit)
    if resources.block_io:
        yield from _block_io_v1(resources.block_io)
    for page_size, limit in _hugepages(resources.hugepage_limits):
        # On a hybrid machine the controller may be on the v2 side.
        v2 = Setting(f"hugetlb.{page_size}.max", limit)
        yield Setting(f"hugetlb.{page_size}.limit_in_bytes", limit, v2)
    if resources.network:
        yield from _network_v1(resources.network)
    yield from _rdma(resources.rdma.items())


def _plan_v2(resources: Resources) -> Iterator[Setting]:
    yield from device_settings(resources.devices)
    if resources.memory:
        yield from _memory_v2(resources.memory)
    if resources.cpu:
        yield from _cpu_v2(resources.cpu)
    if resources.pids:
        yield from _pids(resources.pids.limit)
    if resources.block_io:
        yield from _block_io_v2(resources.block_io)
    for page_size, limit in _hugepages(resources.hugepage_limits):
        yield Setting(f"hugetlb.{page_size}.max", limit)
    yield from _rdma(resources.rdma.items())
    for file, value in resources.unified.items():
        if "/" in file or "." not in file.strip("."):
            raise InvalidArgument(
                f"linux.resources.unified: {file!r} must be a file name of the form CONTROLLER.PARAMETER"
            )
        for line in value.splitlines():  # "8:0 rbps=1\n8:16 rbps=1": the kernel takes one line for each write
            yield Setting(file, line)


def _memory_v1(memory: Memory) -> Iterator[Setting]:
    limit, swap = _checked_memory(memory)
    if limit:
        yield Setting("memory.limit_in_bytes", str(limit))
    if swap:
        yield Setting("memory.memsw.limit_in_bytes", str(swap))
    if memory.reservation:
        yield Setting("memory.soft_limit_in_bytes", str(memory.reservation))
    if memory.kernel_tcp:
        yield Setting("memory.kmem.tcp.limit_in_bytes", str(memory.kernel_tcp))
    if memory.swappiness is not None and memory.swappiness != -1:  # -1: the parent's, as Docker says it
        if not 0 <= memory.swappiness <= 100:
            raise InvalidArgument(f"invalid value: {memory.swappiness}. Valid memory swappiness range is 0-100")
        yield Setting("memory.swappiness", str(memory.swappiness))
    if memory.disable_oom_killer:
        yield Setting("memory.oom_control", "1")


def _memory_v2(memory: Memory) -> Iterator[Setting]:
    limit, swap = _checked_memory(memory)
    if swap:
        if swap != -1 and limit in (0, -1):
            raise InvalidArgument("unable to set swap limit without memory limit")
        yield Setting("memory.swap.max", "max" if swap == -1 else str(swap - limit))
    if limit:
        yield Setting("memory.max", _or_max(limit))
    if memory.reservation:
        yield Setting("memory.low", _or_max(memory.reservation))


def _checked_memory(memory: Memory) -> tuple[int, int]:
    """Limit and limit plus swap; 0 is unset, -1 unlimited."""
    limit, swap = memory.limit or 0, memory.swap or 0
    if limit < -1:
        raise InvalidArgument(f"invalid memory value: {limit}")
    if swap < -1:
        raise InvalidArgument(f"invalid memory+swap value: {swap}")
    if limit == -1 and swap == 0:
        swap = -1  # a limit on swap that stayed behind would limit memory too
    if 0 < swap < limit:
        raise InvalidArgument("memory+swap limit should be >= memory limit")
    return limit, swap


def _cpu_v1(cpu: CPU) -> Iterator[Setting]:
    if cpu.shares:
        yield Setting("cpu.shares", str(_checked_shares(cpu.shares)))
    yield from _number("cpu.rt_period_us", cpu.realtime_period)
    yield from _number("cpu.rt_runtime_us", cpu.realtime_runtime)
    yield from _number("cpu.cfs_period_us", cpu.period)
    yield from _number("cpu.cfs_quota_us", cpu.quota)
    if cpu.burst is not None:
        yield Setting("cpu.cfs_burst_us", str(cpu.burst))
    yield from _cpuset(cpu)
    if cpu.idle is not None:
        yield Setting("cpu.idle", str(cpu.idle))


def _cpu_v2(cpu: CPU) -> Iterator[Setting]:
    if cpu.idle is not None:
        yield Setting("cpu.idle", str(cpu.idle))
    if cpu.shares and not cpu.idle:
        yield Setting("cpu.weight", str(weight_of_shares(cpu.shares)))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        yield Setting("cpu.max", f"{quota} {cpu.period or _DEFAULT_PERIOD}")
    if cpu.burst is not None:
        yield Setting("cpu.max.burst", str(cpu.burst))
    yield from _cpuset(cpu)


def _cpuset(cpu: CPU) -> Iterator[Setting]:
    if cpu.cpus:
        yield Setting("cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield Setting("cpuset.mems", cpu.mems)


def _checked_shares(shares: int) -> int:
    if shares < _MIN_SHARES:
        raise InvalidArgument(f"the minimum allowed cpu-shares is {_MIN_SHARES}")
    if shares > _MAX_SHARES:
        raise InvalidArgument(f"the maximum allowed cpu-shares is {_MAX_SHARES}")
    return shares


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2..262144, default 1024) as cpu.weight (1..10000, default 100); 1024 becomes 39."""
    return 1 + (_checked_shares(shares) - _MIN_SHARES) * 9999 // (_MAX_SHARES - _MIN_SHARES)


def _pids(limit: int | None) -> Iterator[Setting]:
    if limit:
        yield Setting("pids.max", _or_max(limit))


def _block_io_v1(block_io: BlockIO) -> Iterator[Setting]:
    if block_io.weight:
        weight = str(_checked_weight(block_io.weight))
        yield Setting("blkio.weight", weight, Setting("blkio.bfq.weight", weight))
    if block_io.leaf_weight:
        yield Setting("blkio.leaf_weight", str(_checked_weight(block_io.leaf_weight)))
    for device in block_io.weight_device:
        if device.weight:
            value = f"{device.major}:{device.minor} {_checked_weight(device.weight)}"
            yield Setting("blkio.weight_device", value, Setting("blkio.bfq.weight_device", value))
        if device.leaf_weight:
            yield Setting(
                "blkio.leaf_weight_device", f"{device.major}:{device.minor} {_checked_weight(device.leaf_weight)}"
            )
    for file, _, devices in _throttles(block_io):
        for throttle in devices:
            yield Setting(f"blkio.throttle.{file}_device", f"{throttle.major}:{throttle.minor} {throttle.rate}")


def _block_io_v2(block_io: BlockIO) -> Iterator[Setting]:
    if block_io.weight:
        weight = _checked_weight(block_io.weight)
        yield Setting("io.bfq.weight", str(weight), Setting("io.weight", f"default {weight_of_blkio(weight)}"))
    for device in block_io.weight_device:
        if device.weight:
            name, weight = f"{device.major}:{device.minor}", _checked_weight(device.weight)
            yield Setting(
                "io.bfq.weight", f"{name} {weight}", Setting("io.weight", f"{name} {weight_of_blkio(weight)}")
            )
    for _, key, devices in _throttles(block_io):
        for throttle in devices:
            yield Setting("io.max", f"{throttle.major}:{throttle.minor} {key}={throttle.rate or 'max'}")


def _throttles(block_io: BlockIO) -> tuple[tuple[str, str, tuple[ThrottleDevice, ...]], ...]:
    return (
        ("read_bps", "rbps", block_io.throttle_read_bps_device),
        ("write_bps", "wbps", block_io.throttle_write_bps_device),
        ("read_iops", "riops", block_io.throttle_read_iops_device),
        ("write_iops", "wiops", block_io.throttle_write_iops_device),
    )


def _checked_weight(weight: int) -> int:
    if not 10 <= weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    return weight


def weight_of_blkio(weight: int) -> int:
    """blkio.weight (10..1000) as io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _hugepages(limits: Iterable[HugepageLimit]) -> Iterator[tuple[str, str]]:
    for limit in limits:
        if not limit.page_size.isalnum():
            raise InvalidArgument(f"invalid hugepage size {limit.page_size!r}")
        yield limit.page_size, str(limit.limit)


def _network_v1(network: NetworkResources) -> Iterator[Setting]:
    if network.class_id:
        yield Setting("net_cls.classid", str(network.class_id))
    for interface in network.priorities:
        yield Setting("net_prio.ifpriomap", f"{interface.name} {interface.priority}")


def _rdma(limits: Iterable[tuple[str, Rdma]]) -> Iterator[Setting]:
    for device, limit in limits:
        handles = "max" if limit.hca_handles is None else limit.hca_handles
        objects = "max" if limit.hca_objects is None else limit.hca_objects
        yield Setting("rdma.max", f"{device} hca_handle={handles} hca_object={objects}")


def _number(file: str, value: int | None) -> Iterator[Setting]:
    if value:
        yield Setting(file, str(value))


def _or_max(limit: int) -> str:
    return "max" if limit < 0 else str(limit)
