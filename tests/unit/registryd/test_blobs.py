"""Blobs as the OCI distribution specification 1.1 has them, over real HTTP: every MUST, and the errors' codes."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.harness.registry import (
    Client,
    RegistryProcess,
    sha256,
    sha512,
)  # fmt: skip

ABSENT = "sha256:" + "0" * 64
DIGESTS = [pytest.param(sha256, id="sha256"), pytest.param(sha512, id="sha512")]
Digest = Callable[[bytes], str]


def begin(client: Client, name: str) -> str:
    answer = client("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202
    return answer.location


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
    refused = client(method, location + query, data[1000:2000], {"Content-Range": "1000-1999"})
    assert (refused.status, refused.location, refused.headers["range"]) == (416, location, "0-0")
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
    [
        ("500-1499", 500, 1499),
        ("500-", 500, 2047),
        ("-500", 1548, 2047),
        ("2000-5000", 2000, 2047),
        ("-9999", 0, 2047),
        ("500-" + "9" * 5000, 500, 2047),
        ("-" + "9" * 5000, 0, 2047),
        ("0" * 5000 + "500-1499", 500, 1499),
    ],
    ids=lambda value: str(value)[:20],
)
def test_ranges(client: Client, name: str, asked: str, first: int, last: int) -> None:
    data = os.urandom(2048)
    answer = client("GET", f"/v2/{name}/blobs/{client.push_blob(name, data)}", headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.body) == (206, data[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/2048"
    assert answer.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize(
    "asked", ["500-0", "5000-10000", "2048-", "-0", "9" * 5000 + "-"], ids=lambda value: value[:20]
)
def test_ranges_outside(client: Client, name: str, asked: str) -> None:
    path = f"/v2/{name}/blobs/{client.push_blob(name, os.urandom(2048))}"
    answer = client("GET", path, headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */2048")


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


def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_connection(
    registry: RegistryProcess, client: Client, name: str
) -> None:
    """The client sees that something is missing: the answer's length was told before."""
    digest = client.push_blob(name, bytes(64 << 20))  # more than is under way to a client that does not read
    with closing(http.client.HTTPConnection("127.0.0.1", registry.port, timeout=20)) as connection:
        connection.request("GET", f"/v2/{name}/blobs/{digest}")
        answer = connection.getresponse()
        os.truncate(registry.root / "content/blobs/sha256" / digest.removeprefix("sha256:"), 10)
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert client("GET", "/v2/").status == 200
