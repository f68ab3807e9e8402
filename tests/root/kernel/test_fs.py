"""Paths that stay inside a root, whatever the links in it say."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.kernel import fs

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("inside")
    (tmp_path / "root/abs").symlink_to("/etc")
    (tmp_path / "root/up").symlink_to("../../etc")
    (tmp_path / "root/dangling").symlink_to("/not/yet")
    (tmp_path / "root/loop").symlink_to("loop")
    fd = os.open(tmp_path / "root", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("path", ["etc/passwd", "/etc/passwd", "abs/passwd", "up/passwd", "/../../etc/passwd"])
def test_links_end_inside(root: int, path: str) -> None:
    assert fs.read_in_root(root, path) == b"inside"


def test_magic_links_are_refused(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/magic").symlink_to("/proc/self/root/etc/passwd")
    with pytest.raises(OSError):
        fs.read_in_root(root, "magic")


def test_only_regular_files_are_read(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root/fifo")
    with pytest.raises(OSError, match="not a regular file"):
        fs.read_in_root(root, "fifo")


def test_directories_are_made_through_links(root: int, tmp_path: Path) -> None:
    for path in ("a/b/c", "dangling/deep", "/../../x", "abs/d"):
        os.close(fs.make_directories(root, path))
    for made in ("a/b/c", "not/yet/deep", "x", "etc/d"):
        assert (tmp_path / "root" / made).is_dir()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["root"]


def test_files_are_made_where_links_point(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/resolv.conf").symlink_to("../run/resolv.conf")
    os.close(fs.make_file(root, "resolv.conf", 0o600))
    assert (tmp_path / "root/run/resolv.conf").stat().st_mode & 0o777 == 0o600
    os.close(fs.make_file(root, "/etc/passwd"))
    assert (tmp_path / "root/etc/passwd").read_text() == "inside"


@pytest.mark.parametrize("path", ["loop/x", "etc/passwd/x"])
def test_what_is_no_directory_is_an_error(root: int, path: str) -> None:
    with pytest.raises(OSError):
        fs.make_directories(root, path)


def test_beneath_refuses_what_leads_out(root: int) -> None:
    os.close(fs.open_beneath(root, "etc/passwd"))
    for path in ("abs/passwd", "up", "../root", "/etc"):
        with pytest.raises(OSError):
            fs.open_beneath(root, path)
    proc = os.open("/", os.O_RDONLY)
    with pytest.raises(OSError):
        fs.open_beneath(proc, "proc/version")  # another mount
    os.close(proc)


def test_procfs_is_recognised() -> None:
    for path, expected in (("/proc", True), ("/proc/self", False), ("/", False)):
        fd = os.open(path, os.O_RDONLY)
        assert fs.is_procfs_root(fd) is expected
        os.close(fd)


def test_mount_id_agrees_with_mountinfo() -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    ids = {line.split()[4]: int(line.split()[0]) for line in lines}
    fd = os.open("/proc", os.O_RDONLY)
    assert fs.mount_id(fd) in (ids["/proc"],)
    os.close(fd)


def test_whiteout_xattrs_and_errors(tmp_path: Path) -> None:
    os.mknod(tmp_path / "w", 0o020000, 0)
    assert fs.is_whiteout(os.lstat(tmp_path / "w"))
    file = tmp_path / "file"
    file.touch()
    os.setxattr(file, "trusted.x", b"1")
    fd = os.open(file, os.O_RDONLY)
    assert fs.xattrs(fd) == {"trusted.x": b"1"}
    os.close(fd)
    with pytest.raises(FileNotFoundError) as caught:
        fs.open_in_root(os.open("/dev", os.O_RDONLY), "nope")
    assert str(caught.value) == "[Errno 2] openat2: No such file or directory: 'nope'"
