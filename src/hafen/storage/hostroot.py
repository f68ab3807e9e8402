"""The `host` image: this machine's root as a read-only lower layer, behind a mask.

overlayfs may have its upper directory below its lower one; reaching the upper one through the mount then fails with
ELOOP, so a container cannot walk into itself. Above `/` lies a small layer, the mask, which hides

- the data and run directories of the engine and of other engines: images, other containers' files, databases;
- private keys and credentials: SSH host and user keys, cloud, cluster and registry credentials, `/etc/ssl/private`;
- password hashes: `/etc/shadow` and `/etc/gshadow` are there, as programs expect, with every hash replaced by `*`.

Other mounts below `/` (a separate /home, /boot, anything under /mnt) are not seen: a lower layer is one file system.
The mask lies on a tmpfs, because overlayfs refuses a lower directory below another one (ELOOP); it is made anew where
it is missing and brought up to date in place on every start. It protects from accidents and curious programs. Whoever
may start containers on this socket may as well bind-mount `/`.
"""

import glob
import json
import os
import shutil
import stat
from collections.abc import Iterable

from hafen.errors import NotImplemented, System
from hafen.kernel import fs
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage.snapshot import OPAQUE

LABEL = "hafen.source"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SHARED_PARENT = "/dev/shm"
_SHARED = "hafen-"
_OWNER = "data-root"

_ENGINES = ("/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/etc/kubernetes")
_HOMES = (".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".netrc", ".git-credentials")
_KEYS = ("/etc/ssh/ssh_host_*_key", "/etc/ssl/private", "/etc/shadow-", "/etc/gshadow-", "/etc/krb5.keytab")
_HASHES = ("/etc/shadow", "/etc/gshadow")


def identity(machine_id: str) -> Digest:
    """The diff id of this machine's root: stable, and of no other machine. (machine-id(5) must not be published.)"""
    return digests.of(f"hafen host root\n{machine_id.strip()}\n".encode())


def document(machine_id: str, architecture: str) -> bytes:
    """The configuration of the `host` image."""
    return json.dumps(
        {
            "architecture": architecture,
            "config": {"Cmd": ["sh"], "Env": [f"PATH={PATH}"], "Labels": {LABEL: "host"}},
            "created": "1970-01-01T00:00:00Z",
            "history": [
                {"created": "1970-01-01T00:00:00Z", "created_by": "hafen", "comment": "this machine's root, read-only"}
            ],
            "os": "linux",
            "rootfs": {"diff_ids": [identity(machine_id)], "type": "layers"},
        },
        separators=(",", ":"),
        sort_keys=True,
    ).encode()


def machine_id() -> str:
    """machine-id(5); where a machine has none, its host name has to do."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path, encoding="ascii") as file:
                if text := file.read().strip():
                    return text
        except (OSError, UnicodeDecodeError):
            continue
    return os.uname().nodename


def mask_place(data_root: str, run_root: str) -> str:
    """A directory for the mask on another file system than `/`, made where it is missing: below the run directory
    where /run is a tmpfs, else in /dev/shm. NotImplemented where neither is one."""
    device = os.stat("/").st_dev
    data_root = os.path.abspath(data_root)
    name = f"{_SHARED}{digests.hex_of(digests.of(data_root.encode()))[:12]}"
    for parent, base in ((run_root, "mask"), (_SHARED_PARENT, name)):
        if not os.path.isdir(parent) or os.stat(parent).st_dev == device:
            continue
        place = f"{parent}/{base}"
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            # Another user could have made it first, where everyone may write.
            status = os.stat(place, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise System(f"{place} is in the way: it is not this engine's") from None
        os.makedirs(f"{place}/fs", exist_ok=True)
        with open(f"{place}/{_OWNER}", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(data_root)
        return f"{place}/fs"
    raise NotImplemented("the host image needs a tmpfs on /run or /dev/shm")


def remove_stale_masks(parent: str = "") -> None:
    """Masks of engines whose data is gone: nobody else would."""
    parent = parent or _SHARED_PARENT
    for name in os.listdir(parent) if os.path.isdir(parent) else ():
        place = f"{parent}/{name}"
        if not name.startswith(_SHARED) or os.lstat(place).st_uid != os.geteuid():
            continue
        try:
            with open(f"{place}/{_OWNER}", encoding="utf-8", errors="surrogateescape") as file:
                data_root = file.read()
        except OSError:
            continue  # being made just now, or nothing of ours
        if data_root and not os.path.exists(data_root):
            shutil.rmtree(place, ignore_errors=True)


def remove_mask(directory: str) -> None:
    """When no container is left that uses it."""
    shutil.rmtree(os.path.dirname(directory), ignore_errors=True)


def hidden_paths(engine: Iterable[str], root: str = "") -> list[str]:
    """What the mask hides on this machine: existing paths without symbolic links, sorted."""
    wanted = [*engine, *_ENGINES]
    for home in ("/root", *glob.glob("/home/*")):
        wanted += [f"{home}/{name}" for name in _HOMES]
    for pattern in _KEYS:
        wanted += glob.glob(pattern)
    found = {os.path.realpath(f"{root}{path}") for path in wanted if os.path.lexists(f"{root}{path}")}
    # A path below a hidden one needs no mark, and must not make directories that would bring that one back.
    return sorted(path for path in found if not any(path.startswith(f"{above}/") for above in found))


def update_mask(mask: str, hidden: Iterable[str], hashes: Iterable[str] = _HASHES) -> None:
    """Make the layer directory hide these paths of `/`, and nothing else; safe while containers use it."""
    wanted = set(hidden)
    keep: set[str] = set()
    root = os.stat("/")
    os.chown(mask, root.st_uid, root.st_gid)
    os.chmod(mask, stat.S_IMODE(root.st_mode))
    for path in sorted(wanted):
        _directories(mask, os.path.dirname(path), keep)
        target = mask + path
        keep.add(target)
        if not _is_whiteout(target):
            os.mknod(target, stat.S_IFCHR, 0)
    for path in hashes:
        if os.path.isfile(path) and path not in wanted:
            _directories(mask, os.path.dirname(path), keep)
            keep.add(mask + path)
            _copy_without_hashes(path, mask + path)
    _remove_others(mask, keep)


def _directories(mask: str, path: str, keep: set[str]) -> None:
    """The directories down to `path`, looking like the machine's own, which they merge with."""
    here = ""
    for part in path.split("/")[1:]:
        if not part:
            return
        here = f"{here}/{part}"
        target = mask + here
        keep.add(target)
        status = os.stat(here)
        try:
            os.mkdir(target, 0o700)
        except FileExistsError:
            pass
        os.chown(target, status.st_uid, status.st_gid)
        os.chmod(target, stat.S_IMODE(status.st_mode))
        if OPAQUE in os.listxattr(target):
            os.removexattr(target, OPAQUE)


def _is_whiteout(path: str) -> bool:
    try:
        return fs.is_whiteout(os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def without_hashes(text: str) -> str:
    """shadow(5) or gshadow(5) with every password hash replaced by `*`, which no password matches."""
    lines = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 1 and fields[1] and fields[1][0] not in "!*":
            fields[1] = "*"
        elif len(fields) > 1 and len(fields[1]) > 1:
            fields[1] = fields[1][0]
        lines.append(":".join(fields) + "\n")
    return "".join(lines)


def _copy_without_hashes(source: str, target: str) -> None:
    with open(source, encoding="utf-8", errors="surrogateescape") as file:
        status = os.fstat(file.fileno())
        text = without_hashes(file.read())
    temporary = f"{target}.new"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
        file.write(text)
    os.utime(temporary, ns=(status.st_mtime_ns, status.st_mtime_ns))
    os.rename(temporary, target)


def _remove_others(mask: str, keep: set[str]) -> None:
    for directory, directories, files in os.walk(mask, topdown=False):
        for name in files:
            if f"{directory}/{name}" not in keep:
                os.unlink(f"{directory}/{name}")
        for name in directories:
            if f"{directory}/{name}" not in keep:
                os.rmdir(f"{directory}/{name}")
