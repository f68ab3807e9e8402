"""Images exchanged with a Docker Engine, where `HAFEN_PEER_DOCKER` is the address of one: same ids, same files.

Only images under a name of this test's own are touched there.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.engine.imageimport import CommitRequest
from hafen.storage import tarformat
from hafen.storage.tarformat import Entry
from tests.root.engine.imagebench import Bench, bench
from tests.suites.snapshotter_suite import tar

PEER = os.environ.get("HAFEN_PEER_DOCKER", "")
NAME = "hafen-storage-test"
pytestmark = pytest.mark.skipif(not PEER, reason="HAFEN_PEER_DOCKER names no Docker Engine to compare with")

CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)
ROOT = tar(
    (Entry("etc/", tarformat.DIRECTORY, 0o755), b""),
    (Entry("etc/passwd", size=2, uid=1 << 22, mtime_ns=10**18 + 5), b"p\n"),
    (Entry("etc/hard", tarformat.LINK, linkname="etc/passwd"), b""),
    (Entry("su", mode=0o4755, size=1, xattrs={"security.capability": CAPABILITY}), b"s"),
    (Entry("ü" * 60 + "/", tarformat.DIRECTORY), b""),
    (Entry("null", tarformat.CHAR, 0o666, major=1, minor=3), b""),
)  # fmt: skip


def docker(*arguments: str, data: bytes = b"") -> bytes:
    environment = {**os.environ, "DOCKER_HOST": PEER}
    return subprocess.run(["docker", *arguments], input=data, check=True, capture_output=True, env=environment).stdout


@pytest.fixture(autouse=True)
def peer_left_as_found() -> Iterator[None]:
    yield
    for name in docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={NAME}").split():
        docker("rmi", "-f", name.decode())


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path / "store") as made:
        yield made


def inspect(name: str) -> dict[str, object]:
    (shown,) = json.loads(docker("image", "inspect", name))
    assert isinstance(shown, dict)
    return shown


def layers_of(shown: dict[str, object]) -> object:
    root = shown["RootFS"]
    assert isinstance(root, dict)
    return root["Layers"]


async def test_what_docker_saves_is_loaded_with_the_same_id_and_saved_again(images: Bench) -> None:
    docker("import", "-c", 'CMD ["su"]', "-", f"{NAME}:1", data=ROOT)
    container = docker("create", f"{NAME}:1").decode().strip()
    docker("cp", "-", f"{container}:/etc", data=tar((Entry("added", size=3), b"new")))
    docker("commit", "-m", "second", container, f"{NAME}:2")
    docker("rm", container)
    saved = docker("save", f"{NAME}:1", f"{NAME}:2")
    ids = [inspect(f"{NAME}:{tag}")["Id"] for tag in "12"]
    assert await images.load(saved) == [f"Loaded image: {NAME}:1\n", f"Loaded image: {NAME}:2\n"]
    assert [images.images.resolve(f"{NAME}:{tag}").id for tag in "12"] == ids
    assert images.content_of(f"{NAME}:2")["etc/added"] == b"new"
    ours = await images.save(f"{NAME}:1", f"{NAME}:2")
    docker("rmi", f"{NAME}:1", f"{NAME}:2")
    docker("load", data=ours)
    assert [inspect(f"{NAME}:{tag}")["Id"] for tag in "12"] == ids


async def test_what_we_make_docker_loads(images: Bench) -> None:
    await images.import_(ROOT, f"{NAME}:ours", 'CMD ["su"]', "EXPOSE 80", "VOLUME /data", "LABEL a=b")
    image = images.images.resolve(f"{NAME}:ours")
    images.snapshots.prepare("c1", image.snapshot)
    images.write("c1", "made", "by the container")
    await images.images.commit(CommitRequest("c1", image, image.config, NAME, "child", "why", "who", "sh"))
    said = docker("load", data=await images.save(f"{NAME}:ours", f"{NAME}:child")).decode()
    assert said == f"Loaded image: {NAME}:ours\nLoaded image: {NAME}:child\n"
    for tag in ("ours", "child"):
        theirs, mine = inspect(f"{NAME}:{tag}"), await images.images.inspect(f"{NAME}:{tag}")
        assert theirs["Id"] == mine.id
        assert theirs["Size"] == mine.size
        assert layers_of(theirs) == mine.root_fs.layers
        assert theirs["Comment"] == mine.comment
        assert theirs["Created"] == mine.created


async def test_an_import_has_the_layer_that_docker_makes_of_it(images: Bench) -> None:
    docker("import", "-", f"{NAME}:1", data=ROOT)
    await images.import_(ROOT, f"{NAME}:1")
    theirs, mine = inspect(f"{NAME}:1"), await images.images.inspect(f"{NAME}:1")
    assert layers_of(theirs) == mine.root_fs.layers
    assert (theirs["Size"], theirs["Comment"]) == (mine.size, mine.comment)
