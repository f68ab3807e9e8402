"""The multiplexed stdio frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafen.errors import Corrupt
from hafen.spec import stdcopy


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1))), st.integers(1, 20))
def test_decoded_in_any_pieces(frames: list[tuple[int, bytes]], size: int) -> None:
    data = b"".join(stdcopy.frame(stream, payload) for stream, payload in frames)
    decoder = stdcopy.Decoder()
    streams: dict[int, bytes] = {}
    for start in range(0, len(data), size):
        for stream, piece in decoder.feed(data[start : start + size]):
            streams[stream] = streams.get(stream, b"") + piece
    assert decoder.complete
    for stream in range(4):
        assert streams.get(stream, b"") == b"".join(payload for at, payload in frames if at == stream)


def test_the_bytes_of_a_frame() -> None:
    assert stdcopy.frame(2, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


@pytest.mark.parametrize("data", [b"\x04\0\0\0\0\0\0\x01", b"\x01\0\1\0\0\0\0\x01", b"HTTP/1.1"])
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(Corrupt):
        list(stdcopy.Decoder().feed(data))
