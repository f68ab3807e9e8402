"""Compressed streams: recognised, several members, damaged, cut, expanding."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafen.errors import Corrupt
from hafen.storage import compression

few = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
DATA = bytes(range(256)) * 600


def through(data: bytes, size: int = 4096) -> bytes:
    return b"".join(compression.decompressed(data[start : start + size] for start in range(0, len(data), size)))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_each_is_recognised_and_undone(name: str) -> None:
    packed = COMPRESSORS[name](DATA)
    assert compression.detect(packed[:6]) == name
    assert through(packed) == DATA
    assert through(packed, 1) == DATA


@pytest.mark.parametrize("name", COMPRESSORS)
def test_members_follow_one_another(name: str) -> None:
    pack = COMPRESSORS[name]
    assert through(pack(DATA) + pack(b"more") + pack(b"")) == DATA + b"more"


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_cut_stream_is_refused(name: str) -> None:
    packed = COMPRESSORS[name](DATA)
    for cut in (7, len(packed) // 2, len(packed) - 1):
        with pytest.raises(Corrupt, match=r"truncated|damaged"):
            through(packed[:cut])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_damaged_stream_is_refused(name: str) -> None:
    packed = bytearray(COMPRESSORS[name](DATA))
    middle = len(packed) // 2
    packed[middle : middle + 8] = b"\xff\0" * 4
    with pytest.raises(Corrupt):
        assert through(bytes(packed)) == DATA


def test_padding_after_gzip_is_ignored_and_garbage_is_not() -> None:
    packed = gzip.compress(DATA)
    assert through(packed + bytes(10240)) == DATA
    with pytest.raises(Corrupt):
        through(packed + b"garbage that is no gzip member")


@few
@given(st.binary(max_size=2000))
def test_what_is_not_compressed_passes(data: bytes) -> None:
    if compression.detect(data[:6]) is None:
        assert through(data, 100) == data


def test_a_bomb_comes_out_in_small_pieces() -> None:
    packed = gzip.compress(bytes(64 << 20))
    assert len(packed) < 100_000
    assert max(map(len, compression.decompressed(iter((packed,))))) <= 1 << 20
