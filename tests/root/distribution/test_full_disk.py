"""A disk that is full: pull, load, import and push say so, leave nothing, and go on once there is room."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.upstream import Registry, layer, publish

_SIZE = 32 << 20  # of the disk
_LARGE = random.Random(1).randbytes(24 << 20)  # as a blob and as a file it is more than that
_FITS = random.Random(2).randbytes(12 << 20)  # as a file; once more, compressed, it is too much


@pytest.fixture(scope="module")
def cramped(machine_left_as_found: None, folder: Path) -> Iterator[EngineProcess]:
    """An engine whose data lie on a small disk."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "hafen-small", str(disk)], check=True)
    try:
        with EngineProcess(disk / "e", "--idle-shims", "1", "--idle-netns", "1") as process:
            process.load_busybox()
            yield process
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def used(engine: EngineProcess) -> tuple[str, set[str], list[str]]:
    names = engine.docker("images", "-a", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").stdout
    return names, set(os.listdir(engine.data / "content/blobs/sha256")), os.listdir(engine.data / "content/ingest")


def saved(tree: bytes) -> bytes:
    """An archive as `docker save` makes it, of an image of one layer."""
    diff_id = "sha256:" + hashlib.sha256(tree).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    manifest = [{"Config": "config.json", "RepoTags": ["large:1"], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    return layer({"layer.tar": tree, **files})


def test_a_full_disk(cramped: EngineProcess, registry: Registry, folder: Path) -> None:
    publish(registry, "full/large", "1", [busybox_tar(), layer({"large": _LARGE})])
    publish(registry, "full/fits", "1", [busybox_tar(), layer({"small": b"1"})])
    tree, archive = folder / "tree.tar", folder / "image.tar"
    tree.write_bytes(layer({"large": _LARGE, "more": _LARGE}))
    archive.write_bytes(saved(tree.read_bytes()))
    before = used(cramped)
    for command in (
        ["pull", "-q", f"{registry.host}/full/large:1"],
        ["import", str(tree), "large:1"],
        ["load", "-q", "-i", str(archive)],
    ):
        failed = cramped.docker(*command, check=False)
        assert failed.code == 1, command
        assert "no space left on device" in failed.stderr, failed
        assert used(cramped) == before, command
        assert cramped.fsck() == []

    name = f"{registry.host}/full/pushed:1"
    cramped.docker("import", "-", name, stdin=layer({"fits": _FITS, "again": _FITS[: 6 << 20]}))
    failed = cramped.docker("push", "-q", name, check=False)
    assert "no space left on device" in failed.stderr, failed
    assert cramped.fsck() == []
    cramped.docker("rmi", name)
    assert used(cramped) == before

    cramped.docker("pull", "-q", f"{registry.host}/full/fits:1")
    assert cramped.docker("run", "--rm", f"{registry.host}/full/fits:1", "cat", "/small").stdout == "1"
    cramped.docker("rmi", f"{registry.host}/full/fits:1")
    assert cramped.fsck() == []
