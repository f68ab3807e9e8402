"""Pushes, pulls, deletions and collection at once, and the registry killed at any instant: no blob is ever missing."""

from __future__ import annotations

import http.client
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from tests.harness.registry import EMPTY, Client, RegistryProcess, descriptor, image, sha256

THREADS = 8
REPOSITORIES = [f"storm/r{number}" for number in range(3)]
POOL = [random.Random(number).randbytes(3000 + number * 997) for number in range(30)]

GONE = (http.client.HTTPException, OSError)


def push(client: Client, name: str, tag: str, layers: list[bytes]) -> bytes:
    """As clients do it: what the registry says it has is not sent."""
    for blob in (EMPTY, *layers):
        digest = sha256(blob)
        if client("HEAD", f"/v2/{name}/blobs/{digest}").status != 200:
            location = client("POST", f"/v2/{name}/blobs/uploads/").location
            half = len(blob) // 2
            assert client("PATCH", location, blob[:half]).status == 202
            answer = client("PUT", f"{location}?digest={digest}", blob[half:])
            assert answer.status == 201, answer
    manifest = image(*layers)
    answer = client.push_manifest(name, tag, manifest)
    assert answer.status == 201, answer
    return manifest


def whole(client: Client, name: str, reference: str) -> bool:
    """Whether the image is there with all its bytes; False where it is not there at all. Fails on anything between."""
    answer = client("GET", f"/v2/{name}/manifests/{reference}")
    if answer.status == 404:
        return False
    assert answer.status == 200, answer
    document = answer.json()
    for part in (document["config"], *document["layers"]):
        blob = client("GET", f"/v2/{name}/blobs/{part['digest']}")
        if blob.status == 404:  # only where the manifest has been deleted since
            digest = answer.headers["docker-content-digest"]
            assert client("HEAD", f"/v2/{name}/manifests/{digest}").status == 404, part
            return False
        assert (blob.status, sha256(blob.body)) == (200, part["digest"])
    return True


def storm(process: RegistryProcess, number: int, until: float) -> int:
    """How many images were found whole."""
    client, chance, found = process.client(), random.Random(number), 0
    while time.monotonic() < until:
        name, tag = chance.choice(REPOSITORIES), f"t{chance.randrange(12)}"
        what = chance.random()
        if what < 0.5:
            push(client, name, tag, chance.sample(POOL, chance.randrange(1, 5)))
        elif what < 0.8:
            found += whole(client, name, tag)
        elif (answer := client("HEAD", f"/v2/{name}/manifests/{tag}")).status == 200:
            gone = client("DELETE", f"/v2/{name}/manifests/{answer.headers['docker-content-digest']}")
            assert gone.status in (202, 404), gone
    client.close()
    return found


def blobs(root: Path) -> list[Path]:
    return [path for path in (root / "content/blobs").rglob("*") if path.is_file()]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def every_tag(client: Client) -> Iterator[tuple[str, str]]:
    for name in client("GET", "/v2/_catalog").json()["repositories"]:
        for tag in client("GET", f"/v2/{name}/tags/list").json()["tags"]:
            yield name, tag


def test_a_storm_with_collection_throughout(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--gc-interval", "0.02", "--gc-grace", "3") as process:
        with ThreadPoolExecutor(THREADS) as pool:
            until = time.monotonic() + 5
            found = list(pool.map(lambda number: storm(process, number, until), range(THREADS)))
        assert sum(found) > 50
        client = process.client()
        assert all(whole(client, name, tag) for name, tag in every_tag(client))
        client.close()
        process.stop()
        assert sum(int(count) for count in re.findall(r"collection: (\d+) blobs", process.log)) > 0
        assert "Traceback" not in process.log


def test_what_nothing_needs_goes_away_and_nothing_else(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--gc-interval", "0.05", "--gc-grace", "0.2", "--upload-expiry", "0.2") as process:
        client = process.client()
        kept = push(client, "a", "kept", POOL[:3])
        gone = push(client, "b", "gone", POOL[1:5])
        location = client("POST", "/v2/a/blobs/uploads/").location
        client("DELETE", f"/v2/b/manifests/{sha256(gone)}")
        wanted = {sha256(data)[7:] for data in (EMPTY, kept, *POOL[:3])}
        wait_until(lambda: {path.name for path in blobs(tmp_path)} == wanted)
        assert whole(client, "a", "kept")
        assert client("GET", "/v2/b/tags/list").status == 404
        wait_until(lambda: client("GET", location).status == 404)
        assert os.listdir(tmp_path / "uploads") == []
        client.close()


def test_layers_that_may_be_elsewhere_stay_where_they_were_pushed(tmp_path: Path) -> None:
    """A registry need not have them; one that does must not lose them while an image names them."""
    foreign, linked, gone = POOL[:3]
    layers = [
        descriptor(foreign, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        descriptor(linked, "application/vnd.oci.image.layer.v1.tar", urls=["https://example.com/layer"]),
        descriptor(b"never pushed", "application/vnd.oci.image.layer.nondistributable.v1.tar"),
    ]
    with RegistryProcess(tmp_path) as process, closing(process.client()) as client:
        for blob in (EMPTY, foreign, linked, gone):
            client.push_blob("a", blob)
        assert client.push_manifest("a", "kept", image(layers=layers)).status == 201
    with RegistryProcess(tmp_path, "--gc-interval", "0.05", "--gc-grace", "0") as process:
        wait_until(lambda: not (tmp_path / "content/blobs/sha256" / sha256(gone)[7:]).exists())
        with closing(process.client()) as client:
            for blob in (EMPTY, foreign, linked):
                assert client("GET", f"/v2/a/blobs/{sha256(blob)}").body == blob


def test_killed_at_any_instant(tmp_path: Path) -> None:
    chance = random.Random(7)
    with RegistryProcess(tmp_path, "--gc-interval", "0.01", "--gc-grace", "5") as process:
        promised: dict[tuple[str, str], str] = {}
        for round_ in range(8):
            halves = _push_until_killed(process, promised, round_, chance.uniform(0.1, 0.5))
            process.start()
            client = process.client()
            for (name, tag), digest in promised.items():
                assert client("HEAD", f"/v2/{name}/manifests/{tag}").headers["docker-content-digest"] == digest
            tags = list(every_tag(client))
            assert len(tags) >= len(promised)
            assert all(whole(client, name, tag) for name, tag in tags)
            for location, data, acknowledged in halves:
                _finish(client, location, data, acknowledged)
            client.close()
        assert len(promised) > 20
        assert "Traceback" not in process.log


def work(process: RegistryProcess, name: str, promised: dict[tuple[str, str], str], prefix: str) -> None:
    """Push images until the registry is gone; what it has promised to keep is written down."""
    client, count = process.client(), 0
    with suppress(*GONE):
        while True:
            layers = [os.urandom(20_000), POOL[count % len(POOL)]]
            promised[name, f"{prefix}-{count}"] = sha256(push(client, name, f"{prefix}-{count}", layers))
            count += 1
    client.close()


def chunks(process: RegistryProcess, halves: list[tuple[str, bytes, int]]) -> None:
    """One upload in small chunks until the registry is gone: where, what it was to be, how much was acknowledged."""
    client, data, size = process.client(), os.urandom(4 << 20), 1 << 14
    with suppress(*GONE):
        location = client("POST", "/v2/k/chunks/blobs/uploads/").location
        halves.append((location, data, 0))
        for start in range(0, len(data) - size, size):
            assert client("PATCH", location, data[start : start + size]).status == 202
            halves[-1] = (location, data, start + size)
    client.close()


def _push_until_killed(
    process: RegistryProcess, promised: dict[tuple[str, str], str], round_: int, seconds: float
) -> list[tuple[str, bytes, int]]:
    """Uploads that were cut, as `chunks` tells of them."""
    halves: list[tuple[str, bytes, int]] = []
    threads = [
        threading.Thread(target=work, args=(process, f"k/{number}", promised, f"t{round_}")) for number in range(3)
    ]
    threads.append(threading.Thread(target=chunks, args=(process, halves)))
    for thread in threads:
        thread.start()
    time.sleep(seconds)  # the instant of the fault, not a wait for anything
    process.kill()
    for thread in threads:
        thread.join()
    return halves


def _finish(client: Client, location: str, data: bytes, acknowledged: int) -> None:
    state = client("GET", location)
    assert state.status == 204
    here = int(state.headers["range"].partition("-")[2]) + 1 if acknowledged else 0
    assert here >= acknowledged
    answer = client("PUT", f"{location}?digest={sha256(data)}", data[here:])
    assert answer.status == 201
    assert client("GET", answer.location).body == data
