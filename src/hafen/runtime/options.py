"""Mount options of config.json -> attributes, propagation and parameters; pure.

Options as in mount(8) and the OCI specification's table (config.md, "Linux mount options").
"""

from hafen.errors import InvalidArgument
from hafen.kernel import consts as k
from hafen.values import NamedTuple


class MountOptions(NamedTuple):
    """`set` and `clear` are MOUNT_ATTR_* of the mount itself, `set_all` and `clear_all` of those below it too.

    `propagation` is ((MS_*, recursive), ...); `parameters` go to the file system (value None: a flag).
    """

    bind: bool = False
    recursive: bool = False
    set: int = 0
    clear: int = 0
    set_all: int = 0
    clear_all: int = 0
    propagation: tuple[tuple[int, bool], ...] = ()
    idmap: bool = False
    idmap_all: bool = False
    copy_up: bool = False
    parameters: tuple[tuple[str, str | None], ...] = ()


# option: (attributes to set, attributes to clear); with a leading "r" the same for the whole tree
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (k.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, k.MOUNT_ATTR_RDONLY),
    "nosuid": (k.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, k.MOUNT_ATTR_NOSUID),
    "nodev": (k.MOUNT_ATTR_NODEV, 0),
    "dev": (0, k.MOUNT_ATTR_NODEV),
    "noexec": (k.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, k.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (k.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, k.MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (k.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, k.MOUNT_ATTR_NODIRATIME),
    "noatime": (k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR__ATIME),
    "atime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "relatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "norelatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME),
    "strictatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME),
    "nostrictatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
}
_ATTRIBUTES_ALL = {"r" + name: bits for name, bits in _ATTRIBUTES.items()}
_PROPAGATION: dict[str, tuple[int, bool]] = {
    prefix + name: (flag, bool(prefix))
    for name, flag in (
        ("private", k.MS_PRIVATE), ("shared", k.MS_SHARED), ("slave", k.MS_SLAVE), ("unbindable", k.MS_UNBINDABLE)
    )
    for prefix in ("", "r")
}  # fmt: skip
# Options that change nothing here: the default, or only of meaning to mount(8), or what an attribute has no place for.
_IGNORED = frozenset(("defaults", "loud", "silent", "async", "nomand", "remount", "noiversion", "nolazytime", "nofail"))


def parse(options: tuple[str, ...]) -> MountOptions:
    """Later options win over earlier ones, as in mount(8)."""
    bind = recursive = idmap = idmap_all = copy_up = False
    set_, clear, set_all, clear_all = 0, 0, 0, 0
    propagation: list[tuple[int, bool]] = []
    parameters: list[tuple[str, str | None]] = []
    for option in options:
        if option in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option]
            set_, clear = set_ & ~off | on, clear & ~on | off
        elif option in _ATTRIBUTES_ALL:
            on, off = _ATTRIBUTES_ALL[option]
            set_all, clear_all = set_all & ~off | on, clear_all & ~on | off
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option in ("idmap", "ridmap"):
            idmap, idmap_all = True, option == "ridmap"
        elif option == "tmpcopyup":
            copy_up = True
        elif option not in _IGNORED:
            key, separator, value = option.partition("=")
            if not key:
                raise InvalidArgument(f"invalid mount option {option!r}")
            parameters.append((key, value if separator else None))
    return MountOptions(
        bind, recursive, set_, clear, set_all, clear_all, tuple(propagation), idmap, idmap_all, copy_up,
        tuple(parameters),
    )  # fmt: skip


def propagation_flag(name: str) -> tuple[int, bool]:
    """`linux.rootfsPropagation` as (MS_*, recursive)."""
    try:
        return _PROPAGATION[name]
    except KeyError:
        raise InvalidArgument(f"linux.rootfsPropagation: unknown propagation {name!r}") from None


def split_layers(value: str) -> list[str]:
    """The paths of a `lowerdir=` value: separated by ":", with a backslash before a literal one."""
    layers, current, escaped = [], "", False
    for character in value:
        if escaped or character not in "\\:":
            current, escaped = current + character, False
        elif character == "\\":
            escaped = True
        else:
            layers.append(current)
            current = ""
    return [*layers, current]


KNOWN = frozenset((*_ATTRIBUTES, *_ATTRIBUTES_ALL, *_PROPAGATION, *_IGNORED, "bind", "rbind", "idmap", "ridmap"))
