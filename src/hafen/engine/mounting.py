"""A container's mount points as OCI mounts: their sources found, or made where Docker makes them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from hafen.engine import specgen, subpaths
from hafen.engine.events import Events
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Record
from hafen.engine.volumes import Volumes
from hafen.errors import HafenError, InvalidArgument, System
from hafen.kernel import consts, mount
from hafen.runtime import identity
from hafen.spec import idmaps
from hafen.spec.mounts import MountPoint
from hafen.spec.runtime_config import Mount, User
from hafen.storage.snapshot import Snapshotter


@dataclass(frozen=True, slots=True)
class Mounting:
    """What a start needs to know of a container's mounts."""

    snapshotter: Snapshotter
    volumes: Volumes
    paths: Paths
    events: Events

    async def mounts(self, record: Record, held: ExitStack) -> tuple[Mount, ...]:
        """The container's own mounts. Its volumes are mounted until `release`; sources can be bound until `held` is
        closed. Errors: Docker's texts, with the source that is missing."""
        volumes = (point.name for point in record.mounts if point.type == "volume" and point.rw)
        await self.volumes.holds.enter(volumes)
        found: list[Mount] = []
        for point in record.mounts:
            if point.type == "image":
                found += self._image_mounts(record, point)
            else:
                found.append(await self._mount(record, point, held))
        return tuple(found)

    def tell(self, record: Record, action: str) -> None:
        """The event of each volume: `mount` at a start, `unmount` at an exit."""
        for point in record.mounts:
            if point.type != "volume":
                continue
            attributes = {"container": record.id, "driver": point.driver}
            if action == "mount":
                access = "true" if point.rw else "false"
                attributes |= {"destination": point.destination, "propagation": "", "read/write": access}
            self.events.publish("volume", action, point.name, attributes)

    def _image_mounts(self, record: Record, point: MountPoint) -> Iterator[Mount]:
        for layer in self.snapshotter.mounts(point.snapshot(record.id)):
            access = () if point.rw else ("ro",)
            yield Mount(point.destination, layer.type, layer.source, (*layer.options, *access))

    async def _mount(self, record: Record, point: MountPoint, held: ExitStack) -> Mount:
        if point.type == "tmpfs":
            _check_tmpfs(point)
            return specgen.tmpfs_mount(point)
        if point.type == "bind":
            _check_read_only(point)
            source = _bind_source(point)
            if point.propagation not in ("", "private", "rprivate"):
                _check_propagation(source, point.propagation)
            maps = await asyncio.to_thread(self._maps, record, source, point.idmap) if point.idmap else ()
            return Mount(point.destination, "bind", source, specgen.bind_options(point), *maps)
        source = await self._mount_volume(record, point)
        if point.subpath:
            source = subpaths.hold(source, point.subpath, self.paths.subpaths, held)
        return Mount(point.destination, "bind", source, specgen.bind_options(point))

    def _maps(self, record: Record, source: str, idmap: str) -> idmaps.Maps:
        """Of users and of groups; the user's name is looked up in the container's files."""
        if idmap != "U":
            return idmaps.parse(idmap)
        owner = os.stat(source)
        root = self.snapshotter.tree(record.id).open_root(readonly=True)
        try:
            user = identity.resolve(root, User(name=record.config.user))
        finally:
            os.close(root)
        return idmaps.exchanged(owner.st_uid, user.uid), idmaps.exchanged(owner.st_gid, user.gid)

    async def _mount_volume(self, record: Record, point: MountPoint) -> str:
        volume = self.volumes.get(point.name)
        try:
            return await self.volumes.mounts.mount(volume, record.id)
        except HafenError as error:
            source = self.volumes.mounts.mountpoint(volume)
            # Not NotFound where a plug-in is: clients would take it for a missing image.
            raise System(f"error while mounting volume '{source}': {error.message}") from error

    def release_volumes(self, record: Record) -> None:
        """The container has ended, or has not come to run."""
        for point in record.mounts:
            if point.type == "volume" and (volume := self.volumes.find(point.name)) is not None:
                self.volumes.mounts.release(volume, record.id)

    def shm_path(self, record: Record) -> str:
        return os.path.join(self.paths.container(record.id), "shm")

    def make_shared_shm(self, record: Record) -> str:
        """/dev/shm of a container that shares its IPC namespace must be reachable for others: a mount on the host,
        which is the one exception to "nothing of a container is mounted on the host"."""
        path = self.shm_path(record)
        os.makedirs(path, exist_ok=True)
        if not os.path.ismount(path):
            flags = consts.MS_NOSUID | consts.MS_NOEXEC | consts.MS_NODEV
            mount.mount("shm", path, "tmpfs", flags, f"mode=1777,size={record.host_config.shm_size}")
        return path

    def release(self, record: Record) -> None:
        """Undo `make_shared_shm`, and let go of the volumes."""
        self.release_volumes(record)
        if record.host_config.ipc_mode != "shareable":
            return
        path = self.shm_path(record)
        if os.path.ismount(path):
            mount.umount(path, consts.MNT_DETACH)

    def shm(self, record: Record, donor: Container | None) -> str | None:
        """The directory to bind at /dev/shm; None for a private tmpfs."""
        mode = record.host_config.ipc_mode
        if mode == "host":
            return "/dev/shm"
        if donor is not None:
            return self.shm_path(donor.record)
        if mode == "shareable":
            return self.make_shared_shm(record)
        return None


def _bind_source(point: MountPoint) -> str:
    if os.path.lexists(point.source):
        return point.source
    if not point.create_source:
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {point.source}')
    try:
        os.makedirs(point.source, 0o755)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise System(
            f"error while creating mount source path '{point.source}': mkdir {point.source}: {reason}"
        ) from error
    return point.source


# Options of `--tmpfs` that are not tmpfs(5)'s own, as moby's mount package knows them.
_TMPFS_WORDS = frozenset((
    "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "remount", "mand",
    "nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable", "runbindable", "private",
    "rprivate", "shared", "rshared", "slave", "rslave", "relatime", "norelatime", "strictatime", "nostrictatime",
    "mpol", "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "noswap",
))  # fmt: skip


def _check_tmpfs(point: MountPoint) -> None:
    for option in point.tmpfs_options:
        name, equals, _ = option.partition("=")
        if name not in _TMPFS_WORDS or (name == "size" and not equals):
            raise System(f'invalid tmpfs option "{option}"')


def _check_read_only(point: MountPoint) -> None:
    """Options that contradict each other (moby `daemon/oci_linux.go`, WithMounts)."""
    for given, name in (
        (point.read_only_nonrecursive, "ReadOnlyNonRecursive"),
        (point.read_only_force_recursive, "ReadOnlyForceRecursive"),
    ):
        if given and point.rw:
            raise System(f"mount options conflict: !ReadOnly && BindOptions.{name}")
    if point.read_only_nonrecursive and point.read_only_force_recursive:
        raise System("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")


def _check_propagation(source: str, wanted: str) -> None:
    """What is to share mounts with the host must lie on a mount that does (proc_pid_mountinfo(5), optional fields)."""
    path, best, tags = os.path.realpath(source), "", ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, _ = line.partition(" - ")
            point, *optional = fields.split(" ")[4:]
            point = point.replace("\\040", " ")
            if len(point) >= len(best) and (path == point or path.startswith(point.rstrip("/") + "/")):
                best, tags = point, " ".join(optional[1:])
    shared, slave = "shared:" in tags, "master:" in tags
    if wanted in ("shared", "rshared") and not shared:
        raise System(f"path {source} is mounted on {best} but it is not a shared mount")
    if wanted in ("slave", "rslave") and not shared and not slave:
        raise System(f"path {source} is mounted on {best} but it is not a shared or slave mount")
