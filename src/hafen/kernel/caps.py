"""Capability sets: names to bits, capget and capset, bounding and ambient set (capabilities(7))."""

import ctypes
from collections.abc import Iterable
from ctypes import c_int, c_uint32, c_void_p

from hafen.kernel import consts
from hafen.kernel.libc import oserror, system_call
from hafen.kernel.process import prctl
from hafen.values import NamedTuple

NAMES = (  # linux/capability.h, in the order of their numbers
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}


class Sets(NamedTuple):
    """Three capability sets as bit masks."""

    effective: int
    permitted: int
    inheritable: int


class _Header(ctypes.Structure):
    _fields_ = [("version", c_uint32), ("pid", c_int)]


class _Data(ctypes.Structure):
    """Two struct __user_cap_data_struct: the low words of all sets, then the high words."""

    _fields_ = [("words", c_uint32 * 6)]


_capget = system_call("capget", c_void_p, c_void_p)
_capset = system_call("capset", c_void_p, c_void_p)


def mask(names: Iterable[str]) -> int:
    """The bits of these capabilities; KeyError for an unknown name."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names(bits: int) -> tuple[str, ...]:
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def get() -> Sets:
    """This process's sets."""
    header, data = _Header(consts.LINUX_CAPABILITY_VERSION_3, 0), _Data()
    if _capget(ctypes.addressof(header), ctypes.addressof(data)) < 0:
        raise oserror("capget")
    words = data.words
    return Sets(words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32)


def set(sets: Sets) -> None:
    """Replace this process's sets."""
    low = [value & 0xFFFFFFFF for value in sets]
    high = [value >> 32 for value in sets]
    header, data = _Header(consts.LINUX_CAPABILITY_VERSION_3, 0), _Data((c_uint32 * 6)(*low, *high))
    if _capset(ctypes.addressof(header), ctypes.addressof(data)) < 0:
        raise oserror("capset")


def last() -> int:
    """The highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def bounding() -> int:
    """This process's bounding set."""
    bits = 0
    for number in range(len(NAMES)):
        try:
            bits |= prctl(consts.PR_CAPBSET_READ, number) << number
        except OSError:  # EINVAL: newer than this kernel
            break
    return bits


def limit_bounding(keep: int) -> None:
    """Drop all but `keep` from the bounding set, also capabilities newer than this list."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            prctl(consts.PR_CAPBSET_DROP, number)
        except OSError:
            if number == 0:  # EPERM; EINVAL only comes past the kernel's last one
                raise
            if number < len(NAMES) and prctl(consts.PR_CAPBSET_READ, number):
                raise
            return


def set_ambient(bits: int) -> None:
    """Replace the ambient set; each bit must be permitted and inheritable."""
    prctl(consts.PR_CAP_AMBIENT, consts.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            prctl(consts.PR_CAP_AMBIENT, consts.PR_CAP_AMBIENT_RAISE, number)
