"""Mirrors that lie, are busy or lack something: the pull gets all the same, and as soon, what the registry has."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.upstream import OCI_INDEX, Exchange, Fault, Proxy, Registry, layer, publish

SIZE = 300_000


@contextmanager
def mirrored(
    engine: EngineProcess, registry: Registry, folder: Path, fault: Fault, able: str = '["pull", "resolve"]'
) -> Iterator[tuple[Proxy, Proxy]]:
    """A mirror with this fault, and the registry that it stands before."""
    with Proxy(registry.host, fault) as mirror, Proxy(registry.host) as origin:
        place = folder / "certs.d" / origin.host
        place.mkdir(parents=True)
        (place / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\ncapabilities = {able}\n')
        yield mirror, origin


def wrong(exchange: Exchange) -> None:
    exchange.body = exchange.body[:1000] + bytes(100) + exchange.body[1100:]


def shorter(exchange: Exchange) -> None:
    exchange.body = exchange.body[:2000]
    if "Range" in exchange.request_headers:
        exchange.status, exchange.body = 416, b""


def longer(exchange: Exchange) -> None:
    exchange.body += b"more"


def both(exchange: Exchange) -> None:
    wrong(exchange)
    shorter(exchange)


def blobs(proxy: Proxy) -> int:
    return sum("/blobs/" in one.path for one in proxy.seen)


@pytest.mark.parametrize("spoil", [wrong, shorter, longer, both])
def test_a_mirror_that_gives_something_else(
    engine: EngineProcess, registry: Registry, folder: Path, spoil: Callable[[Exchange], None]
) -> None:
    publish(registry, "lies", "latest", [layer({"a": os.urandom(SIZE)})])

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path:
            spoil(exchange)

    with mirrored(engine, registry, folder, fault) as (mirror, origin):
        engine.docker("pull", f"{origin.host}/lies")
        assert blobs(mirror)
        assert blobs(origin)
        engine.docker("rmi", f"{origin.host}/lies")
    assert engine.fsck() == []


@pytest.mark.parametrize("part", ["/v2/", "/manifests/", "/blobs/"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_mirror_that_is_busy(engine: EngineProcess, registry: Registry, folder: Path, part: str, status: int) -> None:
    """It is asked once, whatever it says of coming back."""
    publish(registry, "busy", "latest", [layer({"a": os.urandom(SIZE)})])

    def fault(exchange: Exchange) -> None:
        if part in exchange.path:
            exchange.status, exchange.body, exchange.headers = status, b"", [("Retry-After", "60")]

    with mirrored(engine, registry, folder, fault) as (mirror, origin):
        engine.docker("pull", f"{origin.host}/busy")  # would take minutes
        asked = [one.path for one in mirror.seen if part in one.path and "/referrers/" not in one.path]
        assert asked
        assert len(asked) == len(set(asked))
        engine.docker("rmi", f"{origin.host}/busy")


def test_a_mirror_without_an_attestation_still_gives_the_layers(
    engine: EngineProcess, registry: Registry, folder: Path
) -> None:
    image = publish(
        registry, "partly", "amd64", [layer({str(number): os.urandom(SIZE)}) for number in range(6)], oci=True
    )
    other = publish(registry, "partly", "other", [layer({"a": b"1"})], oci=True)
    marks = {"vnd.docker.reference.digest": image["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    here = {"os": "linux", "architecture": "amd64"}
    entries = [{**image, "platform": here}, {**other, "annotations": marks, "platform": {"os": "unknown"}}]
    registry.manifest("partly", "latest", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    asked = threading.Event()

    def fault(exchange: Exchange) -> None:
        if exchange.path.endswith(f"/manifests/{other['digest']}"):
            exchange.status, exchange.body = 404, b""
            asked.set()
        elif "/blobs/" in exchange.path and len(exchange.body) > 100_000:
            assert asked.wait(20)

    with mirrored(engine, registry, folder, fault) as (mirror, origin):
        engine.docker("pull", f"{origin.host}/partly")
        assert asked.is_set()
        assert blobs(mirror)
        assert not blobs(origin)
        engine.docker("rmi", f"{origin.host}/partly")


@pytest.mark.parametrize("able", ['["pull"]', '["resolve"]'])
def test_a_mirror_is_asked_for_what_it_is_able_to(
    engine: EngineProcess, registry: Registry, folder: Path, able: str
) -> None:
    """`pull` alone: what has a digest; without it, nothing."""
    publish(registry, "able", "latest", [layer({"a": os.urandom(SIZE)})])
    with mirrored(engine, registry, folder, lambda _: None, able) as (mirror, origin):
        engine.docker("pull", f"{origin.host}/able")
        assert any(one.path.endswith("/manifests/latest") for one in origin.seen)
        assert not any(one.path.endswith("/manifests/latest") for one in mirror.seen)
        assert bool(blobs(mirror)) == (able == '["pull"]')
        assert bool(blobs(origin)) == (able != '["pull"]')
        engine.docker("rmi", f"{origin.host}/able")
