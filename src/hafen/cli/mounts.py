"""`--mount` and `--gpus`: comma-separated fields to the Engine API's JSON; pure but for absolute paths."""

import csv
import os

from hafen.client.engine import Document
from hafen.errors import InvalidArgument

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_NAMES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "subpath": "volume-subpath"}
_BIND = ("bind-propagation", "bind-nonrecursive", "bind-recursive", "idmap")
_VOLUME = ("volume-nocopy", "volume-label", "volume-driver", "volume-opt", "volume-subpath")
_TMPFS = ("tmpfs-size", "tmpfs-mode")


def fields_of(text: str) -> list[tuple[str, str, bool]]:
    """(name, value, has a value) of each field; a field may be quoted as in CSV."""
    rows = list(csv.reader([text]))
    return [(name.strip().lower(), value, bool(equals)) for name, equals, value in
            (field.partition("=") for field in (rows[0] if rows else []))]  # fmt: skip


def parse_mount(text: str) -> Document:
    """An element of `HostConfig.Mounts`."""
    mount: Document = {"Type": "volume"}
    used: set[str] = set()
    for written, value, has_value in fields_of(text):
        name = _NAMES.get(written, written) if written != "subpath" else "subpath"
        if not has_value and name not in ("readonly", "volume-nocopy", "bind-nonrecursive"):
            raise InvalidArgument(f"invalid field '{written}' must be a key=value pair")
        used.add(name)
        _set(mount, name, value if has_value else "true", f"{written}={value}" if has_value else written)
    _check(mount, used)
    return mount


def _set(mount: Document, name: str, value: str, field: str) -> None:
    if name == "type":
        mount["Type"] = value.lower()
    elif name == "source":
        # Docker resolves only what starts with a dot: other relative names are the engine's to refuse.
        mount["Source"] = os.path.abspath(value) if value == "." or value.startswith(("./", "../")) else value
    elif name == "target":
        mount["Target"] = value
    elif name == "readonly":
        mount["ReadOnly"] = _boolean(name, value)
    elif name == "consistency":
        mount["Consistency"] = value.lower()
    elif name in _BIND:
        _set_bind(mount.setdefault("BindOptions", {}), name, value)
    elif name in _VOLUME:
        _set_volume(mount.setdefault("VolumeOptions", {}), name, value)
    elif name in _TMPFS:
        _set_tmpfs(mount.setdefault("TmpfsOptions", {}), name, value)
    elif name in ("subpath", "image-subpath"):
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    else:
        raise InvalidArgument(f"unexpected key '{name}' in '{field}'")


def _set_bind(options: Document, name: str, value: str) -> None:
    if name == "idmap":
        options["IDMap"] = value
    elif name == "bind-propagation":
        options["Propagation"] = value.lower()
    elif name == "bind-nonrecursive":
        options["NonRecursive"] = _boolean(name, value)
    elif value in ("disabled", "writable", "readonly"):
        options["NonRecursive"] = value == "disabled"
        options["ReadOnlyNonRecursive"] = value == "writable"
        options["ReadOnlyForceRecursive"] = value == "readonly"
    elif value != "enabled":
        raise InvalidArgument(
            f'invalid value for {name}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
        )


def _set_volume(options: Document, name: str, value: str) -> None:
    if name == "volume-nocopy":
        options["NoCopy"] = _boolean(name, value)
    elif name == "volume-subpath":
        options["Subpath"] = value
    elif name == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    else:
        key, _, item = value.partition("=")
        target = options.setdefault("Labels", {})
        if name == "volume-opt":
            target = options.setdefault("DriverConfig", {}).setdefault("Options", {})
        target[key] = item


def _set_tmpfs(options: Document, name: str, value: str) -> None:
    if name == "tmpfs-mode":
        try:
            options["Mode"] = int(value, 8)
        except ValueError:
            raise InvalidArgument(f"invalid value for {name}: {value}") from None
        return
    from hafen.spec.units import parse_size

    try:
        options["SizeBytes"] = parse_size(value)
    except InvalidArgument:
        raise InvalidArgument(f"invalid value for {name}: {value}") from None


def _check(mount: Document, used: set[str]) -> None:
    if not mount["Type"]:
        raise InvalidArgument("type is required")
    if not mount.get("Target"):
        raise InvalidArgument("target is required")
    _check_recursive(mount)
    if "VolumeOptions" in mount:
        mount["VolumeOptions"].setdefault("DriverConfig", {})  # docker sends it empty, and inspect shows what was sent
    kinds = (("volume", _VOLUME), ("bind", _BIND), ("tmpfs", _TMPFS), ("image", ("image-subpath", "subpath")))
    for kind, names in kinds:
        if mount["Type"] != kind and used & set(names):
            raise InvalidArgument(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")


def _check_recursive(mount: Document) -> None:
    options = mount.get("BindOptions", {})
    for key, word in (("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")):
        if options.get(key) and not mount.get("ReadOnly"):
            raise InvalidArgument(f"option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction")
    if options.get("ReadOnlyForceRecursive") and options.get("Propagation") != "rprivate":
        raise InvalidArgument(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )


def _boolean(name: str, value: str) -> bool:
    if value not in _TRUE + _FALSE:
        raise InvalidArgument(f"invalid value for {name}: {value}")
    return value in _TRUE


def parse_gpus(text: str) -> Document:
    """An element of `HostConfig.DeviceRequests`: `all`, a number, or `device=0,capabilities=utility`."""
    request: Document = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    seen: set[str] = set()
    for name, value, has_value in fields_of(text):
        if name in seen:
            raise InvalidArgument(f"gpu request key '{name}' can be specified only once")
        seen.add(name)
        if not has_value or name == "count":
            request["Count"] = _gpu_count(value if has_value else name)
        elif name == "driver":
            request["Driver"] = value
        elif name == "device":
            request["DeviceIDs"] = value.split(",")
        elif name == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif name == "options":
            request["Options"] = {key: item for key, _, item in (pair.partition("=") for pair in value.split(","))}
        else:
            raise InvalidArgument(f"unexpected key '{name}' in '{name}={value}'")
    if "count" not in seen and request["DeviceIDs"] is None and request["Count"] == 0:
        request["Count"] = 1
    return request


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdigit():
        raise InvalidArgument(f'invalid count ({text}): value must be either "all" or an integer')
    return int(text)
