"""AppArmor and SELinux: whether the kernel has them, and the label that the next exec takes.

Written below a /proc that the caller has verified, on the same mount and without magic links, so that the write
lands in the attribute and nowhere else (CVE-2019-16884, CVE-2025-52881).
"""

import os

from hafen.kernel import consts
from hafen.kernel.fs import openat2

_ONE_MOUNT = consts.RESOLVE_BENEATH | consts.RESOLVE_NO_XDEV | consts.RESOLVE_NO_MAGICLINKS


def apparmor_enabled() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            return file.read(1) == b"Y"
    except FileNotFoundError:
        return False


def selinux_enabled() -> bool:
    return os.path.isdir("/sys/fs/selinux/policy") or os.path.exists("/sys/fs/selinux/enforce")


def set_apparmor_profile(proc: int, profile: str) -> None:
    """The AppArmor profile from the next exec on; `proc` is a descriptor of a verified procfs."""
    try:
        _write_attribute(proc, "thread-self/attr/apparmor/exec", f"exec {profile}")
    except FileNotFoundError:  # before Linux 5.8
        _write_attribute(proc, "thread-self/attr/exec", f"exec {profile}")


def set_selinux_label(proc: int, label: str) -> None:
    """The SELinux context from the next exec on."""
    _write_attribute(proc, "thread-self/attr/exec", label)


def _write_attribute(proc: int, path: str, text: str) -> None:
    fd = openat2(proc, path, os.O_WRONLY, resolve=_ONE_MOUNT)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
