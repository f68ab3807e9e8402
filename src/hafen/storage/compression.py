"""Streams compressed with gzip, zstd, xz or bzip2, known by their first bytes, as what they stand for; and to gzip."""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

from isal import igzip_lib, isal_zlib

from hafen.errors import Corrupt

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_STEP = 1 << 20  # at most this much comes out at once, however far the input would expand
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW_LOG = 27  # 128 MiB, what the zstd tool accepts without being told

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip() -> _Decompressor:
    made: _Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return made


def _zstd() -> _Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "xz": _xz,
    "bzip2": bz2.BZ2Decompressor,
}
_ISAL: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment] # its stub declares an instance
_ERRORS = (_ISAL, zstd.ZstdError, lzma.LZMAError, EOFError, OSError, ValueError)


def detect(start: bytes) -> str | None:
    """`gzip`, `zstd`, `xz` or `bzip2`, by the first six bytes; None for anything else."""
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    return None


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The stream decompressed; as it is where it is not compressed. Corrupt where it is damaged or cut."""
    stream = iter(chunks)
    start = b""
    for chunk in stream:
        start += chunk
        if len(start) >= 6:
            break
    name = detect(start)
    whole = chain((start,), stream)
    return iter(whole) if name is None else _decompress(name, whole)


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The stream compressed with gzip: the same bytes for the same input, as nothing of time or place is in it."""
    compressor = isal_zlib.compressobj(wbits=31)
    for chunk in chunks:
        out = compressor.compress(chunk)
        if out:
            yield out
    yield compressor.flush()


def _decompress(name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    make = _DECOMPRESSORS[name]
    decompressor = make()
    fresh = True  # between two members: zeros may follow (tape padding), and the end
    for chunk in chunks:
        data = chunk
        while data or not (fresh or decompressor.needs_input):
            if fresh:
                data = data.lstrip(b"\0")
                if not data:
                    break
                fresh = False
            try:
                out = decompressor.decompress(data, _STEP)
            except _ERRORS as error:
                raise Corrupt(f"{name} stream is damaged: {error}") from error
            if out:
                yield out
            data = b""
            if decompressor.eof:
                data = decompressor.unused_data
                decompressor, fresh = make(), True
    if not fresh:
        raise Corrupt(f"{name} stream is truncated")
