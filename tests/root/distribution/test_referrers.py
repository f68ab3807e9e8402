"""Signatures, SBOMs and attestations: fetched with their image, kept, told, pushed along, and gone with it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess
from tests.harness.registry import RegistryProcess
from tests.harness.upstream import OCI, OCI_INDEX, Descriptor, Registry, layer, publish

EMPTY = "application/vnd.oci.empty.v1+json"
SPDX, SIGNATURE = "application/spdx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
SLSA = "https://slsa.dev/provenance/v1"


class Ours(Registry):
    """Our registry, spoken to as the other one."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def ours(folder: Path) -> Iterator[Ours]:
    with RegistryProcess(folder / "ours") as process:
        yield Ours(process.port)


@pytest.fixture(params=["the referrers API", "the tag scheme"])
def source(request: pytest.FixtureRequest) -> Registry:
    """A registry that lists referrers, or one that knows nothing of them."""
    found: Registry = request.getfixturevalue("ours" if "API" in request.param else "registry")
    return found


def artifact(registry: Registry, repository: str, kind: str, content: bytes, subject: Descriptor) -> Descriptor:
    """An artifact about a manifest; what describes it in a list of referrers."""
    blob = registry.blob(repository, content)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, **registry.blob(repository, b"{}")},
        "layers": [{"mediaType": kind, **blob, "annotations": {"title": "about"}}],
        "subject": {name: subject[name] for name in ("mediaType", "digest", "size")},
        "annotations": {"made": "here"},
    }
    digest = f"sha256:{hashlib.sha256(json.dumps(document).encode()).hexdigest()}"
    described = registry.manifest(repository, digest, document)
    return {**described, "artifactType": kind, "annotations": {"made": "here"}}


def announce(registry: Registry, repository: str, subject: Descriptor, *artifacts: Descriptor) -> None:
    """The tag scheme, for a registry without the API."""
    if not isinstance(registry, Ours):
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(artifacts)}
        registry.manifest(repository, str(subject["digest"]).replace(":", "-"), index)


def told(engine: EngineProcess, name: str) -> list[str]:
    said = engine.hafen("image", "referrers", "--format", "{{.ArtifactType}} {{.Digest}}", "--no-trunc", name).stdout
    return sorted(said.splitlines())


def test_they_come_stay_and_go_with_the_image(engine: EngineProcess, source: Registry) -> None:
    image = publish(source, "signed", "latest", [layer({"a": b"1"})], oci=True)
    sbom = artifact(source, "signed", SPDX, b'{"spdxVersion": "SPDX-2.3"}', image)
    signature = artifact(source, "signed", SIGNATURE, b'{"signature": "x"}', image)
    announce(source, "signed", image, sbom, signature)
    of_sbom = artifact(source, "signed", SIGNATURE, b'{"signature": "of the SBOM"}', sbom)
    of_that = artifact(source, "signed", SPDX, b'{"spdxVersion": "of a signature"}', of_sbom)
    announce(source, "signed", sbom, of_sbom)
    announce(source, "signed", of_sbom, of_that)
    announce(source, "signed", of_that, sbom)  # a lie, and a circle
    name = f"{source.host}/signed:latest"
    engine.docker("pull", "-q", name)
    expected = sorted(f"{one['artifactType']} {one['digest']}" for one in (sbom, signature, of_sbom, of_that))
    assert told(engine, name) == expected
    table = engine.hafen("image", "referrers", name).stdout.splitlines()
    assert table[0].split() == ["ARTIFACT", "TYPE", "DIGEST", "ABOUT", "REPOSITORY", "SIZE"]
    assert engine.fsck() == []
    # kept over a restart, found damaged, fetched again
    blob = engine.data / "content/blobs/sha256" / str(sbom["digest"])[7:]
    before = blob.read_bytes()
    blob.write_bytes(b"damaged")
    assert [one["Subject"] for one in engine.fsck("--repair")] == [sbom["digest"]]
    assert blob.read_bytes() == before
    assert engine.fsck() == []
    assert told(engine, name) == expected
    engine.docker("rmi", name)
    assert not blob.exists()
    assert engine.fsck() == []


@pytest.mark.parametrize("program", ["docker", "hafen"])
def test_they_are_pushed_along_where_that_is_asked(
    engine: EngineProcess, source: Registry, ours: Ours, registry: Registry, program: str
) -> None:
    repository = f"from-{program}"
    image = publish(source, repository, "latest", [layer({"a": program.encode()})], oci=True)
    sbom = artifact(source, repository, SPDX, b'{"spdxVersion": "SPDX-2.3"}', image)
    announce(source, repository, image, sbom)
    signature = artifact(source, repository, SIGNATURE, program.encode(), sbom)
    announce(source, repository, sbom, signature)
    name = f"{source.host}/{repository}:latest"
    engine.docker("pull", "-q", name)
    for target in (ours, registry):
        again = f"{target.host}/to-{source.host.replace(':', '-')}-{repository}:latest"
        engine.docker("tag", name, again)
        if program == "docker":
            engine.docker("push", "-q", again)
        else:
            said = engine.hafen("push", "--referrers", again).stdout
            assert said.index(f"{SPDX}: digest: {sbom['digest']}") < said.index(
                f"{SIGNATURE}: digest: {signature['digest']}"
            )
        engine.docker("rmi", name, check=False)
        engine.docker("rmi", again)
        engine.docker("pull", "-q", again)
        assert told(engine, again) == (
            [] if program == "docker" else sorted((f"{SPDX} {sbom['digest']}", f"{SIGNATURE} {signature['digest']}"))
        )
        engine.docker("rmi", again)
        engine.docker("pull", "-q", name)
    engine.docker("rmi", name)


def test_attestations_of_buildkit(engine: EngineProcess, source: Registry) -> None:
    image = publish(source, "built", "amd64", [layer({"a": b"1"})], oci=True)
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": SLSA, "subject": [], "predicate": {}}
    blob = source.blob("built", json.dumps(statement).encode())
    config = {"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **source.blob("built", json.dumps(config).encode()),
        },
        "layers": [
            {
                "mediaType": "application/vnd.in-toto+json",
                **blob,
                "annotations": {"in-toto.io/predicate-type": SLSA},
            }
        ],
    }
    attestation = source.manifest("built", "attestation", document)
    marks = {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    entries = [
        {**image, "platform": {"os": "linux", "architecture": "amd64"}},
        {**attestation, "annotations": marks, "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    index = source.manifest("built", "all", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    name = f"{source.host}/built:all"
    engine.docker("pull", "-q", name)
    status, found = call(engine, "GET", f"/images/{name}/attestations?statement=1", version="v1.55")
    assert status == 200
    assert isinstance(found, list)
    assert [(one["PredicateType"], one["Statement"]) for one in found] == [(SLSA, statement)]
    status, found = call(engine, "GET", f"/images/{name}/attestations?type=other", version="v1.55")
    assert (status, found) == (200, [])
    status, shown = call(engine, "GET", f"/images/{name}/json?manifests=1", version="v1.50")
    assert isinstance(shown, dict)
    assert [(one["Kind"], one["Available"]) for one in shown["Manifests"]] == [("image", True), ("attestation", True)]
    assert shown["Manifests"][1]["AttestationData"]["For"] == image["digest"]
    again = f"{source.host}/built-again:all"
    engine.docker("tag", name, again)
    engine.docker("push", "-q", again)
    answer = source.call("GET", "/v2/built-again/manifests/all")
    assert answer.headers["Docker-Content-Digest"] == index["digest"]
    engine.docker("rmi", again, name)
    assert engine.fsck() == []


def test_what_cannot_be_had_fails_no_pull(engine: EngineProcess, ours: Ours) -> None:
    image = publish(ours, "broken", "latest", [layer({"a": b"1"})], oci=True)
    announced = {"mediaType": OCI, "digest": "sha256:" + "0" * 64, "size": 7}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [announced], "subject": image}
    try:
        ours.manifest("broken", str(image["digest"]).replace(":", "-"), index)
    except OSError:
        pass  # a registry may refuse what refers to nothing
    name = f"{ours.host}/broken:latest"
    engine.docker("pull", "-q", name)
    engine.docker("rmi", name)
