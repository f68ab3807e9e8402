"""Parse `-v`, `--mount`, `--tmpfs`, volume strings into `MountPoint`; pure.

The grammar and the texts are those of moby's `volume/mounts/linux_parser.go`: what `docker create` says about a bad
specification is what clients and their tests match on.
"""

from __future__ import annotations

import posixpath

import msgspec

from hafen.errors import InvalidArgument, NotImplemented, System
from hafen.spec import idmaps
from hafen.spec.names import check_volume_name
from hafen.spec.wire.hostconfig import Mount

PROPAGATIONS = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
_ACCESS = frozenset(("ro", "rw"))
_LABELS = frozenset(("z", "Z"))
_OWN = frozenset("U")  # ours, named after podman's
_CONSISTENCY = frozenset(("consistent", "cached", "delegated", "default"))


class MountPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something mounted into a container on top of its root.

    `source` is a host path (bind), an image's reference (image), empty (tmpfs), or filled in when the volume exists;
    `name` is a volume's, empty for an anonymous one until it is made, or an image's id. `mode` is what the user wrote
    after the second colon. `idmap` is a map of ids (`spec.idmaps`), or `U`: the owner of the source, and the
    container's user, are each other. `driver` is empty where none was asked for, until the volume exists.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    create_source: bool = False
    copy_up: bool = False
    anonymous: bool = False
    nonrecursive: bool = False
    read_only_nonrecursive: bool = False
    read_only_force_recursive: bool = False
    subpath: str = ""
    labels: dict[str, str] = {}
    driver_options: dict[str, str] = {}
    tmpfs_options: tuple[str, ...] = ()
    from_tmpfs: bool = False
    idmap: str = ""

    def snapshot(self, container_id: str) -> str:
        """Key of the snapshot behind a mounted image."""
        return f"{container_id}:{self.destination}"


def parse_bind(text: str, volume_driver: str = "") -> MountPoint:
    """One of `HostConfig.Binds`: `source:destination[:mode]`, `name:destination[:mode]` or `destination`."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts) or (len(parts) == 2 and _is_mode(parts[1])):
        raise System(f"invalid volume specification: '{text}'")
    source, destination, mode = "", parts[0], ""
    if len(parts) > 1:
        source, destination = parts[0], parts[1]
    if len(parts) > 2:
        mode = parts[2]
    options = _parse_mode(mode)
    kind = "bind" if source.startswith("/") else "volume"
    prefix = f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
    try:
        destination = _check_destination(destination)
    except InvalidArgument as error:
        raise System(prefix + error.message) from error
    propagation = next((option for option in options if option in PROPAGATIONS), "")
    if kind == "bind":
        if "nocopy" in options:
            raise System(f"{prefix}field VolumeOptions must not be specified")
        return MountPoint(
            type="bind",
            source=_clean(source),
            destination=destination,
            mode=mode,
            rw="ro" not in options,
            propagation=propagation or "rprivate",
            create_source=True,
            idmap="U" if "U" in options else "",
        )
    if "U" in options:
        raise System(f"{prefix}the mode U is of bind mounts")
    if propagation:
        raise System(f"{prefix}field BindOptions must not be specified")
    if source:
        check_volume_name(source)
    return MountPoint(
        type="volume",
        name=source,
        destination=destination,
        driver=volume_driver,
        mode=mode or ("z" if source else ""),
        rw="ro" not in options,
        copy_up="nocopy" not in options,
        anonymous=not source,
    )


def _is_mode(text: str) -> bool:
    """What is no destination, though it stands where one would."""
    try:
        return bool(_parse_mode(text))
    except System:
        return False


def _parse_mode(mode: str) -> tuple[str, ...]:
    options = tuple(mode.split(",")) if mode else ()
    groups = (_ACCESS, _LABELS, PROPAGATIONS, _CONSISTENCY, _OWN, frozenset(("nocopy",)))
    for option in options:
        if not any(option in group for group in groups):
            raise System(f"invalid mode: {mode}")
    if any(sum(option in group for option in options) > 1 for group in groups):
        raise System(f"invalid mode: {mode}")
    return options


def _check_destination(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    cleaned = _clean(path)
    if cleaned == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    return cleaned


def _clean(path: str) -> str:
    """`normpath` keeps POSIX's double slash at the front; the kernel and Go do not."""
    return posixpath.normpath("/" + path.lstrip("/"))


def image_volume(destination: str, volume_driver: str = "") -> MountPoint | None:
    """A VOLUME of an image, or of `Config.Volumes`, an anonymous volume; one that is relative lies below the root. None
    for the root itself, which Docker skips."""
    cleaned = _clean(f"/{destination}")
    if cleaned == "/":
        return None
    return MountPoint(type="volume", destination=cleaned, driver=volume_driver, copy_up=True, anonymous=True)


def parse_tmpfs(destination: str, options: str) -> MountPoint:
    """One of `HostConfig.Tmpfs`; the options are checked by the kernel when the container starts."""
    words = tuple(word for word in options.split(",") if word)
    return MountPoint(
        type="tmpfs",
        destination=_check_destination(destination),
        mode=options,
        rw="ro" not in words,
        tmpfs_options=("noexec", "nosuid", "nodev", *words),
        from_tmpfs=True,
    )


def parse_mount(mount: Mount) -> MountPoint:
    """One of `HostConfig.Mounts`."""
    kind = mount.type
    prefix = f'invalid mount config for type "{kind}": '
    try:
        if not mount.target:
            raise InvalidArgument("field Target must not be empty")
        destination = _check_destination(mount.target)
        if kind == "bind":
            return _bind_mount(mount, destination)
        if kind == "volume":
            return _volume_mount(mount, destination)
        if kind == "tmpfs":
            return _tmpfs_mount(mount, destination)
        if kind == "image":
            return _image_mount(mount, destination)
        raise InvalidArgument("mount type unknown")
    except _Foreign as error:
        raise InvalidArgument(error.message) from error
    except InvalidArgument as error:
        if error.message.startswith("create "):  # a volume's name, which Docker checks elsewhere
            raise
        raise InvalidArgument(prefix + error.message) from error


class _Foreign(InvalidArgument):
    """Options of another mount type, whose message has no prefix."""


def _refuse_options(mount: Mount, *fields: str) -> None:
    for field in fields:
        if getattr(mount, f"{field}_options") is not None:
            name = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions"}[field]
            raise _Foreign(f'{name} must not be specified on mount type "{mount.type}"')


def _bind_mount(mount: Mount, destination: str) -> MountPoint:
    _refuse_options(mount, "volume", "tmpfs")
    if not mount.source:
        raise InvalidArgument("field Source must not be empty")
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{mount.source}' mount path must be absolute")
    options = mount.bind_options
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f"invalid propagation mode: {propagation}")
    idmap = options.id_map if options else ""
    if idmap:
        idmaps.parse(idmap)
    return MountPoint(
        idmap=idmap,
        type="bind",
        source=_clean(mount.source),
        destination=destination,
        rw=not mount.read_only,
        propagation=propagation,
        create_source=bool(options and options.create_mountpoint),
        nonrecursive=bool(options and options.non_recursive),
        read_only_nonrecursive=bool(options and options.read_only_non_recursive),
        read_only_force_recursive=bool(options and options.read_only_force_recursive),
    )


def _volume_mount(mount: Mount, destination: str) -> MountPoint:
    _refuse_options(mount, "bind", "tmpfs")
    options = mount.volume_options
    driver = options.driver_config if options else None
    if mount.source:
        check_volume_name(mount.source)
    subpath = (options.subpath if options else "") or ""
    if subpath and not mount.source:
        raise InvalidArgument("must not set Subpath when using anonymous volumes")
    _check_subpath(subpath, "volume")
    return MountPoint(
        type="volume",
        name=mount.source or "",
        destination=destination,
        driver=(driver.name if driver else "") or "",
        driver_options=dict((driver.options if driver else None) or {}),
        labels=dict((options.labels if options else None) or {}),
        mode="z",
        rw=not mount.read_only,
        copy_up=not (options and options.no_copy),
        anonymous=not mount.source,
        subpath=posixpath.normpath(subpath) if subpath else "",
    )


def _image_mount(mount: Mount, destination: str) -> MountPoint:
    """What a container writes there goes with the container (API 1.48)."""
    _refuse_options(mount, "bind", "volume", "tmpfs")
    if not mount.source:
        raise InvalidArgument("field Source must not be empty")
    if mount.image_options and mount.image_options.subpath:
        raise NotImplemented("subpaths of image mounts are not implemented yet")
    return MountPoint(type="image", source=mount.source, destination=destination, rw=not mount.read_only)


def _check_subpath(subpath: str, what: str) -> None:
    if subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == "..":
        raise InvalidArgument(f"subpath must be a relative path within the {what}")


def _tmpfs_mount(mount: Mount, destination: str) -> MountPoint:
    _refuse_options(mount, "bind", "volume")
    if mount.source:
        raise InvalidArgument("field Source must not be specified")
    options = mount.tmpfs_options
    words = ["noexec", "nosuid", "nodev"]
    if mount.read_only:
        words.append("ro")
    if options is not None:
        if options.size_bytes:
            words.append(f"size={options.size_bytes}")
        if options.mode:
            words.append(f"mode={options.mode:o}")
        for option in options.options or ():
            words.append("=".join(option))
    return MountPoint(type="tmpfs", destination=destination, rw=not mount.read_only, tmpfs_options=tuple(words))


def parse_volumes_from(text: str) -> tuple[str, str]:
    """(container, mode) of one of `HostConfig.VolumesFrom`: `container[:ro|rw|z|Z]`."""
    if not text:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    try:
        _parse_mode(mode)
    except System as error:
        raise InvalidArgument(error.message) from error
    return container, mode or "rw"
