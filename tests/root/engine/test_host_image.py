"""The `host` image: this machine's root, read-only, without its secrets."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.engine.imageimport import CommitRequest
from hafen.errors import Conflict
from hafen.storage import hostroot
from tests.root.engine.imagebench import Bench, bench


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path / "store") as made:
        yield made


async def test_it_is_always_there_with_the_same_id(images: Bench, tmp_path: Path) -> None:
    first = images.images.resolve("host")
    assert (first.config.cmd, first.size) == (["sh"], 0)
    assert first.config.env[0].startswith("PATH=")
    with bench(tmp_path / "other") as other:
        assert other.images.resolve("host").id == first.id


async def test_a_restart_finds_it(tmp_path: Path) -> None:
    with bench(tmp_path / "store") as images:
        first = images.images.resolve("host").id
    with bench(tmp_path / "store") as again:
        assert [item.id for item in await again.images.list()] == [first]


async def test_another_machines_has_another_id() -> None:
    assert hostroot.identity("a") != hostroot.identity("b")
    assert hostroot.identity("a\n") == hostroot.identity("a")


def test_a_container_sees_the_machine_but_not_the_engine_nor_secrets(images: Bench) -> None:
    images.snapshots.prepare("c1", images.images.resolve("host").snapshot)
    assert images.read("c1", "etc/passwd") == Path("/etc/passwd").read_text()
    descriptor = images.snapshots.tree("c1").open_root(readonly=False)
    try:
        root = Path(f"/proc/self/fd/{descriptor}")
        assert (root / "tmp").is_dir()
        assert not os.path.lexists(f"{root}{images.root}"), "the engine's data"
        for line in (root / "etc/shadow").read_text().splitlines():
            assert line.split(":")[1] in ("*", "!", ""), "no hash"
        assert (root / "etc/shadow").stat().st_mode == Path("/etc/shadow").stat().st_mode
        for key in Path("/etc/ssh").glob("ssh_host_*_key"):
            assert not os.path.lexists(f"{root}{key}")
        (root / "etc/hafen-test").write_text("here")
        (root / "etc/hostname").unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    assert not Path("/etc/hafen-test").exists()
    changed = [change.path for change in images.snapshots.tree("c1").changes()]
    assert set(changed) <= {"/etc", "/etc/hafen-test", "/etc/hostname"}
    images.snapshots.remove("c1")


async def test_it_stays_and_is_not_carried_away(images: Bench) -> None:
    identity = images.images.resolve("host").id
    for ref in ("host", "host:latest", identity, identity[7:19]):
        with pytest.raises(Conflict, match="cannot be forced"):
            await images.images.remove(ref, force=True)
    with pytest.raises(Conflict, match="cannot save host"):
        await images.save("host")
    await images.images.tag("host", "mine", "1")
    assert [item.untagged for item in await images.images.remove("mine:1")] == ["mine:1"]
    assert images.images.resolve("host").id == identity
    pruned = await images.images.prune()
    assert pruned.images_deleted is None


async def test_an_image_on_it_says_so_and_works(images: Bench) -> None:
    host = images.images.resolve("host")
    images.snapshots.prepare("c1", host.snapshot)
    images.write("c1", "etc/hafen-test", "kept")
    await images.images.commit(CommitRequest("c1", host, host.config, "mine", "1"))
    images.snapshots.remove("c1")
    child = images.images.resolve("mine:1")
    assert child.config.labels["hafen.base"] == "host"
    images.snapshots.prepare("c2", child.snapshot)
    assert images.read("c2", "etc/hafen-test") == "kept"
    assert images.read("c2", "etc/passwd").startswith("root:")
    images.write("c2", "etc/hafen-more", "on top")
    assert images.read("c2", "etc/hafen-more") == "on top"
    assert [change.path for change in images.snapshots.tree("c2").changes()] == ["/etc", "/etc/hafen-more"]
    with pytest.raises(Conflict, match="this machine's own root"):
        await images.save("mine:1")
    images.snapshots.remove("c2")
    await images.images.remove("mine:1")
    assert [item.repo_tags for item in await images.images.list()] == [["host:latest"]]


async def test_the_name_is_not_given_away(images: Bench) -> None:
    await images.import_(bytes(1024), "x:1")
    with pytest.raises(Conflict, match="always is this machine's own root"):
        await images.images.tag("x:1", "host")


def test_the_mask_follows_what_it_is_told(tmp_path: Path) -> None:
    mask, secret, other = tmp_path / "mask", tmp_path / "secret", tmp_path / "other"
    for directory in (mask, secret, other):
        directory.mkdir(mode=0o750)
    hostroot.update_mask(str(mask), [str(secret)], [])
    assert (mask / str(secret)[1:]).stat().st_rdev == 0
    assert (mask / str(tmp_path)[1:]).stat().st_mode == tmp_path.stat().st_mode
    hostroot.update_mask(str(mask), [str(other)], [])
    assert not (mask / str(secret)[1:]).exists()
    assert (mask / str(other)[1:]).exists()


def test_hashes_are_replaced_and_nothing_else() -> None:
    text = "root:$y$j9T$x$y:1:0:99999:7:::\nlocked:!$6$a$b:1\nnone:*:1\nempty::1\nplain:!:1\n"
    assert hostroot.without_hashes(text) == (
        "root:*:1:0:99999:7:::\nlocked:!:1\nnone:*:1\nempty::1\nplain:!:1\n"
    )  # fmt: skip


def test_masks_of_engines_that_are_gone_are_removed(tmp_path: Path) -> None:
    for name, owner in (("hafen-a", str(tmp_path / "gone")), ("hafen-b", str(tmp_path)), ("other", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data-root").write_text(owner)
    hostroot.remove_stale_masks(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hafen-b", "other"]


def test_an_orderly_end_takes_the_mask_away_unless_it_is_needed(tmp_path: Path) -> None:
    with bench(tmp_path / "store") as images:
        image = images.images.resolve("host")
        assert image.snapshot is not None
        mask = images.snapshots.directory(image.snapshot)
        images.snapshots.prepare("c1", image.snapshot)
    assert os.path.isdir(mask)
    with bench(tmp_path / "store") as images:
        images.snapshots.remove("c1")
    assert not os.path.exists(os.path.dirname(mask))
