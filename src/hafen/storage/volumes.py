"""`VolumeDriver`, what every kind of volume is behind, and `local`: a directory, or what is mounted on it.

    create  →  (mount  →  unmount)*  →  remove

A driver keeps no state of its own that a restart could lose: who uses a volume, and whether it is mounted, is the
engine's to remember. `mount` and `unmount` come in turn, once for all users together.

`mount` puts the volume where the host sees it, as moby's driver and the plug-in protocol have it: that is what lets
several containers share one tmpfs, one overlay or one NFS client. A plain local volume needs no mount at all.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from hafen.errors import HafenError, InvalidArgument, System
from hafen.kernel import consts, fs, mount
from hafen.spec import volumeoptions
from hafen.storage import merge, treedelete, volumemount, volumequota


@dataclass(frozen=True, slots=True)
class Volume:
    """What a driver is told of a volume."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a driver tells of one. `mountpoint` is empty where it is not mounted, `created_at` where nobody knows."""

    name: str
    mountpoint: str = ""
    created_at: str = ""
    status: Mapping[str, object] = field(default_factory=dict)


class VolumeDriver(Protocol):
    """A kind of volumes. Every call may block, but for those of an `instant` driver before `mount`."""

    @property
    def name(self) -> str: ...

    @property
    def scope(self) -> str:
        """`local`, or `global` where all machines see the same volumes."""

    @property
    def instant(self) -> bool:
        """Whether `create`, `remove`, `get` and `list` return at once."""

    def create(self, volume: Volume) -> None:
        """Harmless where it is there already. Errors: InvalidArgument for options that make no sense."""

    def remove(self, volume: Volume) -> Callable[[], None] | None:
        """After this it does not exist; what is left of its files goes when the returned function is called."""

    def needs_mount(self, volume: Volume) -> bool:
        """Whether `path` is the volume only between `mount` and `unmount`."""

    def mount(self, volume: Volume) -> str:
        """Where it is now, an absolute path of the host's. Errors: System and Unavailable, with the reason."""

    def unmount(self, volume: Volume) -> None:
        """Harmless where it is not mounted."""

    def path(self, volume: Volume) -> str:
        """Where it is, or will be once it is mounted; may be empty where only the mount tells."""

    def get(self, name: str) -> Found | None: ...

    def list(self) -> list[Found]:
        """All that the driver knows of."""


class Drivers(Protocol):
    """The drivers of an engine, by name."""

    def find(self, name: str) -> VolumeDriver:
        """NotFound for a name that nothing answers to. May block."""

    def built_in(self) -> list[VolumeDriver]:
        """Those that are part of the engine, all of them instant; `local` first. Does not block."""

    def known(self) -> list[VolumeDriver]:
        """Those that are there now: the same, then plug-ins. May block."""


class LocalVolumes:
    """Directories `<root>/<name>/_data`; options mount something on it (see `volumemount`).

    Drivers that mount something else there say in their place what `check`, `needs_mount` and `attach` do.
    """

    name = "local"
    scope = "local"
    instant = True

    def __init__(self, root: str) -> None:
        self._root = root
        os.makedirs(root, mode=0o701, exist_ok=True)
        _sweep(root)

    def check(self, options: Mapping[str, str]) -> None:
        """InvalidArgument for options that make no sense."""
        if volumeoptions.parse(options).size and not volumequota.is_supported(self._root):
            raise InvalidArgument("quota size requested but no quota support")

    def needs_mount(self, volume: Volume) -> bool:
        return volumeoptions.parse(volume.options).mounts

    def attach(self, volume: Volume, path: str) -> None:
        """Mount it there."""
        volumemount.mount(volumeoptions.parse(volume.options), path)

    def prepare(self, volume: Volume, path: str) -> None:
        """What a new directory needs."""
        if size := volumeoptions.parse(volume.options).size:
            volumequota.limit(path, size, [found.mountpoint for found in self.list()])

    def create(self, volume: Volume) -> None:
        self.check(volume.options)
        path = make_directory(self._root, volume.name)
        self.prepare(volume, path)

    def remove(self, volume: Volume) -> Callable[[], None]:
        self.unmount(volume)
        directory = os.path.join(self._root, volume.name)
        if mounts := mounts_in(directory):
            raise System(f"error removing volume path '{directory}': {mounts[0]} is mounted: device or resource busy")
        if volume.options.get("size"):
            volumequota.release(self.path(volume))
        return set_aside(self._root, volume.name)

    def mount(self, volume: Volume) -> str:
        path = make_directory(self._root, volume.name)
        if self.needs_mount(volume) and not is_mounted(path):
            self.attach(volume, path)
        return path

    def unmount(self, volume: Volume) -> None:
        unmount(self.path(volume))

    def path(self, volume: Volume) -> str:
        return data_directory(self._root, volume.name)

    def get(self, name: str) -> Found | None:
        path = data_directory(self._root, name)
        return Found(name, path) if os.path.isdir(path) else None

    def list(self) -> list[Found]:
        with os.scandir(self._root) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        return [Found(name, data_directory(self._root, name)) for name in names]


def data_directory(root: str, name: str) -> str:
    return os.path.join(root, name, "_data")


def make_directory(root: str, name: str) -> str:
    """The volume's directory, made where it is missing."""
    directory = data_directory(root, name)
    if not os.path.isdir(directory):
        os.makedirs(directory, exist_ok=True)
        os.chmod(os.path.dirname(directory), 0o701)
        os.chmod(directory, 0o755)
    return directory


def is_mounted(path: str) -> bool:
    """Whether `path` is a mount of its own. A bind of the same file system has its parent's device: the mount's id is
    what tells."""
    try:
        return fs.mount_id(consts.AT_FDCWD, path) != fs.mount_id(consts.AT_FDCWD, os.path.dirname(path))
    except FileNotFoundError:
        return False


def unmount(path: str) -> None:
    """Take away all that is mounted on `path`. Who still has files open there keeps them (MNT_DETACH)."""
    while is_mounted(path):
        mount.umount(path, consts.MNT_DETACH | consts.UMOUNT_NOFOLLOW)


def mounts_in(path: str) -> list[str]:
    """Where something is mounted, at `path` or below; proc_pid_mountinfo(5)."""
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ", 5)[4])
            if point == path or point.startswith(path + "/"):
                found.append(point)
    return found


_TRASH = ".removing-"


def set_aside(root: str, name: str) -> Callable[[], None]:
    """Rename a volume's files away; the returned function deletes them."""
    trash = os.path.join(root, _TRASH + name)
    if os.path.lexists(trash):
        _delete(trash)  # of a volume that had the same name, and a crash
    try:
        os.rename(os.path.join(root, name), trash)
    except FileNotFoundError:
        pass  # a crash came after the rename
    return partial(_delete, trash)


def _sweep(root: str) -> None:
    """Delete what was set aside before a crash."""
    for path in list(_set_aside(root)):
        _delete(path)


def _set_aside(root: str) -> Iterator[str]:
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(_TRASH):
                yield entry.path


def _delete(trash: str) -> None:
    """Never what is mounted there: that is somebody's NFS server or home directory."""
    unmount(os.path.join(trash, "_data"))
    treedelete.delete(trash)


class LocalDrivers:
    """`Drivers` of `local` and others that are part of the engine; `plugins` are asked for all other names."""

    def __init__(self, *drivers: VolumeDriver, plugins: Drivers) -> None:
        self._drivers = {driver.name: driver for driver in drivers}
        self._plugins = plugins

    def find(self, name: str) -> VolumeDriver:
        own = self._drivers.get(name or "local")
        return self._plugins.find(name) if own is None else own

    def built_in(self) -> list[VolumeDriver]:
        return list(self._drivers.values())

    def known(self) -> list[VolumeDriver]:
        return [*self.built_in(), *self._plugins.known()]


def explained(error: HafenError, what: str) -> HafenError:
    """The same kind of error, with what was tried before its text."""
    return type(error)(f"{what}: {error.message}")


def size_of(directory: str) -> int:
    """Bytes of the files below a directory; what vanishes meanwhile does not count."""
    try:
        return sum(one.st_size for one in merge.inside(directory) if not stat.S_ISDIR(one.st_mode))
    except FileNotFoundError:
        return 0
