"""Container Device Interface: specification files as values, and what is wrong with them; pure.

Format and rules: CNCF CDI, SPEC.md of version 1.0.0, and `pkg/cdi` and `specs-go` of the reference implementation.
"""

from __future__ import annotations

import re

import msgspec

from hafen.errors import InvalidArgument, NotImplemented

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

_VENDOR = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")


class _Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Unknown fields make a file invalid, as in the reference implementation."""


class DeviceNode(_Part, frozen=True):
    """`path` inside; what is not told is that of `host_path` (or `path`) on the host."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(_Part, frozen=True):
    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


class Hook(_Part, frozen=True):
    """`timeout` is seconds."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Edits(_Part, frozen=True):
    """What is done to a container's configuration."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    additional_gids: tuple[int, ...] = msgspec.field(default=(), name="additionalGids")
    intel_rdt: dict[str, object] | None = None
    net_devices: tuple[dict[str, object], ...] = ()


class Device(_Part, frozen=True):
    name: str
    annotations: dict[str, str] = {}
    container_edits: Edits = Edits()


class Spec(_Part, frozen=True):
    """One file: devices of one kind (`vendor.com/class`), and what is done for each of them."""

    cdi_version: str
    kind: str
    devices: tuple[Device, ...]
    annotations: dict[str, str] = {}
    container_edits: Edits = Edits()


def read(document: object) -> Spec:
    """A decoded file as a checked value; InvalidArgument for what it is not, NotImplemented for what it asks."""
    try:
        spec = msgspec.convert(document, Spec)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid CDI Spec: {error}") from error
    if spec.cdi_version not in VERSIONS:
        raise InvalidArgument(f'invalid version "{spec.cdi_version}"')
    vendor, slash, device_class = spec.kind.partition("/")
    if not slash or not _VENDOR.fullmatch(vendor) or not _VENDOR.fullmatch(device_class):
        raise InvalidArgument(f'invalid kind "{spec.kind}"')
    if not spec.devices:
        raise InvalidArgument("invalid spec, no devices")
    names = [device.name for device in spec.devices]
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise InvalidArgument(f'invalid device name "{name}"')
        if names.count(name) > 1:
            raise InvalidArgument(f'invalid spec, multiple device "{name}"')
    for edits in (spec.container_edits, *(device.container_edits for device in spec.devices)):
        _check(edits)
    least = _least_version(spec)
    if VERSIONS.index(spec.cdi_version) < VERSIONS.index(least):
        raise InvalidArgument(f"the spec version must be at least v{least} but is v{spec.cdi_version}")
    return spec


def _check(edits: Edits) -> None:
    for entry in edits.env:
        if "=" not in entry.lstrip("="):
            raise InvalidArgument(f'invalid environment variable "{entry}"')
    for node in edits.device_nodes:
        if not node.path or node.type not in ("", "b", "c", "u", "p") or set(node.permissions) - set("rwm"):
            raise InvalidArgument(f'invalid device node "{node.path}"')
    for mount in edits.mounts:
        if not mount.host_path or not mount.container_path:
            raise InvalidArgument("invalid mount, empty host or container path")
    for hook in edits.hooks:
        if hook.hook_name not in HOOKS or not hook.path:
            raise InvalidArgument(f'invalid hook "{hook.hook_name}"')
    if edits.intel_rdt is not None or edits.net_devices:
        raise NotImplemented("intelRdt and netDevices of CDI specifications are not implemented yet")


def _least_version(spec: Spec) -> str:
    """The version that brought what the file uses (`specs-go/version.go`, MinimumRequiredVersion)."""
    every = (spec.container_edits, *(device.container_edits for device in spec.devices))
    if any(edits.additional_gids for edits in every):
        return "0.7.0"
    if spec.annotations or any(device.annotations for device in spec.devices) or "." in spec.kind.partition("/")[2]:
        return "0.6.0"
    if any(not device.name[0].isalpha() for device in spec.devices):
        return "0.5.0"
    if any(node.host_path for edits in every for node in edits.device_nodes):
        return "0.5.0"
    if any(mount.type for edits in every for mount in edits.mounts):
        return "0.4.0"
    return "0.3.0" if VERSIONS.index(spec.cdi_version) >= VERSIONS.index("0.3.0") else spec.cdi_version
