"""What requests of older and newer API versions mean: fields that a version did not know or no longer knows are not
honoured, and defaults that changed keep their old value for old clients. Source: moby's handlers and API changelog."""

from __future__ import annotations

from msgspec.structs import replace

from hafen.api.versions import Version
from hafen.errors import InvalidArgument
from hafen.spec.wire.container import CreateRequest, UpdateRequest
from hafen.spec.wire.exec import ExecConfig
from hafen.spec.wire.hostconfig import HostConfig, Mount


def create(request: CreateRequest, version: Version) -> CreateRequest:
    """A container's configuration as a client of `version` means it."""
    if version >= (1, 52) and request.mac_address:
        request = replace(request, mac_address="")
    endpoints = request.networking_config.endpoints_config if request.networking_config else None
    if version < (1, 44) and endpoints and len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {names}")
    check = request.healthcheck
    if version < (1, 44) and check and check.start_interval:
        request = replace(request, healthcheck=replace(check, start_interval=0))
    if request.host_config:
        request = replace(request, host_config=_host_config(request.host_config, version))
    return request


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
    return replace(config, mounts=[_mount(mount, version) for mount in config.mounts])


def _mount(mount: Mount, version: Version) -> Mount:
    bind, volume, tmpfs = mount.bind_options, mount.volume_options, mount.tmpfs_options
    if bind and version < (1, 44):
        bind = replace(bind, read_only_non_recursive=False, read_only_force_recursive=False)
    if bind and version < (1, 42):
        bind = replace(bind, create_mountpoint=False)
    if bind and version < (1, 40):
        bind = replace(bind, non_recursive=False)
    if volume and version < (1, 45):
        volume = replace(volume, subpath="")
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
