"""Every kind of content through every operation of the OCI distribution specification 1.1: pushed, listed, looked at,
pulled, found by what it is about, deleted, and gone at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.registry import EMPTY, OCI_IMAGE, OCI_INDEX, Client, descriptor, image, index

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EXAMPLE = "application/vnd.example.v1"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


@dataclass
class Content:
    """Manifests in the order in which they are pushed; the tags are on the last of them."""

    manifests: list[bytes]
    blobs: list[bytes]
    tags: list[str] = field(default_factory=lambda: ["v1", "V2", "latest"])
    algorithm: str = "sha256"

    def digest(self, data: bytes) -> str:
        return f"{self.algorithm}:{hashlib.new(self.algorithm, data).hexdigest()}"


def _images(count: int = 2, algorithm: str = "sha256") -> tuple[list[bytes], list[bytes]]:
    """(manifests, blobs) of images with layers of their own."""
    layers = [os.urandom(700) for _ in range(count)]
    return [image(layer, algorithm=algorithm) for layer in layers], [EMPTY, *layers]


def _artifact(*layers: bytes, **more: Any) -> bytes:
    return image(*layers, config_type=EMPTY_TYPE, artifactType=EXAMPLE, **more)


def _one(*layers: bytes, **more: Any) -> Content:
    return Content([image(*layers, **more)], [EMPTY, *layers])


def _index() -> Content:
    images, blobs = _images()
    return Content([*images, index(*images)], blobs)


def _nested() -> Content:
    images, blobs = _images(3)
    inner = [index(*images[:2]), index(images[2])]
    return Content([*images, *inner, index(*inner)], blobs)


def _sha512() -> Content:
    images, blobs = _images(algorithm="sha512")
    entries = [descriptor(one, OCI_IMAGE, "sha512") for one in images]
    # A tag in the path would be of the manifest's sha256: these have none.
    return Content([*images, index(manifests=entries)], blobs, tags=[], algorithm="sha512")


def _subject() -> Content:
    subject, layer = image(b"about"), os.urandom(50)
    about = descriptor(subject, OCI_IMAGE)
    notes = {"org.example.note": "n"}
    return Content(
        [subject, image(layer, subject=about), _artifact(layer, subject=about, annotations=notes)],
        [EMPTY, b"about", layer],
    )


def _index_with_subject() -> Content:
    images, blobs = _images()
    subject = index(*images)
    about = descriptor(subject, OCI_INDEX)
    return Content([*images, subject, index(*images, subject=about, artifactType=EXAMPLE)], blobs)


def _data_field() -> Content:
    entry = {**descriptor(b"inline", "application/vnd.oci.image.layer.v1.tar"), "data": "aW5saW5l"}
    return Content([image(layers=[entry])], [EMPTY, b"inline"])


def _foreign() -> Content:
    layers = [
        descriptor(b"far", FOREIGN, urls=["https://store.example/far"]),
        descriptor(b"near", "application/vnd.oci.image.layer.v1.tar"),
    ]
    return Content([image(layers=layers)], [EMPTY, b"near"])


def _sparse_index() -> Content:
    images, blobs = _images()
    return Content([images[0], index(*images)], blobs[:2])


KINDS: dict[str, Callable[[], Content]] = {
    "image": lambda: _one(os.urandom(700), os.urandom(700)),
    "large manifest": lambda: _one(b"x", annotations={f"large-{n}": "A" * 10_000 for n in range(390)}),
    "index": _index,
    "index of indexes": _nested,
    "empty index": lambda: Content([index()], []),
    "sparse index": _sparse_index,
    "artifact": lambda: Content([_artifact(b"payload")], [EMPTY, b"payload"]),
    "artifact without layers": lambda: Content([_artifact(EMPTY)], [EMPTY]),
    "index of artifacts": lambda: Content([_artifact(b"a"), index(_artifact(b"a"))], [EMPTY, b"a"]),
    "image without layers": _one,
    "subject": _subject,
    "index with a subject": _index_with_subject,
    "missing subject": lambda: _one(b"x", subject=descriptor(os.urandom(9), OCI_IMAGE)),
    "data in a descriptor": _data_field,
    "layers that are elsewhere": _foreign,
    "unknown fields": lambda: _one(b"x", **{"org.example": ["unknown", {"to": "us"}]}),
    "sha512": _sha512,
}


@pytest.fixture(params=KINDS)
def content(request: pytest.FixtureRequest) -> Content:
    return KINDS[request.param]()


def test_every_kind_of_content_through_every_operation(client: Client, name: str, content: Content) -> None:
    _push(client, name, content)
    _list(client, name, content)
    _pull(client, name, content)
    _referrers(client, name, content)
    _delete(client, name, content)


def test_tags_as_parameters(client: Client, name: str, content: Content) -> None:
    _push(client, name, content)
    manifest = content.manifests[-1]
    path = f"{content.digest(manifest)}?tag=p1&tag=p2"
    answer = client.push_manifest(name, path, manifest)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, content.digest(manifest))
    for tag in ("p1", "p2"):
        assert client("GET", f"/v2/{name}/manifests/{tag}").body == manifest


def _push(client: Client, name: str, content: Content) -> None:
    for number, blob in enumerate(content.blobs):
        _push_blob(client, name, content.digest(blob), blob, number)
    for manifest in content.manifests:
        _put(client, name, content, content.digest(manifest), manifest)
    for tag in content.tags:
        _put(client, name, content, tag, content.manifests[-1])


def _push_blob(client: Client, name: str, digest: str, blob: bytes, number: int) -> None:
    """In each way in turn; what is told to be its place has it."""
    uploads = f"/v2/{name}/blobs/uploads/"
    if number % 3 == 0:
        answer = client("POST", f"{uploads}?digest={digest}", blob)
    else:
        location = client("POST", uploads, b"").location
        if number % 3 == 1:
            answer = client("PUT", f"{location}?digest={digest}", blob)
        else:
            answer = client("PATCH", location, blob, {"Content-Range": f"0-{len(blob) - 1}"})
            assert (answer.status, answer.headers["range"]) == (202, f"0-{len(blob) - 1}")
            answer = client("PUT", f"{answer.location}?digest={digest}", b"")
    assert answer.status == 201
    assert client("GET", answer.location).body == blob


def _put(client: Client, name: str, content: Content, reference: str, manifest: bytes) -> None:
    answer = client.push_manifest(name, reference, manifest)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, content.digest(manifest))
    subject = json.loads(manifest).get("subject")
    assert answer.headers.get("oci-subject") == (subject["digest"] if subject else None)
    assert client("GET", answer.location).body == manifest


def _list(client: Client, name: str, content: Content) -> None:
    """In the specification's order, in which letters count alike in both cases."""
    tags = sorted(content.tags, key=str.lower)
    assert client("GET", f"/v2/{name}/tags/list").json() == {"name": name, "tags": tags}
    for number, tag in enumerate(tags):
        assert client("GET", f"/v2/{name}/tags/list?last={tag}").json()["tags"] == tags[number + 1 :]


def _references(content: Content) -> Iterator[tuple[str, bytes]]:
    for manifest in content.manifests:
        yield f"manifests/{content.digest(manifest)}", manifest
    for tag in content.tags:
        yield f"manifests/{tag}", content.manifests[-1]
    for blob in content.blobs:
        yield f"blobs/{content.digest(blob)}", blob


def _pull(client: Client, name: str, content: Content) -> None:
    for path, data in _references(content):
        head, answer = client("HEAD", f"/v2/{name}/{path}"), client("GET", f"/v2/{name}/{path}")
        assert (head.status, head.body, answer.status, answer.body) == (200, b"", 200, data)
        for one in (head, answer):
            assert one.headers["content-length"] == str(len(data))
            assert one.headers["docker-content-digest"] == content.digest(data)
        if path.startswith("manifests/"):
            assert head.headers["content-type"] == answer.headers["content-type"] == json.loads(data)["mediaType"]


def _referrers(client: Client, name: str, content: Content) -> None:
    about: dict[str, dict[str, dict[str, object]]] = {}
    for manifest in content.manifests:
        document = json.loads(manifest)
        if "subject" in document:
            kind = document.get("artifactType") or document["config"]["mediaType"]
            more = {"annotations": document["annotations"]} if "annotations" in document else {}
            entry = descriptor(manifest, document["mediaType"], content.algorithm, artifactType=kind, **more)
            about.setdefault(document["subject"]["digest"], {})[content.digest(manifest)] = entry
    for subject, expected in about.items():
        answer = client("GET", f"/v2/{name}/referrers/{subject}")
        assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
        assert {entry["digest"]: entry for entry in answer.json()["manifests"]} == expected
        for kind in {str(entry["artifactType"]) for entry in expected.values()}:
            answer = client("GET", f"/v2/{name}/referrers/{subject}?artifactType={quote(kind)}")
            assert answer.headers["oci-filters-applied"] == "artifactType"
            of_kind = {digest for digest, entry in expected.items() if entry["artifactType"] == kind}
            assert {entry["digest"] for entry in answer.json()["manifests"]} == of_kind


def _delete(client: Client, name: str, content: Content) -> None:
    for path in (
        *(f"manifests/{tag}" for tag in content.tags),
        *(f"manifests/{content.digest(manifest)}" for manifest in reversed(content.manifests)),
        *(f"blobs/{content.digest(blob)}" for blob in content.blobs),
    ):
        answer = client("DELETE", f"/v2/{name}/{path}")
        assert (answer.status, "warning" in answer.headers) == (202, False)
        assert client("HEAD", f"/v2/{name}/{path}").status == 404
    assert client("GET", f"/v2/{name}/tags/list").json()["tags"] == []
