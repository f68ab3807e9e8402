"""What a registry may send and must not get away with: each is a clear error, and leaves nothing behind."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.upstream import DOCKER_LIST, OCI, OCI_INDEX, Exchange, Proxy, Registry, layer, publish

GOOD = layer({"a": b"1"})
Document = dict[str, Any]
Spoil = Callable[[Document], object]


def left(engine: EngineProcess) -> tuple[object, ...]:
    """All that a pull could leave."""
    content = engine.data / "content"
    return (
        engine.docker("images", "-aq", "--no-trunc").stdout,
        sorted(path.name for path in (content / "blobs/sha256").iterdir()),
        [path.name for path in (content / "ingest").iterdir()],
        len(list((engine.data / "snapshots/overlay").iterdir())),
    )


def refused(engine: EngineProcess, name: str, words: str) -> None:
    failed = engine.docker("pull", name, check=False)
    assert failed.code == 1
    assert words in failed.stderr, failed.stderr


@pytest.fixture
def nothing_left(engine: EngineProcess) -> Iterator[None]:
    before = left(engine)
    yield
    engine.fsck()  # waits for what is being deleted, as it would be told
    assert left(engine) == before
    assert engine.fsck() == []


def member(kind: bytes, name: str, **more: Any) -> bytes:
    """An archive of one member, as one who means harm would write it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type = kind
        for key, value in more.items():
            setattr(entry, key, value)
        archive.addfile(entry)
    return out.getvalue()


def through_a_link() -> bytes:
    first = member(tarfile.SYMTYPE, "out", linkname="/tmp")
    return first[:512] + layer({"out/escaped": b"x"})


ARCHIVES = {
    "above": (layer({"../escaped": b"x"}), "leads out of the archive's root"),
    "an absolute link outwards": (member(tarfile.LNKTYPE, "x", linkname="/etc/passwd"), "which is not there"),
    "through a link": (through_a_link(), "is refused: that is a symbolic link"),
    "a link outwards": (member(tarfile.LNKTYPE, "x", linkname="../../etc/passwd"), "leads out of the archive's root"),
    "a link to nothing": (member(tarfile.LNKTYPE, "x", linkname="nothing"), "which is not there"),
    "overlayfs' own mark": (member(tarfile.CHRTYPE, "x"), "overlayfs' own mark of a deleted file"),
    "a whiteout of everything": (layer({".wh...": b""}), "is a whiteout of nothing"),
    "no archive": (b"nonsense " * 200, "tar header"),
    "a cut archive": (GOOD[:700], "truncated"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_layers_that_mean_harm(engine: EngineProcess, registry: Registry, nothing_left: None, case: str) -> None:
    data, words = ARCHIVES[case]
    tag = case.replace(" ", "-").replace("'", "")
    publish(registry, "harm", tag, [data])
    refused(engine, f"{registry.host}/harm:{tag}", words)
    assert not Path("/tmp/escaped").exists()


def cut(data: bytes) -> bytes:
    return gzip.compress(data)[:-20]


def wide(data: bytes) -> bytes:
    """A frame of one raw block that asks for a window of two gigabytes (RFC 8878, 3.1.1.1.2)."""
    return b"\x28\xb5\x2f\xfd\x00\xa8" + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.mark.parametrize(
    ("compress", "words"),
    [(cut, "gzip stream is truncated"), (wide, "zstd stream is damaged"), (lambda data: b"\x1f\x8b" + data, "gzip")],
    ids=["cut", "a window of two gigabytes", "not what it begins as"],
)
def test_streams_that_mean_harm(
    engine: EngineProcess,
    registry: Registry,
    nothing_left: None,
    request: pytest.FixtureRequest,
    compress: Callable[[bytes], bytes],
    words: str,
) -> None:
    tag = request.node.callspec.id.replace(" ", "-")
    publish(registry, "streams", tag, [GOOD], compress=compress)
    refused(engine, f"{registry.host}/streams:{tag}", words)


def missing_layer(document: Document) -> None:
    document["layers"][0]["digest"] = "sha256:" + "1" * 64


def missing_config(document: Document) -> None:
    document["config"]["digest"] = "sha256:" + "2" * 64


def huge_config(document: Document) -> None:
    document["config"]["size"] = 1 << 30


def huge_layer(document: Document) -> None:
    document["layers"][0]["size"] = 1 << 50


def negative_layer(document: Document) -> None:
    document["layers"][0]["size"] = -1


def layer_that_is_the_config(document: Document) -> None:
    document["layers"][0]["digest"] = document["config"]["digest"]
    document["layers"][0]["size"] = document["config"]["size"]


def fewer_layers(document: Document) -> None:
    document["layers"] = []


def foreign_layer(document: Document) -> None:
    document["layers"][0]["mediaType"] = "application/x-something"


def weak_digest(document: Document) -> None:
    document["layers"][0]["digest"] = "md5:" + "0" * 32


MANIFESTS: dict[Spoil, str] = {
    missing_layer: "blob unknown",
    missing_config: "blob unknown",
    huge_config: "image configuration",
    huge_layer: "more than the limit",
    negative_layer: "has the size -1",
    layer_that_is_the_config: "archive is truncated",
    fewer_layers: "layers from manifest don't match image configuration",
    foreign_layer: 'Encountered remote "application/x-something"(unknown) when fetching',
    weak_digest: "invalid digest",
}


@pytest.mark.parametrize("spoil", MANIFESTS, ids=lambda spoil: spoil.__name__)
def test_manifests_that_refer_to_what_is_not(
    engine: EngineProcess, registry: Registry, nothing_left: None, spoil: Spoil
) -> None:
    publish(registry, "manifests", "latest", [GOOD])

    def fault(exchange: Exchange) -> None:
        if exchange.path.endswith("/manifests/latest"):
            document = json.loads(exchange.body)
            spoil(document)
            exchange.body = json.dumps(document).encode()
            exchange.headers = [pair for pair in exchange.headers if pair[0] != "Docker-Content-Digest"]

    with Proxy(registry.host, fault) as proxy:
        refused(engine, f"{proxy.host}/manifests", MANIFESTS[spoil])


CONFIGS = {
    "no JSON": b"nonsense",
    "a list": b"[]",
    "without end": b"[" * 200_000,
    "of another kind": b'{"rootfs": {"type": "windows", "diff_ids": []}}',
    "with layers of no digest": b'{"rootfs": {"type": "layers", "diff_ids": ["x"]}}',
    "of another system": b'{"os": "windows", "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' % (b"0" * 64),
    "of other layers": b'{"os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' % (b"0" * 64),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configurations_that_say_nothing(
    engine: EngineProcess, registry: Registry, nothing_left: None, case: str
) -> None:
    tag = case.replace(" ", "-")
    config = registry.blob("configs", CONFIGS[case])
    blob = registry.blob("configs", gzip.compress(GOOD))
    registry.manifest("configs", tag, {
        "schemaVersion": 2, "mediaType": OCI,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **blob}],
    })  # fmt: skip
    words = {
        "of another system": 'image operating system "windows" cannot be used',
        "of other layers": "layers from manifest don't match image configuration",
    }
    refused(engine, f"{registry.host}/configs:{tag}", words.get(case, "invalid image configuration"))


def index(*entries: Document, kind: str = OCI_INDEX) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()


HERE = {"platform": {"os": "linux", "architecture": "amd64"}}
ITSELF = {"mediaType": OCI_INDEX, "digest": "sha256:" + "3" * 64, "size": 7, **HERE}
INDEXES = {
    "empty": (index(), "no matching manifest"),
    "of itself": (index(ITSELF), "no matching manifest"),
    "that names itself a manifest": (index({**ITSELF, "mediaType": OCI}), "is not what the manifest list says"),
    "of nothing": (index({**ITSELF, "mediaType": OCI, "digest": "sha256:" + "4" * 64}), "not found"),
    "without digests": (index({**ITSELF, "mediaType": OCI, "digest": "x"}), "invalid image index"),
    "as deep as it gets": (b'{"schemaVersion":2,"manifests":' + b"[" * 100_000, "manifest of"),
    "of everything": (index(*({**ITSELF, "size": number} for number in range(50_000))), "the answer is longer than"),
    "of another type than it says": (index(kind=DOCKER_LIST), "mediaType in manifest should be"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_indexes_that_lead_nowhere(engine: EngineProcess, registry: Registry, nothing_left: None, case: str) -> None:
    publish(registry, "indexes", "latest", [GOOD])
    data, words = INDEXES[case]

    def fault(exchange: Exchange) -> None:
        if exchange.path.endswith(("/manifests/latest", "3" * 64)):
            exchange.status, exchange.body = 200, data
            exchange.headers = [("Content-Type", OCI_INDEX)]

    with Proxy(registry.host, fault) as proxy:
        expected = "manifest verification failed" if case == "that names itself a manifest" else words
        refused(engine, f"{proxy.host}/indexes", expected)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "stopped after 5 redirects"),
        ("file:///etc/passwd", "invalid redirect"),
        ("http://127.0.0.1:1/", "refused"),
        ("http://[x/", "invalid redirect"),
        ("http://127.0.0.1:99999/", "address 99999: invalid port"),
        (f"http://{'a' * 64}.test/", "no such host"),
    ],
    ids=["in a circle", "into this machine", "to nobody", "to no address", "to no port", "to no name"],
)
def test_redirects_that_lead_nowhere(
    engine: EngineProcess, registry: Registry, nothing_left: None, location: str, words: str
) -> None:
    publish(registry, "redirects", "latest", [GOOD])

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path:
            exchange.status, exchange.body = 307, b""
            exchange.headers = [("Location", location or exchange.path)]

    with Proxy(registry.host, fault) as proxy:
        refused(engine, f"{proxy.host}/redirects", words)


@pytest.fixture
def small(machine_left_as_found: None, registry: Registry) -> Iterator[EngineProcess]:
    """An engine whose whole disk has 40 MiB."""
    with tempfile.TemporaryDirectory(prefix="hafen-small-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "small", folder], check=True)
        try:
            with EngineProcess(Path(folder) / "e", "--idle-shims", "1", "--idle-netns", "1") as engine:
                yield engine
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small: EngineProcess, registry: Registry, folder: Path) -> None:
    """Whatever it is that does not fit: a clear error, nothing left, and what fits goes on working."""
    noise = os.urandom(30 << 20)
    publish(registry, "large", "latest", [layer({"noise": noise})])
    publish(registry, "small", "latest", [layer({"a": noise[: 4 << 20]})])
    name = f"{registry.host}/small"
    small.docker("pull", "-q", name)
    before = left(small)
    large = folder / "large.tar"
    large.write_bytes(layer({"noise": noise, "more": noise}))
    for command in (
        ("pull", f"{registry.host}/large"),
        ("import", str(large), "large"),
        ("load", "-i", str(large)),
    ):
        failed = small.docker(*command, check=False)
        assert failed.code == 1
        if command[0] != "load":  # what is no image archive may be told of first
            assert "no space left on device" in failed.stderr, failed
        small.fsck()
        assert left(small) == before
    assert small.fsck() == []
    filler = small.base / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    failed = small.docker("tag", name, "other", check=False)  # one row may still fit, or not
    assert failed.code == 0 or "no space left on device" in failed.stderr
    failed = small.docker("pull", f"{registry.host}/large", check=False)
    assert failed.code == 1
    filler.unlink()
    assert small.fsck() == []
    small.docker("push", "-q", name)
    small.docker("rmi", name, "other", check=False)
    small.docker("pull", "-q", name)
    assert small.fsck() == []
