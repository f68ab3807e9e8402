"""mount, umount2, pivot_root and the descriptor-based mount API.

mount(2), umount2(2), pivot_root(2), open_tree(2), move_mount(2), mount_setattr(2), fsopen(2), fsconfig(2), fsmount(2).
A mount made by `new_mount`, `bind_fd` or `overlay_fd` belongs to no namespace: its descriptor works as the `dir_fd` of
openat and friends (it is O_PATH: open "." below it to list), and it goes away with it unless `attach` puts it
somewhere.
"""

import ctypes
import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_uint64, c_ulong, c_void_p

from hafen.kernel import consts
from hafen.kernel.libc import oserror, oserror_of, system_call

Parameters = Iterable[tuple[str, str | None]]


class _MountAttr(ctypes.Structure):
    """struct mount_attr, version 0 (32 bytes)."""

    _fields_ = [
        ("attr_set", c_uint64), ("attr_clr", c_uint64), ("propagation", c_uint64), ("userns_fd", c_uint64),
    ]  # fmt: skip


_mount = system_call("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = system_call("umount2", c_char_p, c_int)
_pivot_root = system_call("pivot_root", c_char_p, c_char_p)
_open_tree = system_call("open_tree", c_int, c_char_p, c_uint)
_move_mount = system_call("move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)
_mount_setattr = system_call("mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_size_t)
_fsopen = system_call("fsopen", c_char_p, c_uint)
_fsconfig = system_call("fsconfig", c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = system_call("fsmount", c_int, c_uint, c_uint)

_ATTACH = consts.MOVE_MOUNT_F_EMPTY_PATH | consts.MOVE_MOUNT_T_EMPTY_PATH


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    if _mount(os.fsencode(source), os.fsencode(target), fstype.encode(), flags, os.fsencode(data) or None) < 0:
        raise oserror("mount", target)


def umount(target: str, flags: int = 0) -> None:
    if _umount2(os.fsencode(target), flags) < 0:
        raise oserror("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        raise oserror("pivot_root", new_root)


def open_tree(dirfd: int, path: str, flags: int = 0) -> int:
    """A close-on-exec descriptor of `path` (empty: of `dirfd` itself), with OPEN_TREE_CLONE of a new mount of it."""
    fd = _open_tree(dirfd, os.fsencode(path), flags | consts.OPEN_TREE_CLOEXEC | (0 if path else consts.AT_EMPTY_PATH))
    if fd < 0:
        raise oserror("open_tree", path or f"/proc/self/fd/{dirfd}")
    return fd


def bind_fd(path: str, recursive: bool = True, *, dirfd: int = consts.AT_FDCWD) -> int:
    """A new detached mount of `path` (empty: of `dirfd` itself), with what is mounted below if `recursive`."""
    return open_tree(dirfd, path, consts.OPEN_TREE_CLONE | (consts.AT_RECURSIVE if recursive else 0))


def attach(mount_fd: int, target_fd: int) -> None:
    """Put the mount `mount_fd` on `target_fd`: by descriptor, so that no path is looked up twice (CVE-2021-30465)."""
    if _move_mount(mount_fd, b"", target_fd, b"", _ATTACH) < 0:
        raise oserror("move_mount")


def mount_setattr(
    fd: int, *, set: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns: int | None = None
) -> None:
    """Change the MOUNT_ATTR_* of the mount `fd`; `propagation` is MS_PRIVATE, MS_SLAVE, ...; `userns` maps ids."""
    if userns is not None:
        set |= consts.MOUNT_ATTR_IDMAP
    attributes = _MountAttr(set, clear, propagation, userns or 0)
    flags = consts.AT_EMPTY_PATH | (consts.AT_RECURSIVE if recursive else 0)
    if _mount_setattr(fd, b"", flags, ctypes.addressof(attributes), 32) < 0:
        raise oserror("mount_setattr")


def set_propagation(propagation: int, *, recursive: bool = True) -> None:
    """Change how the mounts of this namespace, from "/" down, share events."""
    attributes = _MountAttr(0, 0, propagation, 0)
    flags = consts.AT_RECURSIVE if recursive else 0
    if _mount_setattr(consts.AT_FDCWD, b"/", flags, ctypes.addressof(attributes), 32) < 0:
        raise oserror("mount_setattr", "/")


def new_mount(fstype: str, source: str = "", parameters: Parameters = (), attributes: int = 0) -> int:
    """A detached mount of a new file system; a parameter without value is a flag. Errors carry the kernel's words."""
    fs = _fsopen(fstype.encode(), consts.FSOPEN_CLOEXEC)
    if fs < 0:
        raise oserror("fsopen", fstype)
    try:
        if source:
            _configure(fs, consts.FSCONFIG_SET_STRING, "source", source)
        for key, value in parameters:
            _configure(fs, consts.FSCONFIG_SET_FLAG if value is None else consts.FSCONFIG_SET_STRING, key, value)
        _configure(fs, consts.FSCONFIG_CMD_CREATE, None, None)
        fd = _fsmount(fs, consts.FSMOUNT_CLOEXEC, attributes)
        if fd < 0:
            raise _explained(fs, "fsmount", fstype)
        return fd
    finally:
        os.close(fs)


def _configure(fs: int, command: int, key: str | None, value: str | None) -> None:
    name = None if key is None else os.fsencode(key)
    if _fsconfig(fs, command, name, None if value is None else os.fsencode(value), 0) < 0:
        raise _explained(fs, "fsconfig", "" if key is None else key if value is None else f"{key}={value}")


def _explained(fs: int, call: str, what: str) -> OSError:
    """The error of a call on `fs`, with the message that the file system left in its log ("e overlay: ...")."""
    number = ctypes.get_errno()
    try:
        words = os.read(fs, 4096).decode(errors="replace").strip()
    except OSError:  # ENODATA: it left none
        words = ""
    return oserror_of(number, f"{call}: {words}" if words else call, what)


def overlay_parameters(
    lower: Sequence[str], upper: str | None, work: str | None, extra: Parameters = ()
) -> tuple[tuple[str, str | None], ...]:
    """`lower` top-most first."""
    parameters: list[tuple[str, str | None]] = [("lowerdir+", path) for path in lower]
    if upper is not None:
        parameters += [("upperdir", upper), ("workdir", work)]
    return (*parameters, *extra)


_MERGED = "overlay|"


def merged_layer(directories: Sequence[str]) -> str:
    """An entry of `lower` that stands for these directories (top-most first), merged into a file system of their own.

    overlayfs refuses (ELOOP) a layer below another layer's directory, and where `/` is one, all others are. Not so when
    `/` is a layer of an overlay that is itself the layer. Two overlays is as deep as the kernel stacks them.
    """
    return _MERGED + "|".join(directories)


def _merged(lower: Sequence[str]) -> list[str]:
    """The directories of the entry that is a merged layer, or none."""
    return next((layer[len(_MERGED) :].split("|") for layer in lower if layer.startswith(_MERGED)), [])


def _with_merged(lower: Sequence[str], place: str) -> list[str]:
    return [place if layer.startswith(_MERGED) else layer for layer in lower]


def overlay_fd(
    lower: Sequence[str], upper: str | None, work: str | None, *, readonly: bool = False, extra: Parameters = ()
) -> int:
    """A detached overlay of `lower` (top-most first) and, where writable, `upper` with its `work` directory.

    Kernels before 6.7 do not know `lowerdir+`, and take no value longer than 255 bytes: there the layers are named
    by descriptors, and with more of them than fit this is EINVAL, where `mount_overlay` still works, on a path. So it
    does for a `merged_layer` before 6.15, when a detached mount could not be a layer (EINVAL as well).
    """
    if directories := _merged(lower):
        inner = overlay_fd(directories, None, None, readonly=True)
        try:
            layers = _with_merged(lower, f"/proc/self/fd/{inner}")
            return overlay_fd(layers, upper, work, readonly=readonly, extra=extra)
        finally:
            os.close(inner)  # the outer overlay has a mount of its own
    if upper is None and len(lower) == 1:  # overlayfs wants two layers; one read-only layer is a bind
        fd = bind_fd(lower[0], recursive=False)
        mount_setattr(fd, set=consts.MOUNT_ATTR_RDONLY)
        return fd
    attributes = consts.MOUNT_ATTR_RDONLY if readonly else 0
    try:
        return new_mount("overlay", "overlay", overlay_parameters(lower, upper, work, extra), attributes)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    with ExitStack() as opened:

        def name(path: str) -> str:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        parameters: list[tuple[str, str | None]] = [("lowerdir", ":".join(map(name, lower)))]
        if upper is not None and work is not None:
            parameters += [("upperdir", name(upper)), ("workdir", name(work))]
        return new_mount("overlay", "overlay", (*parameters, *extra), attributes)


def mount_overlay(
    target: str,
    lower: Sequence[str],
    upper: str | None,
    work: str | None,
    *,
    readonly: bool = False,
    extra: Parameters = (),
) -> None:
    """The same by mount(2), for kernels without `lowerdir+`; the layers' paths must fit a page together."""
    if directories := _merged(lower):
        mount_overlay(target, directories, None, None, readonly=True)  # it stays below, in this mount namespace
        lower = _with_merged(lower, target)
    options = [f"lowerdir={':'.join(map(_escape, lower))}"]
    if upper is not None and work is not None:
        options += [f"upperdir={_escape(upper)}", f"workdir={_escape(work)}"]
    options += [key if value is None else f"{key}={value}" for key, value in extra]
    data = ",".join(options)
    if len(os.fsencode(data)) >= os.sysconf("SC_PAGE_SIZE"):
        raise oserror_of(errno.E2BIG, "mount: overlay options exceed a page", target)
    mount("overlay", target, "overlay", consts.MS_RDONLY if readonly else 0, data)


def _escape(path: str) -> str:
    """overlayfs splits at ":", mount(2) options at ","; both take a backslash."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
