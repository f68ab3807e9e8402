"""`docker push` to Debian's docker-registry: what goes, what is there already, and lines that break."""

import json
import os
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.registry import RegistryProcess
from tests.harness.upstream import OCI, Exchange, Proxy, Registry, layer, publish


def push(engine: EngineProcess, name: str) -> list[str]:
    return engine.docker("push", name).stdout.splitlines()


def digest_of(lines: list[str]) -> str:
    return lines[-1].split()[2]


def test_push_and_pull_again(engine: EngineProcess, registry: Registry) -> None:
    name = f"{registry.host}/box:one"
    engine.docker("tag", "busybox", name)
    image = engine.docker("image", "inspect", "-f", "{{.Id}}", name).stdout
    layer_id = engine.docker("image", "inspect", "-f", "{{index .RootFS.Layers 0}}", name).stdout.split(":")[1][:12]
    said = push(engine, name)
    assert said[:2] == [f"The push refers to repository [{registry.host}/box]", f"{layer_id}: Preparing"]
    assert said[2] == f"{layer_id}: Pushed"
    assert push(engine, name)[2] == f"{layer_id}: Layer already exists"
    data = registry.call("GET", "/v2/box/manifests/one").read()
    assert said[3] == f"one: digest: {digest_of(said)} size: {len(data)}"
    assert json.loads(data)["layers"][0]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar.gzip"
    assert digest_of(said) in engine.docker("image", "inspect", "-f", "{{.RepoDigests}}", name).stdout

    other = f"{registry.host}/mounted:two"
    engine.docker("tag", "busybox", other)
    mounted = push(engine, other)
    assert mounted[2] == f"{layer_id}: Mounted from box"
    assert digest_of(mounted) == digest_of(said)

    engine.docker("rmi", name, other, "busybox:latest")
    engine.docker("pull", "-q", name)
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", name).stdout == image
    assert engine.docker("run", "--rm", name, "echo", "back").stdout == "back\n"
    engine.docker("tag", name, "busybox:latest")
    engine.docker("rmi", name)


def test_what_was_pulled_goes_as_it_came(engine: EngineProcess, registry: Registry, folder: Path) -> None:
    manifest = publish(registry, "origin", "latest", [layer({"a": b"1"}), layer({"b": b"2"})], oci=True)
    engine.docker("pull", "-q", f"{registry.host}/origin")
    with Registry(folder / "second") as second:
        name = f"{second.host}/copy:latest"
        engine.docker("tag", f"{registry.host}/origin", name)
        assert digest_of(push(engine, name)) == manifest["digest"]
        assert second.call("GET", "/v2/copy/manifests/latest").headers["Content-Type"] == OCI
        engine.docker("rmi", name, f"{registry.host}/origin")


def test_uploads_over_a_line_that_breaks(engine: EngineProcess, registry: Registry, folder: Path) -> None:
    """Ours goes on where it broke; docker-registry 2.8 forgets such an upload, and gets it anew."""
    data = os.urandom(3 << 20)
    with RegistryProcess(folder / "ours") as ours:
        for host in (registry.host, f"127.0.0.1:{ours.port}"):
            cuts: list[int] = []

            def before(exchange: Exchange, cuts: list[int] = cuts) -> None:
                if exchange.method == "PATCH" and len(cuts) < 2:
                    cuts.append(len(exchange.request_body) // 2)
                    exchange.arrives = cuts[-1]

            with Proxy(host, before=before) as proxy:
                name = f"{proxy.host}/resumed:latest"
                engine.docker("import", "-", name, stdin=layer({"random": data}))
                push(engine, name)
                assert len(cuts) == 2
                ranges = [one.request_headers.get("Content-Range", "") for one in proxy.seen if one.method == "PATCH"]
                engine.docker("rmi", name)
                engine.docker("pull", "-q", name)
                engine.docker("rmi", name)
        starts = [int(text.partition("-")[0]) for text in ranges if text]
        assert len(starts) == 2, ranges
        assert starts[1] > starts[0] > len(data) // 2, starts


def test_an_upload_that_is_cut_more_often_than_attempts_are_made(engine: EngineProcess, folder: Path) -> None:
    """What gets on is not in vain."""
    cuts: list[int] = []

    def before(exchange: Exchange) -> None:
        if exchange.method == "PATCH" and len(cuts) < 12:
            cuts.append(len(exchange.request_body) // 6)
            exchange.arrives = cuts[-1]

    with RegistryProcess(folder / "patient") as ours, Proxy(f"127.0.0.1:{ours.port}", before=before) as proxy:
        name = f"{proxy.host}/patient:1"
        engine.docker("import", "-", name, stdin=layer({"random": os.urandom(1 << 20)}))
        push(engine, name)
        assert len(cuts) == 12
        engine.docker("rmi", name)


def test_a_registry_that_is_busy(engine: EngineProcess, registry: Registry) -> None:
    turned: set[str] = set()

    def fault(exchange: Exchange) -> None:
        place = f"{exchange.method} {exchange.path.partition('?')[0]}"
        if exchange.method != "PATCH" and place not in turned:
            turned.add(place)
            exchange.status, exchange.headers, exchange.body = 503, [("Retry-After", "0")], b""

    with Proxy(registry.host, fault) as proxy:
        name = f"{proxy.host}/busy-push:latest"
        engine.docker("import", "-", name, stdin=layer({"a": b"1"}))
        push(engine, name)
        engine.docker("rmi", name)


def test_what_cannot_be_pushed(engine: EngineProcess, registry: Registry) -> None:
    failed = engine.docker("push", f"{registry.host}/nosuch", check=False)
    assert failed.stderr.strip() == f"An image does not exist locally with the tag: {registry.host}/nosuch"
    engine.docker("tag", "host", f"{registry.host}/machine")
    failed = engine.docker("push", f"{registry.host}/machine", check=False)
    assert "own root file system" in failed.stderr
    failed = engine.docker("push", f"{registry.host}/machine:nosuch", check=False)
    assert failed.stderr.strip() == f"tag does not exist: {registry.host}/machine:nosuch"
    engine.docker("rmi", f"{registry.host}/machine")


def test_the_last_tag_of_a_repository_takes_its_digests_along(engine: EngineProcess, registry: Registry) -> None:
    one, two = f"{registry.host}/of/one:1", f"{registry.host}/of/two:1"
    publish(registry, "of/one", "1", [layer({"a": b"1"})])
    engine.docker("pull", "-q", one)
    engine.docker("tag", one, two)
    engine.docker("push", "-q", two)
    said = engine.docker("rmi", one).stdout.splitlines()
    assert [line.partition("@")[0] for line in said] == [f"Untagged: {one}", f"Untagged: {one[:-2]}"]
    said = engine.docker("rmi", two).stdout.splitlines()
    assert [line.partition("@")[0] for line in said[:2]] == [f"Untagged: {two}", f"Untagged: {two[:-2]}"]
    assert said[2].startswith("Deleted: sha256:")


@pytest.mark.parametrize(("code", "sent"), [("TOOBIG", 1), ("DIGEST_INVALID", 2)])
def test_an_upload_that_is_refused_in_the_end(engine: EngineProcess, registry: Registry, code: str, sent: int) -> None:
    """Sent again only where that can help."""
    large: list[Exchange] = []

    def before(exchange: Exchange) -> None:
        if exchange.method == "PATCH" and len(exchange.request_body) > 40_000:
            large.append(exchange)
            if code == "DIGEST_INVALID" and len(large) == 1:
                exchange.request_body = bytes(len(exchange.request_body))

    def fault(exchange: Exchange) -> None:
        if exchange.method == "PUT" and "/blobs/uploads/" in exchange.path and code == "TOOBIG":
            error = {"code": code, "message": "it does not fit"}
            exchange.status, exchange.body = 400, json.dumps({"errors": [error]}).encode()

    with Proxy(registry.host, fault, before) as proxy:
        name = f"{proxy.host}/refused-{code.lower().replace('_', '-')}"
        engine.docker("import", "-", name, stdin=layer({"a": os.urandom(50_000)}))
        pushed = engine.docker("push", name, check=False)
        assert len(large) == sent
        assert pushed.code == (1 if code == "TOOBIG" else 0)
        assert ("toobig: it does not fit" in pushed.stderr) == (code == "TOOBIG")
        engine.docker("rmi", name)
