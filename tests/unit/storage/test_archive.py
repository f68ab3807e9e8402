"""Tar read and written: against Python's tarfile and GNU tar as oracles, damaged, truncated, beyond limits."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafen.errors import Corrupt, HafenError, OutOfSpace
from hafen.storage import archive, tarformat
from hafen.storage.archive import Limits, Reader, Source
from hafen.storage.tarformat import Entry

BIG = 1 << 40
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def chunked(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(data: bytes, size: int = 1000, **options: bool) -> list[tuple[Entry, bytes]]:
    reader = Reader(Source(chunked(data, size)), **options)  # type: ignore[arg-type] # only require_end
    return [(entry, b"".join(reader.content())) for entry in reader]


def written(members: list[tuple[Entry, bytes]], nanoseconds: bool = True) -> bytes:
    blocks = [block for entry, data in members for block in archive.member(entry, (data,), nanoseconds=nanoseconds)]
    return b"".join((*blocks, archive.end()))


LONG = ["a/" * 60 + "b", "x" * 100, "x" * 101, "d" * 155 + "/" + "n" * 100, "ü/" * 70 + "z", "\udc80\udcff"]
names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=120) | st.sampled_from(LONG)
numbers = st.integers(0, 7) | st.sampled_from([0o7777, (1 << 21) - 1, 1 << 21, (1 << 32) - 1])
times = st.integers(-(10**18), 4 * 10**18)
xattr_values = st.dictionaries(st.sampled_from(["user.a", "security.capability", "user.ü"]), st.binary(max_size=40))


@st.composite
def members(draw: st.DrawFn) -> tuple[Entry, bytes]:
    kind = draw(st.sampled_from(sorted(tarformat.KNOWN)))
    data = draw(st.binary(max_size=1500)) if kind == tarformat.FILE else b""
    name = draw(names)
    if kind == tarformat.FILE and name.endswith("/"):
        name += "f"  # a file's name with a slash at its end is a directory's, to every reader
    device = kind in (tarformat.CHAR, tarformat.BLOCKDEV)
    entry = Entry(
        name, kind, draw(st.integers(0, 0o7777)), draw(numbers), draw(numbers), len(data), draw(times),
        draw(names) if kind in (tarformat.LINK, tarformat.SYMLINK) else "",
        draw(st.integers(0, 4095)) if device else 0, draw(st.integers(0, 0o777777)) if device else 0,
        draw(xattr_values),
    )  # fmt: skip
    return entry, data


@few
@given(st.lists(members(), max_size=6), st.integers(1, 3000))
def test_what_is_written_is_read_back(items: list[tuple[Entry, bytes]], chunk: int) -> None:
    assert read(written(items), chunk) == items


@few
@given(st.lists(members(), max_size=4))
def test_tarfile_reads_what_we_write(items: list[tuple[Entry, bytes]]) -> None:
    data = written(items)
    with tarfile.open(fileobj=io.BytesIO(data), format=tarfile.PAX_FORMAT, errors="surrogateescape") as oracle:
        for (entry, content), other in zip(items, oracle, strict=True):
            assert other.name == entry.name.rstrip("/") or entry.type != tarformat.DIRECTORY
            assert (other.mode, other.uid, other.gid, other.size) == (entry.mode, entry.uid, entry.gid, entry.size)
            assert other.linkname == entry.linkname
            if entry.type == tarformat.FILE:
                file = oracle.extractfile(other)
                assert file is not None
                assert file.read() == content


@few
@given(st.lists(members(), max_size=4), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_we_read_what_tarfile_writes(items: list[tuple[Entry, bytes]], kind: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind, errors="surrogateescape") as oracle:
        for entry, content in items:
            info = tarfile.TarInfo(entry.name)
            info.type = entry.type.encode()
            info.mode, info.uid, info.gid, info.size = entry.mode, entry.uid, entry.gid, entry.size
            info.mtime, info.linkname = entry.mtime_ns // 10**9, entry.linkname
            info.devmajor, info.devminor = entry.major, entry.minor
            oracle.addfile(info, io.BytesIO(content))
    for (entry, content), (found, data) in zip(items, read(buffer.getvalue()), strict=True):
        assert found.name.rstrip("/") == entry.name.rstrip("/")
        assert data == content
        assert found.mtime_ns // 10**9 == entry.mtime_ns // 10**9
        assert found._replace(name="", mtime_ns=0) == entry._replace(name="", mtime_ns=0, xattrs={})


@few
@given(st.binary(max_size=3000))
def test_noise_is_refused_and_nothing_else(data: bytes) -> None:
    try:
        read(data)
    except HafenError:
        return


@few
@given(st.lists(members(), min_size=1, max_size=3), st.data())
def test_one_changed_byte_is_refused_or_read(items: list[tuple[Entry, bytes]], data: st.DataObject) -> None:
    whole = bytearray(written(items))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(whole))
    except HafenError:
        return


def test_an_archive_cut_anywhere_is_refused() -> None:
    whole = written([(Entry("a", size=700), b"x" * 700), (Entry("n" * 200, size=3), b"abc")])
    for cut in range(len(whole) - 1024):
        with pytest.raises(Corrupt, match="truncated"):
            read(whole[:cut])
    assert len(read(whole[:-512])) == 2  # one block of the end mark is enough


def test_an_end_mark_is_not_needed_where_a_digest_is_known() -> None:
    whole = written([(Entry("a", size=3), b"abc")])
    assert len(read(whole[:-1024], require_end=False)) == 1
    with pytest.raises(Corrupt):
        read(whole[:-1100], require_end=False)


def test_content_may_be_skipped() -> None:
    whole = written([(Entry("a", size=700), b"x" * 700), (Entry("b", size=3), b"abc")])
    assert [entry.name for entry in Reader(Source(chunked(whole)))] == ["a", "b"]


def test_literals_and_content_together_are_the_archive() -> None:
    whole = written([(Entry("a", size=700), b"x" * 700), (Entry("ü" * 90, size=3), b"abc")]) + bytes(10240)
    seen: list[bytes] = []
    reader = Reader(Source(chunked(whole)), literal=seen.append)
    for _ in reader:
        seen += (bytes(piece) for piece in reader.content())
    assert b"".join(seen) == whole


def test_limits_end_an_archive_that_does_not() -> None:
    def endless() -> Iterator[bytes]:
        yield tarformat.encode(Entry("zeros", size=BIG))
        while True:
            yield bytes(1 << 16)

    reader = Reader(Source(endless(), limit=1 << 20))
    with pytest.raises(OutOfSpace, match="beyond the limit of 1048576 bytes"):
        [len(piece) for _ in reader for piece in reader.content()]
    whole = written([(Entry(str(number)), b"") for number in range(11)])
    with pytest.raises(OutOfSpace, match="more members"):
        list(Reader(Source(chunked(whole)), limits=Limits(entries=10)))


@pytest.mark.parametrize(
    "block",
    [
        tarformat.encode(Entry("a", type="Q")),
        tarformat.encode(Entry("a", type="M")),
        tarformat.encode(Entry("x", type="x", size=0))[:124] + b"77777777777\0" + bytes(400),
    ],
)
def test_unknown_members_are_refused(block: bytes) -> None:
    with pytest.raises(Corrupt):
        read(block[:512] + bytes(1024))


def header(entry: Entry, kind: str) -> bytes:
    """A header block of a type that we do not write."""
    block = bytearray(tarformat.encode(entry))
    block[156:157] = kind.encode()
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, kind: str = "x") -> bytes:
    return header(Entry("pax", size=len(records)), kind) + tarformat.padded(records)


def endless(start: bytes, block: bytes, most: int) -> Iterator[bytes]:
    """An archive that goes on like this; fails where so many blocks are read."""
    yield start
    for _ in range(most):
        yield block
    raise AssertionError(f"{most} blocks were read")


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\n", b"99 path=x\n", b"path=x\n", b"12 mtime=ab\n", b"10 uid=-1\n", b"10 size=x\n",
        b"5010 size=" + b"9" * 4999 + b"\n", b"29 size=99999999999999999999\n",
        b"5011 mtime=" + b"9" * 4999 + b"\n", b"29 mtime=9223372036854775808\n", b"30 mtime=-9223372036854775809\n",
        b"16 linkpath=a\0b\n", b"26 SCHILY.xattr.user.a\0b=\n",
    ],
)  # fmt: skip
def test_malformed_pax_records_are_refused(records: bytes) -> None:
    with pytest.raises(Corrupt):
        read(pax(records) + tarformat.encode(Entry("a")) + archive.end())


@pytest.mark.parametrize(
    "block",
    [
        pax(b"".join(b"100013 a%03d=%s\n" % (number, b"x" * 100_000) for number in range(5))),
        pax(b""),
        pax(b"".join(b"16 a%05d=%s\n" % (number, b"x" * 5) for number in range(1000)), "g"),
        header(Entry("long", size=500_000), "L") + bytes(500_224),
    ],
    ids=["pax headers", "empty headers", "global headers", "long names"],
)
def test_headers_without_end_are_refused(block: bytes) -> None:
    with pytest.raises(Corrupt, match=r"of headers before one member|of global headers"):
        list(Reader(Source(endless(b"", block, 3000))))


@pytest.mark.parametrize(("kind", "place"), [("0", 124), ("0", 136), ("0", 108), ("3", 329), ("S", 124), ("S", 483)])
@pytest.mark.parametrize("number", [b"\x80\x7f", b"\xff\0", b"\xbf\xff", b"\xc0\0"])
def test_numbers_that_nothing_holds_are_refused(kind: str, place: int, number: bytes) -> None:
    """Base 256 goes further than an int64."""
    width = 8 if place in (108, 329) else 12
    head = bytearray(header(Entry("a"), kind))
    head[place : place + width] = number.ljust(width, number[1:])
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(Corrupt):
        read(bytes(head) + archive.end())


def test_headers_are_counted_for_each_member() -> None:
    head = pax(b"600010 a=" + b"x" * 600_000 + b"\n")
    assert len(read((head + tarformat.encode(Entry("a"))) * 3 + archive.end())) == 3


def test_global_headers_hold_until_a_member_says_otherwise() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "4000000"}) as oracle:
        oracle.addfile(tarfile.TarInfo("a"))
        own = tarfile.TarInfo("b")
        own.pax_headers = {"uid": "7"}
        oracle.addfile(own)
    assert [entry.uid for entry, _ in read(buffer.getvalue())] == [4000000, 7]


@pytest.mark.parametrize("kind", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, kind: str) -> None:
    holes = tmp_path / "holes"
    expected = bytearray(3 << 20)
    with open(holes, "wb") as file:
        for number in range(40):  # more segments than the header and one more block hold
            file.seek(number * 65536)
            file.write(b"%05d" % number)
            expected[number * 65536 : number * 65536 + 5] = b"%05d" % number
        file.truncate(3 << 20)
    form = ["--format=gnu"] if kind == "gnu" else ["--format=pax", f"--sparse-version={kind}"]
    made = subprocess.run(
        ["tar", "-C", tmp_path, *form, "--sparse", "-cf", "-", "holes"], check=True, capture_output=True
    )
    assert len(made.stdout) < 1 << 20
    ((entry, data),) = read(made.stdout)
    assert (entry.name, entry.size) == ("holes", 3 << 20)
    assert entry.segments is not None
    found = bytearray(entry.size)
    position = 0
    for offset, length in entry.segments:
        found[offset : offset + length] = data[position : position + length]
        position += length
    assert found == expected


ONE_POINT_NOUGHT = pax(
    b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=holes\n26 GNU.sparse.realsize=10\n"
)


@pytest.mark.parametrize("block", [b"1" * 512, b"\n" * 512, bytes(512)], ids=["a number", "no numbers", "zeros"])
def test_a_sparse_map_without_end_is_refused_at_once(block: bytes) -> None:
    start = ONE_POINT_NOUGHT + tarformat.encode(Entry("holes", size=1 << 30))
    with pytest.raises(Corrupt):
        list(Reader(Source(endless(start, block, 4))))


def test_an_old_sparse_map_of_nothing_is_refused_at_once() -> None:
    head = bytearray(header(Entry("holes", size=1 << 30), "S"))
    head[345 + 137] = 1  # more of the map follows
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(Corrupt, match="sparse map"):
        list(Reader(Source(endless(bytes(head), bytes(504) + b"\1" + bytes(7), 4))))


def test_gnu_tar_lists_what_we_write(tmp_path: Path) -> None:
    long = "d" * 99 + "/" + "e" * 120 + "/ü"
    items = [(Entry("dir/", tarformat.DIRECTORY, 0o1777), b""), (Entry(long, size=3, uid=1 << 30), b"abc")]
    items.append((Entry("link", tarformat.SYMLINK, linkname="t" * 150), b""))
    listed = subprocess.run(
        ["tar", "--numeric-owner", "--quoting-style=literal", "-tvf", "-"],
        input=written(items), check=True, capture_output=True,
    ).stdout.decode()  # fmt: skip
    assert "drwxrwxrwt 0/0" in listed
    assert f"1073741824/0 {3:>15}" in listed or "1073741824/0" in listed
    assert long in listed
    assert f"link -> {'t' * 150}" in listed


def test_a_file_that_changes_while_it_is_read_is_named() -> None:
    with pytest.raises(Corrupt, match="'log' changed its size"):
        list(archive.member(Entry("log", size=10), (b"x" * 11,)))
