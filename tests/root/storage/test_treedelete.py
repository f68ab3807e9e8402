"""Trees that a container may have left behind, and what must not be deleted with them."""

import os
import subprocess
from pathlib import Path

from hafen.storage import treedelete


def test_a_mount_and_the_way_to_it_stay(tmp_path: Path) -> None:
    elsewhere, tree = tmp_path / "elsewhere", tmp_path / "tree"
    elsewhere.mkdir()
    (elsewhere / "theirs").write_text("theirs")
    (tree / "a/mount").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "b/c").mkdir(parents=True)
    (tree / "link").symlink_to(elsewhere)
    subprocess.run(["mount", "--bind", str(elsewhere), str(tree / "a/mount")], check=True)
    try:
        assert not treedelete.delete(str(tree))
        assert [str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))] == ["a", "a/mount", "a/mount/theirs"]
    finally:
        subprocess.run(["umount", str(tree / "a/mount")], check=True)
    assert treedelete.delete(str(tree))
    assert (elsewhere / "theirs").read_text() == "theirs"


def test_a_tree_deeper_than_stacks_and_descriptors_are(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert treedelete.delete(str(tmp_path / "d"))
    assert not os.listdir(tmp_path)


def test_a_link_goes_and_what_it_names_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "link").symlink_to("kept")
    assert treedelete.delete(str(tmp_path / "link"))
    assert treedelete.delete(str(tmp_path / "link"))
    assert os.listdir(tmp_path / "kept") == ["file"]
