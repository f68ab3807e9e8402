"""Namespaces: unshare, setns, id maps, descriptors of a process's namespaces, and the names that a uts one holds.

namespaces(7), user_namespaces(7), time_namespaces(7), setns(2).
"""

import fcntl
import os
import signal
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_size_t

from hafen.kernel import consts, process
from hafen.kernel.libc import oserror, system_call
from hafen.values import NamedTuple

_unshare = system_call("unshare", c_int)
_setns = system_call("setns", c_int, c_int)
_sethostname = system_call("sethostname", c_char_p, c_size_t)
_setdomainname = system_call("setdomainname", c_char_p, c_size_t)


class Kind(NamedTuple):
    """A kind of namespace: its CLONE_NEW* flag, its file below /proc/PID/ns, the kernel option that brings it."""

    flag: int
    file: str
    option: str


KINDS: dict[str, Kind] = {  # by the OCI specification's names
    "user": Kind(consts.CLONE_NEWUSER, "user", "CONFIG_USER_NS"),
    "mount": Kind(consts.CLONE_NEWNS, "mnt", "CONFIG_NAMESPACES"),
    "pid": Kind(consts.CLONE_NEWPID, "pid", "CONFIG_PID_NS"),
    "network": Kind(consts.CLONE_NEWNET, "net", "CONFIG_NET_NS"),
    "ipc": Kind(consts.CLONE_NEWIPC, "ipc", "CONFIG_IPC_NS"),
    "uts": Kind(consts.CLONE_NEWUTS, "uts", "CONFIG_UTS_NS"),
    "cgroup": Kind(consts.CLONE_NEWCGROUP, "cgroup", "CONFIG_CGROUPS"),
    "time": Kind(consts.CLONE_NEWTIME, "time", "CONFIG_TIME_NS"),
}


class IDMap(NamedTuple):
    """`size` ids from `inside` on are the ids from `outside` on in the parent namespace."""

    inside: int
    outside: int
    size: int


def unshare(flags: int) -> None:
    if _unshare(flags) < 0:
        raise oserror("unshare")


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace `fd`, or with a pidfd those of its process that `flags` (CLONE_NEW*) name."""
    if _setns(fd, flags) < 0:
        raise oserror("setns")


def exists(kind: str) -> bool:
    """Whether this kernel has such namespaces."""
    return os.path.exists(f"/proc/self/ns/{KINDS[kind].file}")


def open_own(kind: str) -> int:
    """A descriptor of our own namespace of that kind."""
    return os.open(f"/proc/self/ns/{KINDS[kind].file}", os.O_RDONLY | os.O_CLOEXEC)


def of_socket(fd: int) -> int:
    """A descriptor of the network namespace that a socket is in (ioctl_ns(2), SIOCGSKNS)."""
    return fcntl.ioctl(fd, consts.SIOCGSKNS)


def same_user_namespace(pid: int) -> bool:
    """Whether `pid` lives in our user namespace (setns(2) refuses to enter one's own)."""
    ours, theirs = os.stat("/proc/self/ns/user"), os.stat(f"/proc/{pid}/ns/user")
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def write_id_maps(pid: int, uid_maps: Sequence[IDMap], gid_maps: Sequence[IDMap]) -> None:
    """Map ids of the user namespace that `pid` is the first process of; the caller is privileged outside."""
    for name, maps in (("uid_map", uid_maps), ("gid_map", gid_maps)):
        path = f"/proc/{pid}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:  # one write: a second one is EPERM
            os.write(fd, "".join(f"{inside} {outside} {size}\n" for inside, outside, size in maps).encode())
        except OSError as error:
            raise OSError(error.errno, f"write: {error.strerror}", path) from None
        finally:
            os.close(fd)


def new_user_namespace(uid_maps: Sequence[IDMap], gid_maps: Sequence[IDMap]) -> int:
    """A descriptor of a new user namespace with these maps and no process: what an id-mapped mount needs."""
    child = process.clone3(consts.CLONE_NEWUSER)
    if child.pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        write_id_maps(child.pid, uid_maps, gid_maps)
        return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        process.wait_pidfd(child.pidfd)
        os.close(child.pidfd)


def set_hostname(name: str) -> None:
    encoded = os.fsencode(name)
    if _sethostname(encoded, len(encoded)) < 0:
        raise oserror("sethostname", name)


def set_domain_name(name: str) -> None:
    encoded = os.fsencode(name)
    if _setdomainname(encoded, len(encoded)) < 0:
        raise oserror("setdomainname", name)
