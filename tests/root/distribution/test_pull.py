"""`docker pull` from Debian's docker-registry: formats, platforms, messages, bad input and broken lines."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.registry import RegistryProcess, descriptor, sha512
from tests.harness.upstream import DOCKER_LIST, OCI, OCI_INDEX, Exchange, Proxy, Registry, layer, publish

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RANDOM = os.urandom(6 << 20)  # what compression cannot shrink


_CHART = (
    b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","size":3,"digest":"sha256:%s"}'
    b',"layers":[]}' % (b"0" * 64)
)


def images(engine: EngineProcess) -> str:
    return engine.docker("images", "-aq", "--no-trunc").stdout


def ingest(engine: EngineProcess) -> list[str]:
    return os.listdir(engine.data / "content/ingest")


def blobs(engine: EngineProcess) -> set[str]:
    return set(os.listdir(engine.data / "content/blobs/sha256"))


def staged(engine: EngineProcess) -> int:
    return len(os.listdir(engine.data / "snapshots/overlay"))


@pytest.mark.parametrize(
    ("compress", "suffix", "oci"),
    [(gzip.compress, "gzip", False), (gzip.compress, "gzip", True), (zstd.compress, "zstd", True), (bytes, "", True)],
    ids=["docker-gzip", "oci-gzip", "oci-zstd", "oci-plain"],
)
def test_formats(engine: EngineProcess, registry: Registry, compress: object, suffix: str, oci: bool) -> None:
    assert callable(compress)
    tag = f"{suffix or 'plain'}-{oci}"
    layers = [busybox_tar(), layer({"note": tag.encode()})]
    manifest = publish(registry, "formats", tag, layers, compress=compress, suffix=suffix, oci=oci)
    name = f"{registry.host}/formats:{tag}"
    said = engine.docker("pull", name).stdout.splitlines()
    assert said[0] == f"{tag}: Pulling from formats"
    assert said[-3:] == [f"Digest: {manifest['digest']}", f"Status: Downloaded newer image for {name}", name]
    assert engine.docker("run", "--rm", name, "cat", "/note").stdout == tag
    assert engine.docker("pull", name).stdout.splitlines()[-2] == f"Status: Image is up to date for {name}"
    digest = engine.docker("image", "inspect", "-f", "{{.RepoDigests}}", name).stdout
    assert digest.strip() == f"[{registry.host}/formats@{manifest['digest']}]"
    again = f"{registry.host}/formats@{manifest['digest']}"
    assert engine.docker("pull", "-q", again).stdout.strip() == again
    engine.docker("rmi", name)
    assert not ingest(engine)


@pytest.mark.parametrize("kind", [DOCKER_LIST, OCI_INDEX])
def test_platforms(engine: EngineProcess, registry: Registry, kind: str) -> None:
    oci = kind == OCI_INDEX
    entries = []
    for architecture in ("arm64", "amd64"):
        files = layer({"arch": architecture.encode()})
        entry = publish(registry, "multi", architecture, [files], oci=oci, architecture=architecture)
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    registry.manifest("multi", "all", {"schemaVersion": 2, "mediaType": kind, "manifests": entries})
    name = f"{registry.host}/multi:all"
    engine.docker("pull", "--platform", "linux/arm64", name)
    assert engine.docker("image", "inspect", "-f", "{{.Architecture}}", name).stdout.strip() == "arm64"
    engine.docker("pull", name)
    assert engine.docker("image", "inspect", "-f", "{{.Architecture}}", name).stdout.strip() == "amd64"
    failed = engine.docker("pull", "--platform", "linux/s390x", name, check=False)
    assert "no matching manifest for linux/s390x in the manifest list entries" in failed.stderr
    failed = engine.docker("pull", "--platform", "linux/s390x", f"{registry.host}/multi:amd64", check=False)
    assert "was found but does not match the specified platform: wanted linux/s390x, actual: linux/amd64" in (
        failed.stderr
    )
    everything = engine.docker("pull", "-a", f"{registry.host}/multi").stdout
    assert {f"{tag}: Pulling from multi" for tag in ("all", "amd64", "arm64")} <= set(everything.splitlines())
    engine.docker("rmi", name, *(f"{registry.host}/multi:{tag}" for tag in ("amd64", "arm64")))


def test_everything_named_by_sha512(engine: EngineProcess, folder: Path) -> None:
    """Manifest, configuration and layer; the image's id is of sha256, as in Docker."""
    tar = busybox_tar()
    packed = gzip.compress(tar)
    diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    ).encode()
    kinds = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": OCI, "config": descriptor(config, kinds[0], "sha512"),
        "layers": [descriptor(packed, kinds[1], "sha512")],
    }).encode()  # fmt: skip
    with RegistryProcess(folder / "sha512") as process, closing(process.client()) as client:
        for data in (config, packed):
            assert client("POST", f"/v2/a/blobs/uploads/?digest={sha512(data)}", data).status == 201
        for reference in ("latest", sha512(manifest)):
            assert client.push_manifest("a", reference, manifest).status == 201
        host = f"127.0.0.1:{process.port}"
        for name in (f"{host}/a:latest", f"{host}/a@{sha512(manifest)}"):
            engine.docker("pull", name)
            identity = "sha256:" + hashlib.sha256(config).hexdigest()
            assert engine.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip() == identity
            assert engine.docker("run", "--rm", identity[7:19], "echo", "here").stdout == "here\n"
            assert "up to date" in engine.docker("pull", name).stdout
            assert engine.fsck() == []
            engine.docker("tag", name, f"{host}/b:1")
            engine.docker("push", "-q", f"{host}/b:1")
            engine.docker("rmi", "-f", identity)
            engine.docker("pull", "-q", f"{host}/b:1")
            engine.docker("rmi", f"{host}/b:1")
            assert engine.fsck() == []


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, "gzip"), (bytes, "")], ids=["gzip", "plain"])
def test_layers_without_an_end_mark_or_of_nothing(
    engine: EngineProcess, registry: Registry, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    note = layer({"note": b"here"})
    layers = [busybox_tar(), note[: note.rindex(b"here") + 512 - note.rindex(b"here") % 512], b""]
    publish(registry, "endless", "latest", layers, compress=compress, suffix=suffix, oci=True)
    name = f"{registry.host}/endless"
    engine.docker("pull", "-q", name)
    assert engine.docker("run", "--rm", name, "cat", "/note").stdout == "here"
    assert engine.fsck() == []
    engine.docker("tag", name, f"{registry.host}/again{suffix}")
    engine.docker("push", "-q", f"{registry.host}/again{suffix}")
    engine.docker("rmi", name, f"{registry.host}/again{suffix}")
    assert engine.fsck() == []


def absolute(data: bytes) -> bytes:
    """A layer's tar with names as kaniko writes them: from `/` on, the targets of hard links too."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as source, tarfile.open(fileobj=out, mode="w") as made:
        for entry in source:
            content = source.extractfile(entry) if entry.isreg() else None
            entry.name = "/" + entry.name.removeprefix(".").removeprefix("/")
            entry.linkname = f"/{entry.linkname.removeprefix('./')}" if entry.islnk() else entry.linkname
            made.addfile(entry, content)
    return out.getvalue()


def test_an_image_as_kaniko_builds_it(engine: EngineProcess, registry: Registry) -> None:
    first, second = absolute(busybox_tar()), absolute(layer({"note": b"here", "bin/.wh.ls": b""}))
    publish(registry, "kaniko", "latest", [first, second])
    name = f"{registry.host}/kaniko"
    engine.docker("pull", name)
    assert engine.docker("run", "--rm", name, "sh", "-c", "cat /note; test -e /bin/ls || echo ' gone'").stdout == (
        "here gone\n"
    )
    assert engine.fsck() == []
    engine.docker("tag", name, f"{registry.host}/kaniko-again")
    engine.docker("push", f"{registry.host}/kaniko-again")
    engine.docker("rmi", name, f"{registry.host}/kaniko-again")


def test_run_pulls(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "auto", "latest", [busybox_tar()])
    name = f"{registry.host}/auto"
    for command in (engine.docker, engine.hafen):
        ran = command("run", "--rm", name, "echo", "here")
        assert ran.stdout == "here\n"
        assert f"Unable to find image '{name}:latest' locally" in ran.stderr
        assert f"Status: Downloaded newer image for {name}:latest" in ran.stderr
        engine.docker("rmi", name)


def test_what_is_not_there(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "there", "latest", [layer({"a": b"1"})])

    def refused(name: str) -> str:
        failed = engine.docker("pull", name, check=False)
        assert failed.code == 1
        return failed.stderr.strip().removeprefix("Error response from daemon: ")

    here = registry.host
    for name in ("there:nosuch", "nosuch:latest", f"there@sha256:{'0' * 64}"):
        assert refused(f"{here}/{name}") == (
            f"manifest for {here}/{name} not found: manifest unknown: manifest unknown"
        )
    assert refused("127.0.0.1:1/x") == 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
    assert "no such host" in refused("registry.invalid/x")


def _other(name: str, value: object) -> object:
    def damage(layers: list[dict[str, object]]) -> None:
        layers[0][name] = value

    return damage


@pytest.mark.parametrize("size", [1, 100_000_000])
def test_a_size_that_lies(engine: EngineProcess, registry: Registry, size: int) -> None:
    damage = _other("size", size)
    assert callable(damage)
    before = images(engine), blobs(engine), staged(engine)
    publish(registry, "lies", f"size-{size}", [layer({"a": RANDOM[:1000]})], damage=damage)
    failed = engine.docker("pull", f"{registry.host}/lies:size-{size}", check=False)
    assert failed.code == 1
    assert (images(engine), blobs(engine), staged(engine)) == before
    assert not ingest(engine)


def test_documents_that_lie(engine: EngineProcess, registry: Registry) -> None:
    before = images(engine), blobs(engine), staged(engine)
    publish(registry, "doc", "good", [layer({"a": b"1"})])
    spoil: dict[str, bytes | None] = {"body": None}

    def fault(exchange: Exchange) -> None:
        if "/manifests/" in exchange.path and spoil["body"] is not None:
            exchange.body = spoil["body"]
            kept = [(name, value) for name, value in exchange.headers if name != "Docker-Content-Digest"]
            exchange.headers = kept

    with Proxy(registry.host, fault) as proxy:
        for body, words in (
            (b'{"schemaVersion":1,"fsLayers":[]}', "schema 1 support has been removed"),
            (b'{"schemaVersion":2,"manifests":[],"layers":[]}', "is not what its type"),
            (b"{" + b" " * (5 << 20), "the answer is longer than"),
            (b"not json", "manifest of"),
            (_CHART, 'Encountered remote "application/vnd.cncf.helm.config.v1+json"'),
        ):
            spoil["body"] = body
            failed = engine.docker("pull", f"{proxy.host}/doc:good", check=False)
            assert words in failed.stderr, failed.stderr
        digest = "sha256:" + hashlib.sha256(b"x").hexdigest()
        failed = engine.docker("pull", f"{proxy.host}/doc@{digest}", check=False)
        assert failed.code == 1
    assert (images(engine), blobs(engine), staged(engine)) == before


def test_a_line_that_is_cut_again_and_again(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "cut", "latest", [layer({"random": RANDOM})])
    cuts = 0

    def fault(exchange: Exchange) -> None:
        nonlocal cuts
        if "/blobs/" in exchange.path and len(exchange.body) > 300_000 and cuts < 20:
            cuts += 1
            exchange.cut = 280_000

    with Proxy(registry.host, fault) as proxy:
        engine.docker("pull", f"{proxy.host}/cut")
        assert cuts == 20
        assert proxy.sent <= 1.02 * len(gzip.compress(layer({"random": RANDOM}))) + 10_000
        engine.docker("rmi", f"{proxy.host}/cut")


def test_a_registry_that_is_busy(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "busy", "latest", [layer({"a": RANDOM[:5000]})])
    turned_away: dict[str, int] = {}

    def fault(exchange: Exchange) -> None:
        place = exchange.path.partition("?")[0]
        turned_away[place] = turned_away.get(place, 0) + 1
        if turned_away[place] <= 2:
            exchange.status = 429 if turned_away[place] == 1 else 503
            exchange.headers = [("Retry-After", "0")] if turned_away[place] == 1 else []
            exchange.body = b""

    with Proxy(registry.host, fault) as proxy:
        engine.docker("pull", f"{proxy.host}/busy")
        # what may be missing is not insisted on
        assert all(count >= 3 for place, count in turned_away.items() if "/referrers/" not in place)
        engine.docker("rmi", f"{proxy.host}/busy")


@pytest.mark.parametrize("times", [1, 99])
def test_corrupted_bytes(engine: EngineProcess, registry: Registry, times: int) -> None:
    """Ridden out where they come right at last; an error that leaves nothing where not."""
    publish(registry, "corrupt", "latest", [layer({"a": RANDOM[:500_000]})])
    before = images(engine), blobs(engine), staged(engine)
    left = times

    def fault(exchange: Exchange) -> None:
        nonlocal left
        if "/blobs/" in exchange.path and len(exchange.body) > 10_000 and left:
            left -= 1
            middle = len(exchange.body) // 2
            exchange.body = exchange.body[:middle] + b"\0" * 100 + exchange.body[middle + 100 :]

    with Proxy(registry.host, fault) as proxy:
        pulled = engine.docker("pull", f"{proxy.host}/corrupt", check=False)
        if times == 1:
            assert pulled.code == 0, pulled
            engine.docker("rmi", f"{proxy.host}/corrupt")
            return
        assert "filesystem layer verification failed for digest sha256:" in pulled.stderr
    assert (images(engine), blobs(engine), staged(engine)) == before
    assert not ingest(engine)


@pytest.mark.parametrize("times", [1, 99])
def test_a_configuration_that_arrives_damaged(engine: EngineProcess, registry: Registry, times: int) -> None:
    publish(registry, "damaged", "latest", [layer({"a": RANDOM[:500_000]})])
    before, left = images(engine), times

    def fault(exchange: Exchange) -> None:
        nonlocal left
        if "/blobs/" in exchange.path and exchange.body.startswith(b"{") and left:
            left -= 1
            exchange.body = exchange.body.replace(b"amd64", b"amd46")

    with Proxy(registry.host, fault) as proxy:
        pulled = engine.docker("pull", f"{proxy.host}/damaged", check=False)
        if times == 1:
            assert pulled.code == 0, pulled
            engine.docker("rmi", f"{proxy.host}/damaged")
        else:
            assert "image config verification failed for digest sha256:" in pulled.stderr
    assert images(engine) == before


def test_two_pulls_share_the_work(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "shared", "latest", [layer({"random": RANDOM})])
    gate = threading.Event()

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path and len(exchange.body) > 1_000_000:
            exchange.pause = gate

    with Proxy(registry.host, fault) as proxy:
        name = f"{proxy.host}/shared"
        with engine.docker_beside("pull", name) as first, engine.docker_beside("pull", name) as second:
            assert "Pulling from" in (first.line() + first.line())
            assert "Pulling from" in (second.line() + second.line())
            gate.set()
            assert first.wait() == second.wait() == 0
        assert proxy.sent < 1.1 * len(RANDOM)
        engine.docker("rmi", name)


def test_a_killed_engine_goes_on_from_what_it_has(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "killed", "latest", [layer({"random": RANDOM})])
    gate = threading.Event()

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path and len(exchange.body) > 1_000_000 and not gate.is_set():
            exchange.pause = gate

    with Proxy(registry.host, fault) as proxy:
        name = f"{proxy.host}/killed"
        with engine.docker_beside("pull", name):
            partial = wait_partial(engine.data / "content/ingest", 2 << 20)
            engine.kill()
        gate.set()
        before = proxy.sent
        engine.start()
        assert partial.exists()
        engine.docker("pull", name)
        assert proxy.sent - before <= len(RANDOM) - (2 << 20) + 20_000
        engine.docker("rmi", name)
    assert not ingest(engine)


def wait_partial(directory: Path, size: int) -> Path:
    """A partial blob of at least so many bytes."""
    ended = threading.Event()
    for _ in range(1000):
        for path in directory.glob("sha256-*"):
            if path.stat().st_size >= size:
                return path
        ended.wait(0.01)  # the engine tells nobody what it has stored
    raise AssertionError(f"nothing arrives in {directory}")


def test_a_redirect_does_not_get_the_password(engine: EngineProcess, registry: Registry) -> None:
    publish(registry, "moved", "latest", [layer({"a": b"1"})])
    with Proxy(registry.host) as elsewhere:

        def fault(exchange: Exchange) -> None:
            if exchange.path == "/v2/" or "Authorization" not in exchange.request_headers:
                exchange.status, exchange.body = 401, b""
                exchange.headers = [("WWW-Authenticate", 'Basic realm="here"')]
            elif "/blobs/" in exchange.path:
                exchange.status, exchange.body = 307, b""
                exchange.headers = [("Location", f"http://{elsewhere.host}{exchange.path}")]

        with Proxy(registry.host, fault) as proxy:
            engine.docker("login", "-u", "a", "--password-stdin", proxy.host, stdin="b", check=False)
            (engine.base / "config.json").write_text(
                f'{{"auths":{{"{proxy.host}":{{"auth":"YTpi"}}}}}}'  # a:b
            )
            engine.docker("pull", f"{proxy.host}/moved")
            assert any("/blobs/" in one.path for one in elsewhere.seen)
            assert not any("Authorization" in one.request_headers for one in elsewhere.seen)
            engine.docker("rmi", f"{proxy.host}/moved")
    (engine.base / "config.json").unlink()
