"""Steps that are no mounts of the configuration: devices, console, names, sysctls, masks, hooks, and the pivot."""

import errno
import os
import posixpath
import socket
import stat

from hafen.errors import InvalidArgument, NotImplemented, System
from hafen.kernel import consts as k
from hafen.kernel import fs, mount, namespaces, tty
from hafen.runtime import hooks
from hafen.runtime.devices import Node
from hafen.runtime.stage import Stage
from hafen.spec.runtime_config import Hook
from hafen.values import NamedTuple


class MakeDevices(NamedTuple):
    """Device nodes by mknod, where that is not permitted (a user namespace) by binding the host's."""

    nodes: tuple[Node, ...]

    def describe(self) -> str:
        return f"making devices {', '.join(node.path for node in self.nodes)}"

    def perform(self, stage: Stage) -> None:
        parents: dict[str, int] = {}
        for node in self.nodes:
            head, name = posixpath.split(posixpath.normpath("/" + node.path.lstrip("/")))
            if head not in parents:
                parents[head] = fs.make_directories(stage.root, head)
            if stage.user_namespace:  # mknod(2) of a device needs CAP_MKNOD in the first user namespace
                self._bind(stage, node)
            else:
                self._create(parents[head], name, node)
        for fd in parents.values():
            os.close(fd)

    @staticmethod
    def _create(parent: int, name: str, node: Node) -> None:
        device = os.makedev(node.major, node.minor)
        try:
            os.mknod(name, node.mode, device, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or found.st_rdev != device:
                raise System(f"{node.path} exists in the root and is another file") from None
            return
        if node.uid or node.gid:
            os.chown(name, node.uid, node.gid, dir_fd=parent, follow_symlinks=False)

    @staticmethod
    def _bind(stage: Stage, node: Node) -> None:
        fd = mount.bind_fd(node.path, recursive=False)
        if os.fstat(fd).st_rdev != os.makedev(node.major, node.minor):
            raise System(f"the host's {node.path} is another device")
        target = fs.make_file(stage.root, node.path)
        mount.attach(fd, target)
        os.close(target)
        os.close(fd)


class MakeLinks(NamedTuple):
    """Symbolic links (path, target); one that exists stays. /dev/core only where the kernel has /proc/kcore."""

    links: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return f"linking {', '.join(path for path, _ in self.links)}"

    def perform(self, stage: Stage) -> None:
        parent = fs.make_directories(stage.root, "/dev")
        for path, target in self.links:
            if target == "/proc/kcore" and not os.path.exists(target):
                continue
            try:
                os.symlink(target, path.removeprefix("/dev/"), dir_fd=parent)
            except FileExistsError:
                continue
        os.close(parent)


class OpenConsole(NamedTuple):
    """A pseudo-terminal of the container's own devpts, its slave bound to /dev/console."""

    height: int
    width: int

    def describe(self) -> str:
        return "opening the terminal"

    def perform(self, stage: Stage) -> None:
        stage.console = open_console(stage.root, self.height, self.width)
        fd = mount.bind_fd("", recursive=False, dirfd=stage.console.slave)
        directory = fs.make_directories(stage.root, "/dev")
        try:
            os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory))
        except FileExistsError:  # one of the image; a link could lead anywhere (CVE-2025-52565)
            pass
        target = fs.openat2(directory, "console", k.O_PATH, resolve=k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS)
        stage.attach(fd, target, "/dev/console")
        os.close(directory)
        os.close(target)
        os.close(fd)


def open_console(root: int, height: int, width: int) -> tty.Pty:
    """A pair from the devpts at /dev/pts below `root`."""
    try:
        ptmx = fs.open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    except FileNotFoundError:
        raise InvalidArgument("a terminal needs devpts mounted at /dev/pts") from None
    if fs.filesystem_type(ptmx) != k.DEVPTS_SUPER_MAGIC or os.fstat(ptmx).st_rdev != os.makedev(5, 2):
        raise System("/dev/pts/ptmx is not the pseudo-terminal multiplexer")
    pty = tty.open_pty(ptmx)
    if height and width:
        tty.set_window_size(pty.master, height, width)
    return pty


class SetNames(NamedTuple):
    hostname: str
    domainname: str

    def describe(self) -> str:
        return f"setting the host name to {self.hostname or '(none)'} and the domain to {self.domainname or '(none)'}"

    def perform(self, stage: Stage) -> None:
        if self.hostname:
            socket.sethostname(self.hostname)
        if self.domainname:
            namespaces.set_domain_name(self.domainname)


class SetSysctls(NamedTuple):
    """(path below /proc/sys, value): through the host's procfs, which shows the writer's namespaces."""

    settings: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return f"setting sysctls {', '.join(path.replace('/', '.') for path, _ in self.settings)}"

    def perform(self, stage: Stage) -> None:
        for path, value in self.settings:
            try:
                fd = fs.open_beneath(stage.proc, f"sys/{path}", os.O_WRONLY)
            except FileNotFoundError:
                raise InvalidArgument(f"open sysctl {path.replace('/', '.')} file: no such file or directory") from None
            try:
                os.write(fd, value.encode())
            except OSError as error:
                message = f'write sysctl {path.replace("/", ".")} "{value}": {error.strerror}'
                if error.errno in (errno.EINVAL, errno.ERANGE):
                    raise InvalidArgument(message) from None
                raise System(message) from None
            finally:
                os.close(fd)


class RunHooks(NamedTuple):
    """prestart and createRuntime in the parent, createContainer here: mounts are made, the root is not changed yet."""

    in_parent: bool
    create_container: tuple[Hook, ...]

    def describe(self) -> str:
        return "running hooks"

    def perform(self, stage: Stage) -> None:
        if self.in_parent:
            stage.channel.send("hooks")
            stage.channel.expect("go", "the runtime")
        hooks.run("createContainer", self.create_container, {**stage.state, "pid": os.getpid(), "status": "creating"})


class MakeReadonly(NamedTuple):
    """Paths that stay visible and cannot be written; a missing one is skipped."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return f"making read-only {', '.join(self.paths)}"

    def perform(self, stage: Stage) -> None:
        for path in self.paths:
            target = open_if_there(stage.root, path)
            if target is None:
                continue
            fd = mount.bind_fd("", dirfd=target)
            mount.mount_setattr(fd, set=k.MOUNT_ATTR_RDONLY, recursive=True)
            mount.attach(fd, target)
            os.close(fd)
            os.close(target)


class MaskPaths(NamedTuple):
    """Paths that show nothing: /dev/null over a file, an empty tmpfs over a directory; a missing one is skipped."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return f"masking {', '.join(self.paths)}"

    def perform(self, stage: Stage) -> None:
        null = stage.null_device()
        for path in self.paths:
            target = open_if_there(stage.root, path)
            if target is None:
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                fd = stage.empty_directory()
            else:
                fd = mount.bind_fd("", recursive=False, dirfd=null)
                mount.mount_setattr(fd, set=k.MOUNT_ATTR_RDONLY)  # else chmod in the container reaches the host's
            mount.attach(fd, target)
            if fd != stage.empty:
                os.close(fd)
            os.close(target)
        os.close(null)


def open_if_there(root: int, path: str) -> int | None:
    try:
        return fs.open_in_root(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


class MakeWorkingDirectory(NamedTuple):
    path: str

    def describe(self) -> str:
        return f"creating the working directory {self.path}"

    def perform(self, stage: Stage) -> None:
        try:
            os.close(fs.make_directories(stage.root, self.path))
        except NotADirectoryError:
            raise InvalidArgument(f"Cannot mkdir: {self.path} is not a directory") from None
        except FileExistsError:
            raise InvalidArgument(f"Cannot mkdir: {self.path} is not a directory") from None


class MakeRootReadonly(NamedTuple):
    def describe(self) -> str:
        return "making the root file system read-only"

    def perform(self, stage: Stage) -> None:
        mount.mount_setattr(stage.root, set=k.MOUNT_ATTR_RDONLY)


class SetRootPropagation(NamedTuple):
    """How the container's mounts share events from now on; after the root was changed, because pivot_root(2) refuses
    a shared one."""

    flag: int
    recursive: bool

    def describe(self) -> str:
        return "setting the root's propagation"

    def perform(self, stage: Stage) -> None:
        mount.mount_setattr(stage.root, propagation=self.flag, recursive=self.recursive)


class PivotRoot(NamedTuple):
    """The root becomes the top of the mount namespace, and the host's tree is gone from it."""

    def describe(self) -> str:
        return "changing the root"

    def perform(self, stage: Stage) -> None:
        own = os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=stage.proc)
        # Where we run inside a chroot, pivot_root would replace the chroot's mount only, and whoever enters the
        # namespace later would land on the host. Entering our own namespace takes us to its true top.
        namespaces.setns(own, k.CLONE_NEWNS)
        os.fchdir(stage.root)
        try:
            mount.pivot_root(".", ".")  # the old root is stacked on the new one (pivot_root(2), NOTES)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotImplemented("pivot_root is refused: the host's root is the initial ramfs") from None
            raise
        mount.umount(".", k.MNT_DETACH)
        namespaces.setns(own, k.CLONE_NEWNS)  # as `exec` will: to wherever the top is now
        os.close(own)
        if fs.mount_id(k.AT_FDCWD, "/") != fs.mount_id(stage.root):
            raise System("the top of the container's mount namespace is not its root")
        os.chdir("/")  # noqa: TID251 - the child alone; the engine never runs this
