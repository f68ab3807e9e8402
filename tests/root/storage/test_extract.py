"""Unpacking: fidelity against GNU tar, and hostile archives that are refused whole."""

import os
import stat
import subprocess
import tracemalloc
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from hafen.errors import Corrupt, Forbidden, HafenError, OutOfSpace
from hafen.spec import digest as digests
from hafen.storage import layers, recipe, tarformat
from hafen.storage.archive import Limits, Reader, Source
from hafen.storage.extract import Extracted, Extractor, Policy
from hafen.storage.recipe import Recorder, reassemble
from hafen.storage.tarformat import Entry
from tests.suites.snapshotter_suite import tar

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap(8) writes it


def extract(data: bytes, root: Path, policy: Policy | None = None) -> Extracted:
    with Extractor(str(root), policy or Policy()) as extractor:
        return extractor.run(Reader(Source(iter((data,)))))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "outer" / "root"
    made.mkdir(parents=True)
    (tmp_path / "outer" / "secret").write_text("untouched")
    (tmp_path / "outer" / "directory").mkdir()
    return made


@pytest.fixture(autouse=True)
def nothing_outside_is_touched(tmp_path: Path) -> Iterator[None]:
    yield
    outer = tmp_path / "outer"
    if outer.exists():
        assert (outer / "secret").read_text() == "untouched"
        assert sorted(os.listdir(outer)) in (["directory", "root", "secret"], ["directory", "kept", "root", "secret"])
        assert os.listdir(outer / "directory") == []


LINK_OUT = (Entry("link", tarformat.SYMLINK, linkname="../directory"), b"")
FILE = (Entry("file", size=1), b"x")

HOSTILE = {
    "absolute dot dot": ([(Entry("/../evil", size=1), b"x")], "leads out"),
    "dot dot": ([(Entry("../evil", size=1), b"x")], "leads out"),
    "dot dot inside": ([(Entry("a/../../evil", size=1), b"x")], "leads out"),
    "dot dot at the end": ([(Entry("a/..", tarformat.DIRECTORY), b"")], "leads out"),
    "below a symbolic link": ([LINK_OUT, (Entry("link/evil", size=1), b"x")], "symbolic link"),
    "directory below a symbolic link": ([LINK_OUT, (Entry("link/evil/", tarformat.DIRECTORY), b"")], "symbolic link"),
    "symbolic link below a symbolic link": (
        [LINK_OUT, (Entry("link/evil", tarformat.SYMLINK, linkname="x"), b"")], "symbolic link",
    ),
    "below a file": ([FILE, (Entry("file/evil", size=1), b"x")], "not a directory"),
    "hard link out": ([(Entry("evil", tarformat.LINK, linkname="../secret"), b"")], "leads out"),
    "hard link to this machine's file": ([(Entry("evil", tarformat.LINK, linkname="/etc/passwd"), b"")], "not there"),
    "hard link through a symbolic link": (
        [LINK_OUT, (Entry("evil", tarformat.LINK, linkname="link/../../secret"), b"")], "leads out",
    ),
    "hard link below a symbolic link": (
        [LINK_OUT, (Entry("evil", tarformat.LINK, linkname="link/secret"), b"")], "symbolic link",
    ),
    "hard link to nothing": ([(Entry("evil", tarformat.LINK, linkname="nowhere/x"), b"")], "not there"),
    "hard link to a directory": (
        [(Entry("d/", tarformat.DIRECTORY), b""), (Entry("evil", tarformat.LINK, linkname="d"), b"")], "directory",
    ),
    "hard link to itself": ([FILE, (Entry("file", tarformat.LINK, linkname="./file"), b"")], "itself"),
    "hard link to the root": ([(Entry("evil", tarformat.LINK, linkname="."), b"")], "root"),
    "the root as a file": ([(Entry("./", tarformat.FIFO), b"")], "replaces the root"),
    "the root as a symbolic link": ([(Entry(".", tarformat.SYMLINK, linkname="../directory"), b"")], "the root"),
    "too deep": ([(Entry("d/" * 600 + "x", size=1), b"x")], "impossible name"),
    "name too long": ([(Entry("x" * 300, size=1), b"x")], "cannot be made"),
    "overlayfs' own mark": ([(Entry("etc", tarformat.CHAR), b"")], "overlayfs"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("whiteouts", [True, False])
def test_hostile_archives_are_refused(name: str, whiteouts: bool, root: Path) -> None:
    members, message = HOSTILE[name]
    with pytest.raises(Corrupt, match=message):
        extract(tar(*members), root, Policy(whiteouts=whiteouts))


def test_absolute_names_begin_at_the_root_of_what_is_made(root: Path, tmp_path: Path) -> None:
    """kaniko writes its layers so, the root as `/`, and the targets of hard links too."""
    name = f"{tmp_path}/outer/absolute"
    data = tar(
        (Entry("/", tarformat.DIRECTORY, 0o711), b""),
        (Entry(name, size=1), b"x"),
        (Entry("//twice", tarformat.LINK, linkname=name), b""),
        (Entry("/relative", tarformat.LINK, linkname=name[1:]), b""),
        (Entry("/link", tarformat.SYMLINK, linkname="/twice"), b""),
    )
    extract(data, root)
    assert {path.name for path in root.iterdir()} == {name.split("/")[1], "twice", "relative", "link"}
    assert (root / "twice").stat().st_ino == (root / "relative").stat().st_ino == (root / name[1:]).stat().st_ino
    assert os.readlink(root / "link") == "/twice"
    assert stat.S_IMODE(root.stat().st_mode) == 0o711


def test_absolute_whiteouts_hide_what_is_below(root: Path) -> None:
    extract(tar((Entry("/.wh.gone"), b"")), root, Policy(whiteouts=True))
    assert stat.S_ISCHR((root / "gone").lstat().st_mode)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh.."])
def test_whiteouts_of_nothing_are_refused(name: str, root: Path) -> None:
    with pytest.raises(Corrupt, match="whiteout of nothing"):
        extract(tar((Entry(name), b"")), root, Policy(whiteouts=True))


def test_a_whiteout_below_a_symbolic_link_is_refused(root: Path) -> None:
    with pytest.raises(Corrupt, match="symbolic link"):
        extract(tar(LINK_OUT, (Entry("link/.wh..wh..opq"), b"")), root, Policy(whiteouts=True))


def test_a_link_may_point_anywhere_and_give_way_to_a_directory(root: Path) -> None:
    data = tar(LINK_OUT, (Entry("link/", tarformat.DIRECTORY), b""), (Entry("link/inside", size=1), b"x"))
    extract(data, root)
    assert (root / "link/inside").read_text() == "x"
    assert not (root / "link").is_symlink()


def test_a_link_made_by_an_earlier_archive_is_not_followed_either(root: Path) -> None:
    (root / "link").symlink_to("../directory")
    with pytest.raises(Corrupt, match="symbolic link"):
        extract(tar((Entry("link/evil", size=1), b"x")), root)


def test_a_file_replaces_a_link_not_what_it_points_to(root: Path) -> None:
    (root / "link").symlink_to("../secret")
    extract(tar((Entry("link", size=4), b"mine")), root)
    assert (root / "link").read_text() == "mine"


def test_devices_only_where_they_are_allowed(root: Path) -> None:
    data = tar((Entry("null", tarformat.CHAR, 0o666, major=1, minor=3), b""))
    with pytest.raises(Forbidden, match="'null' is a device node"):
        extract(data, root, Policy(devices=False))
    extract(data, root)
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)


def test_attributes_that_speak_to_the_kernel_are_not_taken(root: Path) -> None:
    attributes = {
        "trusted.overlay.redirect": b"/etc", "trusted.overlay.opaque": b"y", "trusted.x": b"y",
        "security.selinux": b"z", "security.capability": CAPABILITY, "user.fine": b"\0\1",
    }  # fmt: skip
    extract(tar((Entry("d/", tarformat.DIRECTORY, xattrs=attributes), b""), (Entry("f", xattrs=attributes), b"")), root)
    assert set(os.listxattr(root / "f")) == {"security.capability", "user.fine"}
    assert os.getxattr(root / "f", "security.capability") == CAPABILITY
    assert "trusted.overlay.redirect" not in os.listxattr(root / "d")


def test_the_largest_numbers_that_an_archive_may_have(root: Path) -> None:
    """Either they are taken, as the file system can, or refused as what they are."""
    largest = (1 << 63) - 1
    data = tar(
        (Entry("after", mtime_ns=largest * 10**9 + 999_999_999), b""),
        (Entry("before/", tarformat.DIRECTORY, mtime_ns=-largest * 10**9), b""),
        (Entry("link", tarformat.SYMLINK, linkname="x", mtime_ns=largest * 10**9), b""),
    )
    extract(data, root)
    assert sorted(os.listdir(root)) == ["after", "before", "link"]
    for entry in (
        Entry("holes", size=largest, segments=((0, 1),)),
        Entry("islands", size=largest, segments=((largest - 1, 1),)),
        Entry("device", tarformat.CHAR, major=(1 << 21) - 1, minor=(1 << 21) - 1),
    ):
        try:
            extract(tar((entry, b"x" if entry.segments else b"")), root)
        except HafenError:
            pass


def test_owners_and_special_modes_survive_in_the_right_order(root: Path) -> None:
    """chown(2) clears set-user-ID and capabilities: they are set after it."""
    data = tar(
        (Entry("shared/", tarformat.DIRECTORY, 0o2775, 5, 60000), b""),
        (Entry("shared/plain", size=1), b"x"),
        (Entry("su", mode=0o6755, uid=1234, gid=1 << 31, xattrs={"security.capability": CAPABILITY}), b""),
        (Entry("dangling", tarformat.SYMLINK, uid=77, gid=78, linkname="nowhere", mtime_ns=123456789), b""),
    )
    extract(data, root)
    status = (root / "su").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o6755, 1234, 1 << 31)
    assert os.getxattr(root / "su", "security.capability") == CAPABILITY
    assert (root / "shared/plain").stat().st_gid == 0, "not the group of the directory"
    link = (root / "dangling").lstat()
    assert (link.st_uid, link.st_gid, link.st_mtime_ns) == (77, 78, 123456789)


def test_later_members_replace_earlier_ones(root: Path) -> None:
    data = tar(
        (Entry("a", size=1), b"1"),
        (Entry("b", tarformat.LINK, linkname="a"), b""),
        (Entry("a", size=1), b"2"),
        (Entry("d/", tarformat.DIRECTORY), b""),
        (Entry("d/x", size=1), b"x"),
        (Entry("d", size=1), b"3"),
    )
    extract(data, root)
    assert [(root / name).read_text() for name in "abd"] == ["2", "1", "3"]


def names_in(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        times = 0 if stat.S_ISFIFO(status.st_mode) else status.st_mtime_ns
        links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
        found[str(path.relative_to(root))] = (
            status.st_mode, status.st_uid, status.st_gid, times, status.st_rdev, links, content,
            os.readlink(path) if path.is_symlink() else "",
        )  # fmt: skip
    return found


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "oldgnu", "v7"])
def test_gnu_tars_archives_come_out_as_with_gnu_tar(form: str, root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    (source / "d/e/file").write_bytes(os.urandom(70000))
    os.link(source / "d/e/file", source / "z-link")
    (source / "d/sym").symlink_to("../z-link")
    if form != "v7":
        os.mkfifo(source / "pipe")
    if form in ("gnu", "pax"):
        (source / ("long" * 40)).write_text("long")
        (source / "to-long").symlink_to("t" * 180)
        with open(source / "sparse", "wb") as file:
            file.truncate(5 << 20)
            file.seek(2 << 20)
            file.write(b"island")
    os.chown(source / "d/e/file", 1000, 2000)
    (source / "d/e/file").chmod(0o4711)
    (source / "d").chmod(0o1777)
    os.utime(source / "d", (10**9, 10**9))
    packed = tmp_path / "packed.tar"
    sparse = ["--sparse"] if form in ("gnu", "pax") else []
    subprocess.run(["tar", "-C", str(source), f"--format={form}", *sparse, "-cf", str(packed), "."], check=True)
    extract(packed.read_bytes(), root)
    oracle = tmp_path / "oracle"
    oracle.mkdir()
    subprocess.run(["tar", "-C", str(oracle), "--numeric-owner", "-xpf", str(packed)], check=True)
    assert names_in(root) == names_in(oracle)
    if form in ("gnu", "pax"):
        assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


def test_a_layer_is_given_back_byte_for_byte(tmp_path: Path) -> None:
    """Whatever wrote it, whatever it overwrote."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(300_000))
    (source / "b").write_text("b")
    os.link(source / "a", source / "c")
    with open(source / "sparse", "wb") as file:
        file.truncate(5 << 20)
        file.seek(2 << 20)
        file.write(b"island")
    packed = tmp_path / "packed.tar"
    subprocess.run(["tar", "-C", source, "--format=pax", "--sparse", "-cf", packed, "."], check=True)
    own = tar(
        (Entry("a", size=1), b"1"), (Entry("a", size=2), b"22"), (Entry("d/", tarformat.DIRECTORY), b""),
        (Entry("d/x", size=3), b"333"), (Entry("d", size=1), b"4"), (Entry("a", tarformat.DIRECTORY), b""),
        (Entry("gone/", tarformat.DIRECTORY), b""), (Entry(".wh.other"), b""),
    )  # fmt: skip
    for number, data in enumerate((packed.read_bytes(), own, tar())):
        directory = tmp_path / str(number) / "fs"
        directory.mkdir(parents=True)
        applied = layers.apply(iter((data,)), str(directory))
        assert b"".join(reassemble(applied.recipe, str(directory))) == data


def test_a_recipe_notices_that_files_were_changed(tmp_path: Path) -> None:
    directory = tmp_path / "1" / "fs"
    directory.mkdir(parents=True)
    applied = layers.apply(iter((tar((Entry("a", size=500), b"x" * 500)),)), str(directory))
    (directory / "a").write_text("short")
    with pytest.raises(Corrupt, match="shorter"):
        list(reassemble(applied.recipe, str(directory)))
    (directory / "a").unlink()
    with pytest.raises(Corrupt, match="damaged"):
        list(reassemble(applied.recipe, str(directory)))
    with pytest.raises(Corrupt, match="recipe"):
        list(reassemble(b"\0" * 20, str(directory)))


def test_a_layer_that_ends_in_zeros_is_read_back_in_pieces(tmp_path: Path) -> None:
    """Its recipe is a few kilobytes: whoever saves or pushes the image must not need the whole at once."""
    directory = tmp_path / "fs"
    directory.mkdir()
    pieces = (bytes(1 << 20) for _ in range(96))
    applied = layers.apply(chain((tar((Entry("a", size=1), b"x")),), pieces), str(directory))
    assert len(applied.recipe) < 100_000
    hasher = digests.new()
    tracemalloc.start()
    try:
        for piece in reassemble(applied.recipe, str(directory)):
            hasher.update(piece)
        assert recipe.size(applied.recipe) > 96 << 20
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert digests.finish(hasher) == applied.diff_id


def test_a_recipe_is_bounded() -> None:
    recorder = Recorder(limit=4 << 20)
    for _ in range(3):
        recorder.literal(os.urandom(1 << 20))
    with pytest.raises(OutOfSpace, match="beside its files"):
        recorder.literal(os.urandom(2 << 20))


def test_a_recipe_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "fs"
    directory.mkdir()
    data = layers.apply(iter((tar((Entry("a", size=1), b"x")),)), str(directory)).recipe
    for cut in range(len(data)):
        with pytest.raises(Corrupt, match="recipe"):
            recipe.size(data[:cut])


def test_names_that_a_layer_brings_again_and_again(tmp_path: Path) -> None:
    """Each meant something else, and twice the directory above it was gone."""
    directory = tmp_path / "1" / "fs"
    directory.mkdir(parents=True)
    members = [(Entry("d/a", size=5), b"%05d" % number) for number in range(400)]
    members[100:100] = members[300:300] = [(Entry("d", size=1), b"d"), (Entry("d", tarformat.DIRECTORY), b"")]
    data = tar(*members)
    applied = layers.apply(iter((data,)), str(directory))
    assert b"".join(reassemble(applied.recipe, str(directory))) == data


@pytest.mark.parametrize("data", [b"", tar((Entry("a", size=1), b"x"))[:-1024], tar()[:512]])
def test_an_end_mark_is_needed_only_where_nothing_else_shows_that_all_is_there(data: bytes, tmp_path: Path) -> None:
    directory = tmp_path / "fs"
    directory.mkdir()
    applied = layers.apply(iter((data,)), str(directory), verified=True)
    assert applied.diff_id == digests.of(data)
    assert b"".join(reassemble(applied.recipe, str(directory))) == data
    if len(data) != 512:
        with pytest.raises(Corrupt, match="truncated"):
            layers.apply(iter((data,)), str(directory))


def test_an_empty_layer_has_dockers_digest(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    assert layers.apply(iter((tar(),)), str(tmp_path / "fs")).diff_id == layers.EMPTY


def test_a_full_device_is_told_as_such(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "tmpfs", small], check=True)
    try:
        (small / "fs").mkdir()
        with pytest.raises(OutOfSpace, match="while unpacking 'big'"):
            layers.apply(iter((tar((Entry("big", size=2 << 20), bytes(2 << 20))),)), str(small / "fs"))
        (small / "fs" / "big").unlink()
        many = tar(*((Entry(f"f{number}"), b"") for number in range(40)))
        with pytest.raises(OutOfSpace, match="no space left"):
            layers.apply(iter((many,)), str(small / "fs"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_layer_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    with pytest.raises(OutOfSpace, match="limit of 4096 bytes"):
        layers.apply(
            iter((tar((Entry("a", size=9000), b"x" * 9000)),)), str(tmp_path / "fs"), limits=Limits(bytes=4096)
        )


def test_deep_and_wide_trees_do_not_run_out_of_descriptors(root: Path) -> None:
    members = [(Entry(f"{'d/' * 150}{number}/x", size=1), b"x") for number in range(300)]
    extract(tar(*members), root)
    assert len(list((root / ("d/" * 150)).iterdir())) == 300


@pytest.mark.parametrize("seed", range(40))
def test_random_members_never_lead_out(seed: int, root: Path) -> None:
    """Links, directories and files with colliding names in any order: refused, or inside."""
    import random

    dice = random.Random(seed)
    pool = ["a", "a/b", "a/b/c", "b", "b/a", "..", "../x", "a/../..", ".", "/", "a/./b"]
    members = []
    for _ in range(12):
        kind = dice.choice(sorted(tarformat.KNOWN - {tarformat.CHAR, tarformat.BLOCKDEV}))
        target = dice.choice([*pool, "../directory", "../../outer/secret", "/etc", "../secret"])
        data = b"x" if kind == tarformat.FILE else b""
        members.append((Entry(dice.choice(pool[:5]), kind, size=len(data), linkname=target), data))
    try:
        extract(tar(*members), root, Policy(whiteouts=bool(seed % 2)))
    except HafenError:
        return


def test_the_recorder_is_small(tmp_path: Path) -> None:
    recorder = Recorder()
    for number in range(5000):
        recorder.literal(tarformat.encode(Entry(f"usr/share/doc/package{number}/copyright", size=700)))
        recorder.content(f"usr/share/doc/package{number}/copyright", 0, 700)
    assert len(recorder.finish()) < 500_000
