"""The detach keys, fed in any pieces."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hafen.shim.detach import DetachScanner

KEYS = b"\x10\x11"


def feed(keys: bytes, pieces: list[bytes]) -> tuple[bytes, bool]:
    scanner = DetachScanner(keys)
    passed = b""
    for piece in pieces:
        some, detached = scanner.feed(piece)
        passed += some
        if detached:
            return passed, True
    return passed, False


@given(st.binary(), st.lists(st.integers(0, 50)))
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    data = data.replace(b"a", KEYS[:1])
    positions = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[start:end] for start, end in itertools.pairwise(positions)]
    assert feed(KEYS, pieces) == feed(KEYS, [data])


def test_keys_end_the_session_and_are_not_passed_on() -> None:
    assert feed(KEYS, [b"ab\x10", b"\x11cd"]) == (b"ab", True)
    assert feed(b"aab", [b"a", b"a", b"a", b"b"]) == (b"a", True)


def test_a_broken_beginning_is_passed_on() -> None:
    assert feed(KEYS, [b"\x10", b"x"]) == (b"\x10x", False)
    assert feed(KEYS, [b"\x10\x10", b"\x10x"]) == (b"\x10\x10\x10x", False)


def test_no_keys_pass_everything() -> None:
    assert feed(b"", [KEYS]) == (KEYS, False)


def test_the_end_of_the_input_gives_up_what_was_held_back() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"a\x10") == (b"a", False)
    assert scanner.rest() == b"\x10"
    assert scanner.rest() == b""
