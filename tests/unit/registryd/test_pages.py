"""What belongs to no repository: search as `docker search` asks for it, and metrics."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import bcrypt
import pytest

from tests.harness.registry import EMPTY, Client, RegistryProcess

ANNA = {"Authorization": "Basic " + base64.b64encode(b"anna:apple").decode()}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path_factory.mktemp("registry")) as process, closing(process.client()) as client:
        for name in ("tools/alpha", "tools/beta", "alphabet", "100_percent"):
            client.push(name, "v1", name.encode())
        client.push_blob("alpha/only-a-blob", b"blob")
        yield process


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    with closing(registry.client()) as found:
        yield found


def names(client: Client, query: str) -> list[str]:
    """Without the host, with which all of them begin."""
    answer = client("GET", f"/v1/search?{query}")
    assert answer.status == 200
    found = [result["name"].partition("/") for result in answer.json()["results"]]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", host) for host, _, _ in found)
    return [name for _, _, name in found]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=alpha", ["alphabet", "tools/alpha"]),
        ("q=ALPHA", ["alphabet", "tools/alpha"]),
        ("q=tools/&n=1", ["tools/alpha"]),
        ("q=tools/&n=1&page=2", ["tools/beta"]),
        ("q=tools/&n=1&page=3", []),
        ("q=%25", []),
        ("q=_", ["100_percent"]),
        ("q=", ["100_percent", "alphabet", "tools/alpha", "tools/beta"]),
    ],
)
def test_search(client: Client, query: str, expected: list[str]) -> None:
    assert names(client, query) == expected


def test_an_answer_to_a_search_is_of_dockers_form(client: Client, registry: RegistryProcess) -> None:
    assert client("GET", "/v1/search?q=alpha&n=1").json() == {
        "num_results": 2, "num_pages": 2, "page": 1, "page_size": 1, "query": "alpha",
        "results": [{
            "name": f"127.0.0.1:{registry.port}/alphabet", "description": "", "star_count": 0,
            "is_official": False, "is_automated": False,
        }],
    }  # fmt: skip


@pytest.mark.parametrize("query", ["n=0", "n=-1", "n=x", "page=0", "n=9999999999"])
def test_a_search_for_no_number_is_refused(client: Client, query: str) -> None:
    assert client("GET", f"/v1/search?q=a&{query}").status == 400


def test_the_ping_of_the_first_api_says_that_this_is_a_registry_alone(client: Client) -> None:
    answer = client("GET", "/v1/_ping")
    assert (answer.status, answer.json()) == (200, {"standalone": True})
    assert answer.headers["x-docker-registry-standalone"] == "true"


@pytest.mark.parametrize("path", ["/v1/search?q=a", "/v1/_ping", "/metrics"])
def test_they_are_only_read(client: Client, path: str) -> None:
    assert client("POST", path, b"").code == "UNSUPPORTED"


def test_rights(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(f"anna:{bcrypt.hashpw(b'apple', bcrypt.gensalt(4)).decode()}")
    (tmp_path / "rules").write_text("anna open/* pull,push\nben secret/* pull,push\n* secret/* push")
    flags = ("--htpasswd", str(tmp_path / "htpasswd"), "--rules", str(tmp_path / "rules"))
    with RegistryProcess(tmp_path / "root") as process, closing(process.client()) as client:
        client.push("open/a", "v1")
        client.push("secret/a", "v1")
    with RegistryProcess(tmp_path / "root", *flags) as process, closing(process.client()) as client:
        for path in ("/v1/search?q=a", "/metrics"):
            assert client("GET", path).code == "UNAUTHORIZED"
        assert client("GET", "/v1/_ping").status == 200
        answer = client("GET", "/v1/search?q=a", headers=ANNA).json()
        assert [result["name"] for result in answer["results"]] == [f"127.0.0.1:{process.port}/open/a"]
        assert answer["num_results"] == 1
        assert client("GET", "/metrics", headers=ANNA).status == 200


# Metrics

_LINE = re.compile(r'hafen_registry_([a-z_]+)(\{method="[A-Za-z]+",code="\d{3}"\})? (\d+)')


def read(client: Client) -> dict[str, int]:
    """Value by name with labels; every line has the form that Prometheus reads."""
    answer = client("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values, announced = {}, set()
    for line in answer.body.decode().splitlines():
        if line.startswith("#"):
            announced.add(re.match(r"# (?:HELP|TYPE) hafen_registry_([a-z_]+) .+", line)[1])  # type: ignore[index]  # no match is a failure
            continue
        found = _LINE.fullmatch(line)
        assert found, line
        assert found[1] in announced, line
        values[found[1] + (found[2] or "")] = int(found[3])
    return values


def test_metrics_count_what_was_asked_and_what_is_there(tmp_path: Path) -> None:
    with (
        RegistryProcess(tmp_path, "--gc-interval", "0.05") as process,
        closing(process.client()) as client,
    ):
        first = read(client)
        assert (first["repositories"], first["blobs"], first["blob_bytes"]) == (0, 0, 0)
        layer = b"x" * 1000
        manifest = client.push("a", "v1", layer)
        client("GET", "/v2/a/manifests/v1")
        client("HEAD", "/v2/a/manifests/v1")
        assert client("GET", "/v2/a/manifests/v2").status == 404
        client("BREW", "/v2/a/manifests/v1")
        client("POST", "/v2/a/blobs/uploads/")
        found = read(client)
        deadline = time.monotonic() + 30
        while read(client)["collections_total"] == first["collections_total"]:
            assert time.monotonic() < deadline, "no collection"
    assert found['requests_total{method="GET",code="404"}'] == 1
    assert found['requests_total{method="HEAD",code="200"}'] == 1
    assert found['requests_total{method="PUT",code="201"}'] == 1
    assert found['requests_total{method="POST",code="202"}'] == 1
    assert found['requests_total{method="other",code="405"}'] == 1
    assert found["received_bytes_total"] == len(layer) + len(EMPTY) + len(manifest)
    assert found["sent_bytes_total"] > len(manifest)
    expected = {"repositories": 1, "manifests": 1, "tags": 1, "blobs": 2, "uploads": 1, "notifications": 0,
                "blob_bytes": len(layer) + len(EMPTY), "collections_failed_total": 0}  # fmt: skip
    assert expected.items() <= found.items()
