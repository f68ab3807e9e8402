"""A stranger at our registry: Debian's skopeo copies images in, out and away, and every digest stays what it was."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.registry import (
    OCI_IMAGE,
    RegistryProcess,
    descriptor,
    image,
    index,
    sha256,
)  # fmt: skip

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path_factory.mktemp("registry")) as process:
        yield process


def skopeo(*arguments: str) -> str:
    run = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def layer(content: str) -> tuple[bytes, str]:
    """A gzip layer, and its contents' digest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content.encode()))
    return gzip.compress(out.getvalue(), mtime=0), sha256(out.getvalue())


def layout(folder: Path) -> bytes:
    """An OCI layout with an index of two platforms under the tag `all`: that index."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    manifests = []
    for architecture in ("amd64", "arm64"):
        layers = [layer("shared"), layer(architecture)]
        config = json.dumps({
            "architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest for _, digest in layers]},
        }).encode()  # fmt: skip
        manifest = image(config=config, layers=[descriptor(data, LAYER) for data, _ in layers])
        manifests.append(descriptor(manifest, OCI_IMAGE, platform={"architecture": architecture, "os": "linux"}))
        for data in (*(data for data, _ in layers), config, manifest):
            (blobs / sha256(data)[7:]).write_bytes(data)
    both = index(manifests=manifests)
    (blobs / sha256(both)[7:]).write_bytes(both)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    tagged = descriptor(both, json.loads(both)["mediaType"], annotations={"org.opencontainers.image.ref.name": "all"})
    (folder / "index.json").write_bytes(index(manifests=[tagged]))
    return both


def blobs_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "blobs/sha256").iterdir()}


def test_an_index_in_and_out_with_equal_digests(registry: RegistryProcess, tmp_path: Path) -> None:
    both = layout(tmp_path / "in")
    there = f"docker://127.0.0.1:{registry.port}/team/app:all"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{tmp_path}/in:all", there)
    assert skopeo("inspect", "--raw", "--tls-verify=false", there).encode() == both
    skopeo("copy", "--all", "--src-tls-verify=false", there, f"oci:{tmp_path}/out:all")
    assert blobs_of(tmp_path / "out") == blobs_of(tmp_path / "in")


def test_from_one_repository_to_another_and_away(registry: RegistryProcess, tmp_path: Path) -> None:
    both = layout(tmp_path / "in")
    base = f"docker://127.0.0.1:{registry.port}"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{tmp_path}/in:all", f"{base}/one/app:v1")
    skopeo(
        "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", f"{base}/one/app:v1", f"{base}/two/app:v2"
    )
    assert skopeo("inspect", "--raw", "--tls-verify=false", f"{base}/two/app@{sha256(both)}").encode() == both
    assert json.loads(skopeo("list-tags", "--tls-verify=false", f"{base}/two/app"))["Tags"] == ["v2"]
    skopeo("copy", "--src-tls-verify=false", f"{base}/two/app:v2", f"dir:{tmp_path}/dir")
    kept = json.loads((tmp_path / "dir/manifest.json").read_bytes())
    for part in (kept["config"], *kept["layers"]):
        assert sha256((tmp_path / "dir" / part["digest"][7:]).read_bytes()) == part["digest"]
    skopeo("delete", "--tls-verify=false", f"{base}/two/app:v2")
    with closing(registry.client()) as client:
        assert client("GET", "/v2/two/app/manifests/v2").status == 404
    assert skopeo("inspect", "--raw", "--tls-verify=false", f"{base}/one/app:v1").encode() == both


def test_docker_media_types(registry: RegistryProcess, tmp_path: Path) -> None:
    layout(tmp_path / "in")
    there = f"docker://127.0.0.1:{registry.port}/team/docker:v1"
    skopeo("copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{tmp_path}/in:all", there)
    manifest = skopeo("inspect", "--raw", "--tls-verify=false", there)
    assert json.loads(manifest)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
