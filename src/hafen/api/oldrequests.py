"""What requests of older and newer API versions mean: fields that a version did not know or no longer knows are not
honoured, and defaults that changed keep their old value for old clients. Source: moby's handlers and API changelog."""

from __future__ import annotations

from msgspec.structs import replace

from hafen.api.versions import Version
from hafen.errors import InvalidArgument
from hafen.spec.wire.container import CreateRequest, UpdateRequest
from hafen.spec.wire.exec import ExecConfig, ExecStartConfig
from hafen.spec.wire.hostconfig import BindOptions, HostConfig, Mount
from hafen.spec.wire.network import EndpointSettings, NetworkCreateRequest, NetworkingConfig, PortBinding, PortMap
from hafen.spec.wire.volume import VolumeCreateRequest


def create(request: CreateRequest, version: Version) -> CreateRequest:
    """A container's configuration as a client of `version` means it; InvalidArgument for what it cannot ask for."""
    if version >= (1, 52) and request.mac_address:
        request = replace(request, mac_address="")
    check = request.healthcheck
    if version < (1, 44) and check and check.start_interval:
        request = replace(request, healthcheck=replace(check, start_interval=0))
    mode = request.host_config.network_mode if request.host_config else ""
    if version < (1, 44) and request.mac_address and (mode in ("host", "none") or mode.startswith("container:")):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if request.networking_config:
        request = replace(request, networking_config=_networking(request.networking_config, version))
    if request.host_config:
        request = replace(request, host_config=_host_config(request.host_config, version))
    return request


def create_warnings(request: CreateRequest, version: Version) -> list[str]:
    """What a client of `version` is warned of in its own request, as it sent it."""
    found = []
    config = request.host_config or HostConfig()
    volumes = [mount.volume_options for mount in config.mounts if mount.type == "volume"]
    drivers = [options.driver_config if options else None for options in volumes]
    if version >= (1, 48) and config.volume_driver and any(not (driver and driver.name) for driver in drivers):
        found.append(
            "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
            "Use '--mount type=volume,volume-driver=...' instead"
        )
    if (1, 44) <= version < (1, 52) and request.mac_address:
        found.append(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
        )
    unbound = sorted(port for port, bindings in (config.port_bindings or {}).items() if not bindings)
    if version == (1, 52) and unbound:
        found.append(
            f"Following container port(s) have an empty list of port-bindings: {', '.join(unbound)}. "
            "Starting with API 1.53, such bindings will be discarded."
        )
    return found


def _networking(config: NetworkingConfig, version: Version) -> NetworkingConfig:
    endpoints = {name: endpoint or EndpointSettings() for name, endpoint in (config.endpoints_config or {}).items()}
    if version < (1, 44) and len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {names}")
    if version < (1, 44):
        endpoints = {name: replace(endpoint, mac_address="") for name, endpoint in endpoints.items()}
    if version < (1, 48):
        endpoints = {name: replace(endpoint, gw_priority=0) for name, endpoint in endpoints.items()}
    return replace(config, endpoints_config=endpoints)


def _host_config(config: HostConfig, version: Version) -> HostConfig:
    if version < (1, 25):
        config = replace(config, auto_remove=False, nano_cpus=0)
    if version < (1, 40) and not config.ipc_mode:
        config = replace(config, ipc_mode="shareable")
    if version < (1, 40):
        config = replace(config, kernel_memory_tcp=0, pids_limit=None)
    if version < (1, 41) and not config.cgroupns_mode:
        config = replace(config, cgroupns_mode="host")
    if version < (1, 42):
        config = replace(config, console_size=[0, 0])
    if version >= (1, 42):
        config = replace(config, kernel_memory=0)
    if version < (1, 43):
        config = replace(config, annotations={})
    if version >= (1, 52):
        config = replace(config, kernel_memory_tcp=0)
    return replace(
        config,
        mounts=[_mount(mount, version) for mount in config.mounts],
        port_bindings=_port_bindings(config.port_bindings, version),
    )


def _port_bindings(bindings: PortMap | None, version: Version) -> PortMap | None:
    """An empty list of bindings was one to a free port; since 1.53 it is none."""
    if version >= (1, 53):
        return bindings and {port: given for port, given in bindings.items() if given}
    return bindings and {port: given or [PortBinding()] for port, given in bindings.items()}


def _mount(mount: Mount, version: Version) -> Mount:
    bind, volume, tmpfs = mount.bind_options, mount.volume_options, mount.tmpfs_options
    if version < (1, 42):  # options of another type were not looked at
        volume, tmpfs = volume if mount.type == "volume" else None, tmpfs if mount.type == "tmpfs" else None
    if version < (1, 44) and bind and bind.read_only_force_recursive:
        raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 44) and mount.type == "bind" and mount.read_only:  # what is mounted below stayed writable
        bind = replace(bind or BindOptions(), read_only_non_recursive=True)
    if version < (1, 45) and volume and volume.subpath:
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and mount.type == "image":
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    if bind and version < (1, 42):
        bind = replace(bind, create_mountpoint=False)
    if bind and version < (1, 40):
        bind = replace(bind, non_recursive=False)
    if tmpfs and version < (1, 46):
        tmpfs = replace(tmpfs, options=[])
    return replace(mount, bind_options=bind, volume_options=volume, tmpfs_options=tmpfs)


def update(request: UpdateRequest, version: Version) -> UpdateRequest:
    """New limits as a client of `version` means them."""
    if version < (1, 28):
        request = replace(request, nano_cpus=0)
    if version < (1, 40):
        request = replace(request, pids_limit=None)
    if version >= (1, 42):
        request = replace(request, kernel_memory=0)
    if version >= (1, 52):
        request = replace(request, kernel_memory_tcp=0)
    if version < (1, 55):
        request = replace(
            request, blkio_weight_device=None, blkio_device_read_bps=None, blkio_device_write_bps=None,
            blkio_device_read_iops=None, blkio_device_write_iops=None,
        )  # fmt: skip
    return request


def exec_config(config: ExecConfig, version: Version) -> ExecConfig:
    """An exec as a client of `version` means it."""
    if version < (1, 25):
        config = replace(config, env=None)
    if version < (1, 35):
        config = replace(config, working_dir="")
    if version < (1, 42):
        config = replace(config, console_size=None)
    return config


def exec_start(config: ExecStartConfig, version: Version) -> ExecStartConfig:
    """The start of an exec as a client of `version` means it."""
    return replace(config, console_size=None) if version < (1, 42) else config


def network_create(request: NetworkCreateRequest, version: Version) -> NetworkCreateRequest:
    """A network as a client of `version` means it."""
    return replace(request, enable_ipv4=None) if version < (1, 48) else request


def volume_create(request: VolumeCreateRequest, version: Version) -> VolumeCreateRequest:
    """A volume as a client of `version` means it."""
    return replace(request, cluster_volume_spec=None) if version < (1, 42) else request
