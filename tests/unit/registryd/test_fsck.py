"""`hafen registry fsck` on the root of a registry that does not run."""

import json
import sqlite3
from pathlib import Path

import pytest

from hafen.registryd import fsck
from tests.harness.registry import RegistryProcess, sha256


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A registry with one image of one layer, stopped."""
    with RegistryProcess(tmp_path / "r") as registry:
        client = registry.client()
        client.push("team/app", "latest", b"a layer")
        client.close()
        assert fsck.main(["--root", str(tmp_path / "r")]) == 1  # it runs
    return tmp_path / "r"


def blob(root: Path, data: bytes) -> Path:
    return root / "content/blobs/sha256" / sha256(data)[7:]


def kinds(root: Path) -> list[str]:
    return [problem.kind for problem in fsck.check(str(root)).problems]


def test_what_is_whole(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob(root, b"nobody's").write_bytes(b"nobody's")
    assert fsck.main(["--root", str(root), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["clean"], report["repositories"], report["manifests"], report["blobs"]) == (True, 1, 1, 3)
    assert report["unused"] == 1
    assert fsck.main(["--root", str(root / "nothing")]) == 1


def test_damage_is_found(root: Path) -> None:
    layer = blob(root, b"a layer")
    layer.write_bytes(b"b layer")
    assert kinds(root) == ["blob-damaged"]
    layer.unlink()
    assert kinds(root) == ["blob-missing"]
    layer.write_bytes(b"a layer")
    assert kinds(root) == []


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        ("UPDATE links SET size = size + 1 WHERE digest = ?", "blob-row"),
        ("DELETE FROM links WHERE digest = ?", "manifest"),
        ("INSERT INTO links (repository, digest, size, linked_at) VALUES (99, ?, 7, 0)", "database"),
    ],
)
def test_rows_that_lie_are_found(root: Path, lie: str, kind: str) -> None:
    with sqlite3.connect(root / "registry.db") as database:
        database.execute(lie, (sha256(b"a layer"),))
    database.close()
    assert kinds(root) == [kind]
