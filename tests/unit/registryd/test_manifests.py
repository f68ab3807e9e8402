"""Manifests as the OCI distribution specification 1.1 has them, over real HTTP: every MUST, and the errors' codes."""

from __future__ import annotations

import json

import pytest

from tests.harness.registry import (
    EMPTY,
    OCI_IMAGE,
    OCI_INDEX,
    Client,
    descriptor,
    image,
    index,
    sha256,
    sha512,
)  # fmt: skip

ABSENT = "sha256:" + "0" * 64


def test_a_manifest_by_tag_and_digest(client: Client, name: str) -> None:
    manifest = client.push(name, "v1", b"layer")
    for reference in ("v1", sha256(manifest)):
        answer = client("GET", f"/v2/{name}/manifests/{reference}")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, manifest, OCI_IMAGE)
        assert answer.headers["docker-content-digest"] == sha256(manifest)
        head = client("HEAD", f"/v2/{name}/manifests/{reference}")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(manifest)), b"")


def test_a_manifest_with_sha512(client: Client, name: str) -> None:
    for data in (EMPTY, b"layer"):
        client("POST", f"/v2/{name}/blobs/uploads/?digest={sha512(data)}", data)
    manifest = image(b"layer", algorithm="sha512")
    answer = client.push_manifest(name, sha512(manifest), manifest)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, sha512(manifest))
    assert client("GET", answer.location).body == manifest


def test_a_tag_moves_and_what_it_left_stays(client: Client, name: str) -> None:
    old, new = client.push(name, "v1", b"old"), client.push(name, "v1", b"new")
    assert client("GET", f"/v2/{name}/manifests/v1").body == new
    assert client("GET", f"/v2/{name}/manifests/{sha256(old)}").body == old


def test_deleting_a_tag_and_a_manifest(client: Client, name: str) -> None:
    digest = sha256(client.push(name, "v1", b"x"))
    client.push(name, "v2", b"x")
    assert client("DELETE", f"/v2/{name}/manifests/v1").status == 202
    assert client("HEAD", f"/v2/{name}/manifests/v1").status == 404
    assert client("HEAD", f"/v2/{name}/manifests/v2").status == 200
    assert client("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert client("HEAD", f"/v2/{name}/manifests/{digest}").status == 404
    assert client("HEAD", f"/v2/{name}/manifests/v2").status == 404
    assert client("DELETE", f"/v2/{name}/manifests/{digest}").code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("reference", [ABSENT, "missing", ".INVALID_MANIFEST_NAME"])
def test_missing_manifests(client: Client, name: str, reference: str) -> None:
    client.push(name, "v1", b"x")
    answer = client("GET", f"/v2/{name}/manifests/{reference}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_docker_manifests(client: Client, name: str) -> None:
    client.push(name, "v1", b"x")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = image(b"x", mediaType=kind)
    assert client.push_manifest(name, "docker", manifest).status == 201
    listed = index(manifest, mediaType="application/vnd.docker.distribution.manifest.list.v2+json")
    assert client.push_manifest(name, "list", listed).status == 201
    assert client("GET", f"/v2/{name}/manifests/docker").headers["content-type"] == kind


def test_unusual_manifests_that_are_good(client: Client, name: str) -> None:
    client.push(name, "v1", b"x")
    elsewhere = descriptor(b"far away", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    good = [
        image(), image(layers=None), index(), index(manifests=None), image(b"x", unknown={"field": [1]}),
        image(layers=[elsewhere]), image(b"x", annotations={"a": "b" * 4_000_000}),
        index(index(index())),
    ]  # fmt: skip
    client.push_manifest(name, "i0", index())
    client.push_manifest(name, "i1", index(index()))
    for number, manifest in enumerate(good):
        assert client.push_manifest(name, f"n{number}", manifest).status == 201, number
        assert client("GET", f"/v2/{name}/manifests/{sha256(manifest)}").body == manifest


BAD = {
    "text": b"not json",
    "list": b"[]",
    "deep": b'{"schemaVersion":2,"mediaType":"%s","x":%s}' % (OCI_IMAGE.encode(), b"[" * 200_000),
    "schema 1": json.dumps({"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": []}).encode(),
    "no version": b'{"mediaType": "%s"}' % OCI_IMAGE.encode(),
    "no config": json.dumps({"schemaVersion": 2, "mediaType": OCI_IMAGE, "layers": []}).encode(),
    "both": image(b"x", manifests=[]),
    "bad digest": image(config=b"{}", subject={"digest": "sha256:1", "size": 1, "mediaType": OCI_IMAGE}),
    "negative": image(layers=[{"digest": sha256(b"x"), "size": -1}]),
    "wrong size": image(layers=[{"digest": sha256(b"x"), "size": 2}]),
    "annotations": image(annotations={"a": 1}),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_manifests_that_are_not_kept(client: Client, name: str, data: bytes) -> None:
    client.push(name, "v1", b"x")
    answer = client("PUT", f"/v2/{name}/manifests/bad", data, {"Content-Type": OCI_IMAGE})
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert client("GET", f"/v2/{name}/manifests/bad").status == 404


@pytest.mark.parametrize("kind", [OCI_INDEX, "application/vnd.docker.distribution.manifest.v1+prettyjws", "text/plain"])
def test_a_lying_content_type(client: Client, name: str, kind: str) -> None:
    manifest = client.push(name, "v1", b"x")
    answer = client("PUT", f"/v2/{name}/manifests/bad", manifest, {"Content-Type": kind})
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_images_that_refer_to_nothing(client: Client, name: str) -> None:
    client.push(name, "v1", b"x")
    for manifest in (image(b"absent"), image(config=b"absent")):
        answer = client.push_manifest(name, "bad", manifest)
        assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_members_may_come_after_their_index_but_not_differ_from_it(client: Client, name: str) -> None:
    late = image(b"x")
    listed = index(late, index(late))
    assert client.push_manifest(name, "all", listed).status == 201
    assert client.push(name, "late", b"x") == late
    assert client.push_manifest(name, "inner", index(late)).status == 201
    entry = {**descriptor(late, OCI_IMAGE), "size": 1}
    assert client.push_manifest(name, "bad", index(manifests=[entry])).code == "MANIFEST_INVALID"


def test_who_deletes_what_manifests_need_is_told_so(client: Client, name: str) -> None:
    manifest = client.push(name, "v1", b"needed")
    client.push_manifest(name, "all", index(manifest))
    for needed, by in ((sha256(b"needed"), manifest), (sha256(manifest), index(manifest))):
        kind = "manifests" if needed == sha256(manifest) else "blobs"
        answer = client("DELETE", f"/v2/{name}/{kind}/{needed}")
        assert answer.status == 202
        assert answer.headers["warning"] == f'299 - "{needed} was part of {sha256(by)}: incomplete now"'
    assert client("GET", f"/v2/{name}/manifests/all").body == index(manifest)
    assert client.push_manifest(name, "v1", manifest).code == "MANIFEST_BLOB_UNKNOWN"
    assert client.push(name, "v1", b"needed") == manifest


def test_a_manifest_over_the_limit(client: Client, name: str) -> None:
    client.push(name, "v1", b"x")
    answer = client.push_manifest(name, "large", image(b"x", annotations={"a": "b" * (4 << 20)}))
    assert answer.status == 413


def test_a_manifest_under_another_digest(client: Client, name: str) -> None:
    manifest = client.push(name, "v1", b"x")
    for reference in (ABSENT, "sha256:baddigeststring"):
        answer = client.push_manifest(name, reference, manifest + b"  ")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("tag", ["-dash", ".dot", "a" * 129, "a%20b"])
def test_what_is_no_tag(client: Client, name: str, tag: str) -> None:
    manifest = client.push(name, "v1", b"x")
    answer = client.push_manifest(name, tag, manifest)
    assert (answer.status, answer.code) == (400, "TAG_INVALID")
