"""What a registry has lost its clients push again, as they push everything: what it says it has is not sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from hafen.registryd import fsck
from tests.harness.registry import EMPTY, Client, RegistryProcess, image, sha256

LAYER = b"a layer that matters"
MANIFEST = image(LAYER)


def stored(root: Path, data: bytes) -> Path:
    return root / "content/blobs/sha256" / sha256(data)[7:]


def push(client: Client, name: str) -> list[bytes]:
    """As clients do it: the blobs that had to be sent."""
    sent = []
    for blob in (EMPTY, LAYER):
        if client("HEAD", f"/v2/{name}/blobs/{sha256(blob)}").status != 200:
            client.push_blob(name, blob)
            sent.append(blob)
    assert client.push_manifest(name, "v1", MANIFEST).status == 201
    return sent


def whole(client: Client, name: str) -> bool:
    found = client("GET", f"/v2/{name}/manifests/v1")
    blobs = [client("GET", f"/v2/{name}/blobs/{sha256(blob)}") for blob in (EMPTY, LAYER)]
    return (found.status, found.body) == (200, MANIFEST) and [blob.body for blob in blobs] == [EMPTY, LAYER]


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"a part")], ids=["gone", "cut"])
def test_a_lost_blob_is_pushed_again(
    registry: RegistryProcess, client: Client, name: str, lose: Callable[[Path], object]
) -> None:
    push(client, name)
    lose(stored(registry.root, LAYER))
    for method in ("HEAD", "GET"):
        assert client(method, f"/v2/{name}/blobs/{sha256(LAYER)}").status == 404
    assert client("POST", f"/v2/{name}/b/blobs/uploads/?mount={sha256(LAYER)}&from={name}").status == 202
    assert push(client, name) == [LAYER]
    assert whole(client, name)


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"{}")], ids=["gone", "cut"])
def test_a_lost_manifest_is_pushed_again(
    registry: RegistryProcess, client: Client, name: str, lose: Callable[[Path], object]
) -> None:
    push(client, name)
    lose(stored(registry.root, MANIFEST))
    for reference in ("v1", sha256(MANIFEST)):
        for method in ("HEAD", "GET"):
            assert client(method, f"/v2/{name}/manifests/{reference}").status == 404
    assert push(client, name) == []
    assert whole(client, name)


def test_a_damaged_manifest_is_pushed_again(registry: RegistryProcess, client: Client, name: str) -> None:
    push(client, name)
    stored(registry.root, MANIFEST).write_bytes(MANIFEST.replace(b"2", b"3"))
    assert client("GET", f"/v2/{name}/manifests/v1").status == 500
    push(client, name)
    assert whole(client, name)


def test_a_row_with_another_size_goes_and_the_blob_is_pushed_again(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path) as process, closing(process.client()) as client:
        push(client, "a")
    with closing(sqlite3.connect(tmp_path / "registry.db")) as database, database:
        database.execute("UPDATE links SET size = size + 1 WHERE digest = ?", (sha256(LAYER),))
    assert fsck.main(["--root", str(tmp_path), "--repair"]) == 1
    with RegistryProcess(tmp_path) as process, closing(process.client()) as client:
        assert push(client, "a") == [LAYER]
        assert whole(client, "a")
    assert fsck.main(["--root", str(tmp_path)]) == 0


def test_a_blob_of_the_right_size_is_found_damaged_by_fsck_and_pushed_again(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path) as process, closing(process.client()) as client:
        push(client, "a")
    stored(tmp_path, LAYER).write_bytes(LAYER.upper())
    assert fsck.main(["--root", str(tmp_path)]) == 1
    assert stored(tmp_path, LAYER).exists()
    assert fsck.main(["--root", str(tmp_path), "--repair"]) == 1
    assert not stored(tmp_path, LAYER).exists()
    with RegistryProcess(tmp_path) as process, closing(process.client()) as client:
        assert push(client, "a") == [LAYER]
        assert whole(client, "a")
    assert fsck.main(["--root", str(tmp_path)]) == 0
