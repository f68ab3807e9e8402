"""Recipes: what turns the unpacked files of a layer back into the very tar it came as.

A layer that arrived uncompressed is kept once, as files; its recipe holds the rest of the archive: every header, all
padding, and for content which file and which part of it. Save, push and the registry read the same bytes, and so the
same digest, as if the tar had been kept. (moby does this with tar-split.)

A recipe is one zstd frame of records: tag (1 byte), three numbers (LEB128), and as many bytes as the third says.

    tag 0  literal   the bytes stand in the archive as they are
    tag 1  content   (offset, length) of the file that the bytes name
    tag 2  displaced the name meant kept/<first number> until content record <second number>

The third kind is for a name that a layer brings twice: what it meant first is moved beside the layer directory.

Recipes are read as streams: a stranger's layer may end in gigabytes of zeros, of which its recipe keeps next to none.
What zstd cannot shrink is bounded: a layer whose recipe would take more than `LIMIT` bytes is refused.
"""

import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hafen.errors import Corrupt, OutOfSpace

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LITERAL, CONTENT, DISPLACED = 0, 1, 2
LIMIT = 256 << 20  # a hundred times what a layer of 20,000 files needs
_LITERAL_LIMIT = 1 << 20
_READ = 1 << 20

Record = tuple[int, int, int, bytes]
"""Tag, two numbers, bytes."""


class Displaced(NamedTuple):
    """`name`, or what was below it, was moved to `kept` after `before` content records had been written."""

    name: str
    kept: int
    before: int


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Recorder:
    """Collects the recipe while a layer is read; a megabyte or two for a layer of 20,000 files. OutOfSpace where it
    comes to more than `limit` bytes."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._compressor = zstd.ZstdCompressor(level=3)
        self._out: list[bytes] = []
        self._room = limit
        self._limit = limit
        self._literals: list[bytes] = []
        self._literal_size = 0
        self.contents = 0

    def literal(self, data: bytes) -> None:
        """Bytes of the archive that are not content."""
        self._literals.append(data)
        self._literal_size += len(data)
        if self._literal_size >= _LITERAL_LIMIT:
            self._flush()

    def content(self, name: str, offset: int, length: int) -> None:
        """Bytes of the archive that are a part of the file `name`."""
        self._flush()
        self._record(CONTENT, offset, length, name.encode("utf-8", "surrogateescape"))
        self.contents += 1

    def displaced(self, name: str, kept: int) -> None:
        """From here on `name` means something else; what it was is now `kept/<kept>`."""
        self._flush()
        self._record(DISPLACED, kept, self.contents, name.encode("utf-8", "surrogateescape"))

    def _record(self, tag: int, first: int, second: int, data: bytes) -> None:
        head = bytes((tag,)) + _number(first) + _number(second) + _number(len(data))
        out = self._compressor.compress(head + data)
        if out:
            self._out.append(out)
            self._room -= len(out)
            if self._room < 0:
                raise OutOfSpace(f"layer has more than {self._limit} bytes beside its files")

    def _flush(self) -> None:
        if self._literals:
            data = b"".join(self._literals)
            self._literals.clear()
            self._literal_size = 0
            self._record(LITERAL, 0, 0, data)

    def finish(self) -> bytes:
        """The whole recipe."""
        self._flush()
        self._out.append(self._compressor.flush())
        return b"".join(self._out)


def _records(recipe: bytes) -> Iterator[Record]:
    """All records; Corrupt where the recipe is damaged."""
    data, position = b"", 0
    for piece in _pieces(recipe):
        data, position = data[position:] + piece, 0
        while (found := _record(data, position)) is not None:
            record, position = found
            yield record
    if position < len(data):
        raise Corrupt("recipe of a layer is damaged: it ends within a record")


def _pieces(recipe: bytes) -> Iterator[bytes]:
    decompressor, data = zstd.ZstdDecompressor(), recipe
    while not decompressor.eof:
        if not data and decompressor.needs_input:
            raise Corrupt("recipe of a layer is damaged: it is cut")
        try:
            piece = decompressor.decompress(data, _READ)
        except zstd.ZstdError as error:
            raise Corrupt(f"recipe of a layer is damaged: {error}") from error
        data = b""
        yield piece


def _record(data: bytes, position: int) -> tuple[Record, int] | None:
    """The record that begins there, and where the next one does; None where not all of it is in the data."""
    start, numbers = position, []
    position += 1
    try:
        for _ in range(3):
            value = shift = 0
            while True:
                byte = data[position]
                position += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            numbers.append(value)
    except IndexError:
        return None
    end = position + numbers[2]
    return None if end > len(data) else ((data[start], numbers[0], numbers[1], data[position:end]), end)


def size(recipe: bytes) -> int:
    """Bytes of the archive that it gives back."""
    return sum(len(data) if tag == LITERAL else length for tag, _, length, data in _records(recipe) if tag != DISPLACED)


def reassemble(recipe: bytes, directory: str) -> Iterator[bytes]:
    """The archive's bytes, from its recipe and its layer directory (`<n>/fs`, with `<n>/kept` beside it).

    Whoever needs to be sure compares the digest. Corrupt where a file is gone or shorter than it was.
    """
    displaced: dict[str, list[Displaced]] = {}
    for tag, kept, before, data in _records(recipe):
        if tag == DISPLACED:
            name = data.decode("utf-8", "surrogateescape")
            displaced.setdefault(name, []).append(Displaced(name, kept, before))
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        index = 0
        for tag, offset, length, data in _records(recipe):
            if tag == LITERAL:
                yield data
            elif tag == CONTENT:
                name = data.decode("utf-8", "surrogateescape")
                yield from _read(root, _place(displaced, name, index), offset, length)
                index += 1
    finally:
        os.close(root)


def _place(displaced: Mapping[str, list[Displaced]], name: str, index: int) -> str:
    """Where the file is that `name` meant at this content record: it or what it was in may have been moved, and the
    first move counts. `displaced` are those of each name, in order."""
    first: Displaced | None = None
    end = len(name) if displaced else 0
    while end > 0:
        moves = displaced.get(name[:end], [])
        after = bisect_right(moves, index, key=lambda one: one.before)
        if after < len(moves) and (first is None or moves[after].kept < first.kept):
            first = moves[after]
        end = name.rfind("/", 0, end)
    return name if first is None else f"../kept/{first.kept}{name[len(first.name) :]}"


def _read(root: int, name: str, offset: int, length: int) -> Iterator[bytes]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError as error:
        raise Corrupt(f"layer is damaged: file {name!r}: {error.strerror}") from error
    try:
        while length:
            data = os.pread(descriptor, min(length, _READ), offset)
            if not data:
                raise Corrupt(f"layer is damaged: file {name!r} is shorter than it was")
            offset += len(data)
            length -= len(data)
            yield data
    finally:
        os.close(descriptor)
