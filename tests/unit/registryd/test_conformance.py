"""The OCI distribution specification 1.1, as a client sees it over real HTTP: every MUST, and the errors' codes."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.registry import (
    EMPTY,
    OCI_IMAGE,
    OCI_INDEX,
    Client,
    RegistryProcess,
    descriptor,
    image,
    index,
    sha256,
    sha512,
)  # fmt: skip

ABSENT = "sha256:" + "0" * 64
DIGESTS = [pytest.param(sha256, id="sha256"), pytest.param(sha512, id="sha512")]
Digest = Callable[[bytes], str]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path_factory.mktemp("registry")) as process:
        yield process


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    found = registry.client()
    yield found
    found.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of this test's own."""
    return "t/" + os.urandom(6).hex()


def begin(client: Client, name: str) -> str:
    answer = client("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202
    return answer.location


def test_the_base_says_that_this_is_version_two(client: Client) -> None:
    answer = client("GET", "/v2/")
    assert (answer.status, answer.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


# Blobs


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("data", [b"", b"{}", os.urandom(3 << 20)], ids=["empty", "json", "large"])
def test_a_blob_in_one_request(client: Client, name: str, digest: Digest, data: bytes) -> None:
    wanted = digest(data)
    answer = client("POST", f"/v2/{name}/blobs/uploads/?digest={wanted}", data)
    assert (answer.status, answer.location) == (201, f"/v2/{name}/blobs/{wanted}")
    assert answer.headers["docker-content-digest"] == wanted
    found = client("GET", answer.location)
    assert (found.status, found.body, found.headers["docker-content-digest"]) == (200, data, wanted)
    head = client("HEAD", answer.location)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(data)), b"")


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_blob_in_two_requests(client: Client, name: str, digest: Digest) -> None:
    location = begin(client, name)
    answer = client("PUT", f"{location}?digest={digest(b'two')}", b"two")
    assert answer.status == 201
    assert client("GET", answer.location).body == b"two"
    assert client("GET", location).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("last", ["PATCH", "PUT"])
def test_a_blob_in_chunks(client: Client, name: str, digest: Digest, last: str) -> None:
    chunks = [os.urandom(2000), os.urandom(3000), os.urandom(7)]
    data, location, start = b"".join(chunks), begin(client, name), 0
    for chunk in chunks if last == "PATCH" else chunks[:-1]:
        answer = client("PATCH", location, chunk, {"Content-Range": f"{start}-{start + len(chunk) - 1}"})
        start += len(chunk)
        assert (answer.status, answer.headers["range"]) == (202, f"0-{start - 1}")
        location = answer.location
    rest = data[start:]
    headers = {"Content-Range": f"{start}-{len(data) - 1}"} if rest else {}
    answer = client("PUT", f"{location}?digest={digest(data)}", rest, headers)
    assert answer.status == 201
    assert client("GET", answer.location).body == data


def test_a_blob_as_a_stream(registry: RegistryProcess, client: Client, name: str) -> None:
    data, location = os.urandom(5 << 20), begin(client, name)
    connection = http.client.HTTPConnection("127.0.0.1", registry.port)
    connection.request("PATCH", location, iter([data[: 1 << 20], data[1 << 20 :]]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 202
    connection.close()
    assert client("PUT", f"{location}?digest={sha256(data)}").status == 201
    assert client("GET", f"/v2/{name}/blobs/{sha256(data)}").body == data


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_chunks_out_of_order_are_refused_and_the_upload_goes_on(client: Client, name: str, method: str) -> None:
    data, location = os.urandom(3000), begin(client, name)
    query = f"?digest={sha256(data)}" if method == "PUT" else ""
    assert client(method, location + query, data[1000:2000], {"Content-Range": "1000-1999"}).status == 416
    state = client("GET", location)
    assert (state.status, state.headers["range"]) == (204, "0-0")
    assert client("PATCH", location, data[:1000], {"Content-Range": "0-999"}).status == 202
    assert client(method, location + query, data[:1000], {"Content-Range": "0-999"}).status == 416
    state = client("GET", location)
    assert (state.status, state.headers["range"], state.location) == (204, "0-999", location)
    assert client("PUT", f"{location}?digest={sha256(data)}", data[1000:], {"Content-Range": "1000-2999"}).status == 201


def test_a_chunk_of_another_length_than_it_says(client: Client, name: str) -> None:
    answer = client("PATCH", begin(client, name), b"12345", {"Content-Range": "0-8"})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")


@pytest.mark.parametrize("digest", DIGESTS)
def test_another_content_than_its_digest_says(client: Client, name: str, digest: Digest) -> None:
    wanted = digest(b"what was meant")
    answer = client("POST", f"/v2/{name}/blobs/uploads/?digest={wanted}", b"what came")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    location = begin(client, name)
    client("PATCH", location, b"what came")
    answer = client("PUT", f"{location}?digest={wanted}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client("HEAD", f"/v2/{name}/blobs/{wanted}").status == 404
    assert client("GET", location).status == 404


@pytest.mark.parametrize("text", ["sha256:baddigest", "md5:" + "0" * 32, "sha256:" + "A" * 64, "x"])
def test_what_is_no_digest(client: Client, name: str, text: str) -> None:
    for answer in (
        client("POST", f"/v2/{name}/blobs/uploads/?digest={text}", b"x"),
        client("PUT", f"{begin(client, name)}?digest={text}"),
        client("GET", f"/v2/{name}/blobs/{text}"),
        client("GET", f"/v2/{name}/referrers/{text}"),
    ):
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_an_upload_is_cancelled(client: Client, name: str) -> None:
    location = begin(client, name)
    assert client("DELETE", location).status == 204
    assert client("GET", location).code == "BLOB_UPLOAD_UNKNOWN"
    assert client("PATCH", location, b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_belongs_to_its_repository(client: Client, name: str) -> None:
    identifier = begin(client, name).rpartition("/")[2]
    assert client("GET", f"/v2/other/blobs/uploads/{identifier}").code == "BLOB_UPLOAD_UNKNOWN"
    assert client("GET", f"/v2/{name}/blobs/uploads/..%2fregistry.db").status == 404


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("500-1499", 500, 1499), ("500-", 500, 2047), ("-500", 1548, 2047), ("2000-5000", 2000, 2047), ("-9999", 0, 2047)],
)
def test_ranges(client: Client, name: str, asked: str, first: int, last: int) -> None:
    data = os.urandom(2048)
    answer = client("GET", f"/v2/{name}/blobs/{client.push_blob(name, data)}", headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.body) == (206, data[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/2048"
    assert answer.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize("asked", ["500-0", "5000-10000", "2048-", "-0"])
def test_ranges_outside(client: Client, name: str, asked: str) -> None:
    path = f"/v2/{name}/blobs/{client.push_blob(name, os.urandom(2048))}"
    assert client("GET", path, headers={"Range": f"bytes={asked}"}).status == 416


def test_a_blob_is_only_where_it_was_pushed(client: Client, name: str) -> None:
    digest = client.push_blob(name, b"of one repository")
    answer = client("GET", f"/v2/{name}/other/blobs/{digest}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_mounts(client: Client, name: str) -> None:
    digest = client.push_blob(name, os.urandom(100))
    for target, source in (("a", f"&from={name}"), ("b", "")):
        answer = client("POST", f"/v2/{name}/{target}/blobs/uploads/?mount={digest}{source}")
        assert (answer.status, answer.location) == (201, f"/v2/{name}/{target}/blobs/{digest}")
        assert client("HEAD", answer.location).status == 200
    for query in (f"mount={digest}&from=nowhere", f"mount={ABSENT}", f"mount={ABSENT}&from={name}"):
        answer = client("POST", f"/v2/{name}/c/blobs/uploads/?{query}")
        assert (answer.status, client("GET", answer.location).status) == (202, 204)


def test_a_deleted_blob_is_gone_here_alone(client: Client, name: str) -> None:
    digest = client.push_blob(name, os.urandom(100))
    client("POST", f"/v2/{name}/a/blobs/uploads/?mount={digest}")
    assert client("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    assert client("HEAD", f"/v2/{name}/blobs/{digest}").status == 404
    assert client("DELETE", f"/v2/{name}/blobs/{digest}").code == "BLOB_UNKNOWN"
    assert client("HEAD", f"/v2/{name}/a/blobs/{digest}").status == 200


def test_what_a_manifest_needs_is_not_deleted(client: Client, name: str) -> None:
    manifest = client.push(name, "v1", b"needed")
    listed = index(manifest)
    client.push_manifest(name, "all", listed)
    for path in (f"blobs/{sha256(b'needed')}", f"manifests/{sha256(manifest)}"):
        answer = client("DELETE", f"/v2/{name}/{path}")
        assert (answer.status, answer.code) == (405, "DENIED")
    for path in (f"manifests/{sha256(listed)}", f"manifests/{sha256(manifest)}", f"blobs/{sha256(b'needed')}"):
        assert client("DELETE", f"/v2/{name}/{path}").status == 202


# Manifests


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


def test_tags_as_parameters(client: Client, name: str) -> None:
    manifest = client.push(name, "v1", b"x")
    answer = client.push_manifest(name, f"{sha256(manifest)}?tag=a&tag=b", manifest)
    assert (answer.status, client("GET", f"/v2/{name}/tags/list").json()["tags"]) == (201, ["a", "b", "v1"])


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


def _deep(levels: int) -> list[bytes]:
    made = [index()]
    for _ in range(levels):
        made.append(index(made[-1]))
    return made


def test_indexes_end_somewhere(client: Client, name: str) -> None:
    statuses = [client.push_manifest(name, f"d{n}", data).status for n, data in enumerate(_deep(9))]
    assert statuses == [201] * 9 + [400]


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


def test_manifests_that_refer_to_nothing(client: Client, name: str) -> None:
    client.push(name, "v1", b"x")
    for manifest in (image(b"absent"), image(config=b"absent"), index(image(b"nowhere"))):
        answer = client.push_manifest(name, "bad", manifest)
        assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


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


# Referrers


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


def test_referrers_of_what_is_not_there(client: Client, name: str) -> None:
    answer = client("GET", f"/v2/{name}/referrers/{ABSENT}")
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    client.push(name, "v1", b"x")
    early = image(b"x", subject=descriptor(b"comes later", OCI_IMAGE))
    assert client.push_manifest(name, "early", early).headers["oci-subject"] == sha256(b"comes later")
    assert len(client("GET", f"/v2/{name}/referrers/{sha256(b'comes later')}").json()["manifests"]) == 1


# Listings


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


def test_deletion_switched_off(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--no-delete") as process:
        client = process.client()
        digest = sha256(client.push("a", "v1", b"x"))
        for path in ("manifests/v1", f"manifests/{digest}", f"blobs/{sha256(b'x')}"):
            answer = client("DELETE", f"/v2/a/{path}")
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        client.close()


def test_a_client_that_goes_away_in_the_middle(registry: RegistryProcess, client: Client, name: str) -> None:
    """Downloads and uploads that are cut: the one troubles nobody, the other goes on where it was."""
    data = os.urandom(30 << 20)
    path = f"/v2/{name}/blobs/{client.push_blob(name, data)}"
    with socket.create_connection(("127.0.0.1", registry.port)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    location = begin(client, name)
    with socket.create_connection(("127.0.0.1", registry.port)) as sock:
        sock.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        sock.sendall(data[: 20 << 20])
    here = int(client("GET", location).headers["range"].partition("-")[2])
    rest = client("PATCH", location, data[here + 1 :], {"Content-Range": f"{here + 1}-{len(data) - 1}"})
    while rest.status == 416:  # the end of the first request was written meanwhile
        here = int(client("GET", location).headers["range"].partition("-")[2])
        rest = client("PATCH", location, data[here + 1 :], {"Content-Range": f"{here + 1}-{len(data) - 1}"})
    assert here > 0
    assert client("PUT", f"{location}?digest={sha256(data)}").status == 201
    assert client("GET", path).body == data
