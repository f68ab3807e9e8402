"""The device program, run by a small interpreter, against the meaning of the rules."""

import struct
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from hafen.kernel.bpf import device_program
from hafen.runtime.device_rules import device_settings
from hafen.spec.runtime_config import DeviceRule

ACCESS = {"m": 1, "r": 2, "w": 4}
KIND = {"b": 1, "c": 2}


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Interprets the instructions that the program uses; fails on any other, and on reading what was never set."""
    context = struct.pack("=3I", sum(ACCESS[a] for a in access) << 16 | KIND[kind], major, minor)
    registers: dict[int, int | bytes] = {1: context}
    at = 0
    while True:
        code, pair, offset, constant = struct.unpack_from("=BBhi", program, at * 8)
        target, source = pair & 15, pair >> 4
        at += 1
        value = registers.get(source, 0)
        if code == 0x61:
            assert isinstance(value, bytes)
            registers[target] = struct.unpack_from("=I", value, offset)[0]
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0xB7:
            registers[target] = constant
        elif code in (0x54, 0x74):
            number = registers[target]
            assert isinstance(number, int)
            registers[target] = number & constant if code == 0x54 else number >> constant
        elif code in (0x55, 0x15):
            at += offset if (registers[target] == constant) == (code == 0x15) else 0
        elif code == 0x5D:
            at += offset if registers[target] != registers[source] else 0
        else:
            assert code == 0x95
            return registers[0] == 1


def settings(rules: Sequence[DeviceRule]) -> list[tuple[bool, str]]:
    return [(setting.file == "devices.allow", setting.value) for setting in device_settings(rules)]


def test_default_devices_alone() -> None:
    program = device_program(settings(()))
    assert run(program, "c", 1, 3, "rw")
    assert run(program, "c", 136, 7, "rw")
    assert run(program, "b", 8, 0, "m")
    assert not run(program, "b", 8, 0, "r")
    assert not run(program, "b", 8, 0, "rm")
    assert not run(program, "c", 1, 11, "r")


def test_everything_but_one() -> None:
    program = device_program(settings((DeviceRule(True, "a"), DeviceRule(False, "c", 10, 229, "rw"))))
    assert run(program, "b", 8, 0, "rwm")
    assert run(program, "c", 10, 229, "m")
    assert not run(program, "c", 10, 229, "r")
    assert not run(program, "c", 10, 229, "rwm")


def test_no_rules_at_all_denies() -> None:
    assert not run(device_program(()), "c", 1, 3, "r")


numbers = st.sampled_from([0, 1, 3, 5, 8, 136])
accesses = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters)))
allowances = st.lists(
    st.builds(
        DeviceRule,
        st.just(True),
        st.sampled_from("bc"),
        st.one_of(st.none(), numbers),
        st.one_of(st.none(), numbers),
        accesses,
    ),
    max_size=6,
)


@given(allowances, st.sampled_from("bc"), numbers, numbers, st.sampled_from("rwm"))
def test_allowances(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> None:
    from hafen.runtime.device_rules import DEFAULT_RULES

    expected = any(
        rule.type == kind and rule.major in (None, major) and rule.minor in (None, minor) and access in rule.access
        for rule in [*rules, *DEFAULT_RULES]
    )
    assert run(device_program(settings(rules)), kind, major, minor, access) == expected
