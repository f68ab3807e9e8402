"""Trees whose owner changes them while they are read: nothing of the host is in what is read, and nothing hangs."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hafen.kernel import fs
from hafen.storage import layers, merge, pack
from hafen.storage.overlay import OverlayTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`a` and a link that leads from its place to a directory of the host, which has more of the same names."""
    outside = tmp_path / "outside"
    for place in (outside, tmp_path / "root/a"):
        (place / "d").mkdir(parents=True)
        for name in ("1", "2", "d/3"):
            (place / name).write_text("of the host" if place == outside else "inside")
    (outside / "d/4").write_text("of the host")
    (tmp_path / "root/z").symlink_to(outside)
    return tmp_path / "root"


def swap(root: Path, one: str, other: str) -> None:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fs.exchange(descriptor, one, other)
    finally:
        os.close(descriptor)


def _tree(reader: Callable[[int], Iterator[bytes]]) -> Callable[[Path], Iterator[bytes]]:
    def read(root: Path) -> Iterator[bytes]:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield from reader(descriptor)
        finally:
            os.close(descriptor)

    return read


def _commit(root: Path) -> Iterator[bytes]:
    lower = root.parent / "lower"
    lower.mkdir(exist_ok=True)
    return layers._diff(OverlayTree(str(root), (str(lower),), None), iter)


READERS = {"export": _tree(pack.tree), "whole": _tree(pack.whole), "commit": _commit}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_directory_becomes_a_link_while_it_is_read(root: Path, reader: Callable[[Path], Iterator[bytes]]) -> None:
    total = sum(1 for _ in reader(root))
    for moment in range(total):
        read: list[bytes] = []
        for number, piece in enumerate(reader(root)):
            if number == moment:
                swap(root, "a", "z")
            read.append(piece)
        swap(root, "a", "z")
        data = b"".join(read)
        assert b"of the host" not in data, moment
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert not [name for name in archive.getnames() if name.endswith("/4")], moment


def test_a_diff_names_nothing_of_the_host(root: Path) -> None:
    lower = root.parent / "lower"
    (lower / "a/d").mkdir(parents=True)
    total = sum(1 for _ in merge.changes(str(root), [str(lower)]))
    for moment in range(total):
        found = []
        for number, change in enumerate(merge.changes(str(root), [str(lower)])):
            if number == moment:
                swap(root, "a", "z")
            found.append(change.path)
        swap(root, "a", "z")
        assert not [path for path in found if path.endswith("/4")], moment


# Two names change places until the other process has copied, or read, the directory so often.
SWAPPER = """
import os, sys
from hafen.kernel import fs
directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
print(flush=True)
while True:
    fs.exchange(directory, "a", "z")
"""
COPIER = """
import os, shutil, sys
from hafen.storage import pack, treecopy
from hafen.storage.vfs import VfsTree
source, target = sys.argv[1:3]
reading = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
for number in range(300):
    os.mkdir(target)
    writing = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    treecopy.copy(reading, writing)
    os.close(writing)
    for directory, _, names in os.walk(target):
        assert "4" not in names, directory
    shutil.rmtree(target)
    assert b"of the host" not in b"".join(pack.whole(reading))
    assert not [one for one in VfsTree(source, None).changes() if one.path.endswith("/4")]
"""


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_names_change_places_all_the_time(root: Path, kind: str) -> None:
    """A directory and a link to one of the host's; a file and a FIFO, which nobody may wait for."""
    if kind == "file":
        (root / "a").rename(root.parent / "a")
        (root / "z").unlink()
        (root / "a").write_text("inside")
        os.mkfifo(root / "z")
    with subprocess.Popen([sys.executable, "-c", SWAPPER, str(root)], stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout
            swapper.stdout.readline()
            command = [sys.executable, "-c", COPIER, str(root), str(root.parent / "copy")]
            subprocess.run(command, check=True, timeout=60)
        finally:
            swapper.kill()
