"""Check a container's configuration as Docker does, and fill in its defaults; pure.

The texts are those of moby's `daemon/container.go` and `daemon/daemon_unix.go`.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Collection

import msgspec

from hafen.engine import specgen
from hafen.engine.hostfacts import HostFacts
from hafen.errors import InvalidArgument, System
from hafen.kernel.caps import NAMES as CAPABILITIES
from hafen.spec import units
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig, Resources, RestartPolicy

_MEGABYTE = 1024 * 1024
_SMALLEST_MEMORY = 6 * _MEGABYTE
_MOST_CPUS = 8192  # moby: pkg/parsers
_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_ULIMITS = frozenset(
    (
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    )
)


def check_config(config: ContainerConfig) -> None:
    """The portable half of a create request."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if config.stop_signal:
        units.parse_signal(config.stop_signal)
    for entry in config.env or ():
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    health = config.healthcheck
    if health is not None:
        for name in ("interval", "timeout", "start_period", "start_interval"):
            if getattr(health, name) and getattr(health, name) < 1_000_000:
                shown = "".join(part.capitalize() for part in name.split("_"))
                raise InvalidArgument(f"{shown} in Healthcheck cannot be less than 1ms")
        if health.retries < 0:
            raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text[:6]) < 65536


def check_host_config(wanted: HostConfig, config: ContainerConfig, host: HostFacts, runtimes: Collection[str]) -> None:
    """The host's half of a create request; InvalidArgument with Docker's text for the first thing wrong."""
    check_restart_policy(wanted.restart_policy, wanted.auto_remove)
    for text in wanted.extra_hosts or ():
        check_extra_host(text)
    for name in wanted.port_bindings or {}:
        if not all(_is_port(part) for part in name.partition("/")[0].split("-")):
            raise InvalidArgument(f'invalid port specification: "{name}"')
    for name in (*(wanted.port_bindings or {}), *config.exposed_ports):
        for binding in (wanted.port_bindings or {}).get(name) or ():
            if binding.host_port and not all(_is_port(part) for part in binding.host_port.split("-")):
                raise InvalidArgument(f'invalid port specification: "{binding.host_port}"')
    if wanted.isolation not in ("", "default"):
        raise System(f"Invalid isolation: {wanted.isolation!r} - linux only supports 'default'".replace("'", '"', 2))
    _check_namespaces(wanted, config)
    check_resources(wanted, host)
    if not -1000 <= wanted.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {wanted.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if wanted.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for field, names in (("CapAdd", wanted.cap_add), ("CapDrop", wanted.cap_drop)):
        _check_capabilities(field, names or (), host)
    if wanted.runtime and wanted.runtime not in runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {wanted.runtime}")
    if "" in wanted.annotations:
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    for rule in wanted.device_cgroup_rules or ():
        specgen.parse_device_rule(rule)
    for option in wanted.security_opt or ():
        _check_security_option(option)
    for option in wanted.storage_opt:
        if option != "size":
            raise System(f"Unknown option {option}")
        raise System("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")


def check_restart_policy(policy: RestartPolicy, auto_remove: bool) -> None:
    if policy.name and policy.name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of "
            "'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        word = "cannot be negative" if policy.maximum_retry_count < 0 else "can only be used with 'on-failure'"
        raise InvalidArgument(f"invalid restart policy: maximum retry count {word}")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def check_extra_host(text: str) -> None:
    """`name:address`; docker/opts ValidateExtraHost."""
    name, _, address = text.partition(":") if "=" not in text else text.partition("=")
    if not name or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address != "host-gateway":
        try:
            ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None


def _check_namespaces(wanted: HostConfig, config: ContainerConfig) -> None:
    def valid(mode: str, *words: str) -> bool:
        return mode in ("", *words) or (mode.startswith("container:") and "container:" in words)

    if not valid(wanted.ipc_mode, "private", "shareable", "none", "host", "container:"):
        raise InvalidArgument(f"invalid IPC mode: {wanted.ipc_mode}")
    if not valid(wanted.pid_mode, "host", "container:") or wanted.pid_mode == "container:":
        raise InvalidArgument(f"invalid PID mode: {wanted.pid_mode}")
    if not valid(wanted.uts_mode, "host"):
        raise InvalidArgument(f"invalid UTS mode: {wanted.uts_mode}")
    if not valid(wanted.cgroupns_mode, "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {wanted.cgroupns_mode}")
    if wanted.network_mode == "container:":
        raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
    if wanted.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if wanted.network_mode.startswith("container:"):
        if config.hostname:
            raise InvalidArgument("conflicting options: hostname and the network mode")
        if wanted.links:
            raise InvalidArgument(
                "conflicting options: container type network can't be used with links. "
                "This would result in undefined behavior"
            )
        if wanted.dns:
            raise InvalidArgument("conflicting options: dns and the network mode")
        if wanted.extra_hosts:
            raise InvalidArgument("conflicting options: custom host-to-IP mapping and the network mode")
        if wanted.port_bindings or wanted.publish_all_ports:
            raise InvalidArgument("conflicting options: port publishing and the container type network mode")
        if config.exposed_ports:
            raise InvalidArgument("conflicting options: port exposing and the container type network mode")


def check_resources(wanted: Resources, host: HostFacts, update: bool = False) -> None:
    """Limits, at create and at update, which may set swap alone; moby `verifyPlatformContainerResources`."""
    if wanted.memory and wanted.memory < _SMALLEST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if wanted.memory > 0 and 0 < wanted.memory_swap < wanted.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if wanted.memory == 0 and wanted.memory_swap > 0 and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if wanted.memory_swappiness is not None and not -1 <= wanted.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {wanted.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < wanted.memory_reservation < _SMALLEST_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if wanted.memory and wanted.memory_reservation > wanted.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    _check_cpu(wanted, host)
    for value, what in ((wanted.io_maximum_iops, "IOPs"), (wanted.io_maximum_bandwidth, "bandwidth")):
        if value:
            raise System(f"Invalid QoS settings: linux does not support configuration of maximum {what}")
    if wanted.blkio_weight and not 10 <= wanted.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for limit in wanted.ulimits or ():
        if limit.name not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )


def _check_cpu(wanted: Resources, host: HostFacts) -> None:
    if wanted.nano_cpus:
        for name, value in (("Period", wanted.cpu_period), ("Quota", wanted.cpu_quota)):
            if value:
                raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")
        count = len(host.cpus)
        if not 0 < wanted.nano_cpus <= count * 1_000_000_000:
            raise InvalidArgument(f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if wanted.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({wanted.cpu_shares}): value must be a positive integer")
    if wanted.cpu_period and not 1000 <= wanted.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < wanted.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (wanted.cpu_realtime_runtime or wanted.cpu_realtime_period) and not host.cpu_realtime:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if wanted.cpu_realtime_runtime and 0 < wanted.cpu_realtime_period < wanted.cpu_realtime_runtime:
        raise System("cpu real-time runtime cannot be higher than cpu real-time period")
    for text, available, what, shown in (
        (wanted.cpuset_cpus, host.cpus, "cpuset cpus", "CPUs"),
        (wanted.cpuset_mems, host.memory_nodes, "cpuset mems", "memory nodes"),
    ):
        asked = units.parse_cpu_set(text, what) if text else frozenset[int]()
        if max(asked, default=0) > _MOST_CPUS:
            raise InvalidArgument(
                f"Invalid value {text} for {what}: value of out range, maximum is {_MOST_CPUS}"  # Docker's spelling
            )
        if not asked <= available:
            raise InvalidArgument(
                f"Requested {shown} are not available - requested {text}, available: {units.format_cpu_set(available)}"
            )


def _check_capabilities(field: str, names: Collection[str], host: HostFacts) -> None:
    for name in map(specgen.capability_name, names):
        if name == "ALL":
            continue
        if name not in CAPABILITIES:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{name}"')
        if name not in host.capabilities and field == "CapAdd":
            raise InvalidArgument(
                f"invalid {field}: capability not supported by your kernel or not available in the current "
                f'environment: "{name}"'
            )


def _check_security_option(option: str) -> None:
    if option == "no-new-privileges":
        return
    key, equals, value = option.partition("=")
    if not equals:
        key, equals, value = option.partition(":")
    if not equals:
        raise System(f'invalid --security-opt 1: "{option}"')
    if key not in ("label", "apparmor", "seccomp", "no-new-privileges"):
        raise System(f'invalid --security-opt 2: "{option}"')
    if key == "no-new-privileges" and value not in ("true", "false"):
        raise System(f'invalid --security-opt 2: "{option}"')


def complete(wanted: HostConfig, host: HostFacts) -> HostConfig:
    """The host configuration with Docker's defaults filled in, as `inspect` shows it."""
    default_paths = not wanted.privileged
    cgroupns = "private" if specgen.private_cgroup_namespace(wanted, host.cgroup_version) else "host"
    return msgspec.structs.replace(
        wanted,
        network_mode="bridge" if wanted.network_mode in ("", "default") else wanted.network_mode,
        ipc_mode=wanted.ipc_mode or "private",
        cgroupns_mode=wanted.cgroupns_mode or cgroupns,
        shm_size=wanted.shm_size or specgen.DEFAULT_SHM_SIZE,
        memory_swap=wanted.memory_swap or wanted.memory * 2,
        memory_swappiness=None if wanted.memory_swappiness == -1 else wanted.memory_swappiness,
        pids_limit=None if (wanted.pids_limit or 0) <= 0 else wanted.pids_limit,
        oom_kill_disable=bool(wanted.oom_kill_disable),
        restart_policy=RestartPolicy(
            name=wanted.restart_policy.name or "no",
            maximum_retry_count=wanted.restart_policy.maximum_retry_count,
        ),
        runtime=wanted.runtime or "hafen",
        masked_paths=_paths(wanted.masked_paths, specgen.MASKED_PATHS, default_paths),
        readonly_paths=_paths(wanted.readonly_paths, specgen.READONLY_PATHS, default_paths),
    )


def _paths(given: list[str] | None, default: Collection[str], wanted: bool) -> list[str] | None:
    if given is not None:
        return given
    return [posixpath.normpath(path) for path in default] if wanted else []
