"""Engine API JSON shape of a container's HostConfig: what the host gives it and forbids it (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import UInt16, UInt32, UInt64, Wire, named, null, shown, unless_empty
from hafen.spec.wire.network import PortMap


class LogConfig(Wire, frozen=True):
    type: str = shown(str)
    config: dict[str, str] | None = shown(null)


class RestartPolicy(Wire, frozen=True):
    """`name` is "", "no", "always", "unless-stopped" or "on-failure"."""

    name: str = shown(str)
    maximum_retry_count: int = shown(int)


class BindOptions(Wire, frozen=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    id_map: str = named("IDMap", "")  # ours; see spec.idmaps


class MountDriver(Wire, frozen=True):
    name: str = ""
    options: dict[str, str] = unless_empty(dict[str, str])


class VolumeOptions(Wire, frozen=True):
    no_copy: bool = False
    labels: dict[str, str] = unless_empty(dict[str, str])
    subpath: str = ""
    driver_config: MountDriver | None = None


class ImageOptions(Wire, frozen=True):
    subpath: str = ""


class TmpfsOptions(Wire, frozen=True):
    """`mode` is the numeric file mode; `options` are words or key and value."""

    size_bytes: int = 0
    mode: UInt32 = 0
    options: list[list[str]] = unless_empty(list[list[str]])


class Mount(Wire, frozen=True):
    """An entry of HostConfig.Mounts (`--mount`)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: dict[str, object] | None = None


class WeightDevice(Wire, frozen=True):
    path: str = shown(str)
    weight: UInt16 = shown(int)


class ThrottleDevice(Wire, frozen=True):
    """Bytes or operations a second."""

    path: str = shown(str)
    rate: UInt64 = shown(int)


class DeviceMapping(Wire, frozen=True):
    path_on_host: str = shown(str)
    path_in_container: str = shown(str)
    cgroup_permissions: str = shown(str)


class DeviceRequest(Wire, frozen=True):
    driver: str = shown(str)
    count: int = shown(int)
    device_ids: list[str] | None = shown(null, "DeviceIDs")
    capabilities: list[list[str]] | None = shown(null)
    options: dict[str, str] | None = shown(null)


class Ulimit(Wire, frozen=True):
    name: str = shown(str)
    hard: int = shown(int)
    soft: int = shown(int)


class Resources(Wire, frozen=True):
    """Limits; bytes, microseconds (periods and quotas) and billionths of a CPU. Zero means not set."""

    cpu_shares: int = shown(int)
    memory: int = shown(int)
    nano_cpus: int = shown(int)
    cgroup_parent: str = shown(str)
    blkio_weight: UInt16 = shown(int)
    blkio_weight_device: list[WeightDevice] | None = shown(null)
    blkio_device_read_bps: list[ThrottleDevice] | None = shown(null)
    blkio_device_write_bps: list[ThrottleDevice] | None = shown(null)
    blkio_device_read_iops: list[ThrottleDevice] | None = shown(null, "BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = shown(null, "BlkioDeviceWriteIOps")
    cpu_period: int = shown(int)
    cpu_quota: int = shown(int)
    cpu_realtime_period: int = shown(int)
    cpu_realtime_runtime: int = shown(int)
    cpuset_cpus: str = shown(str)
    cpuset_mems: str = shown(str)
    devices: list[DeviceMapping] | None = shown(null)
    device_cgroup_rules: list[str] | None = shown(null)
    device_requests: list[DeviceRequest] | None = shown(null)
    kernel_memory: int = 0  # no kernel honours it any more; kept to be refused
    kernel_memory_tcp: int = named("KernelMemoryTCP", 0)
    memory_reservation: int = shown(int)
    memory_swap: int = shown(int)
    memory_swappiness: int | None = shown(null)
    oom_kill_disable: bool | None = shown(null)
    pids_limit: int | None = shown(null)
    ulimits: list[Ulimit] | None = shown(null)
    cpu_count: int = shown(int)
    cpu_percent: int = shown(int)
    io_maximum_iops: UInt64 = shown(int, "IOMaximumIOps")
    io_maximum_bandwidth: UInt64 = shown(int, "IOMaximumBandwidth")


class HostConfig(Resources, frozen=True):
    """`console_size` is height, width. `masked_paths` and `readonly_paths`: None takes the default, [] none."""

    binds: list[str] | None = shown(null)
    container_id_file: str = shown(str, "ContainerIDFile")
    log_config: LogConfig = shown(LogConfig)
    network_mode: str = shown(str)
    port_bindings: PortMap | None = shown(null)
    restart_policy: RestartPolicy = shown(RestartPolicy)
    auto_remove: bool = shown(bool)
    volume_driver: str = shown(str)
    volumes_from: list[str] | None = shown(null)
    console_size: list[UInt32] = shown(lambda: [0, 0])
    annotations: dict[str, str] = unless_empty(dict[str, str])
    cap_add: list[str] | None = shown(null)
    cap_drop: list[str] | None = shown(null)
    cgroupns_mode: str = shown(str)
    dns: list[str] | None = shown(null)
    dns_options: list[str] | None = shown(null)
    dns_search: list[str] | None = shown(null)
    extra_hosts: list[str] | None = shown(null)
    group_add: list[str] | None = shown(null)
    ipc_mode: str = shown(str)
    cgroup: str = shown(str)
    links: list[str] | None = shown(null)
    oom_score_adj: int = shown(int)
    pid_mode: str = shown(str)
    privileged: bool = shown(bool)
    publish_all_ports: bool = shown(bool)
    readonly_rootfs: bool = shown(bool)
    security_opt: list[str] | None = shown(null)
    storage_opt: dict[str, str] = unless_empty(dict[str, str])
    tmpfs: dict[str, str] = unless_empty(dict[str, str])
    uts_mode: str = shown(str, "UTSMode")
    userns_mode: str = shown(str)
    shm_size: int = shown(int)
    sysctls: dict[str, str] = unless_empty(dict[str, str])
    runtime: str = ""
    isolation: str = shown(str)
    mounts: list[Mount] = unless_empty(list[Mount])
    masked_paths: list[str] | None = shown(null)
    readonly_paths: list[str] | None = shown(null)
    init: bool | None = None
