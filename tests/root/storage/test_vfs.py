"""The copying snapshotter: the suite, and what is its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import NotImplemented
from hafen.storage.database import Database
from hafen.storage.vfs import VfsSnapshotter
from tests.suites.snapshotter_suite import SnapshotterSuite


class TestVfs(SnapshotterSuite):
    @pytest.fixture
    def snapshots(self, database: Database, tmp_path: Path) -> Iterator[VfsSnapshotter]:
        made = VfsSnapshotter(database, str(tmp_path / "snapshots"))
        yield made
        made.close()

    def test_the_machines_root_is_not_copied(self, snapshots: VfsSnapshotter) -> None:
        with pytest.raises(NotImplemented, match="needs overlayfs"):
            snapshots.register_root("host", ("/",))

    def test_holes_stay_holes(self, snapshots: VfsSnapshotter, base: str) -> None:
        directory = Path(snapshots.directory(base))
        with open(directory / "holes", "wb") as file:
            file.truncate(64 << 20)
            file.seek(32 << 20)
            file.write(b"x")
        snapshots.prepare("c", base)
        copy = Path(snapshots.directory("c"), "holes").stat()
        assert copy.st_size == 64 << 20
        assert copy.st_blocks * 512 < 1 << 20
