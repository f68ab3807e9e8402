"""Names, tags, referrers and the catalogue as the OCI distribution specification 1.1 has them, over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness.registry import (
    OCI_IMAGE,
    OCI_INDEX,
    Client,
    RegistryProcess,
    descriptor,
    image,
    index,
    sha256,
)  # fmt: skip

ABSENT = "sha256:" + "0" * 64


def test_the_base_says_that_this_is_version_two(client: Client) -> None:
    answer = client("GET", "/v2/")
    assert (answer.status, answer.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


@pytest.mark.parametrize("bad", ["Upper", "a..b", "a/-b", "a//b", "a" * 256, "a_-b"])
def test_what_is_no_name(client: Client, bad: str) -> None:
    answer = client("POST", f"/v2/{bad}/blobs/uploads/")
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


def test_names_may_hold_the_words_of_the_paths(client: Client, name: str) -> None:
    manifest = client.push(f"{name}/blobs/uploads/manifests", "latest", b"x")
    assert client("GET", f"/v2/{name}/blobs/uploads/manifests/manifests/latest").body == manifest
    assert client("GET", f"/v2/{name}/blobs/uploads/manifests/tags/list").json()["tags"] == ["latest"]


def test_unknown_methods_and_paths(client: Client, name: str) -> None:
    assert client("POST", f"/v2/{name}/tags/list").code == "UNSUPPORTED"
    assert client("PATCH", f"/v2/{name}/manifests/x", b"y").status == 405
    assert client("GET", "/v1/repositories/x/tags").status == 404


def test_deletion_switched_off(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--no-delete") as process:
        client = process.client()
        digest = sha256(client.push("a", "v1", b"x"))
        for path in ("manifests/v1", f"manifests/{digest}", f"blobs/{sha256(b'x')}"):
            answer = client("DELETE", f"/v2/a/{path}")
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        client.close()


def test_referrers(client: Client, name: str) -> None:
    subject = client.push(name, "v1", b"x")
    about = descriptor(subject, OCI_IMAGE)
    plain = image(b"x", subject=about)
    typed = image(b"x", subject=about, artifactType="example/sbom", annotations={"org.example": "1"})
    listed = index(subject=about, artifactType="example/list")
    for manifest in (plain, typed, listed):
        answer = client.push_manifest(name, sha256(manifest), manifest)
        assert (answer.status, answer.headers["oci-subject"]) == (201, sha256(subject))
    path = f"/v2/{name}/referrers/{sha256(subject)}"
    answer = client("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    found = {entry["digest"]: entry for entry in answer.json()["manifests"]}
    assert set(found) == {sha256(plain), sha256(typed), sha256(listed)}
    assert found[sha256(typed)] == {
        "mediaType": OCI_IMAGE, "digest": sha256(typed), "size": len(typed), "artifactType": "example/sbom",
        "annotations": {"org.example": "1"},
    }  # fmt: skip
    assert found[sha256(plain)]["artifactType"] == "application/vnd.oci.image.config.v1+json"
    answer = client("GET", f"{path}?artifactType=example/sbom")
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [sha256(typed)]
    client("DELETE", f"/v2/{name}/manifests/{sha256(typed)}")
    assert len(client("GET", path).json()["manifests"]) == 2


def test_referrers_in_pages_that_clients_can_read(client: Client, name: str) -> None:
    """Ours and others refuse an answer of more than 4 MiB."""
    subject = client.push(name, "v1", b"x")
    pushed: set[str] = set()
    for size in (100, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 3 << 20, 100):
        text = {"size": "e" * size, "number": str(len(pushed)), "word": "é"}
        manifest = image(b"x", subject=descriptor(subject, OCI_IMAGE), artifactType="a/b", annotations=text)
        assert client.push_manifest(name, sha256(manifest), manifest).status == 201
        pushed.add(sha256(manifest))
    found: list[dict[str, Any]] = []
    link = f"/v2/{name}/referrers/{sha256(subject)}?artifactType=a/b"
    while link:
        answer = client("GET", link)
        assert len(answer.body) < 4 << 20
        assert (answer.status, answer.headers["oci-filters-applied"]) == (200, "artifactType")
        found += answer.json()["manifests"]
        link = answer.headers.get("link", "").partition(">")[0].strip("<")
    digests = [entry["digest"] for entry in found]
    assert digests == sorted(pushed)
    assert {entry["annotations"]["word"] for entry in found} == {"é"}


def test_referrers_of_what_is_not_there(client: Client, name: str) -> None:
    answer = client("GET", f"/v2/{name}/referrers/{ABSENT}")
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    client.push(name, "v1", b"x")
    early = image(b"x", subject=descriptor(b"comes later", OCI_IMAGE))
    assert client.push_manifest(name, "early", early).headers["oci-subject"] == sha256(b"comes later")
    assert len(client("GET", f"/v2/{name}/referrers/{sha256(b'comes later')}").json()["manifests"]) == 1


def test_tags_in_pages(client: Client, name: str) -> None:
    for tag in ("b", "A", "c", "a", "B2"):
        client.push(name, tag, b"x")
    path, every = f"/v2/{name}/tags/list", ["A", "a", "b", "B2", "c"]
    assert client("GET", path).json() == {"name": name, "tags": every}
    assert client("GET", f"{path}?last=b").json()["tags"] == ["B2", "c"]
    assert client("GET", f"{path}?last=az").json()["tags"] == ["b", "B2", "c"]
    found, link = [], f"{path}?n=2"
    while link:
        answer = client("GET", link)
        found.append(answer.json()["tags"])
        link = answer.headers.get("link", "").partition(">")[0].strip("<")
    assert found == [["A", "a"], ["b", "B2"], ["c"]]
    answer = client("GET", f"{path}?n=0")
    assert (answer.json()["tags"], "link" in answer.headers) == ([], False)
    assert "link" not in client("GET", f"{path}?n=5").headers
    for bad in ("-1", "x", "1.5"):
        assert client("GET", f"{path}?n={bad}").code == "PAGINATION_NUMBER_INVALID"
    assert client("GET", "/v2/nowhere/tags/list").code == "NAME_UNKNOWN"


def test_the_catalogue_in_pages(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path) as process:
        client = process.client()
        assert client("GET", "/v2/_catalog").json() == {"repositories": []}
        for name in ("c", "a/b", "a"):
            client.push(name, "v1", b"x")
        client.push_blob("no-manifest", b"x")
        assert client("GET", "/v2/_catalog").json() == {"repositories": ["a", "a/b", "c"]}
        answer = client("GET", "/v2/_catalog?n=2")
        assert answer.json() == {"repositories": ["a", "a/b"]}
        link = answer.headers["link"].partition(">")[0].strip("<")
        answer = client("GET", link)
        assert (answer.json(), "link" in answer.headers) == ({"repositories": ["c"]}, False)
        client.close()
