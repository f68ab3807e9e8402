"""Default devices and links of /dev, and OCI devices, as values for the steps; pure."""

import stat

from hafen.errors import InvalidArgument
from hafen.spec.runtime_config import Device
from hafen.values import NamedTuple


class Node(NamedTuple):
    """A device node or fifo to make; `mode` is for mknod(2), with its type; `path` is inside the container."""

    path: str
    mode: int
    major: int = 0
    minor: int = 0
    uid: int = 0
    gid: int = 0


# OCI config-linux.md "Default Devices"; console is the pseudo-terminal, bound when there is one.
DEFAULT = tuple(
    Node(path, stat.S_IFCHR | 0o666, major, minor)
    for path, major, minor in (
        ("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7),
        ("/dev/random", 1, 8), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0),
    )
)  # fmt: skip

# OCI config-linux.md "Dev symbolic links", and ptmx of the container's own devpts.
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def nodes(devices: tuple[Device, ...], *, defaults: bool) -> tuple[Node, ...]:
    """The nodes to make: the defaults where wanted, then the configuration's, a later one replacing an earlier."""
    found: dict[str, Node] = {node.path: node for node in DEFAULT} if defaults else {}
    for device in devices:
        if device.type not in _TYPES:
            raise InvalidArgument(f"linux.devices: unknown type {device.type!r} of {device.path}")
        permissions = 0o666 if device.file_mode is None else device.file_mode & 0o7777
        found[device.path] = Node(
            device.path, _TYPES[device.type] | permissions, device.major, device.minor, device.uid or 0, device.gid or 0
        )
    return tuple(found.values())
