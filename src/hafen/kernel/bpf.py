"""Assemble and attach the cgroup device program, which takes the place of v1's devices controller on v2.

The program gets a `struct bpf_cgroup_dev_ctx {u32 access_type; u32 major; u32 minor;}` (linux/bpf.h) and returns 1
to allow. It keeps v1's meaning: one default, and exceptions to it. An exception that allows must cover all
of the access asked for; one that denies need only touch it.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from hafen.kernel import libc

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

BPF_DEVCG_ACC = {"m": 1, "r": 2, "w": 4}
BPF_DEVCG_DEV = {"b": 1, "c": 2}

# Instruction classes, sizes and operations of linux/bpf_common.h and linux/bpf.h, put together.
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_MOVE_CONSTANT = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_JUMP_NOT_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_JUMP_NOT_EQUAL_REGISTER = 0x5D  # BPF_JMP | BPF_JNE | BPF_X
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT
_TYPE, _ACCESS, _MAJOR, _MINOR, _SCRATCH = 2, 3, 4, 5, 1

_bpf = libc.system_call("bpf", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def device_program(rules: Sequence[tuple[bool, str]]) -> bytes:
    """The program for rules as v1's devices.allow (True) and devices.deny (False) take them, in order.

    "a" sets the default and forgets the exceptions before it; "c 1:3 rwm", with "*" for any number, adds one. The
    first exception that matches decides: as on v1, all are of the other kind than the default.
    """
    allow = False
    exceptions: list[tuple[bool, str]] = []
    for allowed, rule in rules:
        if rule.startswith("a"):
            allow, exceptions = allowed, []
        else:
            exceptions.append((allowed, rule))
    program = [
        _instruction(_LOAD_WORD, _TYPE, 1, 0),
        _instruction(_MOVE, _ACCESS, _TYPE),
        _instruction(_AND, _TYPE, constant=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ACCESS, constant=16),
        _instruction(_LOAD_WORD, _MAJOR, 1, 4),
        _instruction(_LOAD_WORD, _MINOR, 1, 8),
    ]
    for allowed, rule in exceptions:
        program += _exception(allowed, rule)
    program += [_instruction(_MOVE_CONSTANT, 0, constant=int(allow)), _instruction(_EXIT)]
    return b"".join(program)


def restrict_devices(directory: str, program: bytes) -> None:
    """Attaches the program to a v2 cgroup in place of the ones attached before."""
    loaded = _load(program)
    cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(cgroup, directory)
        _call(BPF_PROG_ATTACH, struct.pack("=4I", cgroup, loaded, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI), directory)
        # All attached programs must agree, so that between the two calls only what both allow is allowed.
        for program_id in before:
            old = _call(BPF_PROG_GET_FD_BY_ID, struct.pack("=I", program_id), directory)
            try:
                _call(BPF_PROG_DETACH, struct.pack("=3I", cgroup, old, BPF_CGROUP_DEVICE), directory)
            finally:
                os.close(old)
    finally:
        os.close(cgroup)
        os.close(loaded)


def _exception(allowed: bool, rule: str) -> list[bytes]:
    kind, device, access = rule.split(" ")
    major, _, minor = device.partition(":")
    mask = sum(BPF_DEVCG_ACC[letter] for letter in set(access))
    tests: list[tuple[int, int, int, int]] = [(_JUMP_NOT_EQUAL, _TYPE, 0, BPF_DEVCG_DEV[kind])]
    if major != "*":
        tests.append((_JUMP_NOT_EQUAL, _MAJOR, 0, int(major)))
    if minor != "*":
        tests.append((_JUMP_NOT_EQUAL, _MINOR, 0, int(minor)))
    body: list[bytes] = []
    if mask != 7:
        body += [_instruction(_MOVE, _SCRATCH, _ACCESS), _instruction(_AND, _SCRATCH, constant=mask)]
        # Still to come after the jump: the result and the exit.
        if allowed:
            body.append(_instruction(_JUMP_NOT_EQUAL_REGISTER, _SCRATCH, _ACCESS, 2))
        else:
            body.append(_instruction(_JUMP_EQUAL, _SCRATCH, 0, 2, 0))
    body += [_instruction(_MOVE_CONSTANT, 0, constant=int(allowed)), _instruction(_EXIT)]
    head = [
        _instruction(code, register, source, len(tests) - position - 1 + len(body), constant)
        for position, (code, register, source, constant) in enumerate(tests)
    ]
    return head + body


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    """struct bpf_insn."""
    return struct.pack("=BBhi", code, source << 4 | destination, offset, constant)


def _load(program: bytes) -> int:
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")  # no GPL-only helper is used
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"hafen_devices",
        0,
        BPF_CGROUP_DEVICE,
    )
    return _call(BPF_PROG_LOAD, attributes, "the device program")


def _attached(cgroup: int, directory: str) -> list[int]:
    ids = (ctypes.c_uint32 * 64)()
    # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_count; the kernel writes the count back.
    attributes = ctypes.create_string_buffer(
        struct.pack("=4IQII", cgroup, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids), 0)
    )
    if _bpf(BPF_PROG_QUERY, attributes, 32) < 0:
        raise libc.oserror("bpf(BPF_PROG_QUERY)", directory)
    return list(ids[: struct.unpack_from("=I", attributes, 24)[0]])


def _call(command: int, attributes: bytes, path: str) -> int:
    result = _bpf(command, attributes, len(attributes))
    if result < 0:
        error = libc.oserror(f"bpf({_NAMES[command]})", path)
        if error.errno in (errno.ENOSYS, errno.EINVAL) and command == BPF_PROG_LOAD:
            raise OSError(error.errno, f"{error.strerror} (does the kernel have CONFIG_CGROUP_BPF?)", path)
        raise error
    return result


_NAMES = {
    BPF_PROG_LOAD: "BPF_PROG_LOAD",
    BPF_PROG_ATTACH: "BPF_PROG_ATTACH",
    BPF_PROG_DETACH: "BPF_PROG_DETACH",
    BPF_PROG_GET_FD_BY_ID: "BPF_PROG_GET_FD_BY_ID",
}
