"""Steps that mount: the root, new file systems, binds, cgroups; made detached, attached by descriptor."""

import errno
import os
import posixpath
import stat

from hafen.errors import InvalidArgument, NotImplemented
from hafen.kernel import consts as k
from hafen.kernel import fs, mount, namespaces
from hafen.runtime.options import MountOptions, parse, split_layers
from hafen.runtime.stage import Stage
from hafen.spec.runtime_config import IDMapping, RootMount
from hafen.values import NamedTuple

Parameters = tuple[tuple[str, str | None], ...]


class Propagation(NamedTuple):
    """Nothing that is mounted here from now on shows up on the host."""

    flag: int
    recursive: bool

    def describe(self) -> str:
        return "setting the propagation of the mount namespace"

    def perform(self, stage: Stage) -> None:
        mount.set_propagation(self.flag, recursive=self.recursive)


class MountRoot(NamedTuple):
    """The container's root at `path`: these layers, or without any the directory itself."""

    path: str
    layers: tuple[RootMount, ...]

    def describe(self) -> str:
        kinds = ", ".join(layer.type for layer in self.layers) or "bind"
        return f"mounting the root file system ({kinds}) at {self.path}"

    def open_layers(self) -> list[int | None]:
        """Each layer as a detached mount, None where this kernel can only mount it on a path."""
        return [_detached_layer(layer) for layer in self._layers()]

    def _layers(self) -> tuple[RootMount, ...]:
        return self.layers or (RootMount("bind", self.path, ("rbind",)),)

    def perform(self, stage: Stage) -> None:
        for layer, fd in zip(self._layers(), stage.root_layers or self.open_layers(), strict=True):
            if fd is None:
                _mount_layer_by_path(layer, self.path)
                fd = os.open(self.path, k.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                target = os.open(self.path, k.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                mount.attach(fd, target)
                os.close(target)
            if stage.root >= 0:
                os.close(stage.root)
            stage.root = fd


def _detached_layer(layer: RootMount) -> int | None:
    """A detached mount of `layer`; None for an overlay on a kernel without `lowerdir+` (before 6.7)."""
    options = parse(layer.options)
    if layer.type == "bind" or options.bind:
        fd = mount.bind_fd(layer.source, recursive=options.recursive)
        mount.mount_setattr(fd, set=options.set, clear=options.clear, propagation=k.MS_PRIVATE)
        return fd
    if layer.type != "overlay":
        return mount.new_mount(layer.type, layer.source, options.parameters, options.set)
    lower, upper, work, extra = _overlay(options)
    try:
        return mount.overlay_fd(lower, upper, work, readonly=bool(options.set & k.MOUNT_ATTR_RDONLY), extra=extra)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise


def mount_layer(layer: RootMount, target: str) -> None:
    """`layer` on the directory `target`, in the mount namespace of the caller."""
    fd = _detached_layer(layer)
    if fd is None:
        _mount_layer_by_path(layer, target)
        return
    directory = os.open(target, k.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount.attach(fd, directory)
    finally:
        os.close(directory)
        os.close(fd)


def _mount_layer_by_path(layer: RootMount, target: str) -> None:
    options = parse(layer.options)
    lower, upper, work, extra = _overlay(options)
    mount.mount_overlay(target, lower, upper, work, readonly=bool(options.set & k.MOUNT_ATTR_RDONLY), extra=extra)


def _overlay(options: MountOptions) -> tuple[list[str], str | None, str | None, Parameters]:
    """lower directories, upper, work, and what else `options` say."""
    found = {key: value for key, value in options.parameters if key in ("lowerdir", "upperdir", "workdir")}
    lower = [value for key, value in options.parameters if key == "lowerdir+" and value]
    lower = split_layers(found.get("lowerdir") or "") if found.get("lowerdir") else lower
    extra = tuple(
        item for item in options.parameters if item[0] not in ("lowerdir", "lowerdir+", "upperdir", "workdir")
    )
    return lower, found.get("upperdir"), found.get("workdir"), extra


class NewMount(NamedTuple):
    """A new file system at `destination`. `no_links`: its path must hold no symbolic link (proc and sysfs)."""

    destination: str
    type: str
    source: str
    parameters: Parameters
    options: MountOptions
    no_links: bool = False

    def describe(self) -> str:
        return f"mounting {self.type} at {self.destination}"

    def perform(self, stage: Stage) -> None:
        fd = self._open()
        target = fs.make_directories(stage.root, self.destination)
        if self.no_links:  # else /proc -> /somewhere would leave the real one unmasked (CVE-2019-19921, CVE-2023-27561)
            os.close(target)
            target = fs.openat2(
                stage.root, self.destination.lstrip("/"), k.O_PATH | os.O_DIRECTORY,
                resolve=k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS,
            )  # fmt: skip
        if self.type == "proc":  # on top of whatever is there, also of another procfs
            mount.attach(fd, target)
        else:
            stage.attach(fd, target, self.destination)
        for flag, recursive in self.options.propagation:
            mount.mount_setattr(fd, propagation=flag, recursive=recursive)
        os.close(target)
        if fd != stage.empty:
            os.close(fd)

    def _open(self) -> int:
        try:
            return mount.new_mount(self.type, self.source, self.parameters, self.options.set)
        except PermissionError:
            # In a user namespace that does not own the network or IPC namespace: what the host has, as runc does.
            host = {"sysfs": "/sys", "mqueue": "/dev/mqueue"}.get(self.type)
            if host is None:
                raise
            fd = mount.bind_fd(host)
            mount.mount_setattr(fd, set=self.options.set, recursive=True)
            return fd
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise NotImplemented(f"this kernel has no file system {self.type!r}") from None
            raise


class Bind(NamedTuple):
    """A directory or file of the host at `destination`."""

    source: str
    destination: str
    options: MountOptions
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()

    def describe(self) -> str:
        mode = " read-only" if self.options.set & k.MOUNT_ATTR_RDONLY else ""
        return f"bind-mounting {self.source}{mode} at {self.destination}"

    def open_source(self, bundle: str) -> int:
        """The detached mount, its ids mapped, nothing else configured."""
        try:
            fd = mount.bind_fd(posixpath.join(bundle, self.source), recursive=self.options.recursive)
        except FileNotFoundError:
            raise InvalidArgument(f"bind source path does not exist: {self.source}") from None
        if self.uid_mappings:
            self._map_ids(fd)
        return fd

    @property
    def is_shared(self) -> bool:
        """Whether mounts below it must reach the host: it is opened while the namespace is still the host's peer."""
        return any(flag == k.MS_SHARED for flag, _ in self.options.propagation)

    def perform(self, stage: Stage) -> None:
        fd = stage.sources.pop(self, -1)
        if fd < 0:
            fd = self.open_source(stage.bundle)
        options = self.options
        if options.set or options.clear:
            mount.mount_setattr(fd, set=options.set, clear=options.clear)
        if options.set_all or options.clear_all:
            mount.mount_setattr(fd, set=options.set_all, clear=options.clear_all, recursive=True)
        for flag, recursive in options.propagation or ((k.MS_SLAVE, True),):
            mount.mount_setattr(fd, propagation=flag, recursive=recursive)
        target = self._target(stage, stat.S_ISDIR(os.fstat(fd).st_mode))
        if posixpath.normpath(self.destination) == "/proc" and fs.filesystem_type(fd) == k.PROC_SUPER_MAGIC:
            mount.attach(fd, target)
        else:
            stage.attach(fd, target, self.destination)
        os.close(target)
        os.close(fd)

    def _target(self, stage: Stage, directory: bool) -> int:
        """Where it goes, made when missing; looked up inside the root, once (CVE-2021-30465)."""
        if directory:
            return fs.make_directories(stage.root, self.destination)
        return fs.make_file(stage.root, self.destination, 0o755)

    def _map_ids(self, fd: int) -> None:
        user = namespaces.new_user_namespace(
            id_maps(self.uid_mappings), id_maps(self.gid_mappings or self.uid_mappings)
        )
        try:
            mount.mount_setattr(fd, userns=user, recursive=self.options.idmap_all)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotImplemented(f"the file system of {self.source} cannot map ids (idmapped mounts)") from None
            raise
        finally:
            os.close(user)


def id_maps(mappings: tuple[IDMapping, ...]) -> tuple[namespaces.IDMap, ...]:
    return tuple(namespaces.IDMap(*mapping) for mapping in mappings)


class MountCgroups(NamedTuple):
    """The container's own cgroup in every hierarchy: one mount for v2, a tmpfs with one for each controller for v1."""

    destination: str
    options: MountOptions

    def describe(self) -> str:
        return f"mounting cgroups at {self.destination}"

    def perform(self, stage: Stage) -> None:
        target = fs.make_directories(stage.root, self.destination)
        attributes = self.options.set
        if [hierarchy.name for hierarchy in stage.cgroup_mounts] == [""]:
            fd = mount.bind_fd(stage.cgroup_mounts[0].source, recursive=False)
            mount.mount_setattr(fd, set=attributes, propagation=k.MS_PRIVATE)
            stage.attach(fd, target, self.destination)
            return
        top = mount.new_mount("tmpfs", "tmpfs", (("mode", "755"),), attributes & ~k.MOUNT_ATTR_RDONLY)
        stage.attach(top, target, self.destination)
        for hierarchy in stage.cgroup_mounts:
            os.mkdir(hierarchy.name, 0o755, dir_fd=top)
            place = fs.openat2(top, hierarchy.name, k.O_PATH | os.O_DIRECTORY, resolve=k.RESOLVE_BENEATH)
            fd = mount.bind_fd(hierarchy.source, recursive=False)
            mount.mount_setattr(fd, set=attributes, propagation=k.MS_PRIVATE)
            mount.attach(fd, place)
            os.close(fd)
            os.close(place)
            for link in hierarchy.links:
                os.symlink(hierarchy.name, link, dir_fd=top)
        if attributes & k.MOUNT_ATTR_RDONLY:
            mount.mount_setattr(top, set=k.MOUNT_ATTR_RDONLY)
        os.close(top)
        os.close(target)
