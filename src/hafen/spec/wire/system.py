"""Engine API JSON shapes for info, version, disk usage and registry login (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.container import ContainerSummary
from hafen.spec.wire.gojson import Wire, named, null, shown, unless_empty
from hafen.spec.wire.image import Descriptor, ImageSummary, Platform
from hafen.spec.wire.volume import Volume


class PlatformName(Wire, frozen=True):
    name: str = shown(str)


class ComponentVersion(Wire, frozen=True):
    name: str = shown(str)
    version: str = shown(str)
    details: dict[str, str] = unless_empty(dict[str, str])


class SystemVersion(Wire, frozen=True):
    """GET /version. The fields after `components` repeat the engine's own component, for old clients."""

    platform: PlatformName = shown(PlatformName)
    components: list[ComponentVersion] = unless_empty(list[ComponentVersion])
    version: str = shown(str)
    api_version: str = shown(str)
    min_api_version: str = named("MinAPIVersion", "")
    git_commit: str = shown(str)
    go_version: str = shown(str)
    os: str = shown(str)
    arch: str = shown(str)
    kernel_version: str = ""
    experimental: bool = False
    build_time: str = ""


class PluginsInfo(Wire, frozen=True):
    volume: list[str] = shown(list[str])
    network: list[str] = shown(list[str])
    authorization: list[str] | None = shown(null)
    log: list[str] = shown(list[str])


class IndexInfo(Wire, frozen=True):
    name: str = shown(str)
    mirrors: list[str] = shown(list[str])
    secure: bool = shown(bool)
    official: bool = shown(bool)


class RegistryConfig(Wire, frozen=True):
    insecure_registry_cidrs: list[str] = shown(list[str], "InsecureRegistryCIDRs")
    index_configs: dict[str, IndexInfo] = shown(dict[str, IndexInfo])
    mirrors: list[str] | None = shown(null)


class RuntimeInfo(Wire, frozen=True, rename="camel"):
    path: str = ""
    runtime_args: list[str] = unless_empty(list[str])
    status: dict[str, str] = unless_empty(dict[str, str])


class SwarmInfo(Wire, frozen=True):
    node_id: str = shown(str, "NodeID")
    node_addr: str = shown(str)
    local_node_state: str = shown(lambda: "inactive")
    control_available: bool = shown(bool)
    error: str = shown(str)
    remote_managers: list[dict[str, str]] | None = shown(null)


class Commit(Wire, frozen=True):
    id: str = shown(str, "ID")


class AddressPool(Wire, frozen=True):
    base: str = shown(str)
    size: int = shown(int)


class FirewallInfo(Wire, frozen=True):
    driver: str = shown(str)
    info: list[list[str]] = unless_empty(list[list[str]])


class DeviceInfo(Wire, frozen=True):
    source: str = shown(str)
    id: str = shown(str, "ID")


class SystemInfo(Wire, frozen=True):
    """GET /info. `mem_total` is bytes; the booleans say what this kernel can limit."""

    id: str = shown(str, "ID")
    containers: int = shown(int)
    containers_running: int = shown(int)
    containers_paused: int = shown(int)
    containers_stopped: int = shown(int)
    images: int = shown(int)
    driver: str = shown(str)
    driver_status: list[list[str]] = shown(list[list[str]])
    plugins: PluginsInfo = shown(PluginsInfo)
    memory_limit: bool = shown(bool)
    swap_limit: bool = shown(bool)
    cpu_cfs_period: bool = shown(bool)
    cpu_cfs_quota: bool = shown(bool)
    cpu_shares: bool = shown(bool, "CPUShares")
    cpu_set: bool = shown(bool, "CPUSet")
    pids_limit: bool = shown(bool)
    ipv4_forwarding: bool = shown(bool, "IPv4Forwarding")
    debug: bool = shown(bool)
    n_fd: int = shown(int, "NFd")
    oom_kill_disable: bool = shown(bool)
    n_goroutines: int = shown(int, "NGoroutines")
    system_time: str = shown(str)
    logging_driver: str = shown(str)
    cgroup_driver: str = shown(str)
    cgroup_version: str = ""
    n_events_listener: int = shown(int, "NEventsListener")
    kernel_version: str = shown(str)
    operating_system: str = shown(str)
    os_version: str = shown(str, "OSVersion")
    os_type: str = shown(str, "OSType")
    architecture: str = shown(str)
    index_server_address: str = shown(lambda: "https://index.docker.io/v1/")
    registry_config: RegistryConfig = shown(RegistryConfig)
    ncpu: int = shown(int, "NCPU")
    mem_total: int = shown(int)
    generic_resources: list[dict[str, object]] | None = shown(null)
    docker_root_dir: str = shown(str)
    http_proxy: str = shown(str)
    https_proxy: str = shown(str)
    no_proxy: str = shown(str)
    name: str = shown(str)
    labels: list[str] = shown(list[str])
    experimental_build: bool = shown(bool)
    server_version: str = shown(str)
    runtimes: dict[str, RuntimeInfo] = shown(dict[str, RuntimeInfo])
    default_runtime: str = shown(str)
    swarm: SwarmInfo = shown(SwarmInfo)
    live_restore_enabled: bool = shown(bool)
    isolation: str = shown(str)
    init_binary: str = shown(str)
    containerd_commit: Commit = shown(Commit)
    runc_commit: Commit = shown(Commit)
    init_commit: Commit = shown(Commit)
    security_options: list[str] = shown(list[str])
    product_license: str = ""
    default_address_pools: list[AddressPool] = unless_empty(list[AddressPool])
    firewall_backend: FirewallInfo | None = None
    cdi_spec_dirs: list[str] = shown(list[str], "CDISpecDirs")
    discovered_devices: list[DeviceInfo] = unless_empty(list[DeviceInfo])
    warnings: list[str] | None = shown(null)


class BuildCacheRecord(Wire, frozen=True):
    id: str = shown(str, "ID")
    parents: list[str] = unless_empty(list[str])
    type: str = shown(str)
    description: str = shown(str)
    in_use: bool = shown(bool)
    shared: bool = shown(bool)
    size: int = shown(int)
    created_at: str = shown(str)
    last_used_at: str | None = shown(null)
    usage_count: int = shown(int)


class ImageUsage(Wire, frozen=True):
    """Bytes; `items` only where `verbose` was asked. The same holds for the three classes below."""

    active_count: int = 0
    items: list[ImageSummary] = unless_empty(list[ImageSummary])
    reclaimable: int = 0
    total_count: int = 0
    total_size: int = 0


class ContainerUsage(Wire, frozen=True):
    active_count: int = 0
    items: list[ContainerSummary] = unless_empty(list[ContainerSummary])
    reclaimable: int = 0
    total_count: int = 0
    total_size: int = 0


class VolumeUsageSummary(Wire, frozen=True):
    active_count: int = 0
    items: list[Volume] = unless_empty(list[Volume])
    reclaimable: int = 0
    total_count: int = 0
    total_size: int = 0


class BuildCacheUsage(Wire, frozen=True):
    active_count: int = 0
    items: list[BuildCacheRecord] = unless_empty(list[BuildCacheRecord])
    reclaimable: int = 0
    total_count: int = 0
    total_size: int = 0


class RegistryUsage(Wire, frozen=True):
    """Not Docker's: blobs that only the registry inside of the engine has; what images have too counts as theirs."""

    total_count: int = 0
    total_size: int = 0


class DiskUsage(Wire, frozen=True):
    """GET /system/df. None: that type was not asked for. Always with `items`; the face drops them unless asked."""

    image_usage: ImageUsage | None = None
    container_usage: ContainerUsage | None = None
    volume_usage: VolumeUsageSummary | None = None
    build_cache_usage: BuildCacheUsage | None = None
    registry_usage: RegistryUsage | None = None


class AuthConfig(Wire, frozen=True, rename="lower"):
    """POST /auth, and base64url in the X-Registry-Auth header."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    server_address: str = named("serveraddress", "")
    identity_token: str = named("identitytoken", "")
    registry_token: str = named("registrytoken", "")


class AuthResponse(Wire, frozen=True):
    identity_token: str = ""
    status: str = shown(str)


class DistributionInspect(Wire, frozen=True):
    """GET /distribution/{name}/json."""

    descriptor: Descriptor = shown(Descriptor)
    platforms: list[Platform] = shown(list[Platform])
