"""API version negotiation, and the one table of what older versions are answered instead.

The structs of `hafen.spec.wire` are the newest version. A `Change` says that clients older than `before` get a shape in
its older form; changes are applied from the newest to the oldest, on plain JSON values. Docker takes out few of the
fields that older definitions lack, and so does this table. Sources: moby's API changelog, and `tests/differential`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import msgspec

from hafen.errors import InvalidArgument
from hafen.spec.wire import container, event, gojson, image, network, system, volume

Version = tuple[int, int]
Json = dict[str, object]

NEWEST: Final[Version] = (1, 55)
OLDEST: Final[Version] = (1, 24)

_PREFIX = re.compile(r"/v([0-9.]+)(?=/)")


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[str, str]:
    """The version a path asks for, as it is written (empty where it names none), and the rest. Not yet checked."""
    found = _PREFIX.match(path)
    return (found[1], path[found.end() :]) if found else ("", path)


def parse(asked: str) -> Version:
    """The first two numbers, 0 for those that are missing (moby: versions.compare); the newest where none is asked."""
    if not asked:
        return NEWEST
    major, minor = ([int(part[:9] or "0") for part in asked.split(".")] + [0])[:2]
    return major, minor


def check(asked: str) -> None:
    """InvalidArgument, in the words clients look for, where the version is not spoken here."""
    version = parse(asked)
    if version > NEWEST or (version == NEWEST and asked.split(".")[2:] > ["0"]):
        raise InvalidArgument(f"client version {asked} is too new. Maximum supported API version is {text(NEWEST)}")
    if version < OLDEST:
        raise InvalidArgument(
            f"client version {asked} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )


def encode(value: object, version: Version) -> bytes:
    """A wire struct, or a list of one kind of struct, as the JSON text that clients of `version` know."""
    sample = value[0] if isinstance(value, list) and value else value
    plain = value
    if version < _NEWEST_CHANGE.get(type(sample), OLDEST):
        plain = msgspec.to_builtins(value)
        for item in cast(list[Json], plain if isinstance(plain, list) else [plain]):
            _downgrade(item, type(sample), version)
    return gojson.encode(plain)


def brief_disk_usage(usage: system.DiskUsage) -> Json:
    """The sums without the objects they are made of, for whoever does not ask for those. The lists from before 1.52
    stay beside them, as in moby: docker-py 7.1 speaks the newest version there is and still reads them."""
    plain = cast(Json, msgspec.to_builtins(usage))
    _old_disk_usage(plain)
    for name in usage.__struct_encode_fields__:
        _object(plain.get(name)).pop("Items", None)
    return plain


def _downgrade(item: Json, shape: type, version: Version, inside: bool = False) -> None:
    for change in _BY_SHAPE.get(shape, ()):
        if version < change.before and (change.inside or not inside):
            change.apply(item)
    for field, inner in _NESTED.get(shape, ()):
        for part in _objects(item.get(field)):
            _downgrade(part, inner, version, inside=True)


@dataclass(frozen=True, slots=True)
class Change:
    """Clients older than `before` get `shape` as `apply` leaves it."""

    before: Version
    shape: type
    apply: Callable[[Json], None]
    inside: bool = True  # also where the shape is part of another answer


def _object(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[Json]:
    return cast(list[Json], value) if isinstance(value, list) else []


def _defaults(values: Json) -> Callable[[Json], None]:
    """Fields that were written though empty."""

    def apply(item: Json) -> None:
        for name, default in values.items():
            item.setdefault(name, default)

    return apply


def _absent(*names: str) -> Callable[[Json], None]:
    """Fields that did not exist yet."""

    def apply(item: Json) -> None:
        for name in names:
            item.pop(name, None)

    return apply


def _inside(field: str, change: Callable[[Json], None]) -> Callable[[Json], None]:
    """The same for an object inside."""

    def apply(item: Json) -> None:
        if isinstance(item.get(field), dict):
            change(_object(item[field]))

    return apply


def _each(field: str, change: Callable[[Json], None]) -> Callable[[Json], None]:
    """The same for every object of a list inside."""

    def apply(item: Json) -> None:
        for inner in _objects(item.get(field)):
            change(inner)

    return apply


def _inside_each(field: str, change: Callable[[Json], None]) -> Callable[[Json], None]:
    """The same for every object of a map inside."""

    def apply(item: Json) -> None:
        for inner in _object(item.get(field)).values():
            change(_object(inner))

    return apply


def _endpoints(change: Callable[[Json], None]) -> Callable[[Json], None]:
    def apply(item: Json) -> None:
        for endpoint in _object(_object(item.get("NetworkSettings")).get("Networks")).values():
            change(_object(endpoint))

    return apply


_FROM_DEFAULT_BRIDGE: Final = (
    ("EndpointID", ""), ("Gateway", ""), ("GlobalIPv6Address", ""), ("GlobalIPv6PrefixLen", 0), ("IPAddress", ""),
    ("IPPrefixLen", 0), ("IPv6Gateway", ""), ("MacAddress", ""),
)  # fmt: skip


def _old_network_settings(item: Json) -> None:
    """Before user-defined networks a container had one address; it stayed in the reply until 1.52."""
    settings = _object(item.get("NetworkSettings"))
    settings.update(Bridge="", HairpinMode=False, LinkLocalIPv6Address="", LinkLocalIPv6PrefixLen=0)
    settings.update(SecondaryIPAddresses=None, SecondaryIPv6Addresses=None)
    bridge = _object(_object(settings.get("Networks")).get("bridge"))
    for name, empty in _FROM_DEFAULT_BRIDGE:
        settings[name] = bridge.get(name, empty)


def _own_names_as_aliases(item: Json) -> None:
    """In networks of the user's the container's own names were among its aliases."""
    own = (str(item.get("Id", ""))[:12], _object(item.get("Config")).get("Hostname"))
    for network_name, endpoint in _object(_object(item.get("NetworkSettings")).get("Networks")).items():
        if network_name not in ("bridge", "host", "none"):
            given = cast(list[object], _object(endpoint).get("Aliases") or [])
            _object(endpoint)["Aliases"] = list(dict.fromkeys(name for name in (*given, *own) if name))


def _old_event(item: Json) -> None:
    """`status`, `id` and `from` of containers and images, from before events had actors."""
    actor = _object(item.get("Actor"))
    if item.get("Type") in ("container", "image"):
        item["status"], item["id"] = item.get("Action"), actor.get("ID")
    if item.get("Type") == "container":
        item["from"] = _object(actor.get("Attributes")).get("image", "")


def _old_disk_usage(item: Json) -> None:
    """One list per kind instead of one summary per kind."""
    images, containers = _object(item.get("ImageUsage")), _object(item.get("ContainerUsage"))
    volumes, builds = _object(item.get("VolumeUsage")), _object(item.get("BuildCacheUsage"))
    item["LayersSize"] = images.get("TotalSize", 0)
    item["Images"] = images.get("Items", [] if images or "ImageUsage" in item else None)
    item["Containers"] = containers.get("Items", [] if "ContainerUsage" in item else None)
    item["Volumes"] = volumes.get("Items", [] if "VolumeUsage" in item else None)
    item["BuildCache"] = builds.get("Items", [] if "BuildCacheUsage" in item else None)


def _virtual_size(item: Json) -> None:
    item["VirtualSize"] = item.get("Size", 0)


def _none_tags(item: Json) -> None:
    """Images without a name had a placeholder, those never pulled no list of digests."""
    if not item.get("RepoTags") and not item.get("RepoDigests"):
        item["RepoTags"], item["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]
    item["RepoDigests"] = item.get("RepoDigests") or None


def _old_image_container(item: Json) -> None:
    """The container that a build step ran in, which nobody has recorded since."""
    item.setdefault("ContainerConfig", {**_IMAGE_CONFIG_DEFAULTS, **_IMAGE_AS_CONTAINER})


def _exited_for_removing(item: Json) -> None:
    if item.get("State") == "removing":
        item["State"] = "exited"
    state = _object(item.get("State"))
    if state.get("Status") == "removing":
        state["Status"] = "exited"


_IMAGE_CONFIG_DEFAULTS: Final[Json] = {
    "Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "OnBuild": None, "User": "", "Volumes": None,
    "WorkingDir": "",
}  # fmt: skip
_IMAGE_AS_CONTAINER: Final[Json] = {
    "Hostname": "", "Domainname": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Image": "",
}  # fmt: skip
_ALLOW_NONDISTRIBUTABLE: Final[Json] = {
    "AllowNondistributableArtifactsCIDRs": None, "AllowNondistributableArtifactsHostnames": None,
}  # fmt: skip


def _expected_commits(item: Json) -> None:
    for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        commit = _object(item.get(name))
        commit["Expected"] = commit.get("ID", "")


def _names_among_aliases(item: Json) -> None:
    """Before 1.45 the short id and the hostname were aliases too, in networks that have names."""
    names = [str(item.get("Id", ""))[:12], str(_object(item.get("Config")).get("Hostname", ""))]
    networks = _object(_object(item.get("NetworkSettings")).get("Networks"))
    for name in networks.keys() - {"bridge", "host", "none"}:
        endpoint = _object(networks[name])
        endpoint["Aliases"] = list(dict.fromkeys([*cast(list[str], endpoint.get("Aliases") or []), *names]))


CHANGES: Final[tuple[Change, ...]] = (
    Change((1, 52), system.DiskUsage, _old_disk_usage),
    Change((1, 52), system.DiskUsage, _absent("ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage")),
    Change((1, 52), system.DiskUsage, _absent("RegistryUsage")),
    Change((1, 52), event.Event, _old_event),
    Change((1, 52), container.ContainerInspect, _old_network_settings),
    Change((1, 52), container.ContainerInspect, _inside("Config", _defaults({"OnBuild": None}))),
    Change((1, 52), container.ContainerSummary, _absent("Health")),
    Change((1, 52), container.StatsResponse, _absent("os_type")),
    Change((1, 52), network.NetworkInspect, _absent("Status")),
    Change((1, 52), network.NetworkSummary, _defaults({"Containers": {}})),
    Change((1, 52), image.ImageInspect, _inside("Config", _defaults(_IMAGE_CONFIG_DEFAULTS))),
    Change((1, 52), image.ImageInspect, _defaults({"Parent": "", "Comment": "", "DockerVersion": "", "Author": ""})),
    Change((1, 51), image.ImageSummary, lambda item: item.update(Containers=-1), inside=False),
    Change((1, 50), image.ImageInspect, _inside("Config", _defaults(_IMAGE_AS_CONTAINER))),
    Change((1, 50), system.SystemInfo, _absent("DiscoveredDevices")),
    Change((1, 50), system.SystemInfo, _defaults({"BridgeNfIptables": True, "BridgeNfIp6tables": True})),
    Change((1, 49), system.SystemInfo, _absent("FirewallBackend")),
    Change((1, 49), system.SystemInfo, _expected_commits),
    Change((1, 49), system.SystemInfo, _inside("RegistryConfig", _defaults(_ALLOW_NONDISTRIBUTABLE))),
    Change((1, 48), network.NetworkSummary, _absent("EnableIPv4")),
    Change((1, 48), network.NetworkInspect, _absent("EnableIPv4")),
    Change((1, 48), container.ContainerInspect, _absent("ImageManifestDescriptor")),
    Change((1, 48), container.ContainerInspect, _endpoints(_absent("GwPriority"))),
    Change((1, 48), container.ContainerSummary, _absent("ImageManifestDescriptor")),
    Change((1, 48), container.ContainerSummary, _endpoints(_absent("GwPriority"))),
    Change((1, 48), image.ImageInspect, _absent("Descriptor", "Manifests")),
    Change((1, 48), image.ImageSummary, _absent("Descriptor")),
    Change((1, 47), image.ImageSummary, _absent("Manifests")),
    Change((1, 45), container.ContainerInspect, _names_among_aliases),
    Change((1, 46), container.ContainerSummary, _inside("HostConfig", _absent("Annotations"))),
    Change((1, 45), container.ContainerInspect, _own_names_as_aliases),
    Change((1, 45), image.ImageInspect, _old_image_container),
    Change((1, 44), image.ImageInspect, _virtual_size),
    Change((1, 44), image.ImageInspect, _defaults({"Created": "0001-01-01T00:00:00Z"})),
    Change((1, 44), image.ImageSummary, _virtual_size),
    Change((1, 44), system.SystemInfo, _inside_each("Runtimes", _absent("status"))),
    Change((1, 43), image.ImageSummary, _none_tags),
    Change((1, 42), system.DiskUsage, _each("BuildCache", _absent("Parents"))),
    Change((1, 25), container.ContainerSummary, _exited_for_removing),
    Change((1, 25), container.ContainerInspect, _exited_for_removing),
    Change((1, 25), system.SystemInfo, _defaults({"ExecutionDriver": "<not supported>"})),
)

# Lists of shapes that have changes of their own, inside other answers
_NESTED: Final[dict[type, tuple[tuple[str, type], ...]]] = {
    system.DiskUsage: (
        ("Images", image.ImageSummary), ("Containers", container.ContainerSummary), ("Volumes", volume.Volume),
    ),
    volume.VolumeListResponse: (("Volumes", volume.Volume),),
}  # fmt: skip

_BY_SHAPE: Final[dict[type, tuple[Change, ...]]] = {
    shape: tuple(change for change in CHANGES if change.shape is shape) for shape in {one.shape for one in CHANGES}
}

_NEWEST_CHANGE: Final[dict[type, Version]] = {
    **{shape: max(change.before for change in changes) for shape, changes in _BY_SHAPE.items()},
    **dict.fromkeys(_NESTED, NEWEST),
}
