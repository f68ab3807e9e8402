"""Real clients and the cache: docker with a mirror, podman and skopeo by the prefix, while the other is away."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.ports import free_port
from tests.harness.registry import Client, RegistryProcess, sha256
from tests.harness.upstream import Exchange, Proxy, Registry, layer, publish
from tests.root.registryd.test_faults import GONE

RULES = "* docker.io/* pull\nanna * pull,push\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Registry]:
    """Debian's docker-registry in the place of Docker Hub."""
    with Registry(tmp_path / "hub") as process:
        yield process


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def test_docker_podman_and_skopeo(hub: Registry, machine_left_as_found: None, tmp_path: Path) -> None:
    layers = [layer({"a": b"1" * 100_000}), layer({"b": os.urandom(300_000)})]
    # The same bytes each time: of a layer that it has, the engine would not ask for others, and podman would in vain.
    digest = str(publish(hub, "library/mirrored", "latest", layers, compress=packed)["digest"])
    publish(hub, "library/mirrored", "v2", layers[:1], oci=True, compress=packed)
    (tmp_path / "rules").write_text(RULES)
    mirror = free_port()
    flags = ("--proxy", f"docker.io=http://{hub.host},mirror=127.0.0.1:{mirror},ttl=0s", "--rules", f"{tmp_path}/rules")
    engine_flags = ("--idle-shims", "1", "--idle-netns", "1", "--registry-mirror", f"http://127.0.0.1:{mirror}")
    with (
        RegistryProcess(tmp_path / "cache", *flags) as registry,
        EngineProcess(tmp_path / "e", *engine_flags) as engine,
    ):
        assert f"Digest: {digest}" in engine.docker("pull", "mirrored").stdout
        engine.docker("pull", "-q", "mirrored:v2")
        hub.process.terminate()
        hub.process.wait(10)
        engine.docker("rmi", "mirrored")
        assert f"Digest: {digest}" in engine.docker("pull", "mirrored").stdout
        name = f"127.0.0.1:{registry.port}/docker.io/library/mirrored"
        engine.docker("pull", "-q", f"{name}@{digest}")
        _podman(f"{name}:v2")
        command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{name}:latest"]
        subprocess.run([*command, f"dir:{tmp_path}/dir"], check=True, capture_output=True)
        assert sha256((tmp_path / "dir/manifest.json").read_bytes()) == digest
        assert engine.docker("push", f"{name}:v2", check=False).code == 1


def _podman(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hafen-") as folder:  # podman wants a short name
        stores = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        for words in (("pull", "-q", "--tls-verify=false", name), ("rmi", "-a", "-f")):
            subprocess.run(["podman", *stores, *words], check=True, stdout=subprocess.PIPE)


class Bad:
    """A line that cuts, damages and refuses, each now and then."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        with self._lock:
            what, where = self._chance.random(), self._chance.random()
        if what < 0.1:
            exchange.status, exchange.body, exchange.headers = 429, b"", [("Retry-After", "1")]
        elif what < 0.2:
            exchange.status, exchange.body = 502, b""
        elif what < 0.35 and exchange.body:
            exchange.cut = int(where * len(exchange.body))
        elif what < 0.45 and "/blobs/" in exchange.path and exchange.body:
            exchange.body = bytes([exchange.body[0] ^ 1]) + exchange.body[1:]


def _pull(client: Client, name: str, tag: str) -> bool:
    """Whether an image came; what comes is never something else."""
    answer = client("GET", f"/v2/{name}/manifests/{tag}")
    if answer.status != 200:
        return False
    assert sha256(answer.body) == answer.headers["docker-content-digest"]
    for part in (answer.json()["config"], *answer.json()["layers"]):
        blob = client("GET", f"/v2/{name}/blobs/{part['digest']}")
        if blob.status != 200:
            return False
        assert sha256(blob.body) == part["digest"]
    return True


def _work(registry: RegistryProcess, number: int, found: list[int], stop: threading.Event) -> None:
    chance = random.Random(number)
    while not stop.is_set():
        with suppress(*GONE), closing(registry.client()) as client:
            while not stop.is_set():
                found[number] += _pull(client, "far/app", f"v{chance.randrange(6)}")


def test_killed_again_and_again_on_a_bad_line_with_collection_throughout(tmp_path: Path) -> None:
    chance = random.Random(5)
    with RegistryProcess(tmp_path / "origin") as origin:
        with closing(origin.client()) as there:
            for number in range(6):
                there.push("app", f"v{number}", *(random.Random(number * 10 + n).randbytes(400_000) for n in range(3)))
        with Proxy(f"127.0.0.1:{origin.port}", Bad(1)) as line:
            flags = ("--proxy", f"far=http://{line.host},ttl=0s,limit=3m,keep=2s", "--gc-interval", "0.05")
            with RegistryProcess(tmp_path / "cache", *flags, "--gc-grace", "1") as registry:
                found, stop = [0] * 6, threading.Event()
                threads = [threading.Thread(target=_work, args=(registry, n, found, stop)) for n in range(6)]
                for thread in threads:
                    thread.start()
                for _ in range(5):
                    time.sleep(chance.uniform(1.0, 3.0))  # the instant of the fault
                    registry.kill()
                    registry.start()
                time.sleep(3)  # and some work without one
                stop.set()
                line.fault = lambda _: None
                for thread in threads:
                    thread.join()
                assert sum(found) > 5
                with closing(registry.client()) as client:
                    end = time.monotonic() + 60
                    while not all(_pull(client, "far/app", f"v{number}") for number in range(6)):
                        assert time.monotonic() < end
                _whole_and_then_empty(tmp_path / "cache")
                registry.stop()
                assert "Traceback" not in registry.log


def _whole_and_then_empty(root: Path) -> None:
    """Every blob is what it is called, and nothing stays that nobody asks for."""

    def blobs() -> list[Path]:
        return [path for path in (root / "content/blobs").rglob("*") if path.is_file()]

    for path in blobs():
        with suppress(FileNotFoundError):
            assert sha256(path.read_bytes()) == f"sha256:{path.name}"
    end = time.monotonic() + 30
    while blobs():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert os.listdir(root / "uploads") == []
