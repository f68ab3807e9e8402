import struct

import pytest

from hafen.engine.logs import Selection, Shape
from hafen.logs.driver import Entry


def frames(raw: bytes) -> list[tuple[int, bytes]]:
    found = []
    while raw:
        stream, size = struct.unpack(">BxxxI", raw[:8])
        found.append((stream, raw[8 : 8 + size]))
        raw = raw[8 + size :]
    return found


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(1, b"a\nb\n")], [(1, b"a\n"), (1, b"b\n")]),
        ([(1, b"a\n\nb"), (2, b"x"), (1, b"\n")], [(1, b"a\n"), (1, b"\n"), (1, b"b"), (2, b"x"), (1, b"\n")]),
        ([(2, b"y" * 5000 + b"\nz\n")], [(2, b"y" * 5000 + b"\n"), (2, b"z\n")]),
        ([(1, b"a\rb\n")], [(1, b"a\rb\n")]),
        ([(1, b"")], []),
    ],
)
def test_a_line_is_a_frame(entries: list[tuple[int, bytes]], expected: list[tuple[int, bytes]]) -> None:
    shape = Shape(Selection(), tty=False)
    assert frames(shape.shape([Entry(1, stream, data) for stream, data in entries])) == expected
