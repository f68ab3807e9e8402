"""Quotas: what does not fit under a prefix is refused however it is pushed, and what is there already costs nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.registryd.quotas import parse
from tests.harness.registry import EMPTY, OCI_IMAGE, Answer, Client, RegistryProcess, image, sha256

LIMIT = 10_000
BIG, SMALL = b"b" * 6000, b"s" * 3000


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path, "--quota", f"team={LIMIT}", "--quota", "*=1m") as process:
        yield process


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    with closing(registry.client()) as found:
        yield found


def refused(answer: Answer) -> bool:
    return answer.status == 403 and answer.code == "DENIED" and "quota exceeded" in answer.body.decode()


def whole(client: Client, name: str, data: bytes) -> Answer:
    return client("POST", f"/v2/{name}/blobs/uploads/?digest={sha256(data)}", data)


def chunked(client: Client, name: str, data: bytes) -> Answer:
    """The first answer that is no success."""
    location = client("POST", f"/v2/{name}/blobs/uploads/").location
    for start in range(0, len(data), 1000):
        answer = client("PATCH", location, data[start : start + 1000])
        if answer.status != 202:
            assert client("GET", location).code == "BLOB_UPLOAD_UNKNOWN"  # nothing of it stays
            return answer
    return client("PUT", f"{location}?digest={sha256(data)}")


@pytest.mark.parametrize("push", [whole, chunked])
def test_the_quota_holds_for_all_below_the_prefix(client: Client, push: Callable[[Client, str, bytes], Answer]) -> None:
    assert push(client, "team/a", BIG).status == 201
    assert refused(push(client, "team/b", BIG[:-1]))
    assert refused(push(client, "team", BIG[:-1]))
    assert push(client, "team/deep/c", SMALL).status == 201
    assert push(client, "teams", BIG[:-1]).status == 201
    assert client("HEAD", f"/v2/team/b/blobs/{sha256(BIG[:-1])}").status == 404


def test_what_is_there_costs_nothing(client: Client) -> None:
    assert whole(client, "team/a", BIG).status == 201
    for name in ("team/a", "team/b"):
        assert whole(client, name, BIG).status == 201
    assert client("POST", f"/v2/team/c/blobs/uploads/?mount={sha256(BIG)}&from=team/a").status == 201


def test_a_mount_from_elsewhere_counts(client: Client) -> None:
    assert whole(client, "other", BIG).status == 201
    assert whole(client, "team/a", b"x" * 6000).status == 201
    assert refused(client("POST", f"/v2/team/a/blobs/uploads/?mount={sha256(BIG)}&from=other"))


def test_of_uploads_that_fit_one_by_one_the_later_is_refused(client: Client) -> None:
    first, second = BIG, BIG[:-1]
    uploads = [(client("POST", "/v2/team/a/blobs/uploads/").location, data) for data in (first, second)]
    for location, data in uploads:
        assert client("PATCH", location, data).status == 202
    answers = [client("PUT", f"{location}?digest={sha256(data)}") for location, data in uploads]
    assert answers[0].status == 201
    assert refused(answers[1])
    assert client("GET", uploads[1][0]).code == "BLOB_UPLOAD_UNKNOWN"
    assert client("HEAD", f"/v2/team/a/blobs/{sha256(second)}").status == 404


def test_a_manifest_counts(client: Client) -> None:
    filler = b"f" * (LIMIT - len(EMPTY) - 10)
    for blob in (EMPTY, filler):
        assert whole(client, "team/a", blob).status == 201
    assert refused(client.push_manifest("team/a", "v1", image(filler)))
    assert client("GET", "/v2/team/a/tags/list").json()["tags"] == []


def test_deleting_makes_room(client: Client) -> None:
    assert whole(client, "team/a", BIG).status == 201
    assert refused(whole(client, "team/a", BIG[:-1]))
    assert client("DELETE", f"/v2/team/a/blobs/{sha256(BIG)}").status == 202
    assert whole(client, "team/a", BIG[:-1]).status == 201


def test_a_body_without_a_length_is_refused_before_its_end(client: Client, registry: RegistryProcess) -> None:
    location = client("POST", "/v2/team/a/blobs/uploads/").location
    with closing(http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)) as connection:
        connection.putrequest("PATCH", location)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        connection.send(b"%x\r\n%s\r\n" % (LIMIT + 1, b"z" * (LIMIT + 1)))  # and the end is never said
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["errors"][0]["code"]) == (403, "DENIED")
    assert client("GET", location).status == 404


def test_it_holds_after_a_restart(registry: RegistryProcess) -> None:
    with closing(registry.client()) as client:
        assert whole(client, "team/a", BIG).status == 201
    registry.kill()
    registry.start()
    with closing(registry.client()) as client:
        assert refused(whole(client, "team/a", BIG[:-1]))
        headers = {"Content-Type": OCI_IMAGE}
        assert client("PUT", "/v2/team/a/manifests/v1", b"{}", headers).code == "MANIFEST_INVALID"


def test_quotas_of_a_command_line() -> None:
    assert parse(["team/a=20g", "*=1.5k"]) == {"team/a": 20 << 30, "": 1536}


@pytest.mark.parametrize("word", ["team", "=1g", "Team=1g", "team/=1g", "team=", "team=-1", "team=x"])
def test_what_is_no_quota_is_refused(word: str) -> None:
    with pytest.raises(InvalidArgument):
        parse([word])
