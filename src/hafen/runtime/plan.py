"""OCI configuration -> `Plan`: which namespaces, and an ordered tuple of Steps that `describe()` themselves; pure.

All that can be wrong with a configuration by itself is found here, before anything is made.
"""

import posixpath
from collections.abc import Mapping

from hafen.errors import InvalidArgument, NotImplemented
from hafen.kernel import consts as k
from hafen.kernel.namespaces import KINDS
from hafen.runtime import devices, options
from hafen.runtime.identity import capability_masks, limit_number
from hafen.runtime.mounts import Bind, MountCgroups, MountRoot, NewMount, Propagation
from hafen.runtime.stage import Step
from hafen.runtime.steps import (
    MakeDevices,
    MakeLinks,
    MakeReadonly,
    MakeRootReadonly,
    MakeWorkingDirectory,
    MaskPaths,
    OpenConsole,
    PivotRoot,
    RunHooks,
    SetNames,
    SetRootPropagation,
    SetSysctls,
)  # fmt: skip
from hafen.spec.runtime_config import Config, Mount, Process, Root, RootMount
from hafen.values import NamedTuple


class Joined(NamedTuple):
    """A namespace of others to enter: `kind` by the OCI name."""

    kind: str
    path: str


class Plan(NamedTuple):
    """`clone_flags` are the CLONE_NEW* that the child is born with.

    A new cgroup namespace is made by the child (`cgroup_namespace`), once it is in its cgroup. A time namespace with
    offsets is made by the parent, because its first process fixes them.
    """

    process: Process
    root: Root
    clone_flags: int
    joined: tuple[Joined, ...]
    cgroup_namespace: bool
    user_namespace: bool
    time_offsets: tuple[str, ...]
    steps: tuple[Step, ...]

    def describe(self) -> list[str]:
        """For people: what starting the container will do."""
        made = [kind for kind, (flag, _, _) in KINDS.items() if self.clone_flags & flag]
        made += ["cgroup"] if self.cgroup_namespace else []
        lines = [f"new namespaces: {', '.join(made)}"] if made else []
        lines += [f"joining the {kind} namespace of {path}" for kind, path in self.joined]
        return lines + [step.describe() for step in self.steps]


def plan(config: Config, rootfs: tuple[RootMount, ...], *, bundle: str) -> Plan:
    """The plan for `config`; `rootfs` are the layers that make the root, `bundle` is what relative paths start from."""
    process, root = config.process, config.root
    if process is None or not process.args:
        raise InvalidArgument("process.args is missing")
    if root is None:
        raise InvalidArgument("root is missing")
    check_process(process)
    new, joined = _namespaces(config)
    if "mount" not in new and "mount" not in dict(joined):
        raise InvalidArgument("linux.namespaces: a container needs a mount namespace of its own")
    _check_names_and_sysctls(config, new | {kind for kind, _ in joined})
    _check_supported(config)
    flags = 0
    for kind in new - {"cgroup"}:
        flags |= KINDS[kind].flag
    offsets = tuple(f"{clock} {offset.secs} {offset.nanosecs}" for clock, offset in config.linux.time_offsets.items())
    if offsets and "time" not in new:
        raise InvalidArgument("linux.timeOffsets: needs a new time namespace")
    user_namespace = "user" in new or "user" in dict(joined)
    return Plan(
        process=process,
        root=root,
        clone_flags=flags & ~(k.CLONE_NEWTIME if offsets else 0),
        joined=joined,
        cgroup_namespace="cgroup" in new,
        user_namespace=user_namespace,
        time_offsets=offsets,
        steps=_steps(config, process, root, rootfs, bundle),
    )


def _check_supported(config: Config) -> None:
    """NotImplemented by name, rather than a container without what was asked for."""
    linux = config.linux
    for name, asked in (("intelRdt", linux.intel_rdt), ("netDevices", linux.net_devices)):
        if asked:
            raise NotImplemented(f"linux.{name} is not supported")
    if linux.seccomp and linux.seccomp.listener_path:
        raise NotImplemented("linux.seccomp.listenerPath is not supported")


def check_process(process: Process) -> None:
    """InvalidArgument for what cannot be right in any container."""
    if not process.cwd.startswith("/"):
        raise InvalidArgument(f"process.cwd: {process.cwd!r} is not an absolute path")
    capability_masks(process.capabilities)
    seen: set[str] = set()
    for limit in process.rlimits:
        limit_number(limit.type)
        if limit.type in seen:
            raise InvalidArgument(f"process.rlimits: {limit.type} is given twice")
        seen.add(limit.type)
    if process.io_priority and process.io_priority.klass not in k.IOPRIO_CLASSES:
        raise InvalidArgument(f"process.ioPriority.class: unknown class {process.io_priority.klass!r}")
    if process.scheduler and process.scheduler.policy not in k.SCHED_POLICIES:
        raise InvalidArgument(f"process.scheduler.policy: unknown policy {process.scheduler.policy!r}")


def _namespaces(config: Config) -> tuple[frozenset[str], tuple[Joined, ...]]:
    new: set[str] = set()
    joined: dict[str, str] = {}
    for namespace in config.linux.namespaces:
        if namespace.type not in KINDS:
            raise InvalidArgument(f"linux.namespaces: unknown type {namespace.type!r}")
        if namespace.type in new or namespace.type in joined:
            raise InvalidArgument(f"linux.namespaces: {namespace.type} is given twice")
        if namespace.path:
            joined[namespace.type] = namespace.path
        else:
            new.add(namespace.type)
    has_maps = bool(config.linux.uid_mappings or config.linux.gid_mappings)
    if has_maps != ("user" in new) and "user" not in joined:
        raise InvalidArgument("linux.uidMappings and a new user namespace need each other")
    # KINDS has user first: the others are entered with the privileges that it gives.
    return frozenset(new), tuple(Joined(kind, joined[kind]) for kind in KINDS if kind in joined)


# Which namespace a sysctl belongs to (sysctl/kernel.rst, net.rst); others are the host's and refused, as runc does.
_IPC_SYSCTLS = frozenset((
    "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
    "kernel/shmmni", "kernel/shm_rmid_forced",
))  # fmt: skip
_ELSEWHERE = {  # runc's words, which clients match
    "network": 'sysctl "{name}" not allowed in host network namespace',
    "ipc": 'sysctl "{name}" is not allowed in the hosts ipc namespace',
    "uts": 'sysctl "{name}" is not in a separate kernel namespace',
    "user": 'sysctl "{name}" is not in a separate kernel namespace',
}
_UTS_SYSCTLS = {"kernel/domainname": "domainname", "kernel/hostname": "hostname"}


def _check_names_and_sysctls(config: Config, private: frozenset[str]) -> None:
    if (config.hostname or config.domainname) and "uts" not in private:
        raise InvalidArgument("unable to set hostname without a private UTS namespace")
    for name in config.linux.sysctl:
        path = sysctl_path(name)
        if path in _IPC_SYSCTLS or path.startswith("fs/mqueue/"):
            needed = "ipc"
        elif path.startswith("net/"):
            needed = "network"
        elif path in _UTS_SYSCTLS:
            needed = "uts"
            if path == "kernel/hostname":
                raise InvalidArgument(f'sysctl "{name}" conflicts with the hostname field')
        elif path.startswith("user/"):
            needed = "user"
        else:
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
        if needed not in private:
            raise InvalidArgument(_ELSEWHERE[needed].format(name=name))


def sysctl_path(name: str) -> str:
    """ "net.ipv4.ip_forward" -> "net/ipv4/ip_forward". The first separator decides, as in sysctl.d(5)."""
    first = next((character for character in name if character in "./"), ".")
    path = name if first == "/" else name.translate({ord("."): "/", ord("/"): "."})
    if ".." in path.split("/") or path.startswith("/"):
        raise InvalidArgument(f"invalid sysctl name {name!r}")
    return path


def _steps(
    config: Config, process: Process, root: Root, rootfs: tuple[RootMount, ...], bundle: str
) -> tuple[Step, ...]:
    linux = config.linux
    steps: list[Step] = [
        Propagation(k.MS_SLAVE, True),
        MountRoot(posixpath.join(bundle, root.path), rootfs),
    ]
    steps += [_mount_step(mount, linux.mount_label) for mount in config.mounts]
    binds_dev = any(isinstance(s, Bind) and posixpath.normpath(s.destination) == "/dev" for s in steps)
    nodes = devices.nodes(linux.devices, defaults=not binds_dev)
    if nodes:
        steps.append(MakeDevices(nodes))
    if not binds_dev:
        steps.append(MakeLinks(devices.LINKS))
    if process.terminal:
        height, width = process.console_size or (0, 0)
        steps.append(OpenConsole(height, width))
    if config.hostname or config.domainname:
        steps.append(SetNames(config.hostname, config.domainname))
    if linux.sysctl:
        steps.append(SetSysctls(_sysctls(linux.sysctl)))
    hooks = config.hooks
    if hooks.prestart or hooks.create_runtime or hooks.create_container:
        steps.append(RunHooks(bool(hooks.prestart or hooks.create_runtime), hooks.create_container))
    if linux.readonly_paths:
        steps.append(MakeReadonly(linux.readonly_paths))
    if linux.masked_paths:
        steps.append(MaskPaths(linux.masked_paths))
    steps.append(MakeWorkingDirectory(process.cwd))
    if root.readonly:
        steps.append(MakeRootReadonly())
    steps.append(PivotRoot())
    if linux.rootfs_propagation:
        steps.append(SetRootPropagation(*options.propagation_flag(linux.rootfs_propagation)))
    return tuple(steps)


def _sysctls(sysctl: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((sysctl_path(name), value) for name, value in sysctl.items())


# Options that only mount(2) of old took, and what a type brings by itself.
_DROPPED = {"devpts": frozenset(("newinstance",))}
_LABELLED = frozenset(("tmpfs", "mqueue", "devpts", "overlay"))


def _mount_step(mount: Mount, label: str) -> Step:
    destination = posixpath.normpath("/" + mount.destination.lstrip("/"))
    if destination == "/":
        raise InvalidArgument("mounts: the destination / is the root itself")
    parsed = options.parse(mount.options)
    if mount.type == "bind" or parsed.bind:
        if (parsed.idmap or parsed.idmap_all) and not mount.uid_mappings:
            raise InvalidArgument(f"mounts: idmap of {destination} needs uidMappings")
        return Bind(mount.source, destination, parsed, mount.uid_mappings, mount.gid_mappings)
    if mount.type in ("cgroup", "cgroup2"):
        return MountCgroups(destination, parsed)
    if not mount.type:
        raise InvalidArgument(f"mounts: {destination} has no type")
    if parsed.copy_up:
        raise InvalidArgument(f"mounts: {destination}: tmpcopyup is not supported")
    dropped = _DROPPED.get(mount.type, frozenset())
    parameters = tuple(item for item in parsed.parameters if item[0] not in dropped)
    if label and mount.type in _LABELLED:
        parameters += (("context", label),)
    no_links = mount.type in ("proc", "sysfs")
    return NewMount(destination, mount.type, mount.source or mount.type, parameters, parsed, no_links)
