"""Compile an OCI seccomp profile to BPF, and install it.

    program = compile(profile)             # in the engine: libseccomp, cached
    install(program, flags(profile))       # in the child: one bare system call

The same profile makes the same decisions as under runc: rules that only repeat the default action are left out,
system calls that libseccomp does not know are skipped, two conditions on one argument are alternatives, and calls
that are newer than every one that the profile names fail with ENOSYS instead of the default, so that programs
fall back to the older call (libc probes clone3, faccessat2, ... that way).

Sources: seccomp(2), seccomp_rule_add(3), OCI runtime specification config-linux.md, "Seccomp".
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from hafen.errors import InvalidArgument, NotImplemented, System
from hafen.kernel import libc
from hafen.kernel.consts import (
    SECCOMP_FILTER_FLAG_LOG,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_SET_MODE_FILTER,
)

# seccomp.h of libseccomp
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}
_SCMP_FLTATR_CTL_NNP = 3
_SCMP_FLTATR_CTL_OPTIMIZE = 8
_NR_SCMP_ERROR = -1

_X86_64, _X32, _X32_BIT = 0xC000003E, 0x4000003E, 0x40000000
_RETURN_ENOSYS = _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS


class Argument(Protocol):
    """`spec.runtime_config.SyscallArg`; this layer sees no other, so that it says what it needs of it."""

    @property
    def position(self) -> int: ...
    @property
    def value(self) -> int: ...
    @property
    def op(self) -> str: ...
    @property
    def value_two(self) -> int: ...


class Call(Protocol):
    """`spec.runtime_config.Syscall`."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def action(self) -> str: ...
    @property
    def errno_ret(self) -> int | None: ...
    @property
    def args(self) -> Sequence[Argument]: ...


class Profile(Protocol):
    """`spec.runtime_config.Seccomp`, hashable."""

    @property
    def default_action(self) -> str: ...
    @property
    def default_errno_ret(self) -> int | None: ...
    @property
    def architectures(self) -> Sequence[str]: ...
    @property
    def flags(self) -> Sequence[str]: ...
    @property
    def syscalls(self) -> Sequence[Call]: ...


_seccomp = libc.system_call("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.c_char_p)


def install(program: bytes, flags: int = 0) -> None:
    """Applies the filter to the calling thread and what it will execute.

    Needs no_new_privs or CAP_SYS_ADMIN (EACCES otherwise). `program` is what `compile` returned.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog
    if _seccomp(SECCOMP_SET_MODE_FILTER, flags, struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))):
        raise libc.oserror("seccomp(SECCOMP_SET_MODE_FILTER)")


def flags(profile: Profile) -> int:
    """The profile's flags for `install`. Without any: SPEC_ALLOW, as runc, because the filter does not need the
    mitigation against Spectre variant 4 that the kernel ties to it, and programs would pay for it."""
    if not profile.flags:
        return SECCOMP_FILTER_FLAG_SPEC_ALLOW
    total = 0
    for name in profile.flags:
        if name not in _FLAGS:
            raise InvalidArgument(f"seccomp flag {name!r} is not supported")
        total |= _FLAGS[name]
    return total


@lru_cache(maxsize=32)
def compile(profile: Profile) -> bytes:
    """The profile as an array of `struct sock_filter`.

    InvalidArgument for unknown actions, operators and architectures; NotImplemented for SCMP_ACT_NOTIFY; System
    where libseccomp is not installed. Takes 5 ms, or nothing for a profile that was compiled before.
    """
    library = _libseccomp()
    default = _action(profile.default_action, profile.default_errno_ret)
    context = library.seccomp_init(default)
    if not context:
        raise System("seccomp: libseccomp refuses the default action")
    try:
        _check(library.seccomp_attr_set(context, _SCMP_FLTATR_CTL_NNP, 0), "set up the filter")
        # A binary tree; before libseccomp 2.5 there is only the list, which does the same, slower.
        library.seccomp_attr_set(context, _SCMP_FLTATR_CTL_OPTIMIZE, 2)
        architectures = [_architecture(library, name) for name in profile.architectures]
        for token in architectures:
            result = library.seccomp_arch_add(context, token)
            if result != -errno.EEXIST:
                _check(result, "add an architecture")
        for call in profile.syscalls:
            action = _action(call.action, call.errno_ret)
            if action != default:
                for name in call.names:
                    _add_rule(library, context, action, name, call.args)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if not architectures:
        architectures = [library.seccomp_arch_native()]
    return _enosys_prefix(library, profile, architectures) + program


def _add_rule(library: Any, context: int, action: int, name: str, args: Sequence[Argument]) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == _NR_SCMP_ERROR:
        return
    conditions = [_condition_of(name, arg) for arg in args]
    positions = [arg.position for arg in args]
    # libseccomp refuses two conditions on one argument in one rule; as rules of their own they are alternatives.
    rules = [conditions] if len(set(positions)) == len(positions) else [[condition] for condition in conditions]
    for rule in rules:
        array = b"".join(rule)
        result = library.seccomp_rule_add_array(context, action, number, len(rule), array)
        if result < 0:
            raise InvalidArgument(f"error adding seccomp filter rule for syscall {name}: {os.strerror(-result)}")


def _condition_of(name: str, arg: Argument) -> bytes:
    """struct scmp_arg_cmp."""
    if arg.op not in _OPERATORS:
        raise InvalidArgument(f"string {arg.op} is not a valid operator for seccomp")
    if not 0 <= arg.position <= 5:
        raise InvalidArgument(
            f"error creating seccomp syscall condition for syscall {name}: "
            f"syscalls only have up to 6 arguments ({arg.position} given)"
        )
    try:
        return struct.pack("=IIQQ", arg.position, _OPERATORS[arg.op], arg.value, arg.value_two)
    except struct.error:
        raise InvalidArgument(f"seccomp: an argument's value for syscall {name} is not a 64-bit number") from None


def _action(name: str, errno_ret: int | None) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise NotImplemented("seccomp action SCMP_ACT_NOTIFY (a listener that decides) is not supported")
    if name not in _ACTIONS:
        raise InvalidArgument(f"string {name} is not a valid action for seccomp")
    action = _ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value = errno.EPERM if errno_ret is None else errno_ret
        if not 0 <= value <= 0xFFFF:
            raise InvalidArgument(f"seccomp: errnoRet {value} is not an error number")
        action |= value
    return action


def _architecture(library: Any, name: str) -> int:
    token: int = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if not name.startswith("SCMP_ARCH_") or not token:
        raise InvalidArgument(f"string {name} is not a valid arch for seccomp")
    return token


def _enosys_prefix(library: Any, profile: Profile, architectures: list[int]) -> bytes:
    """Instructions before the filter that return ENOSYS for numbers above all that the profile names."""
    if profile.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        return b""
    if profile.default_errno_ret == errno.ENOSYS:
        return b""
    names = {name.encode() for call in profile.syscalls for name in call.names}
    prefix = b""
    for token in architectures:
        last = max((library.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=-1)
        if last >= 0:
            prefix += _enosys_above(token, last)
    return prefix


def _enosys_above(architecture: int, last: int) -> bytes:
    """For one architecture. x32 reports itself as x86-64 and differs by a bit in the number alone."""
    audit = _X86_64 if architecture == _X32 else architecture
    checks = [_filter(0x35, 0, 1, last + 1), _filter(0x06, 0, 0, _RETURN_ENOSYS)]  # jge; ret
    if architecture == _X32:
        checks.insert(0, _filter(0x45, 0, len(checks), _X32_BIT))  # jset
    elif architecture == _X86_64:
        checks.insert(0, _filter(0x45, len(checks), 0, _X32_BIT))
    return b"".join(
        [
            _filter(0x20, 0, 0, 4),  # ld seccomp_data.arch
            _filter(0x15, 0, 1 + len(checks), audit),  # jeq
            _filter(0x20, 0, 0, 0),  # ld seccomp_data.nr
            *checks,
        ]
    )


def _filter(code: int, jump_true: int, jump_false: int, constant: int) -> bytes:
    """struct sock_filter."""
    return struct.pack("=HBBI", code, jump_true, jump_false, constant)


def _export(library: Any, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, fd), "generate the filter")
        size = os.lseek(fd, 0, os.SEEK_END)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


@lru_cache(maxsize=1)
def _libseccomp() -> Any:
    try:
        library = libc.library("libseccomp.so.2")
    except OSError:
        raise System("seccomp profiles need libseccomp.so.2: install the package libseccomp2") from None
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p,
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _check(result: int, doing: str) -> None:
    if result < 0:
        raise System(f"seccomp: could not {doing}: {os.strerror(-result)}")
