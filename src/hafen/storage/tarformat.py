"""Tar headers: decode and encode single blocks; no I/O.

ustar and pax as POSIX.1-2017 `pax` describes them, GNU's extensions as in tar's `src/tar.h` and
https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html. Names are text with the bytes that are not
UTF-8 as surrogate escapes, as Python's own file functions take them.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

from hafen.errors import Corrupt

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

FILE, LINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK, GNU_SPARSE = "x", "g", "L", "K", "S"
_SAME = {"\0": FILE, "7": FILE, "D": DIRECTORY, "X": PAX}
KNOWN = frozenset((FILE, LINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO))

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_XATTR = "SCHILY.xattr."
_INT64 = range(-(1 << 63), 1 << 63)
_DEVICE = 1 << 32  # no part of a device number is as large


class Header(NamedTuple):
    """One header block as it stands, before extensions are applied. `tail` is what old GNU sparse keeps there."""

    name: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: str
    linkname: str
    major: int
    minor: int
    tail: bytes


class Entry(NamedTuple):
    """One member of an archive. `size` is the file's size; `stored` counts the bytes of it in the archive, which
    differs for sparse files: then `segments` are the (offset, length) that are stored, in order."""

    name: str
    type: str = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: str = ""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = {}
    segments: tuple[tuple[int, int], ...] | None = None

    @property
    def stored(self) -> int:
        return self.size if self.segments is None else sum(length for _, length in self.segments)


def text(raw: bytes) -> str:
    """A NUL-terminated field."""
    end = raw.find(0)
    return (raw if end < 0 else raw[:end]).decode("utf-8", "surrogateescape")


def number(raw: bytes) -> int:
    """A numeric field: octal digits, or GNU's base-256 where the first bit is set. Corrupt where it is neither, or no
    int64."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        bits = 8 * len(raw)
        # Bit 7 of the first byte is the mark, bit 6 the sign of a two's complement number.
        value -= (1 << bits) if raw[0] & 0x40 else (1 << (bits - 1))
        if value not in _INT64:
            raise Corrupt(f"invalid tar header: bad number {value}")
        return value
    digits = raw.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        if digits[0] in b"+-_":
            raise ValueError
        return int(digits, 8)
    except ValueError:
        raise Corrupt(f"invalid tar header: bad number {digits!r}") from None


def decode(block: bytes) -> Header:
    """The header in a block of 512 bytes; Corrupt where its checksum or a number is wrong."""
    (name, mode, uid, gid, size, mtime, checksum, kind, linkname, magic, _, _, major, minor, prefix, pad) = (
        _HEADER.unpack(block)
    )
    # The checksum's own eight bytes count as spaces.
    if number(checksum) != sum(block) - sum(checksum) + 256:
        signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
        if number(checksum) != signed:
            raise Corrupt("invalid tar header: wrong checksum")
    path = text(name)
    ustar = magic[:6] == b"ustar\0"
    if ustar and prefix[0]:
        path = f"{text(prefix)}/{path}"
    letter = kind.decode("latin-1")
    letter = _SAME.get(letter, letter)
    device = letter in (CHAR, BLOCKDEV)
    return Header(
        path, number(mode), number(uid), number(gid), number(size), number(mtime), letter, text(linkname),
        number(major) if device else 0, number(minor) if device else 0, prefix + pad,
    )  # fmt: skip


def pax_records(data: bytes) -> dict[str, bytes]:
    """The `length key=value` records of an extended header; an empty value means "as if never set"."""
    records: dict[str, bytes] = {}
    segments: list[bytes] = []
    position = 0
    while position < len(data):
        if data[position] == 0:
            break  # some writers pad
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, end)
        if end <= space + 1 or end > len(data) or data[end - 1] != 0x0A or equals < 0:
            raise Corrupt("invalid tar header: malformed pax record")
        key = data[space + 1 : equals].decode("utf-8", "surrogateescape")
        value = data[equals + 1 : end - 1]
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            # Sparse format 0.0 repeats these two per segment; 0.1 says the same in one list.
            segments.append(value)
        else:
            records[key] = value
        position = end
    if segments:
        records["GNU.sparse.map"] = b",".join(segments)
    return records


def seconds(value: bytes) -> int:
    """A pax time as nanoseconds, exactly. Corrupt where its seconds are no int64."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    try:
        nanoseconds = int(whole or b"0") * 1_000_000_000
        extra = int((fraction[:9]).ljust(9, b"0")) if fraction else 0
    except ValueError:
        raise Corrupt(f"invalid tar header: bad time {value[:100]!r}") from None
    if nanoseconds // 1_000_000_000 not in _INT64:
        raise Corrupt(f"invalid tar header: bad time {value[:100]!r}")
    return nanoseconds - extra if negative else nanoseconds + extra


def decimal(value: bytes) -> int:
    """A pax number; Corrupt where it is none, negative, or no int64."""
    if not value.isdigit() or len(value) > 19 or int(value) not in _INT64:
        raise Corrupt(f"invalid tar header: bad number {value[:100]!r}")
    return int(value)


def entry(header: Header, records: Mapping[str, bytes], name: str | None, linkname: str | None) -> Entry:
    """The member that a header and the extensions before it describe (sparse maps are the reader's)."""
    mtime_ns = header.mtime * 1_000_000_000
    uid, gid, size, kind = header.uid, header.gid, header.size, header.type
    path = header.name if name is None else name
    target = header.linkname if linkname is None else linkname
    xattrs: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith(_XATTR):
            xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue
        elif key == "mtime":
            mtime_ns = seconds(value)
        elif key == "path" or key == "GNU.sparse.name":
            path = value.decode("utf-8", "surrogateescape")
        elif key == "linkpath":
            target = value.decode("utf-8", "surrogateescape")
        elif key == "uid":
            uid = decimal(value)
        elif key == "gid":
            gid = decimal(value)
        elif key == "size":
            size = decimal(value)
    if "GNU.sparse.name" in records:
        path = records["GNU.sparse.name"].decode("utf-8", "surrogateescape")
    if kind == FILE and path.endswith("/"):
        kind = DIRECTORY  # before POSIX.1-1988 that was the only mark of a directory
    if kind not in (FILE, GNU_SPARSE):
        size = 0  # as GNU tar and Go's archive/tar read them: only files have content
    if size < 0 or not 0 <= uid < 1 << 32 or not 0 <= gid < 1 << 32:
        raise Corrupt(f"invalid tar header: impossible size or owner of {path!r}")
    if not 0 <= header.major < _DEVICE or not 0 <= header.minor < _DEVICE:
        raise Corrupt(f"invalid tar header: impossible device {path!r}")
    if "\0" in target or any("\0" in key for key in xattrs):
        raise Corrupt(f"invalid tar header: impossible link or attribute of {path!r}")
    return Entry(path, kind, header.mode & 0o7777, uid, gid, size, mtime_ns, target, header.major, header.minor, xattrs)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _pax_record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def padded(data: bytes) -> bytes:
    """The data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def _block(name: bytes, prefix: bytes, item: Entry, size: int, mtime: int, linkname: bytes, kind: str) -> bytes:
    fields = (
        name, _octal(item.mode & 0o7777, 8), _octal(item.uid if item.uid < 1 << 21 else 0, 8),
        _octal(item.gid if item.gid < 1 << 21 else 0, 8), _octal(size if size < 1 << 33 else 0, 12),
        _octal(mtime if 0 <= mtime < 1 << 33 else 0, 12), b" " * 8, kind.encode(), linkname, b"ustar\x0000", b"", b"",
        _octal(item.major, 8), _octal(item.minor, 8), prefix, b"",
    )  # fmt: skip
    block = bytearray(_HEADER.pack(*fields))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """The name as ustar's (prefix, name), or None where it does not fit."""
    if len(name) <= 100:
        return b"", name
    cut = name.find(b"/", max(0, len(name) - 101))
    if 0 < cut <= 155 and cut + 1 < len(name):
        return name[:cut], name[cut + 1 :]
    return None


def sparse_map(item: Entry) -> bytes:
    """What stands before the content of a sparse file (GNU's pax format 1.0): its segments as decimal lines. A hole at
    the end is told by an empty segment there, as GNU tar does."""
    segments = list(item.segments or ())
    if not segments or sum(segments[-1]) < item.size:
        segments.append((item.size, 0))
    lines = [len(segments), *(number for segment in segments for number in segment)]
    return padded(b"".join(b"%d\n" % line for line in lines))


def encode(item: Entry, *, nanoseconds: bool = False) -> bytes:
    """The header blocks of a member: plain ustar where that can say it, a pax header before it where not; for a file
    with `segments` also its map.

    Times are whole seconds unless `nanoseconds`: as in the layers of other engines, where a pax header for every file
    would double the size of small ones.
    """
    name = item.name.encode("utf-8", "surrogateescape")
    linkname = item.linkname.encode("utf-8", "surrogateescape")
    mtime, fraction = divmod(item.mtime_ns, 1_000_000_000)
    size = item.size if item.type == FILE else 0
    records: dict[str, bytes] = {}
    sparse = b""
    if item.segments is not None:
        sparse = sparse_map(item)
        records = {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.name": name}
        records["GNU.sparse.realsize"] = b"%d" % size
        size = len(sparse) + item.stored
        # Where a reader that does not know the format puts the raw map and content (GNU tar: %d/GNUSparseFile.%p/%f).
        name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2][:80]
    split = _split(name)
    if split is None or not name.isascii():
        records["path"] = name
        split = split or (b"", name[:100])
    if len(linkname) > 100 or not linkname.isascii():
        records["linkpath"] = linkname
    if size >= 1 << 33:
        records["size"] = b"%d" % size
    for key, value in (("uid", item.uid), ("gid", item.gid)):
        if value >= 1 << 21:
            records[key] = b"%d" % value
    if fraction and nanoseconds:
        if mtime < 0:
            mtime, fraction = mtime + 1, 1_000_000_000 - fraction
        sign = b"-" if item.mtime_ns < 0 else b""
        records["mtime"] = sign + b"%d.%09d" % (abs(mtime), fraction)
    elif not 0 <= mtime < 1 << 33:
        records["mtime"] = b"%d" % mtime
    for key, data in item.xattrs.items():
        records[_XATTR + key] = data
    head = b""
    if records:
        data = b"".join(_pax_record(key, records[key]) for key in sorted(records))
        base = name.rstrip(b"/").rpartition(b"/")[2][:80]
        head = _block(b"PaxHeaders.0/" + base, b"", Entry("", mode=0o644), len(data), 0, b"", PAX) + padded(data)
    return head + _block(split[1], split[0], item, size, mtime, linkname[:100], item.type) + sparse
