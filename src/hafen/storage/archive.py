"""Streaming tar reader and writer: any archive as members and pieces of content, within limits.

Reads ustar, pax with global headers, GNU long names, base-256 numbers, and all four sparse formats; writes ustar and
pax. Nothing is seeked in and nothing is kept: an archive of any size takes one chunk of memory. What may not be
believed (names, links, devices) is `extract`'s business; here only the format is checked.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hafen.errors import Corrupt, OutOfSpace
from hafen.storage import tarformat
from hafen.storage.tarformat import BLOCK, Entry

_MAX_EXTENSION = 1 << 20  # of all headers before one member; Linux' own limit for a name is 4096
_MAX_GLOBAL = 1 << 16  # of all global headers, which count for every member after them
_MAX_LINE = 20  # of a sparse map: an int64 in decimal
_ZERO_TAIL = bytes(2 * BLOCK)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may grow to before it is refused with OutOfSpace: bytes of the whole (uncompressed) archive,
    and members. An attacker's layer expands about a thousand to one with gzip, and without end with zstd."""

    bytes: int = 64 << 30
    entries: int = 4_000_000


DEFAULT_LIMITS = Limits()


class Source:
    """A stream of chunks read by exact sizes. Corrupt ("truncated") where it ends too early."""

    def __init__(self, chunks: Iterable[bytes], limit: int = DEFAULT_LIMITS.bytes) -> None:
        self._chunks = iter(chunks)
        self._chunk: memoryview = memoryview(b"")
        self._position = 0
        self._room = limit
        self._limit = limit

    def _fill(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._room -= len(chunk)
                if self._room < 0:
                    raise OutOfSpace(f"archive expands beyond the limit of {self._limit} bytes")
                self._chunk = memoryview(chunk)
                self._position = 0
                return True
        return False

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        start = self._position
        end = start + size
        if end <= len(self._chunk):
            self._position = end
            return bytes(self._chunk[start:end])
        return b"".join(self.pieces(size))

    def take_or_end(self, size: int) -> bytes | None:
        """Exactly `size` bytes, or None where the stream is over."""
        if self._position == len(self._chunk) and not self._fill():
            return None
        return self.take(size)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """`size` bytes in pieces as they come; each piece is valid until the next."""
        while size:
            available = len(self._chunk) - self._position
            if not available:
                if not self._fill():
                    raise Corrupt("archive is truncated: unexpected end of data")
                available = len(self._chunk)
            count = min(size, available)
            start = self._position
            self._position = start + count
            size -= count
            yield self._chunk[start : start + count]

    def rest(self) -> Iterator[memoryview]:
        """Everything up to the end."""
        while True:
            if self._position < len(self._chunk):
                start, self._position = self._position, len(self._chunk)
                yield self._chunk[start:]
            if not self._fill():
                return


Literal = Callable[[bytes], None]


def _ignore(_: bytes) -> None:
    return


class Reader:
    """The members of one archive, one after the other.

        for entry in reader:
            for piece in reader.content(): ...      # may be left out: then it is skipped

    `literal` is told every byte of the stream that is not content, in order (see `recipe`). `require_end`: refuse an
    archive without its end mark, which is how one that was cut between two members looks. Errors: Corrupt, OutOfSpace.
    """

    def __init__(
        self,
        source: Source,
        *,
        limits: Limits = DEFAULT_LIMITS,
        literal: Literal | None = None,
        require_end: bool = True,
    ) -> None:
        self._source = source
        self._entries_left = limits.entries
        self._literal = literal or _ignore
        self._recording = literal is not None
        self._require_end = require_end
        self._globals: dict[str, bytes] = {}
        self._extension_left = _MAX_EXTENSION
        self._global_left = _MAX_GLOBAL
        self._left = 0  # bytes of the current member not read yet
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (item := self._next()) is not None:
            self._entries_left -= 1
            if self._entries_left < 0:
                raise OutOfSpace("archive has more members than the limit allows")
            yield item
        for piece in self._source.rest():
            self._literal(bytes(piece))

    def content(self) -> Iterator[memoryview]:
        """The stored bytes of the current member, once, in pieces; for a sparse one its segments joined."""
        while self._left:
            for piece in self._source.pieces(self._left):
                self._left -= len(piece)
                yield piece

    def _block(self) -> bytes:
        block = self._source.take(BLOCK)
        self._literal(block)
        return block

    def _finish_member(self) -> None:
        if self._left:
            for piece in self.content():
                if self._recording:
                    self._literal(bytes(piece))
        if self._padding:
            self._literal(self._source.take(self._padding))
            self._padding = 0

    def _next(self) -> Entry | None:
        self._finish_member()
        records: dict[str, bytes] = dict(self._globals) if self._globals else {}
        name: str | None = None
        linkname: str | None = None
        self._extension_left = _MAX_EXTENSION
        while True:
            block = self._source.take_or_end(BLOCK)
            if block is None:
                if self._require_end or records != self._globals or name is not None:
                    raise Corrupt("archive is truncated: it has no end mark")
                return None
            self._literal(block)
            if block[0] == 0 and block == tarformat.ZERO_BLOCK:
                return None
            header = tarformat.decode(block)
            kind = header.type
            if kind in tarformat.KNOWN:
                item = tarformat.entry(header, records, name, linkname) if records or name or linkname else None
                return self._member(item or tarformat.entry(header, {}, None, None), records)
            if kind == tarformat.PAX:
                records.update(tarformat.pax_records(self._extension(header.size)))
            elif kind == tarformat.PAX_GLOBAL:
                self._global_left -= header.size
                if self._global_left < 0:
                    raise Corrupt(f"invalid tar header: more than {_MAX_GLOBAL} bytes of global headers")
                self._globals.update(tarformat.pax_records(self._extension(header.size)))
                records = {**self._globals, **records}
            elif kind == tarformat.GNU_NAME:
                name = tarformat.text(self._extension(header.size))
            elif kind == tarformat.GNU_LINK:
                linkname = tarformat.text(self._extension(header.size))
            elif kind == tarformat.GNU_SPARSE:
                return self._old_sparse(header, tarformat.entry(header, records, name, linkname))
            elif kind == "V":
                continue  # GNU volume label: a name and nothing else
            else:
                raise Corrupt(f"archive member {header.name!r} is of unknown type {kind!r}")

    def _extension(self, size: int) -> bytes:
        self._extension_left -= BLOCK + size
        if size < 0 or self._extension_left < 0:
            raise Corrupt(f"invalid tar header: more than {_MAX_EXTENSION} bytes of headers before one member")
        data = self._source.take(size + -size % BLOCK)
        self._literal(data)
        return data[:size]

    def _member(self, item: Entry, records: dict[str, bytes]) -> Entry:
        self._left = item.size
        self._padding = -item.size % BLOCK
        if not records or item.type != tarformat.FILE:
            return item
        if records.get("GNU.sparse.major") == b"1":
            return self._pax_sparse_1(item, records)
        if "GNU.sparse.map" in records:
            numbers = [tarformat.decimal(part) for part in records["GNU.sparse.map"].split(b",")]
            size = records.get("GNU.sparse.size") or records.get("GNU.sparse.realsize") or b""
            return self._sparse(item, numbers, tarformat.decimal(size))
        return item

    def _pax_sparse_1(self, item: Entry, records: dict[str, bytes]) -> Entry:
        """Version 1.0: the map stands before the content, as decimal lines, filled up to whole blocks."""
        lines: list[bytes] = []
        buffer = b""
        wanted = 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise Corrupt(f"archive member {item.name!r} has a damaged sparse map")
            buffer += self._block()
            self._left -= BLOCK
            *whole, buffer = buffer.split(b"\n")
            lines += whole
            if lines:
                wanted = 1 + 2 * tarformat.decimal(lines[0])
            if wanted > _MAX_EXTENSION or (len(lines) < wanted and len(buffer) > _MAX_LINE):
                raise Corrupt(f"archive member {item.name!r} has a damaged sparse map")
        numbers = [tarformat.decimal(line) for line in lines[1:wanted]]
        return self._sparse(item, numbers, tarformat.decimal(records.get("GNU.sparse.realsize", b"")))

    def _old_sparse(self, header: tarformat.Header, item: Entry) -> Entry:
        """GNU's own format: four segments in the header, then blocks of 21 more."""
        self._left = item.size
        self._padding = -item.size % BLOCK
        # offsets within the prefix field at 345: atime 12, ctime 12, offset 12, longnames 4, unused 1, then the map
        numbers: list[int] = []
        numbers += _segments(header.tail[41:137], 4)
        size = tarformat.number(header.tail[138:150])
        more = header.tail[137]
        while more:
            block = self._block()
            further = _segments(block, 21)
            numbers += further
            more = block[504]
            if not further or len(numbers) > _MAX_EXTENSION:
                raise Corrupt(f"archive member {item.name!r} has a damaged sparse map")
        return self._sparse(item._replace(type=tarformat.FILE), numbers, size)

    def _sparse(self, item: Entry, numbers: list[int], size: int) -> Entry:
        pairs = tuple(zip(numbers[::2], numbers[1::2], strict=False))
        end = 0
        for offset, length in pairs:
            if offset < end or length < 0 or offset + length > size:
                raise Corrupt(f"archive member {item.name!r} has a damaged sparse map")
            end = offset + length
        segments = tuple(pair for pair in pairs if pair[1])
        if len(numbers) % 2 or sum(length for _, length in segments) != self._left:
            raise Corrupt(f"archive member {item.name!r} has a damaged sparse map")
        return item._replace(size=size, segments=segments)


def _segments(raw: bytes, count: int) -> list[int]:
    numbers: list[int] = []
    for index in range(count):
        field = raw[24 * index : 24 * index + 24]
        if not field[0]:
            break
        numbers += (tarformat.number(field[:12]), tarformat.number(field[12:]))
    return numbers


def member(item: Entry, content: Iterable[bytes | memoryview] = (), *, nanoseconds: bool = False) -> Iterator[bytes]:
    """The blocks of one member. The content must be `item.stored` bytes; else Corrupt names the file."""
    yield tarformat.encode(item, nanoseconds=nanoseconds)
    if item.type != tarformat.FILE:
        return
    written = 0
    for piece in content:
        written += len(piece)
        if written > item.stored:
            break
        yield bytes(piece)
    if written != item.stored:
        raise Corrupt(f"file {item.name!r} changed its size while it was read")
    if written % BLOCK:
        yield bytes(-written % BLOCK)


def end() -> bytes:
    """The end mark."""
    return _ZERO_TAIL
