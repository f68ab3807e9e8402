"""What every snapshotter must do; a driver's tests inherit `SnapshotterSuite` and give a `snapshots` fixture.

Written against `hafen.storage.snapshot.Snapshotter`: trees are made by applying layers, changed through `open_root`,
and compared by what `changes` lists and what a layer of the changes brings to another snapshot.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import Conflict, NotFound
from hafen.storage import archive, layers, tarformat
from hafen.storage.database import Database
from hafen.storage.layers import Applied
from hafen.storage.snapshot import Snapshotter
from hafen.storage.tarformat import Entry

BASE = (
    (Entry("etc/", tarformat.DIRECTORY, 0o755), b""),
    (Entry("etc/passwd", size=5, uid=7, gid=8, mtime_ns=10**18), b"root\n"),
    (Entry("etc/link", tarformat.SYMLINK, linkname="passwd"), b""),
    (Entry("bin/", tarformat.DIRECTORY, 0o750, uid=3), b""),
    (Entry("bin/su", mode=0o4755, size=2), b"su"),
    (Entry("bin/same", tarformat.LINK, linkname="bin/su"), b""),
    (Entry("old/", tarformat.DIRECTORY), b""),
    (Entry("old/a", size=1), b"a"),
    (Entry("old/b/", tarformat.DIRECTORY), b""),
    (Entry("old/b/c", size=1), b"c"),
)


def tar(*members: tuple[Entry, bytes]) -> bytes:
    """An archive of these members."""
    blocks = [block for entry, data in members for block in archive.member(entry, (data,), nanoseconds=True)]
    return b"".join((*blocks, archive.end()))


def listing(root: str) -> dict[str, tuple[object, ...]]:
    """Every path below a directory with all that a container can see of it."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = f"{directory}/{name}"
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[path[len(root) :]] = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, content)
    return found


class Root:
    """A snapshot's merged tree, open for the time of a test."""

    def __init__(self, snapshots: Snapshotter, key: str, *, readonly: bool = False) -> None:
        self._descriptor = snapshots.tree(key).open_root(readonly=readonly)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def __enter__(self) -> Path:
        return Path(self.path)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def add_layer(snapshots: Snapshotter, database: Database, data: bytes, key: str, parent: str | None = None) -> Applied:
    """Apply a layer and record it as the snapshot `key`."""
    directory = snapshots.stage()
    applied = layers.apply(iter((data,)), directory)
    below = [] if parent is None else snapshots.layer_directories(parent)
    adopted = snapshots.adopt(directory, below, applied.implicit)
    with database.transaction():
        snapshots.register(adopted, key, parent)
    return applied


class SnapshotterSuite:
    """Inherit it; the class gives the fixture `snapshots` of a driver on the fixture `database`."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        made = Database(tmp_path / "hafen.db")
        yield made
        made.close()

    @pytest.fixture
    def base(self, snapshots: Snapshotter, database: Database) -> str:
        add_layer(snapshots, database, tar(*BASE), "base")
        return "base"

    def changes(self, snapshots: Snapshotter, key: str) -> list[str]:
        return [f"{change.kind.letter} {change.path}" for change in snapshots.tree(key).changes()]

    def test_a_layer_is_seen_as_it_was_packed(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        with Root(snapshots, "c") as root:
            status = (root / "etc/passwd").stat()
            assert (status.st_uid, status.st_gid, status.st_mtime) == (7, 8, 10**9)
            assert (root / "bin/su").stat().st_mode & 0o7777 == 0o4755
            assert (root / "bin/su").stat().st_ino == (root / "bin/same").stat().st_ino
            assert os.readlink(root / "etc/link") == "passwd"
            assert (root / "bin").stat().st_mode & 0o7777 == 0o750
        assert self.changes(snapshots, "c") == []

    def test_what_is_placed_is_there_where_nothing_was(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        tree = snapshots.tree("c")
        for path, link in (
            ("bin/mark", ""), ("etc/mtab", "/proc/mounts"), ("mark", ""),
            ("etc/passwd", ""), ("etc/link", "/elsewhere"), ("etc/link/x", ""), ("etc/passwd/x", ""), ("none/x", ""),
        ):  # fmt: skip
            tree.place(path, link)
        with Root(snapshots, "c") as root:
            status = (root / "bin").stat()
            assert (status.st_mode & 0o7777, status.st_uid) == (0o750, 3)
            assert (root / "etc/passwd").read_text() == "root\n"
            assert (root / "mark").stat().st_mode == stat.S_IFREG | 0o755
            assert os.readlink(root / "etc/mtab") == "/proc/mounts"
        added = [line for line in self.changes(snapshots, "c") if line[0] == "A"]
        assert added == ["A /bin/mark", "A /etc/mtab", "A /mark"]

    def test_what_a_layer_hides_is_not_there_for_what_is_placed(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        add_layer(snapshots, database, tar((Entry("old/.wh.a"), b""), (Entry(".wh.bin"), b"")), "top", base)
        snapshots.prepare("c", "top")
        tree = snapshots.tree("c")
        tree.place("old/a")
        tree.place("bin/x")
        with Root(snapshots, "c") as root:
            assert (root / "old/a").read_bytes() == b""
            assert not (root / "bin").exists()

    def test_containers_do_not_see_each_other_nor_change_their_image(self, snapshots: Snapshotter, base: str) -> None:
        for key in ("c", "d"):
            snapshots.prepare(key, base)
        with Root(snapshots, "c") as root:
            (root / "etc/passwd").write_text("changed")
            (root / "old/a").unlink()
        with Root(snapshots, "d", readonly=True) as other:
            assert (other / "etc/passwd").read_text() == "root\n"
            assert (other / "old/a").exists()
        with Root(snapshots, base, readonly=True) as image:
            assert (image / "etc/passwd").read_text() == "root\n"

    def test_a_read_only_root_refuses_to_be_written(self, snapshots: Snapshotter, base: str) -> None:
        with Root(snapshots, base, readonly=True) as root, pytest.raises(OSError, match="Read-only file system"):
            (root / "new").write_text("x")

    def test_changes_are_listed_as_docker_diff_does(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        with Root(snapshots, "c") as root:
            (root / "new").mkdir()
            (root / "new/file").write_text("x")
            (root / "etc/passwd").write_text("longer than before")
            (root / "bin/same").unlink()
        assert self.changes(snapshots, "c") == [
            "C /bin", "D /bin/same", "C /etc", "C /etc/passwd", "A /new", "A /new/file",
        ]  # fmt: skip

    def test_a_removed_directory_is_one_line(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        with Root(snapshots, "c") as root:
            for path in ("old/a", "old/b/c"):
                (root / path).unlink()
            (root / "old/b").rmdir()
            (root / "old").rmdir()
        assert self.changes(snapshots, "c") == ["D /old"]

    def test_a_directory_made_again_is_empty_in_the_next_layer_too(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        snapshots.prepare("c", base)
        with Root(snapshots, "c") as root:
            for path in ("old/a", "old/b/c"):
                (root / path).unlink()
            (root / "old/b").rmdir()
            (root / "old").rmdir()
            (root / "old").mkdir()
            (root / "old/b").mkdir()
            (root / "old/b/d").write_text("d")
            expected = listing(str(root))
        assert self.changes(snapshots, "c") == ["C /old", "D /old/a", "C /old/b", "D /old/b/c", "A /old/b/d"]
        self.same_by_layer(snapshots, database, base, expected)

    def test_what_a_container_did_can_be_done_again_by_its_layer(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        """commit: the diff of a snapshot, applied on the same parent, gives the same tree."""
        snapshots.prepare("c", base)
        with Root(snapshots, "c") as root:
            (root / "etc/passwd").rename(root / "etc/shadow")
            (root / "bin/su").chmod(0o700)
            os.chown(root / "bin/su", 1000, 1001)
            (root / "old/a").unlink()
            (root / "old/a").symlink_to("/outside")
            (root / "etc/link").unlink()
            (root / "etc/link").mkdir(mode=0o711)
            (root / "etc/link/ü\udce4").write_bytes(b"bytes")
            (root / "moved").mkdir()
            (root / "old/b/c").rename(root / "moved/c")
            (root / "hard").write_text("linked")
            os.link(root / "hard", root / "soft")
            os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mkfifo(root / "pipe")
            os.setxattr(root / "hard", "user.a", b"\0value")
            expected = listing(str(root))
        self.same_by_layer(snapshots, database, base, expected)
        with Root(snapshots, "child", readonly=True) as root:
            assert (root / "hard").stat().st_ino == (root / "soft").stat().st_ino
            assert os.getxattr(root / "hard", "user.a") == b"\0value"

    def same_by_layer(
        self, snapshots: Snapshotter, database: Database, base: str, expected: dict[str, tuple[object, ...]]
    ) -> None:
        data = b"".join(layers.diff(snapshots.tree("c")))
        assert b"".join(layers.diff(snapshots.tree("c"))) == data, "a diff is reproducible"
        add_layer(snapshots, database, data, "child", base)
        with Root(snapshots, "child", readonly=True) as root:
            assert listing(str(root)) == expected

    def test_directories_a_layer_does_not_describe_look_as_the_parents(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        data = tar((Entry("bin/new", size=1), b"n"), (Entry("made/up/x", size=1), b"x"))
        applied = add_layer(snapshots, database, data, "child", base)
        assert set(applied.implicit) == {"", "bin", "made", "made/up"}
        with Root(snapshots, "child", readonly=True) as root:
            status = (root / "bin").stat()
            assert (status.st_mode & 0o7777, status.st_uid) == (0o750, 3)
            assert (root / "bin/su").exists()
            assert (root / "made/up").stat().st_mode & 0o7777 == 0o755

    def test_whiteouts_and_opaque_directories_hide_the_layers_below(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        data = tar(
            (Entry("etc/.wh.passwd"), b""),
            (Entry("old/", tarformat.DIRECTORY), b""),
            (Entry("old/.wh..wh..opq"), b""),
            (Entry("old/new", size=1), b"n"),
        )
        add_layer(snapshots, database, data, "child", base)
        with Root(snapshots, "child", readonly=True) as root:
            assert sorted(os.listdir(root / "etc")) == ["link"]
            assert os.listdir(root / "old") == ["new"]

    @pytest.mark.parametrize("first", [True, False])
    def test_a_whiteout_does_not_hide_its_own_layer(
        self, snapshots: Snapshotter, database: Database, base: str, first: bool
    ) -> None:
        """OCI image-spec, layer.md: whiteouts apply to lower layers only, wherever they stand in the archive."""
        whiteouts = [(Entry("old/.wh.b"), b""), (Entry("etc/.wh.passwd"), b"")]
        own = [(Entry("old/b/", tarformat.DIRECTORY), b""), (Entry("etc/passwd", size=3), b"new")]
        data = tar(*(whiteouts + own if first else own + whiteouts))
        add_layer(snapshots, database, data, "child", base)
        with Root(snapshots, "child", readonly=True) as root:
            assert os.listdir(root / "old/b") == []
            assert (root / "etc/passwd").read_text() == "new"

    def test_many_layers_are_stacked(self, snapshots: Snapshotter, database: Database, base: str) -> None:
        parent = base
        for number in range(60):
            data = tar((Entry("count", size=2), b"%02d" % number), (Entry(f"layer{number}"), b""))
            add_layer(snapshots, database, data, f"l{number}", parent)
            parent = f"l{number}"
        snapshots.prepare("c", parent)
        with Root(snapshots, "c") as root:
            assert (root / "count").read_text() == "59"
            assert (root / "layer0").exists()
            assert (root / "etc/passwd").exists()

    def test_keys_are_unique_and_known(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        with pytest.raises(Conflict):
            snapshots.prepare("c", base)
        with pytest.raises(Conflict, match="still being written"):
            snapshots.prepare("d", "c")
        for missing in (snapshots.mounts, snapshots.remove, snapshots.tree, snapshots.info):
            with pytest.raises(NotFound):
                missing("nowhere")
        with pytest.raises(NotFound):
            snapshots.prepare("e", "nowhere")

    def test_a_parent_stays_while_it_has_children(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        with pytest.raises(Conflict, match="is the parent of c"):
            snapshots.remove(base)
        snapshots.remove("c")
        snapshots.remove(base)
        assert snapshots.all() == []

    def test_usage_counts_a_linked_file_once(self, snapshots: Snapshotter, database: Database) -> None:
        data = tar((Entry("a", size=1000), b"x" * 1000), (Entry("b", tarformat.LINK, linkname="a"), b""))
        add_layer(snapshots, database, data, "layer")
        assert snapshots.tree("layer").usage() == (1000, 1)

    def test_a_transaction_that_is_undone_leaves_nothing(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        snapshots.prepare("kept", base)

        def fail() -> None:
            with database.transaction():
                snapshots.prepare("c", base)
                snapshots.remove("kept")
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert sorted(info.key for info in snapshots.all()) == [base, "kept"]
        with Root(snapshots, "kept", readonly=True) as root:
            assert (root / "etc/passwd").exists()
        snapshots.prepare("c", base)

    def test_directories_thousands_deep_are_removed_and_what_comes_after_them_too(
        self, snapshots: Snapshotter, base: str
    ) -> None:
        """A container may nest them as deep as it likes."""
        snapshots.prepare("deep", base)
        snapshots.prepare("after", base)
        place = snapshots.directory("deep")
        here = os.open(place, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        other = snapshots.directory("after")
        snapshots.remove("deep")
        snapshots.remove("after")
        snapshots.wait_removed()
        assert not os.path.exists(place)
        assert not os.path.exists(other)

    def test_what_a_crash_left_is_removed_on_start(
        self, snapshots: Snapshotter, database: Database, base: str, tmp_path: Path
    ) -> None:
        snapshots.prepare("c", base)
        staged = snapshots.stage()
        Path(staged, "file").write_text("x")
        snapshots.close()
        again = type(snapshots)(database, str(tmp_path / "snapshots"))  # type: ignore[call-arg] # every driver's shape
        assert [os.path.dirname(staged)] == again.recover()
        again.wait_removed()
        again.close()
        assert not os.path.exists(staged)
        assert sorted(info.key for info in again.all()) == [base, "c"]
        with Root(again, "c", readonly=True) as root:
            assert (root / "etc/passwd").exists()

    def test_a_container_whose_files_went_with_the_power_starts_anew(
        self, snapshots: Snapshotter, database: Database, base: str
    ) -> None:
        """Its row was synced, its directories were not."""
        snapshots.prepare("c", base)
        shutil.rmtree(os.path.dirname(snapshots.directory("c")))
        snapshots.recover()
        with Root(snapshots, "c") as root:
            assert (root / "etc/passwd").read_text() == "root\n"
            (root / "new").write_text("x")
        assert self.changes(snapshots, "c") == ["A /new"]

    def test_strays_are_what_nobody_has(self, snapshots: Snapshotter, base: str) -> None:
        staged = snapshots.stage()
        snapshots.prepare("c", base)
        assert snapshots.strays() == []
        snapshots.unstage(staged)
        snapshots.remove("c")
        snapshots.wait_removed()
        stray = f"{os.path.dirname(os.path.dirname(staged))}/77777"
        os.mkdir(stray)
        assert snapshots.strays() == [stray]
        snapshots.remove_stray(stray)
        snapshots.wait_removed()
        assert snapshots.strays() == []

    def test_files_of_a_layer_are_replaced(self, snapshots: Snapshotter, database: Database, base: str) -> None:
        assert snapshots.absent(base) == []
        shutil.rmtree(snapshots.directory(base))
        assert snapshots.absent(base) == [snapshots.directory(base)]
        staged = snapshots.stage()
        applied = layers.apply([tar((Entry("new", size=1), b"n"))], staged)
        adopted = snapshots.adopt(staged, [], applied.implicit)
        with contextlib.suppress(NotFound), database.transaction():
            snapshots.replace(base, adopted)
            raise NotFound("anything")
        assert snapshots.absent(base) == [snapshots.directory(base)]  # undone, and with it the staged directory
        with database.transaction():
            snapshots.replace(base, adopted)
        snapshots.wait_removed()
        assert snapshots.strays() == []
        snapshots.prepare("c", base)
        with Root(snapshots, "c") as root:
            assert (root / "new").read_bytes() == b"n"

    def test_an_active_snapshot_begins_anew(self, snapshots: Snapshotter, base: str) -> None:
        snapshots.prepare("c", base)
        shutil.rmtree(snapshots.directory("c"))
        assert snapshots.absent("c") == [snapshots.directory("c")]
        snapshots.remake("c")
        assert snapshots.absent("c") == []
        with Root(snapshots, "c") as root:
            assert (root / "etc/passwd").exists()
        with pytest.raises(Conflict):
            snapshots.remake(base)
