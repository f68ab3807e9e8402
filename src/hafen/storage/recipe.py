"""Recipes: what turns the unpacked files of a layer back into the very tar it came as.

A layer that arrived uncompressed is kept once, as files; its recipe holds the rest of the archive: every header, all
padding, and for content which file and which part of it. Save, push and the registry read the same bytes, and so the
same digest, as if the tar had been kept. (moby does this with tar-split.)

A recipe is one zstd frame of records: tag (1 byte), three numbers (LEB128), and as many bytes as the third says.

    tag 0  literal   the bytes stand in the archive as they are
    tag 1  content   (offset, length) of the file that the bytes name
    tag 2  displaced the name meant kept/<first number> until content record <second number>

The third kind is for a name that a layer brings twice: what it meant first is moved beside the layer directory.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hafen.errors import Corrupt

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LITERAL, CONTENT, DISPLACED = 0, 1, 2
_LITERAL_LIMIT = 1 << 20
_READ = 1 << 20


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
    """Collects the recipe while a layer is read; a megabyte or two for a layer of 20,000 files."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(level=3)
        self._out: list[bytes] = []
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
        self._out.append(self._compressor.compress(head + data))

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


class _Records:
    def __init__(self, recipe: bytes) -> None:
        try:
            self._data = zstd.decompress(recipe)
        except zstd.ZstdError as error:
            raise Corrupt(f"recipe of a layer is damaged: {error}") from error

    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]:
        data, position = self._data, 0
        while position < len(data):
            tag = data[position]
            position += 1
            numbers = []
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
            yield tag, numbers[0], numbers[1], data[position : position + numbers[2]]
            position += numbers[2]


def size(recipe: bytes) -> int:
    """Bytes of the archive that it gives back."""
    return sum(len(data) if tag == LITERAL else length for tag, _, length, data in _Records(recipe) if tag != DISPLACED)


def reassemble(recipe: bytes, directory: str) -> Iterator[bytes]:
    """The archive's bytes, from its recipe and its layer directory (`<n>/fs`, with `<n>/kept` beside it).

    Whoever needs to be sure compares the digest. Corrupt where a file is gone or shorter than it was.
    """
    records = _Records(recipe)
    displaced = [
        Displaced(data.decode("utf-8", "surrogateescape"), kept, before)
        for tag, kept, before, data in records
        if tag == DISPLACED
    ]
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        index = 0
        for tag, offset, length, data in records:
            if tag == LITERAL:
                yield data
            elif tag == CONTENT:
                name = data.decode("utf-8", "surrogateescape")
                yield from _read(root, _place(displaced, name, index), offset, length)
                index += 1
    finally:
        os.close(root)


def _place(displaced: Iterable[Displaced], name: str, index: int) -> str:
    for item in displaced:
        if index < item.before and (name == item.name or name.startswith(item.name + "/")):
            return f"../kept/{item.kept}{name[len(item.name) :]}"
    return name


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
