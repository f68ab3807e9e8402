"""Compiled filters, run by a simulator of seccomp's classic BPF: each decision follows from the profile."""

import ctypes
import errno
import functools
import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafen.engine.seccomp import choose
from hafen.errors import HafenError, InvalidArgument, NotImplemented
from hafen.kernel.seccomp import compile, flags
from hafen.spec.runtime_config import Seccomp, Syscall, SyscallArg

ALLOW, LOG, TRAP, ERRNO, TRACE = 0x7FFF0000, 0x7FFC0000, 0x00030000, 0x00050000, 0x7FF00000
KILL_THREAD, KILL_PROCESS = 0, 0x80000000
EPERM = ERRNO | errno.EPERM
ENOSYS = ERRNO | errno.ENOSYS

X86_64, X86 = 0xC000003E, 0x40000003


@functools.lru_cache(maxsize=1)
def library() -> Any:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_arch_native.restype = ctypes.c_uint32
    return library


def native() -> int:
    token: int = library().seccomp_arch_native()
    return token


def number(name: str, architecture: int | None = None) -> int:
    token = ctypes.c_uint32(native() if architecture is None else architecture)
    resolved: int = library().seccomp_syscall_resolve_name_arch(token, name.encode())
    return resolved


def decide(program: bytes, syscall: int, *args: int, architecture: int | None = None) -> int:
    """What the filter returns for one system call (struct seccomp_data), instruction by instruction."""
    padded = [*args, *[0] * (6 - len(args))]
    arch = native() if architecture is None else architecture
    data = struct.pack("=IIQ6Q", syscall & 0xFFFFFFFF, arch, 0, *(arg & (1 << 64) - 1 for arg in padded))
    accumulator = 0
    at = 0
    while True:
        code, jump_true, jump_false, constant = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, constant)[0]
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x05:
            at += constant
        elif code == 0x06:
            return int(constant)
        else:
            holds = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
                0x45: accumulator & constant != 0,
            }[code]
            at += jump_true if holds else jump_false


def errno_profile(*syscalls: Syscall, **more: Any) -> Seccomp:
    """Denies with EPERM whatever the rules do not name."""
    return Seccomp("SCMP_ACT_ERRNO", syscalls=syscalls, **more)


def allow_profile(*syscalls: Syscall) -> Seccomp:
    return Seccomp("SCMP_ACT_ALLOW", syscalls=syscalls)


def test_allow_list() -> None:
    program = compile(errno_profile(Syscall(("read", "write", "mkdirat"), "SCMP_ACT_ALLOW")))
    assert decide(program, number("read")) == ALLOW
    assert decide(program, number("mkdirat")) == ALLOW
    assert decide(program, min(set(range(200)) - {number(n) for n in ("read", "write", "mkdirat")})) == EPERM


@pytest.mark.parametrize(
    ("action", "errno_ret", "expected"),
    [
        ("SCMP_ACT_KILL", None, KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", None, KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, TRAP),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", errno.EACCES, ERRNO | errno.EACCES),
        ("SCMP_ACT_ERRNO", 0, ERRNO),
        ("SCMP_ACT_TRACE", None, TRACE | errno.EPERM),
        ("SCMP_ACT_TRACE", 7, TRACE | 7),
        ("SCMP_ACT_LOG", None, LOG),
    ],
)
def test_actions(action: str, errno_ret: int | None, expected: int) -> None:
    program = compile(allow_profile(Syscall(("mkdirat",), action, errno_ret)))
    assert decide(program, number("mkdirat")) == expected
    assert decide(program, number("read")) == ALLOW


BIG = 0x1_0000_0005  # differs from 5 in the upper half alone


@pytest.mark.parametrize(
    ("operator", "value", "two", "matching", "others"),
    [
        ("SCMP_CMP_EQ", 5, 0, (5,), (4, 6, BIG)),
        ("SCMP_CMP_NE", 5, 0, (4, 6, BIG), (5,)),
        ("SCMP_CMP_LT", 5, 0, (0, 4), (5, 6, BIG)),
        ("SCMP_CMP_LE", 5, 0, (0, 5), (6, BIG)),
        ("SCMP_CMP_GT", 5, 0, (6, BIG), (0, 5)),
        ("SCMP_CMP_GE", 5, 0, (5, BIG), (0, 4)),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x30, (0x30, 0x3F, 0x135), (0x31 << 1, 0, 0x70)),
        ("SCMP_CMP_EQ", BIG, 0, (BIG,), (5, BIG + 1)),
    ],
)
def test_operators(operator: str, value: int, two: int, matching: tuple[int, ...], others: tuple[int, ...]) -> None:
    rule = Syscall(("mkdirat",), "SCMP_ACT_ERRNO", None, (SyscallArg(2, value, operator, two),))
    program = compile(allow_profile(rule))
    for argument in matching:
        assert decide(program, number("mkdirat"), 9, 9, argument) == EPERM
    for argument in others:
        assert decide(program, number("mkdirat"), 9, 9, argument) == ALLOW


def test_two_arguments_must_both_match() -> None:
    conditions = (SyscallArg(0, 1, "SCMP_CMP_EQ"), SyscallArg(1, 2, "SCMP_CMP_EQ"))
    program = compile(allow_profile(Syscall(("mkdirat",), "SCMP_ACT_ERRNO", None, conditions)))
    assert decide(program, number("mkdirat"), 1, 2) == EPERM
    assert decide(program, number("mkdirat"), 1, 3) == ALLOW
    assert decide(program, number("mkdirat"), 2, 2) == ALLOW


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    conditions = (SyscallArg(0, 1, "SCMP_CMP_EQ"), SyscallArg(0, 2, "SCMP_CMP_EQ"))
    program = compile(allow_profile(Syscall(("mkdirat",), "SCMP_ACT_ERRNO", None, conditions)))
    assert [decide(program, number("mkdirat"), value) for value in (0, 1, 2, 3)] == [ALLOW, EPERM, EPERM, ALLOW]


def test_unknown_names_are_skipped() -> None:
    program = compile(allow_profile(Syscall(("no_such_call", "mkdirat"), "SCMP_ACT_ERRNO")))
    assert decide(program, number("mkdirat")) == EPERM


def test_a_rule_that_repeats_the_default_is_left_out() -> None:
    assert compile(allow_profile(Syscall(("mkdirat",), "SCMP_ACT_ALLOW"))) == compile(allow_profile())


def test_newer_calls_fail_with_enosys() -> None:
    calls = Syscall(("read", "openat2"), "SCMP_ACT_ALLOW")
    program = compile(errno_profile(calls))
    assert decide(program, number("openat2")) == ALLOW
    assert decide(program, number("openat2") - 1) == EPERM
    assert decide(program, number("openat2") + 1) == ENOSYS
    assert decide(program, 5000) == ENOSYS
    assert decide(compile(Seccomp("SCMP_ACT_ALLOW", syscalls=(Syscall(("read",), "SCMP_ACT_ERRNO"),))), 5000) == ALLOW
    assert decide(compile(errno_profile(calls, default_errno_ret=errno.ENOSYS)), 5000) == ENOSYS
    killing = compile(Seccomp("SCMP_ACT_KILL_PROCESS", syscalls=(calls,)))
    assert decide(killing, number("openat2") + 1) == ENOSYS


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the architectures of x86-64")
def test_architectures() -> None:
    architectures = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
    program = compile(errno_profile(Syscall(("mkdir",), "SCMP_ACT_ALLOW"), architectures=architectures))
    assert decide(program, 83) == ALLOW
    assert decide(program, 39, architecture=X86) == ALLOW
    assert decide(program, 83, architecture=X86) == ENOSYS
    assert decide(program, 38, architecture=X86) == EPERM
    assert decide(program, 0x40000000 | 83) == ALLOW
    assert decide(program, 0x40000000 | 82) == EPERM
    assert decide(program, 0x40000000 | 84) == ENOSYS
    # An architecture that the profile does not name ends the thread, whatever the call.
    alone = compile(errno_profile(Syscall(("mkdir",), "SCMP_ACT_ALLOW"), architectures=("SCMP_ARCH_X86_64",)))
    assert decide(alone, 39, architecture=X86) == KILL_THREAD
    assert decide(alone, 0x40000000 | 83) == KILL_THREAD


@pytest.mark.parametrize(
    ("profile", "error", "words"),
    [
        (Seccomp("SCMP_ACT_FOO"), InvalidArgument, "string SCMP_ACT_FOO is not a valid action for seccomp"),
        (allow_profile(Syscall(("read",), "BAR")), InvalidArgument, "string BAR is not a valid action for seccomp"),
        (
            allow_profile(Syscall(("read",), "SCMP_ACT_ERRNO", None, (SyscallArg(0, 1, "SCMP_CMP_FOO"),))),
            InvalidArgument,
            "string SCMP_CMP_FOO is not a valid operator for seccomp",
        ),
        (
            allow_profile(Syscall(("read",), "SCMP_ACT_ERRNO", None, (SyscallArg(9, 1, "SCMP_CMP_EQ"),))),
            InvalidArgument,
            "syscalls only have up to 6 arguments",
        ),
        (
            allow_profile(Syscall(("read",), "SCMP_ACT_ERRNO", None, (SyscallArg(0, -1, "SCMP_CMP_EQ"),))),
            InvalidArgument,
            "64-bit",
        ),
        (allow_profile(Syscall(("read",), "SCMP_ACT_ERRNO", 70000)), InvalidArgument, "errnoRet 70000"),
        (
            Seccomp("SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_FOO",)),
            InvalidArgument,
            "string SCMP_ARCH_FOO is not a valid arch for seccomp",
        ),
        (Seccomp("SCMP_ACT_ALLOW", architectures=("X86_64",)), InvalidArgument, "string X86_64 is not a valid arch"),
        (allow_profile(Syscall(("read",), "SCMP_ACT_NOTIFY")), NotImplemented, "SCMP_ACT_NOTIFY"),
    ],
)
def test_bad_profiles(profile: Seccomp, error: type[HafenError], words: str) -> None:
    with pytest.raises(error, match=words):
        compile(profile)


def test_flags() -> None:
    assert flags(allow_profile()) == 4
    assert flags(Seccomp("SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"))) == 3
    with pytest.raises(InvalidArgument, match="SECCOMP_FILTER_FLAG_FOO"):
        flags(Seccomp("SCMP_ACT_ALLOW", flags=("SECCOMP_FILTER_FLAG_FOO",)))


# What Docker's engine refuses to a container with the default capabilities, and what it lets through.
REFUSED = [
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "fsopen",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "reboot",
    "request_key",
    "sethostname",
    "setns",
    "settimeofday",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
]
ALLOWED = ["chroot", "execve", "mkdirat", "mknodat", "name_to_handle_at", "openat", "ptrace", "read", "write"]


def test_default_profile_refuses_what_dockers_engine_refuses() -> None:
    default = choose("", ["CAP_CHOWN", "CAP_SYS_CHROOT"])
    assert default
    decisions = {name: decide(default.program, number(name), 0, 0, 0) for name in REFUSED + ALLOWED}
    assert decisions == {**dict.fromkeys(REFUSED, EPERM), **dict.fromkeys(ALLOWED, ALLOW)}


def test_default_profile_looks_at_arguments() -> None:
    default = choose("builtin", [])
    assert default
    program = default.program
    new_user, sigchld = 0x10000000, 17
    assert decide(program, number("clone"), sigchld) == ALLOW
    assert decide(program, number("clone"), sigchld | new_user) == EPERM
    assert decide(program, number("clone3")) == ENOSYS
    assert decide(program, number("socket"), 2) == ALLOW
    assert decide(program, number("socket"), 40) == EPERM  # AF_VSOCK
    assert decide(program, number("personality"), 0) == ALLOW
    assert decide(program, number("personality"), 0x0040000) == EPERM


def test_capabilities_open_what_they_are_for() -> None:
    plain, admin = choose("", []), choose("", ["CAP_SYS_ADMIN"])
    assert plain
    assert admin
    for name in ("mount", "unshare", "setns", "bpf", "clone3"):
        assert decide(plain.program, number(name)) in (EPERM, ENOSYS)
        assert decide(admin.program, number(name)) == ALLOW


def test_unconfined() -> None:
    assert choose("unconfined", []) is None
    assert choose("{}", []) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"defaultAction": 5}', '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 1}']
)
def test_a_profile_that_is_none(text: str) -> None:
    with pytest.raises(HafenError, match="Decoding seccomp profile failed"):
        choose(text, [])


argument_values = st.one_of(st.integers(0, 64), st.integers(0, 2**64 - 1))
HOLDS = {
    "SCMP_CMP_NE": lambda a, v, w: a != v,
    "SCMP_CMP_LT": lambda a, v, w: a < v,
    "SCMP_CMP_LE": lambda a, v, w: a <= v,
    "SCMP_CMP_EQ": lambda a, v, w: a == v,
    "SCMP_CMP_GE": lambda a, v, w: a >= v,
    "SCMP_CMP_GT": lambda a, v, w: a > v,
    "SCMP_CMP_MASKED_EQ": lambda a, v, w: a & v == w & v,
}


@given(
    st.sampled_from(sorted(HOLDS)),
    argument_values,
    argument_values,
    st.integers(0, 5),
    st.lists(argument_values, min_size=6, max_size=6),
)
def test_comparisons_hold_for_all_64_bits(operator: str, value: int, two: int, at: int, args: list[int]) -> None:
    rule = Syscall(("mkdirat",), "SCMP_ACT_ERRNO", None, (SyscallArg(at, value, operator, two),))
    expected = EPERM if HOLDS[operator](args[at], value, two) else ALLOW
    assert decide(compile(allow_profile(rule)), number("mkdirat"), *args) == expected
