"""Engine API JSON shapes for containers, requests and answers (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import StrSlice, UInt64, Wire, null, shown, unless_empty
from hafen.spec.wire.hostconfig import HostConfig, Resources, RestartPolicy
from hafen.spec.wire.image import Descriptor, EmptyObject, GraphDriver, HealthConfig
from hafen.spec.wire.network import EndpointSettings, NetworkingConfig, NetworkSettings, PortSummary
from hafen.spec.wire.stats import StatsResponse as StatsResponse  # part of the containers' calls


class ContainerConfig(Wire, frozen=True):
    """What runs in a container, as portable as an image. Order of fields is Docker's."""

    hostname: str = shown(str)
    domainname: str = shown(str)
    user: str = shown(str)
    attach_stdin: bool = shown(bool)
    attach_stdout: bool = shown(bool)
    attach_stderr: bool = shown(bool)
    exposed_ports: dict[str, EmptyObject] = unless_empty(dict[str, EmptyObject])
    tty: bool = shown(bool)
    open_stdin: bool = shown(bool)
    stdin_once: bool = shown(bool)
    env: list[str] | None = shown(null)
    cmd: StrSlice | None = shown(null)
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = shown(str)
    volumes: dict[str, EmptyObject] | None = shown(null)
    working_dir: str = shown(str)
    entrypoint: StrSlice | None = shown(null)
    network_disabled: bool = False
    mac_address: str = ""  # before API 1.44; afterwards in the endpoint
    on_build: list[str] = unless_empty(list[str])
    labels: dict[str, str] = shown(dict[str, str])
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: StrSlice = unless_empty(list[str])


class CreateRequest(ContainerConfig, frozen=True):
    """POST /containers/create: the config with two more objects beside its fields."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None
    runtime: str = ""  # docker-py's place for what belongs into the host configuration


class CreateResponse(Wire, frozen=True):
    id: str = shown(str)
    warnings: list[str] = shown(list[str])


class UpdateRequest(Resources, frozen=True):
    restart_policy: RestartPolicy = shown(RestartPolicy)


class UpdateResponse(Wire, frozen=True):
    warnings: list[str] | None = shown(null)


class HealthcheckResult(Wire, frozen=True):
    start: str = shown(str)
    end: str = shown(str)
    exit_code: int = shown(int)
    output: str = shown(str)


class Health(Wire, frozen=True):
    """`status` is none, starting, healthy or unhealthy."""

    status: str = shown(str)
    failing_streak: int = shown(int)
    log: list[HealthcheckResult] = shown(list[HealthcheckResult])


class HealthSummary(Wire, frozen=True):
    status: str = shown(str)
    failing_streak: int = shown(int)


class ContainerState(Wire, frozen=True):
    """Times are RFC 3339 with nanoseconds; "0001-01-01T00:00:00Z" is never."""

    status: str = shown(str)
    running: bool = shown(bool)
    paused: bool = shown(bool)
    restarting: bool = shown(bool)
    oom_killed: bool = shown(bool, "OOMKilled")
    dead: bool = shown(bool)
    pid: int = shown(int)
    exit_code: int = shown(int)
    error: str = shown(str)
    started_at: str = shown(lambda: "0001-01-01T00:00:00Z")
    finished_at: str = shown(lambda: "0001-01-01T00:00:00Z")
    health: Health | None = None


class MountPoint(Wire, frozen=True):
    type: str = ""
    name: str = ""
    source: str = shown(str)
    destination: str = shown(str)
    driver: str = ""
    mode: str = shown(str)
    rw: bool = shown(bool, "RW")
    propagation: str = shown(str)


class ContainerInspect(Wire, frozen=True):
    """GET /containers/{id}/json. `name` begins with a slash."""

    id: str = shown(str)
    created: str = shown(str)
    path: str = shown(str)
    args: list[str] = shown(list[str])
    state: ContainerState = shown(ContainerState)
    image: str = shown(str)
    resolv_conf_path: str = shown(str)
    hostname_path: str = shown(str)
    hosts_path: str = shown(str)
    log_path: str = shown(str)
    name: str = shown(str)
    restart_count: int = shown(int)
    driver: str = shown(str)
    platform: str = shown(str)
    mount_label: str = shown(str)
    process_label: str = shown(str)
    app_armor_profile: str = shown(str)
    exec_ids: list[str] | None = shown(null, "ExecIDs")
    host_config: HostConfig = shown(HostConfig)
    graph_driver: GraphDriver | None = None
    size_rw: int | None = None
    size_root_fs: int | None = None
    mounts: list[MountPoint] = shown(list[MountPoint])
    config: ContainerConfig = shown(ContainerConfig)
    network_settings: NetworkSettings = shown(NetworkSettings)
    image_manifest_descriptor: Descriptor | None = None


class SummaryHostConfig(Wire, frozen=True):
    network_mode: str = ""
    annotations: dict[str, str] = unless_empty(dict[str, str])


class SummaryNetworkSettings(Wire, frozen=True):
    networks: dict[str, EndpointSettings] = shown(dict[str, EndpointSettings])


class ContainerSummary(Wire, frozen=True):
    """One line of GET /containers/json. `created` is seconds since the epoch, `status` the text for people."""

    id: str = shown(str)
    names: list[str] = shown(list[str])
    image: str = shown(str)
    image_id: str = shown(str, "ImageID")
    image_manifest_descriptor: Descriptor | None = None
    command: str = shown(str)
    created: int = shown(int)
    ports: list[PortSummary] = shown(list[PortSummary])
    size_rw: int = 0
    size_root_fs: int = 0
    labels: dict[str, str] = shown(dict[str, str])
    state: str = shown(str)
    status: str = shown(str)
    host_config: SummaryHostConfig = shown(SummaryHostConfig)
    network_settings: SummaryNetworkSettings = shown(SummaryNetworkSettings)
    mounts: list[MountPoint] = shown(list[MountPoint])
    health: HealthSummary | None = None


class WaitExitError(Wire, frozen=True):
    message: str = shown(str)


class WaitResponse(Wire, frozen=True):
    status_code: int = shown(int)
    error: WaitExitError | None = None


class TopResponse(Wire, frozen=True):
    processes: list[list[str]] = shown(list[list[str]])
    titles: list[str] = shown(list[str])


class FilesystemChange(Wire, frozen=True):
    """`kind` is 0 modified, 1 added, 2 deleted."""

    path: str = shown(str)
    kind: int = shown(int)


class PruneResponse(Wire, frozen=True):
    containers_deleted: list[str] | None = shown(null)
    space_reclaimed: UInt64 = shown(int)


class PathStat(Wire, frozen=True, rename="camel"):
    """The JSON inside X-Docker-Container-Path-Stat. `mode` is Go's os.FileMode."""

    name: str = shown(str)
    size: int = shown(int)
    mode: int = shown(int)
    mtime: str = shown(str)
    link_target: str = shown(str)
