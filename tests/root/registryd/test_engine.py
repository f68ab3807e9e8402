"""The registry inside of the engine: one content store for both, in which no blob is twice, missing or left."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess
from tests.harness.ports import free_port
from tests.harness.registry import Client, image, sha256
from tests.harness.upstream import Registry, layer, publish
from tests.root.registryd.test_faults import GONE, every_tag, whole

MEGABYTE = 1 << 20


class Served:
    """An engine that serves a registry, which collects all the time."""

    def __init__(self, engine: EngineProcess, port: int) -> None:
        self.engine = engine
        self.host = f"127.0.0.1:{port}"
        self.port = port
        self.own = set(self.blobs())  # the host image's

    def client(self) -> Client:
        return Client(self.port)

    def blobs(self) -> dict[str, int]:
        """Inode by digest."""
        folder = self.engine.data / "content/blobs"
        return {f"{path.parent.name}:{path.name}": path.stat().st_ino for path in folder.glob("*/*")}

    def used(self) -> int:
        """Bytes of the data root on disk, snapshots aside: those of blobs, whoever they are for."""
        total = 0
        for base, folders, files in os.walk(self.engine.data):
            if "snapshots" in folders:
                folders.remove("snapshots")
            total += sum(os.lstat(f"{base}/{name}").st_blocks * 512 for name in files if not name.endswith("-wal"))
        return total


@pytest.fixture
def served(machine_left_as_found: None, tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    options = {"addr": f"127.0.0.1:{port}", "gc-interval": 0.05, "gc-grace": 1}
    (tmp_path / "daemon.json").write_text(json.dumps({"registry": options}))
    flags = ("--config-file", str(tmp_path / "daemon.json"), "--idle-shims", "1", "--idle-netns", "1")
    with EngineProcess(tmp_path / "e", *flags) as process:
        yield Served(process, port)


def push_image(client: Client, name: str, tag: str, layers: list[bytes], compress: bool = True) -> bytes:
    """A real image over HTTP, as a stranger pushes it: its manifest."""
    packed = [gzip.compress(one, mtime=0) for one in layers] if compress else layers
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in layers]},
    }).encode()  # fmt: skip
    for blob in (config, *packed):
        client.push_blob(name, blob)
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
    manifest = image(config=config, layers=[
        {"mediaType": kind, "digest": sha256(one), "size": len(one)} for one in packed
    ])  # fmt: skip
    answer = client.push_manifest(name, tag, manifest)
    assert answer.status == 201, answer
    return manifest


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def noise(seed: int, size: int = 4 * MEGABYTE) -> bytes:
    return layer({f"file-{seed}": random.Random(seed).randbytes(size)})


def test_a_pull_from_it_copies_nothing(served: Served) -> None:
    """What a stranger has pushed is at once the engine's."""
    with closing(served.client()) as client:
        push_image(client, "team/app", "v1", [noise(1)])
    before, inodes = served.used(), served.blobs()
    served.engine.docker("pull", "-q", f"{served.host}/team/app:v1")
    assert served.used() - before < MEGABYTE / 2  # rows, a recipe, a manifest
    after = served.blobs()
    shared = [digest for digest in inodes if os.stat(_path(served, digest)).st_size > MEGABYTE]
    assert len(shared) == 1
    assert after[shared[0]] == inodes[shared[0]]


def _path(served: Served, digest: str) -> Path:
    return served.engine.data / "content/blobs" / digest.replace(":", "/")


def test_a_push_to_it_moves_no_byte(served: Served) -> None:
    """An image that came with its compressed layers goes to another name of the registry as rows alone."""
    engine = served.engine
    with closing(served.client()) as client:
        push_image(client, "one", "v1", [noise(2), noise(3)])
        engine.docker("pull", "-q", f"{served.host}/one:v1")
        name = f"localhost:{served.port}/two:v1"
        engine.docker("tag", f"{served.host}/one:v1", name)
        before, inodes, metrics = served.used(), served.blobs(), received(client)
        engine.docker("push", "-q", name)
        assert received(client) - metrics < 10_000  # the manifest
        assert served.used() - before < MEGABYTE / 2
        large = {digest: inode for digest, inode in inodes.items() if _path(served, digest).stat().st_size > MEGABYTE}
        assert len(large) == 2
        assert large.items() <= served.blobs().items()
        assert whole(client, "two", "v1")


def received(client: Client) -> int:
    text = client("GET", "/metrics").body.decode()
    return int(text.partition("\nhafen_registry_received_bytes_total ")[2].partition("\n")[0])


def test_layers_that_are_only_files_are_compressed_into_it_once(served: Served) -> None:
    engine = served.engine
    engine.docker("import", "-", f"{served.host}/imported:v1", stdin=noise(4))
    with closing(served.client()) as client:
        before = received(client)
        engine.docker("push", "-q", f"{served.host}/imported:v1")
        assert received(client) - before < 10_000
        assert whole(client, "imported", "v1")
        engine.docker("rmi", f"{served.host}/imported:v1")
        assert whole(client, "imported", "v1")
        assert engine.docker("run", "--rm", "--entrypoint", "", f"{served.host}/imported:v1", "x", check=False).code
        assert engine.docker("images", "-q", f"{served.host}/imported:v1").stdout


def test_each_owner_keeps_what_it_needs_and_no_more(served: Served) -> None:
    engine = served.engine
    with closing(served.client()) as client:
        first = push_image(client, "app", "v1", [noise(5), noise(6)])
        engine.docker("pull", "-q", f"{served.host}/app:v1")
        assert client("DELETE", f"/v2/app/manifests/{sha256(first)}").status == 202
        wait_until(lambda: client("GET", "/v2/app/tags/list").status == 404)  # its links are dropped
        archive = engine.base / "saved.tar"
        engine.docker("save", "-o", str(archive), f"{served.host}/app:v1")
        engine.docker("rmi", f"{served.host}/app:v1")
        wait_until(lambda: served.blobs().keys() == served.own)

        push_image(client, "app", "v2", [noise(7)])
        engine.docker("pull", "-q", f"{served.host}/app:v2")
        engine.docker("rmi", f"{served.host}/app:v2")
        time.sleep(0.3)  # several collections, each of which could be wrong
        assert whole(client, "app", "v2")


def taken(engine: EngineProcess) -> str:
    """What `system df` says of images."""
    return engine.docker("system", "df", "--format", "{{.Type}} {{.Size}}").stdout.splitlines()[0]


def test_fsck_and_df_know_whose_a_blob_is(served: Served) -> None:
    engine = served.engine
    before = taken(engine)
    with closing(served.client()) as client:
        push_image(client, "app", "v1", [noise(10)])
    assert engine.fsck() == []
    assert taken(engine) == before  # no image of the engine's takes that
    usage: Any = call(engine, "GET", "/system/df", version="v1.52")[1]
    files = [path.stat().st_size for path in (engine.data / "content/blobs").glob("*/*")]
    assert usage["RegistryUsage"]["TotalCount"] == len(files) - len(served.own)
    assert usage["RegistryUsage"]["TotalSize"] + usage["LayersSize"] == sum(files)
    assert engine.hafen("system", "df").stdout.splitlines()[-1].split()[:4] == ["Registry", "Blobs", "3", "3"]
    large = next(digest for digest in served.blobs() if _path(served, digest).stat().st_size > MEGABYTE)
    with open(_path(served, large), "r+b") as file:
        file.write(b"damage")
    assert [(one["Kind"], one["Subject"]) for one in engine.fsck("--repair")] == [("blob-damaged", large)]
    assert _path(served, large).exists()


def test_what_it_has_stays_while_it_is_not_served(served: Served) -> None:
    engine = served.engine
    with closing(served.client()) as client:
        push_image(client, "app", "v1", [noise(8)])
    engine.stop()
    flags, engine.flags = engine.flags, ("--bridge", engine.flags[1], "--idle-shims", "1", "--idle-netns", "1")
    engine.start()
    engine.docker("import", "-", "other", stdin=noise(9))
    engine.docker("rmi", "other")  # sweeps
    engine.stop()
    engine.flags = flags
    engine.start()
    with closing(served.client()) as client:
        assert whole(client, "app", "v1")


def test_the_owner_of_the_engine_makes_its_tokens(served: Served) -> None:
    served.engine.stop()
    rules = served.engine.base / "rules"
    rules.write_text("* * pull\nci * push,pull\n")
    config = served.engine.base.parent / "daemon.json"
    config.write_text(json.dumps({"registry": {"addr": served.host, "rules": str(rules)}}))
    served.engine.start()
    root = served.engine.data / "registry"
    secret = served.engine._command(
        [sys.executable, "-m", "hafen.cli.main", "registry", "token", "create", "--user", "ci", "--root", str(root)],
        None, True, 20,
    ).stdout.strip()  # fmt: skip
    served.engine.docker("import", "-", f"{served.host}/app:v1", stdin=layer({"a": b"1"}))
    assert served.engine.docker("push", f"{served.host}/app:v1", check=False).code == 1
    served.engine.docker("login", "-u", "ci", "--password-stdin", served.host, stdin=secret)
    served.engine.docker("push", f"{served.host}/app:v1")


def test_an_engine_that_is_its_own_mirror(served: Served, tmp_path: Path) -> None:
    """What it pulls comes through its cache, is on the disk once, and goes when neither needs it."""
    engine, mirror = served.engine, free_port()
    engine.stop()
    with Registry(tmp_path / "hub") as hub:
        publish(hub, "library/mirrored", "latest", [noise(30), noise(31)])
        proxy = f"docker.io=http://{hub.host},mirror=127.0.0.1:{mirror},keep=4s"
        options = {"addr": served.host, "gc-interval": 0.05, "proxy": [proxy]}
        config = {"registry": options, "registry-mirrors": [f"http://127.0.0.1:{mirror}"]}
        (engine.base.parent / "daemon.json").write_text(json.dumps(config))
        engine.start()
        before = served.used()
        engine.docker("pull", "-q", "mirrored")
        assert served.used() - before < 8.5 * MEGABYTE  # of two layers of four each
        engine.docker("rmi", "mirrored")
        asked = len(hub.log.read_text().splitlines())
        engine.docker("pull", "-q", "mirrored")
        assert "/blobs/" not in "".join(hub.log.read_text().splitlines()[asked:])
        wait_until(lambda: not _cached(served))
        assert engine.docker("run", "--rm", "mirrored", "x", check=False).code == 127  # whole, without a shell
        assert engine.docker("image", "inspect", "mirrored").stdout
        engine.docker("rmi", "mirrored")
        wait_until(lambda: served.blobs().keys() == served.own)


def _cached(served: Served) -> list[str]:
    with closing(served.client()) as client:
        return [name for name in client("GET", "/v2/_catalog").json()["repositories"] if name.startswith("docker.io/")]


@pytest.fixture
def offering(served: Served) -> Served:
    """One that offers the engine's images under `local`."""
    served.engine.stop()
    config = served.engine.base.parent / "daemon.json"
    config.write_text(json.dumps({"registry": {"addr": served.host, "gc-interval": 0.05, "images": "local"}}))
    served.engine.start()
    return served


def test_local_images_are_offered(offering: Served, tmp_path: Path) -> None:
    """One that came compressed keeps its digest; one that is only files goes as plain layers. Nothing is stored."""
    engine = offering.engine
    with closing(offering.client()) as client:
        came = push_image(client, "app", "v1", [noise(20), noise(21)])
        engine.docker("pull", "-q", f"{offering.host}/app:v1")
        engine.docker("tag", f"{offering.host}/app:v1", "mine:v1")
        engine.docker("import", "-c", "CMD x", "-", "quay.io/files:v2", stdin=noise(22))
        before, used = offering.blobs(), offering.used()
        for name, same in (("local/library/mine:v1", True), ("local/quay.io/files:v2", False)):
            there = f"docker://{offering.host}/{name}"
            folder = tmp_path / name.replace("/", "-")
            command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", there, f"dir:{folder}"]
            subprocess.run(command, check=True, capture_output=True)
            manifest = (folder / "manifest.json").read_bytes()
            assert (manifest == came) == same
            path, _, tag = name.partition(":")
            by_digest = client("GET", f"/v2/{path}/manifests/{sha256(manifest)}")
            assert (by_digest.status, by_digest.body) == (200, manifest)
            assert client("GET", f"/v2/{path}/tags/list").json()["tags"] == [tag]
            layer_digest = json.loads(manifest)["layers"][0]["digest"]
            whole_layer = client("GET", f"/v2/{path}/blobs/{layer_digest}").body
            part = client("GET", f"/v2/{path}/blobs/{layer_digest}", headers={"Range": "bytes=1000000-2500000"})
            assert (part.status, part.body) == (206, whole_layer[1_000_000:2_500_001])
            head = client("HEAD", f"/v2/{path}/blobs/{layer_digest}")
            assert head.headers["content-length"] == str(len(whole_layer))
        assert (offering.blobs(), abs(offering.used() - used) < MEGABYTE / 2) == (before, True)


def test_what_is_offered_is_only_pulled(offering: Served) -> None:
    engine = offering.engine
    engine.docker("import", "-", "files", stdin=layer({"a": b"1"}))
    with closing(offering.client()) as client:
        for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/v1"), ("DELETE", "manifests/latest")):
            assert client(method, f"/v2/local/library/files/{path}", b"").code == "DENIED"
        for path in ("local/library/host/manifests/latest", "local/library/files/manifests/other",
                     "local/library/nothing/tags/list", f"local/library/files/blobs/{sha256(b'x')}",
                     "local/host/manifests/latest"):  # fmt: skip
            assert client("GET", f"/v2/{path}").status == 404
        digest = client("GET", "/v2/local/library/files/manifests/latest").json()["layers"][0]["digest"]
        assert client("GET", f"/v2/local/library/other/blobs/{digest}").status == 404
    engine.docker("tag", "files", f"{offering.host}/local/app")
    assert "nothing can be pushed" in engine.docker("push", f"{offering.host}/local/app", check=False).stderr
    offering.engine.stop()
    offering.engine.start()  # no row of it was made that would be taken for a push


def test_what_was_pushed_is_not_taken_for_an_image_of_the_engine(served: Served) -> None:
    with closing(served.client()) as client:
        push_image(client, "local/app", "v1", [noise(23, 1000)])
    served.engine.stop()
    config = served.engine.base.parent / "daemon.json"
    text = config.read_text()
    config.write_text(json.dumps({"registry": {"addr": served.host, "images": "local"}}))
    with pytest.raises(AssertionError, match="local/app was pushed here and would be taken for a part of the engine's"):
        served.engine.start()
    config.write_text(text)


def _work(served: Served, number: int, promised: dict[tuple[str, str], str]) -> None:
    """Push over HTTP, and pull, push and remove through the engine, until it is gone."""
    chance, count = random.Random(number), 0
    client = served.client()
    with suppress(*GONE, AssertionError):
        while True:
            name, tag = f"storm/{number}", f"t{count}-{time.monotonic_ns()}"
            layers = [noise(100 + chance.randrange(6), 60_000), noise(chance.getrandbits(40), 60_000)]
            promised[name, tag] = sha256(push_image(client, name, tag, layers))
            served.engine.docker("pull", "-q", f"{served.host}/{name}:{tag}")
            other = f"{served.host}/{name}-copy:{tag}"
            served.engine.docker("tag", f"{served.host}/{name}:{tag}", other)
            served.engine.docker("push", "-q", other)
            promised[f"{name}-copy", tag] = promised[name, tag]
            served.engine.docker("rmi", "-f", f"{served.host}/{name}:{tag}", other)
            count += 1
    client.close()


def test_killed_at_any_instant_with_both_collecting(served: Served) -> None:
    chance, promised = random.Random(3), dict[tuple[str, str], str]()
    for _ in range(6):
        threads = [threading.Thread(target=_work, args=(served, number, promised)) for number in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(1.0, 2.5))  # the instant of the fault
        served.engine.kill()
        for thread in threads:
            thread.join()
        served.engine.start()
        with closing(served.client()) as client:
            for (name, tag), digest in promised.items():
                assert client("HEAD", f"/v2/{name}/manifests/{tag}").headers["docker-content-digest"] == digest
            assert all(whole(client, name, tag) for name, tag in every_tag(client))
        assert served.engine.fsck() == []
    assert len(promised) > 6
    _nothing_is_left(served)
    assert "Traceback" not in served.engine.log.read_text()


def _nothing_is_left(served: Served) -> None:
    """With everything removed on both sides, the store is empty."""
    engine = served.engine
    for identity in set(engine.docker("images", "-aq").stdout.split()):
        engine.docker("rmi", "-f", identity, check=False)
    with closing(served.client()) as client:
        for name, tag in list(every_tag(client)):
            digest = client("HEAD", f"/v2/{name}/manifests/{tag}").headers.get("docker-content-digest")
            if digest:
                client("DELETE", f"/v2/{name}/manifests/{digest}")
        wait_until(lambda: served.blobs().keys() == served.own)
