"""Archives that a hostile container could send to `cp`."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from hafen.client.copying import Place, Rename, prepare
from hafen.client.pack import pack
from hafen.client.unpack import unpack
from hafen.errors import Corrupt, InvalidArgument, NotFound


def archive(*members: tuple[str, bytes, str], data: bytes = b"x") -> bytes:
    """(name, type, link name)"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o755
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("../escape", tarfile.REGTYPE, "")],
        [("a/../../escape", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/escape", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/"), ("link/escape", tarfile.DIRTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../secret")],
        [("link", tarfile.SYMTYPE, ".."), ("hard", tarfile.LNKTYPE, "link/secret")],
        [("dir", tarfile.SYMTYPE, ".."), ("dir", tarfile.DIRTYPE, "")],
    ],
)
def test_nothing_leads_out(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(Corrupt):
        unpack([archive(*members)], str(inside), None)
    assert sorted(os.listdir(tmp_path)) == before


def test_an_absolute_name_lands_inside(tmp_path: Path) -> None:
    unpack([archive(("/etc/x", tarfile.REGTYPE, ""))], str(tmp_path), None)
    assert (tmp_path / "etc/x").read_bytes() == b"x"


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").symlink_to("../target")
    unpack([archive(("file", tarfile.REGTYPE, ""))], str(tmp_path / "in"), None)
    assert (tmp_path / "target").read_text() == "kept"
    assert (tmp_path / "in/file").read_bytes() == b"x"


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    data = archive(("file", tarfile.REGTYPE, ""), data=b"y" * 3000)
    with pytest.raises(Corrupt):
        unpack([data[:1200]], str(tmp_path), None)


def test_packed_and_unpacked_is_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "src", tmp_path / "dst"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    (source / ("long" * 40)).write_bytes(b"a" * 1500)
    (source / "sub/ü").write_text("text")
    (source / "sub").chmod(0o555)
    (source / "l").symlink_to("sub/ü")
    os.link(source / ("long" * 40), source / "hard")
    chunks = list(pack(Place(str(source), directory=True), None))
    unpack(chunks, str(target), Rename("src", "new"))
    assert sorted(os.listdir(target / "new")) == sorted(os.listdir(source))
    assert (target / "new/l").readlink() == Path("sub/ü")
    assert (target / "new/sub").stat().st_mode & 0o777 == 0o555
    assert (target / "new/hard").stat().st_nlink == 2
    (source / "sub").chmod(0o755)
    (target / "new/sub").chmod(0o755)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (Place("/a/f"), Place("/d", directory=True), ("/d", None)),
        (Place("/a/f"), Place("/d/g"), ("/d", Rename("f", "g"))),
        (Place("/a/f"), Place("/d/f"), ("/d", None)),
        (Place("/a/f"), Place("/d/n", exists=False), ("/d", Rename("f", "n"))),
        (Place("/a/d", directory=True), Place("/d/n", exists=False), ("/d", Rename("d", "n"))),
        (Place("/a/d/.", directory=True), Place("/n", exists=False), ("/", Rename(".", "n"))),
        (Place("/a/d/.", directory=True), Place("/n", directory=True), ("/n", None)),
        (Place("/a/real", rebase="link"), Place("/d", directory=True), ("/d", None)),
    ],
)
def test_where_a_copy_goes(source: Place, target: Place, expected: tuple[str, Rename | None]) -> None:
    assert prepare(source, target) == expected


def test_copies_that_cannot_be() -> None:
    with pytest.raises(InvalidArgument, match="cannot copy directory"):
        prepare(Place("/d", directory=True), Place("/f"))
    with pytest.raises(NotFound, match="no such directory"):
        prepare(Place("/f"), Place("/n/", exists=False))
