"""OCI runtime `config.json` as NamedTuples, and its JSON form.

Shapes and names are those of the OCI runtime specification 1.2 (linux), `specs-go/config.go`. `from_json` keeps
fields that it knows, ignores the others, and raises `InvalidArgument` naming the JSON path of a wrong type.
`to_json` is its inverse and leaves out whatever has its default.

Two extensions on `process.user`: `name` ("user[:group]", names or numbers, as in `docker run -u`) and `groupAdd`,
both resolved inside the container's root. NamedTuples, because the lean processes load this module.
"""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from hafen.errors import InvalidArgument
from hafen.values import NamedTuple

Strings = tuple[str, ...]


class RootMount(NamedTuple):
    """One mount that makes up a root file system; what a snapshotter hands to the runtime.

    ("overlay", "overlay", ("lowerdir=a:b", "upperdir=..", "workdir=..")) or ("bind", "/path", ("rbind", "ro")).
    """

    type: str
    source: str
    options: Strings = ()


class Box(NamedTuple):
    """Console size in characters."""

    height: int = 0
    width: int = 0


class User(NamedTuple):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    name: str = ""
    group_add: Strings = ()


class Capabilities(NamedTuple):
    """The five sets, as "CAP_..." names."""

    bounding: Strings = ()
    effective: Strings = ()
    inheritable: Strings = ()
    permitted: Strings = ()
    ambient: Strings = ()


class Rlimit(NamedTuple):
    """`type` is "RLIMIT_..."."""

    type: str
    hard: int
    soft: int


class IOPriority(NamedTuple):
    """`klass` is "IOPRIO_CLASS_RT", "..._BE" or "..._IDLE"."""

    klass: str
    priority: int = 0


class Scheduler(NamedTuple):
    """sched_setattr(2); times in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: Strings = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class CPUAffinity(NamedTuple):
    initial: str = ""
    final: str = ""


class Process(NamedTuple):
    args: Strings = ()
    cwd: str = "/"
    env: Strings = ()
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    exec_cpu_affinity: CPUAffinity | None = None


class Root(NamedTuple):
    path: str
    readonly: bool = False


class IDMapping(NamedTuple):
    container_id: int
    host_id: int
    size: int


class Mount(NamedTuple):
    destination: str
    type: str = ""
    source: str = ""
    options: Strings = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Hook(NamedTuple):
    """`timeout` in seconds; `args` includes argv[0]."""

    path: str
    args: Strings = ()
    env: Strings = ()
    timeout: int | None = None


class Hooks(NamedTuple):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(NamedTuple):
    """`type`: mount, pid, network, uts, ipc, user, cgroup, time; an empty `path` makes a new one."""

    type: str
    path: str = ""


class Device(NamedTuple):
    """`type`: b, c, u or p."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(NamedTuple):
    """A line of the devices cgroup; None for major or minor means every one; `access` of "rwm"."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(NamedTuple):
    """Bytes; -1 is unlimited. `swap` is memory plus swap."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CPU(NamedTuple):
    """Periods, quota, burst and realtime values in microseconds."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(NamedTuple):
    limit: int | None = None


class WeightDevice(NamedTuple):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(NamedTuple):
    """`rate` in bytes or operations per second."""

    major: int
    minor: int
    rate: int


class BlockIO(NamedTuple):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = ()


class HugepageLimit(NamedTuple):
    """`page_size` as the cgroup file names it ("2MB"); `limit` in bytes."""

    page_size: str
    limit: int


class InterfacePriority(NamedTuple):
    name: str
    priority: int


class NetworkResources(NamedTuple):
    class_id: int | None = None
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(NamedTuple):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(NamedTuple):
    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkResources | None = None
    rdma: Mapping[str, Rdma] = {}
    unified: Mapping[str, str] = {}


class SyscallArg(NamedTuple):
    """`position` is the argument's index; `op` is "SCMP_CMP_..."."""

    position: int
    value: int
    op: str
    value_two: int = 0


class Syscall(NamedTuple):
    names: Strings
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] = ()


class Seccomp(NamedTuple):
    default_action: str
    default_errno_ret: int | None = None
    architectures: Strings = ()
    flags: Strings = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Syscall, ...] = ()


class IntelRdt(NamedTuple):
    clos_id: str = ""
    schemata: Strings = ()
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False


class MemoryPolicy(NamedTuple):
    mode: str
    nodes: str = ""
    flags: Strings = ()


class Personality(NamedTuple):
    """`domain`: LINUX or LINUX32."""

    domain: str
    flags: Strings = ()


class TimeOffset(NamedTuple):
    secs: int = 0
    nanosecs: int = 0


class NetDevice(NamedTuple):
    name: str = ""


class Linux(NamedTuple):
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    sysctl: Mapping[str, str] = {}
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: tuple[Namespace, ...] = ()
    devices: tuple[Device, ...] = ()
    net_devices: Mapping[str, NetDevice] = {}
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: Strings = ()
    readonly_paths: Strings = ()
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: Personality | None = None
    time_offsets: Mapping[str, TimeOffset] = {}


class Config(NamedTuple):
    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: Mapping[str, str] = {}
    linux: Linux = Linux()


# Words that keep their capitals in Go's JSON tags, where plain camelCase would be wrong.
_JSON_NAMES = {
    "container_id": "containerID",
    "host_id": "hostID",
    "class_id": "classID",
    "clos_id": "closID",
    "kernel_tcp": "kernelTCP",
    "disable_oom_killer": "disableOOMKiller",
    "block_io": "blockIO",
    "throttle_read_iops_device": "throttleReadIOPSDevice",
    "throttle_write_iops_device": "throttleWriteIOPSDevice",
    "exec_cpu_affinity": "execCPUAffinity",
    "klass": "class",
    "position": "index",
}

_Decoder = Callable[[Any, str], Any]
_T = TypeVar("_T")
_fields_of: dict[type, tuple[tuple[str, str, _Decoder, Any], ...]] = {}
_REQUIRED = object()


def from_json(value: object) -> Config:
    """The configuration in a decoded `config.json`; `InvalidArgument` names the path of what is wrong."""
    return decode(Config, value)


def to_json(value: object) -> Any:
    """A NamedTuple of this module as a JSON-shaped value."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        cls = type(value)
        items = zip(_fields(cls), value, strict=True)
        return {key: to_json(item) for (_, key, _, default), item in items if item is not None and item != default}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return value


def decode(cls: type[_T], value: object, path: str = "") -> _T:
    """`value` as an instance of `cls`, one of this module's NamedTuples; `path` is its place for messages."""
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    arguments = []
    for _, key, decoder, default in _fields(cls):
        item = value.get(key)
        if item is None:  # Go writes null for what is empty
            if default is _REQUIRED:
                raise InvalidArgument(f"runtime config: {_join(path, key)} is missing")
            arguments.append(default)
        else:
            arguments.append(decoder(item, _join(path, key)))
    return cls(*arguments)


def _fields(cls: type) -> tuple[tuple[str, str, _Decoder, Any], ...]:
    """(attribute, JSON name, decoder, default) of each field, in order."""
    known = _fields_of.get(cls)
    if known is None:
        defaults: dict[str, Any] = getattr(cls, "_field_defaults")  # noqa: B009 - mypy does not know that it is a NamedTuple
        known = _fields_of[cls] = tuple(
            (name, _json_name(name), _decoder(annotation), defaults.get(name, _REQUIRED))
            for name, annotation in cls.__annotations__.items()
        )
    return known


def _json_name(name: str) -> str:
    if name in _JSON_NAMES:
        return _JSON_NAMES[name]
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def _decoder(annotation: Any) -> _Decoder:
    origin = get_origin(annotation)
    if origin is UnionType:  # X | None; null never gets here
        return _decoder(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if origin is tuple:
        element = _decoder(get_args(annotation)[0])
        return lambda value, path: _sequence(value, path, element)
    if origin is Mapping:
        element = _decoder(get_args(annotation)[1])
        return lambda value, path: _mapping(value, path, element)
    if origin is None and annotation in _SCALARS:
        return _SCALARS[annotation]
    return lambda value, path: decode(annotation, value, path)


def _sequence(value: Any, path: str, element: _Decoder) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(path, "an array", value)
    return tuple(element(item, f"{path}[{position}]") for position, item in enumerate(value))


def _mapping(value: Any, path: str, element: _Decoder) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    return {key: element(item, _join(path, key)) for key, item in value.items()}


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, "a string", value)
    if "\0" in value:  # every string ends up in a system call
        raise InvalidArgument(f"runtime config: {path} contains a NUL byte")
    return value


def _integer(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, "an integer", value)
    return value


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "a boolean", value)
    return value


_SCALARS: dict[Any, _Decoder] = {str: _string, int: _integer, bool: _boolean}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _wrong(path: str, expected: str, value: object) -> InvalidArgument:
    return InvalidArgument(f"runtime config: {path or 'the document'} must be {expected}, not {type(value).__name__}")
