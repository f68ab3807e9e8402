"""CDI devices: found in the specification files of this host, and put into a container's configuration at its start.

Files are read at each start that asks for a device, and for `info`: vendors' tools write them at any time. Directories
that come later win; two files of one directory that know the same device make it unusable.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hafen.engine import hostfacts
from hafen.errors import HafenError, InvalidArgument, System
from hafen.spec import cdi
from hafen.spec.runtime_config import Config, Device, DeviceRule, Hook, Hooks, Mount, Resources
from hafen.spec.wire.hostconfig import DeviceRequest

log = logging.getLogger(__name__)

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_HOOKS = dict(zip(cdi.HOOKS, Hooks._fields, strict=True))


@dataclass(frozen=True, slots=True)
class Registry:
    """The specification files of some directories."""

    directories: Sequence[str] = DIRECTORIES

    def devices(self) -> dict[str, tuple[cdi.Spec, cdi.Device]]:
        """Every usable device by its full name, `vendor.com/class=name`. Files that are wrong are warned of."""
        found: dict[str, tuple[cdi.Spec, cdi.Device]] = {}
        for directory in self.directories:
            here: dict[str, tuple[cdi.Spec, cdi.Device]] = {}
            conflicts = set()
            for spec in _specs(directory):
                for device in spec.devices:
                    name = f"{spec.kind}={device.name}"
                    if name in here:
                        conflicts.add(name)
                        log.warning("CDI: several files of %s have device %s", directory, name)
                    here[name] = (spec, device)
            found.update(here)
            for name in conflicts:
                del found[name]
        return found

    def inject(self, config: Config, requests: Iterable[DeviceRequest]) -> Config:
        """The configuration with the devices that are asked for. System with Docker's texts for those that are not
        there, and for requests that no driver here serves."""
        names: list[str] = []
        for request in requests:
            if request.driver != "cdi":
                asked = " ".join(f"[{' '.join(group)}]" for group in request.capabilities or ())
                raise System(f'could not select device driver "{request.driver}" with capabilities: [{asked}]')
            names += request.device_ids or ()
        if not names:
            return config
        known = self.devices()
        missing = [name for name in names if name not in known]
        if missing:
            raise System(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
        specs: list[cdi.Spec] = []
        for name in names:
            spec, device = known[name]
            if not any(spec is one for one in specs):
                specs.append(spec)
                config = edited(config, spec.container_edits)
            config = edited(config, device.container_edits)
        return config


def _specs(directory: str) -> list[cdi.Spec]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith((".json", ".yaml")))
    except OSError:  # most hosts have none
        return []
    found = []
    for name in names:
        path = os.path.join(directory, name)
        try:
            found.append(cdi.read(_decoded(path)))
        except (HafenError, OSError) as error:
            log.warning("CDI: %s: %s", path, error)
    return found


def _decoded(path: str) -> object:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if path.endswith(".json"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidArgument(f"not JSON: {error}") from error
    import yaml  # type: ignore[import-untyped] # it has none; here, as few hosts have such files

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidArgument(f"not YAML: {error}") from error


def _told(found: Device, node: cdi.DeviceNode) -> Device:
    """The host's device with what the file says otherwise."""
    return found._replace(
        type=node.type or found.type,
        major=node.major or found.major,
        minor=node.minor or found.minor,
        file_mode=found.file_mode if node.file_mode is None else node.file_mode,
        uid=found.uid if node.uid is None else node.uid,
        gid=found.gid if node.gid is None else node.gid,
    )


def edited(config: Config, edits: cdi.Edits) -> Config:
    """The configuration with a specification's edits (`pkg/cdi/container-edits.go`)."""
    process, linux = config.process, config.linux
    resources = linux.resources or Resources()
    assert process is not None
    replaced = {entry.partition("=")[0] for entry in edits.env}
    env = (*(entry for entry in process.env if entry.partition("=")[0] not in replaced), *edits.env)
    gids = dict.fromkeys((*process.user.additional_gids, *(gid for gid in edits.additional_gids if gid)))
    user = process.user._replace(additional_gids=tuple(gids))
    taken = {node.path for node in edits.device_nodes}
    devices, rules = [one for one in linux.devices if one.path not in taken], list(resources.devices)
    for node in edits.device_nodes:
        for device in hostfacts.devices_at(node.host_path or node.path, node.path):
            device = _told(device, node)
            devices.append(device)
            if device.type in ("b", "c"):
                rules.append(DeviceRule(True, device.type, device.major, device.minor, node.permissions or "rwm"))
    places = {mount.container_path for mount in edits.mounts}
    mounts = [mount for mount in config.mounts if mount.destination not in places]
    for mount in edits.mounts:
        mounts.append(Mount(mount.container_path, mount.type or "bind", mount.host_path, mount.options or ("rbind",)))
    hooks = config.hooks
    for hook in edits.hooks:
        field = _HOOKS[hook.hook_name]
        made = Hook(hook.path, hook.args, hook.env, hook.timeout)
        hooks = hooks._replace(**{field: (*getattr(hooks, field), made)})
    return config._replace(
        process=process._replace(env=env, user=user),
        mounts=tuple(mounts),
        hooks=hooks,
        linux=linux._replace(devices=tuple(devices), resources=resources._replace(devices=tuple(rules))),
    )
