"""A registry that caches another one: what it fetches, what it keeps, and what it does where the other is away."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import bcrypt
import pytest

from hafen.errors import InvalidArgument
from hafen.registryd.proxies import parse
from tests.harness.ports import free_port
from tests.harness.registry import Answer, Client, RegistryProcess, image, index, sha256
from tests.harness.upstream import Exchange, Proxy

LARGE = os.urandom(3 << 20)


class Line:
    """The other registry, and the proxy between it and the cache, whose faults are set by tests."""

    def __init__(self, origin: RegistryProcess) -> None:
        self.origin = origin
        self.space = f"t{os.urandom(4).hex()}"  # below which this test's repositories are there
        self.fault: Callable[[Exchange], None] = lambda _: None
        self.proxy = Proxy(f"127.0.0.1:{origin.port}", lambda exchange: self.fault(exchange))

    @property
    def asked(self) -> list[str]:
        """Requests that came through."""
        return [f"{one.method} {one.path.replace(f'/{self.space}/', '/', 1)}" for one in self.proxy.seen]

    def away(self) -> None:
        def fault(exchange: Exchange) -> None:
            exchange.status, exchange.body, exchange.headers = 503, b"", []

        self.fault = fault


class There(Client):
    """At the other registry, where each test has a space of its own."""

    def __init__(self, line: Line) -> None:
        super().__init__(line.origin.port)
        self._space = line.space

    def __call__(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return super().__call__(method, path.replace("/v2/", f"/v2/{self._space}/", 1), body, headers)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path_factory.mktemp("origin")) as process:
        yield process


@pytest.fixture
def line(origin: RegistryProcess) -> Iterator[Line]:
    found = Line(origin)
    with found.proxy:
        yield found


@pytest.fixture
def there(line: Line) -> Iterator[Client]:
    with closing(There(line)) as found:
        yield found


def option(line: Line, more: str = "") -> tuple[str, ...]:
    return "--proxy", f"far/*=http://{line.proxy.host}/{line.space}{more}"


@pytest.fixture
def registry(line: Line, tmp_path: Path) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path / "cache", *option(line, ",ttl=0s"), "--gc-interval", "0.1") as process:
        yield process


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    with closing(registry.client()) as found:
        yield found


def pull(client: Client, name: str, reference: str, headers: dict[str, str] | None = None) -> Answer:
    """The manifest, with all its blobs verified."""
    answer = client("GET", f"/v2/{name}/manifests/{reference}", headers=headers)
    if answer.status == 200:
        document = answer.json()
        for part in (document["config"], *document["layers"]):
            blob = client("GET", f"/v2/{name}/blobs/{part['digest']}", headers=headers)
            assert (blob.status, sha256(blob.body)) == (200, part["digest"]), part
            assert blob.headers["content-length"] == str(part["size"])
    return answer


def metric(client: Client, name: str) -> int:
    text = client("GET", "/metrics").body.decode()
    return int(text.partition(f"\nhafen_registry_{name} ")[2].partition("\n")[0])


def test_what_was_asked_for_once_comes_from_here(line: Line, there: Client, client: Client) -> None:
    manifest = there.push("app", "v1", b"layer", LARGE)
    assert pull(client, "far/app", "v1").body == manifest
    assert metric(client, "fetched_bytes_total") == len(LARGE) + len(b"layer") + 2
    before = len(line.asked)
    assert pull(client, "far/app", "v1").body == manifest
    assert pull(client, "far/app", sha256(manifest)).body == manifest
    assert line.asked[before:] == ["HEAD /v2/app/manifests/v1"]
    assert client("HEAD", f"/v2/far/app/blobs/{sha256(LARGE)}").headers["content-length"] == str(len(LARGE))


def test_what_was_lost_is_fetched_again(line: Line, there: Client, registry: RegistryProcess, client: Client) -> None:
    manifest = there.push("app", "v1", b"layer")
    for lost in (manifest, b"layer"):
        for reference in ("v1", sha256(manifest)):
            assert pull(client, "far/app", reference).body == manifest
            (registry.root / "content/blobs/sha256" / sha256(lost)[7:]).unlink()
            assert pull(client, "far/app", reference).body == manifest


def test_a_tag_is_not_asked_about_in_its_time(line: Line, there: Client, tmp_path: Path) -> None:
    there.push("app", "v1", b"one")
    with RegistryProcess(tmp_path / "c", *option(line, ",ttl=1h")) as process, closing(process.client()) as client:
        first = pull(client, "far/app", "v1").body
        there.push("app", "v1", b"two")
        before = len(line.asked)
        assert pull(client, "far/app", "v1").body == first
        assert line.asked[before:] == []


def test_a_tag_that_has_moved_is_followed(there: Client, client: Client) -> None:
    first = there.push("app", "v1", b"one")
    assert pull(client, "far/app", "v1").body == first
    second = there.push("app", "v1", b"two")
    assert pull(client, "far/app", "v1").body == second
    assert pull(client, "far/app", sha256(first)).body == first  # by its digest it is what it was


def test_a_tag_that_is_gone_is_gone(there: Client, client: Client) -> None:
    manifest = there.push("app", "v1", b"one")
    assert pull(client, "far/app", "v1").status == 200
    there("DELETE", f"/v2/app/manifests/{sha256(manifest)}")
    assert pull(client, "far/app", "v1").code == "MANIFEST_UNKNOWN"
    assert pull(client, "far/app", "v1").status == 404
    assert pull(client, "far/app", sha256(manifest)).status == 200


def test_what_is_here_is_given_out_while_the_other_is_away(line: Line, there: Client, client: Client) -> None:
    manifest = there.push("app", "v1", b"one")
    assert pull(client, "far/app", "v1").status == 200
    line.away()
    assert pull(client, "far/app", "v1").body == manifest
    asked = len(line.asked)
    assert pull(client, "far/app", "v1").body == manifest
    assert len(line.asked) == asked  # it is left in peace
    assert metric(client, "stale_total") == 2
    assert client("GET", "/v2/far/app/tags/list").json()["tags"] == ["v1"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_does_not_take_away_what_is_here(line: Line, there: Client, client: Client, status: int) -> None:
    """A password that has ended is no news of a tag."""
    manifest = there.push("app", "v1", b"one")
    assert pull(client, "far/app", "v1").status == 200

    def fault(exchange: Exchange) -> None:
        exchange.status, exchange.body, exchange.headers = status, b"", [("WWW-Authenticate", 'Basic realm="r"')]

    line.fault = fault
    assert pull(client, "far/app", "v1").body == manifest


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_in_one_repository_says_nothing_of_others(
    line: Line, there: Client, client: Client, status: int
) -> None:
    for name in ("app", "secret"):
        there.push(name, "v1", b"one")
        assert pull(client, f"far/{name}", "v1").status == 200

    def fault(exchange: Exchange) -> None:
        if "/secret/" in exchange.path:
            exchange.status, exchange.body, exchange.headers = status, b"", []

    line.fault = fault
    client("GET", "/v2/far/secret/manifests/v1")
    client("GET", "/v2/far/secret/tags/list")
    client("GET", f"/v2/far/secret/referrers/{sha256(b'')}")
    moved = there.push("app", "v1", b"two")
    assert pull(client, "far/app", "v1").body == moved
    assert client("GET", "/v2/far/app/tags/list").json()["tags"] == ["v1"]


def test_too_many_requests_are_told_to_who_gets_nothing(line: Line, there: Client, client: Client) -> None:
    there.push("app", "v1", b"one")
    after = "120"

    def fault(exchange: Exchange) -> None:
        exchange.status, exchange.body, exchange.headers = 429, b"", [("Retry-After", after)]

    line.fault = fault
    for path in ("manifests/v1", f"blobs/{sha256(b'one')}", "tags/list"):
        answer = client("GET", f"/v2/far/app/{path}")
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "TOOMANYREQUESTS", "120")


def test_a_short_wait_is_waited(line: Line, there: Client, client: Client) -> None:
    manifest = there.push("app", "v1", b"one")
    refused: list[Exchange] = []

    def fault(exchange: Exchange) -> None:
        if not refused:
            refused.append(exchange)
            exchange.status, exchange.body, exchange.headers = 429, b"", [("Retry-After", "1")]

    line.fault = fault
    assert pull(client, "far/app", "v1").body == manifest


def test_too_many_requests_are_ridden_out(line: Line, there: Client, client: Client) -> None:
    manifest = there.push("app", "v1", b"one")
    assert pull(client, "far/app", "v1").status == 200

    def fault(exchange: Exchange) -> None:
        exchange.status, exchange.body, exchange.headers = 429, b"", [("Retry-After", "3600")]

    line.fault = fault
    begun = time.monotonic()
    assert pull(client, "far/app", "v1").body == manifest
    assert time.monotonic() - begun < 5


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        flags = ("--proxy", f"far=http://127.0.0.1:{closed.getsockname()[1]}")
        with RegistryProcess(tmp_path, *flags) as process, closing(process.client()) as client:
            assert client("GET", "/v2/far/app/manifests/v1").code == "UNAVAILABLE"
            assert client("GET", f"/v2/far/app/blobs/{sha256(b'')}").status == 503
            assert client("GET", "/v2/far/app/tags/list").status == 503


def test_an_index_and_its_members_come_one_by_one(line: Line, there: Client, client: Client) -> None:
    members = [there.push("app", f"m{number}", f"layer {number}".encode()) for number in range(3)]
    both = index(*members)
    there.push_manifest("app", "all", both)
    assert client("GET", "/v2/far/app/manifests/all").body == both
    assert pull(client, "far/app", sha256(members[1])).body == members[1]
    assert not [path for path in line.asked if sha256(members[0]) in path]


def test_tags_and_referrers_are_the_other_registrys(there: Client, client: Client) -> None:
    manifest = there.push("app", "v1", b"one")
    for tag in ("B", "a", "c"):
        there.push_manifest("app", tag, manifest)
    assert client("GET", "/v2/far/app/tags/list").json() == {"name": "far/app", "tags": ["a", "B", "c", "v1"]}
    page = client("GET", "/v2/far/app/tags/list?n=2&last=a")
    assert page.json()["tags"] == ["B", "c"]
    assert page.headers["link"] == '</v2/far/app/tags/list?last=c&n=2>; rel="next"'
    signature = image(subject={"mediaType": json.loads(manifest)["mediaType"], "digest": sha256(manifest),
                               "size": len(manifest)}, artifactType="application/x.sig")  # fmt: skip
    there.push_manifest("app", sha256(signature), signature)
    found = client("GET", f"/v2/far/app/referrers/{sha256(manifest)}").json()["manifests"]
    assert [one["digest"] for one in found] == [sha256(signature)]
    assert pull(client, "far/app", sha256(signature)).body == signature
    path = f"/v2/far/app/referrers/{sha256(manifest)}?artifactType=application/x."
    assert len(client("GET", f"{path}sig").json()["manifests"]) == 1
    other = client("GET", f"{path}other")
    assert (other.json()["manifests"], other.headers["oci-filters-applied"]) == ([], "artifactType")


# Blobs on their way


def test_many_clients_share_one_download(line: Line, there: Client, registry: RegistryProcess) -> None:
    there.push("app", "v1", LARGE)

    def one(_: int) -> bytes:
        with closing(registry.client()) as client:
            assert client("GET", "/v2/far/app/manifests/v1").status == 200
            return client("GET", f"/v2/far/app/blobs/{sha256(LARGE)}").body

    with ThreadPoolExecutor(8) as pool:
        assert all(found == LARGE for found in pool.map(one, range(8)))
    assert line.asked.count(f"GET /v2/app/blobs/{sha256(LARGE)}") == 1
    assert line.asked.count("GET /v2/app/manifests/v1") == 1


def test_bytes_come_before_all_have_come(line: Line, there: Client, registry: RegistryProcess) -> None:
    """A client reads the first half while the second is held back, and ranges of what is there."""
    there.push("app", "v1", LARGE)
    held = threading.Event()

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path:
            exchange.pause = held

    line.fault = fault
    with closing(registry.client()) as client:
        client("GET", "/v2/far/app/manifests/v1")
        path = f"/v2/far/app/blobs/{sha256(LARGE)}"
        with socket.create_connection(("127.0.0.1", registry.port), 20) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = b""
            while len(received) < 1 << 20:
                received += sock.recv(1 << 16)
        ranged = client("GET", path, headers={"Range": "bytes=1000-1999"})
        assert (ranged.status, ranged.body) == (206, LARGE[1000:2000])
        assert ranged.headers["content-range"] == f"bytes 1000-1999/{len(LARGE)}"
        held.set()  # the first client has left: it goes on all the same
        assert client("GET", path).body == LARGE
    assert line.asked.count(f"GET /v2/app/blobs/{sha256(LARGE)}") == 1


def test_a_line_that_is_cut_is_resumed(line: Line, there: Client, client: Client) -> None:
    there.push("app", "v1", LARGE)
    cuts = [1 << 20, 1 << 19, 1 << 18]

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path and cuts:
            exchange.cut = cuts.pop()

    line.fault = fault
    assert pull(client, "far/app", "v1").status == 200
    ranges = [one.request_headers["Range"] for one in line.proxy.seen if "Range" in one.request_headers]
    assert ranges  # with each cut what the client had read ahead is lost, and no more
    assert line.proxy.sent < len(LARGE) + (1 << 20) + (1 << 19) + (1 << 18)


def test_a_blob_that_is_another_one_is_not_kept(
    line: Line, there: Client, client: Client, registry: RegistryProcess
) -> None:
    there.push("app", "v1", LARGE)

    def fault(exchange: Exchange) -> None:
        if sha256(LARGE) in exchange.path and exchange.method == "GET":
            exchange.body = bytes(len(LARGE))

    line.fault = fault
    assert client("GET", "/v2/far/app/manifests/v1").status == 200
    path = f"/v2/far/app/blobs/{sha256(LARGE)}"
    with pytest.raises((http.client.HTTPException, OSError)):
        client("GET", path)
    assert not (registry.root / "content/blobs/sha256" / sha256(LARGE)[7:]).exists()
    assert os.listdir(registry.root / "fetching") == []
    line.fault = lambda _: None
    assert client("GET", path).body == LARGE


def test_a_killed_cache_goes_on_from_what_it_has(line: Line, there: Client, registry: RegistryProcess) -> None:
    there.push("app", "v1", LARGE)
    held = threading.Event()

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path:
            exchange.pause = held

    line.fault = fault
    with closing(registry.client()) as client:
        client("GET", "/v2/far/app/manifests/v1")
        path = f"/v2/far/app/blobs/{sha256(LARGE)}"
        client("GET", path, headers={"Range": "bytes=0-99"})
        partial = registry.root / "fetching" / sha256(LARGE).replace(":", "-")
        end = time.monotonic() + 20
        while partial.stat().st_size < 1 << 20:
            assert time.monotonic() < end
            time.sleep(0.01)
        registry.kill()
        held.set()
        line.fault = lambda _: None
        sent = line.proxy.sent
        registry.start()
        with closing(registry.client()) as again:
            assert again("GET", path).body == LARGE
        ranges = [one.request_headers.get("Range") for one in line.proxy.seen if one.path.endswith(sha256(LARGE))]
        assert ranges[-1] is not None
        assert line.proxy.sent - sent < len(LARGE)


def test_a_blob_that_is_not_there(line: Line, there: Client, client: Client) -> None:
    """Neither one that nothing names, nor one that has gone since its manifest came."""
    there.push("app", "v1", LARGE)
    assert client("GET", "/v2/far/app/manifests/v1").status == 200

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path:
            exchange.status, exchange.body, exchange.headers = 404, b"", []

    line.fault = fault
    for digest in (sha256(LARGE), sha256(b"never")):
        assert client("GET", f"/v2/far/app/blobs/{digest}").code == "BLOB_UNKNOWN"


# What is whose


def test_nothing_is_pushed_to_another_registrys_name(client: Client) -> None:
    for method, path in (("POST", "/v2/far/app/blobs/uploads/"), ("PUT", "/v2/far/app/manifests/v1")):
        refused = client(method, path, b"{}")
        assert (refused.status, refused.code) == (403, "DENIED")
        assert "is cached from http://" in refused.body.decode()
    assert client("POST", "/v2/near/app/blobs/uploads/").status == 202
    assert client("POST", "/v2/farther/app/blobs/uploads/").status == 202


def test_pushes_and_the_cache_live_side_by_side(there: Client, client: Client) -> None:
    there.push("app", "v1", b"theirs")
    ours = client.push("app", "v1", b"ours")
    assert pull(client, "far/app", "v1").status == 200
    assert pull(client, "app", "v1").body == ours
    assert client("GET", "/v2/_catalog").json()["repositories"] == ["app", "far/app"]
    assert client("POST", f"/v2/copy/blobs/uploads/?mount={sha256(b'theirs')}&from=far/app").status == 201


def test_a_prefix_that_has_been_pushed_to_is_refused(line: Line, tmp_path: Path) -> None:
    with RegistryProcess(tmp_path / "c") as process, closing(process.client()) as client:
        client.push("far/app", "v1", b"ours")
    with pytest.raises(AssertionError, match="ended: hafen registry: far/app was pushed here"):
        RegistryProcess(tmp_path / "c", *option(line))


def test_a_cache_of_something_else_is_dropped(line: Line, there: Client, tmp_path: Path) -> None:
    there.push("app", "v1", b"theirs")
    root = tmp_path / "c"
    with RegistryProcess(root, *option(line)) as process, closing(process.client()) as client:
        assert pull(client, "far/app", "v1").status == 200
    with RegistryProcess(root, "--proxy", "far=http://127.0.0.1:1") as process, closing(process.client()) as client:
        assert pull(client, "far/app", "v1").status == 503
    with RegistryProcess(root, "--gc-interval", "0.05") as process, closing(process.client()) as client:
        assert client("GET", "/v2/_catalog").json()["repositories"] == []
        end = time.monotonic() + 20
        while [path for path in (root / "content/blobs").rglob("*") if path.is_file()]:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_what_is_over_the_limit_goes_and_comes_again(line: Line, there: Client, tmp_path: Path) -> None:
    layers = [os.urandom(100_000) for _ in range(4)]
    for number, layer in enumerate(layers):
        there.push("app", f"v{number}", layer)
    flags = (*option(line, ",limit=250k"), "--gc-interval", "0.05", "--quota", "*=10")
    with RegistryProcess(tmp_path / "c", *flags) as process, closing(process.client()) as client:
        for number in range(4):
            assert pull(client, "far/app", f"v{number}").status == 200
        folder = tmp_path / "c/content/blobs"
        end = time.monotonic() + 20
        while sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > 250 << 10:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert (folder / "sha256" / sha256(layers[3])[7:]).exists()
        assert pull(client, "far/app", "v0").status == 200


def test_what_nobody_asks_for_goes(line: Line, there: Client, tmp_path: Path) -> None:
    there.push("app", "v1", b"one")
    with (
        RegistryProcess(tmp_path / "c", *option(line, ",keep=1s"), "--gc-interval", "0.05") as process,
        closing(process.client()) as client,
    ):
        assert pull(client, "far/app", "v1").status == 200
        end = time.monotonic() + 20
        while [path for path in (tmp_path / "c/content/blobs").rglob("*") if path.is_file()]:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert pull(client, "far/app", "v1").status == 200


# Rights, here and there


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_other_registry_asks_for_a_name(tmp_path: Path) -> None:
    """It is a registry of ours with tokens; a wrong password there is no challenge to clients here."""
    (tmp_path / "users").write_text(f"joe:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}")
    (tmp_path / "right").write_text("secret\n")
    (tmp_path / "wrong").write_text("secrets\n")
    with RegistryProcess(tmp_path / "origin") as process, closing(process.client()) as there:
        there.push("team/app", "v1", LARGE)
    with RegistryProcess(tmp_path / "origin", "--htpasswd", str(tmp_path / "users")) as origin:
        for word, status in (("right", 200), ("wrong", 503)):
            url = f"far=http://127.0.0.1:{origin.port}/team,username=joe,password-file={tmp_path / word}"
            with (
                RegistryProcess(tmp_path / f"cache-{word}", "--proxy", url) as process,
                closing(process.client()) as client,
            ):
                assert pull(client, "far/app", "v1").status == status
        with (
            RegistryProcess(tmp_path / "none", "--proxy", f"far=http://127.0.0.1:{origin.port}") as process,
            closing(process.client()) as client,
        ):
            assert pull(client, "far/team/app", "v1").status == 404


def test_what_is_here_elsewhere_is_not_fetched_and_not_given_to_others(
    line: Line, there: Client, tmp_path: Path
) -> None:
    """A layer that a user has in another repository comes from there, for that user."""
    there.push("app", "v1", LARGE)
    (tmp_path / "users").write_text(f"anna:{bcrypt.hashpw(b'apple', bcrypt.gensalt(4)).decode()}")
    (tmp_path / "rules").write_text("anna * pull,push\n* far/* pull\n")
    flags = (*option(line), "--htpasswd", str(tmp_path / "users"), "--rules", str(tmp_path / "rules"))
    with RegistryProcess(tmp_path / "c", *flags) as process, closing(process.client()) as client:
        anna, path = basic("anna", "apple"), f"/v2/far/app/blobs/{sha256(LARGE)}"
        secret = b"of nobody else"
        for data in (LARGE, secret):
            assert client("POST", f"/v2/own/blobs/uploads/?digest={sha256(data)}", data, anna).status == 201
        assert client("GET", path, headers=anna).body == LARGE
        assert client("GET", f"/v2/far/app/blobs/{sha256(secret)}", headers=anna).body == secret
        assert f"GET /v2/app/blobs/{sha256(LARGE)}" not in line.asked
        assert client("GET", f"/v2/far/app/blobs/{sha256(secret)}").status == 404
        assert client("GET", "/v2/far/app/manifests/v1").status == 200
        assert client("GET", path).body == LARGE
        assert f"GET /v2/app/blobs/{sha256(LARGE)}" in line.asked


def test_a_mirror_and_containerds_namespace(line: Line, there: Client, tmp_path: Path) -> None:
    manifest = there.push("library/debian", "12", b"debian")
    (tmp_path / "rules").write_text("* far/library/* pull")
    port = free_port()
    flags = (*option(line, f",mirror=127.0.0.1:{port}"), "--rules", str(tmp_path / "rules"))
    with RegistryProcess(tmp_path / "c", *flags) as process, closing(process.client()) as plain:
        with closing(Client(port)) as mirror:
            refused = mirror("GET", "/v2/other/app/manifests/12")
            assert 'scope="repository:other/app:pull"' in refused.headers["www-authenticate"]
            assert f'realm="http://127.0.0.1:{port}/token?ns=far"' in refused.headers["www-authenticate"]
            token = mirror("GET", "/token?scope=repository:library/debian:pull").json()["token"]
            bearer = {"Authorization": f"Bearer {token}"}
            assert pull(mirror, "library/debian", "12", bearer).body == manifest
            assert mirror("GET", "/v2/library/debian/tags/list").json()["tags"] == ["12"]
            assert mirror("POST", "/v2/library/debian/blobs/uploads/").status == 401
        refused = plain("GET", "/v2/other/app/manifests/12?ns=far")
        assert "/token?ns=far" in refused.headers["www-authenticate"]
        token = plain("GET", "/token?ns=far&scope=repository:library/debian:pull").json()["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert plain("GET", "/v2/library/debian/manifests/12?ns=far", headers=bearer).body == manifest
        assert plain("GET", "/v2/library/debian/manifests/12?ns=quay.io").status == 404
        assert plain("GET", "/v2/library/debian/manifests/12").status == 401


@pytest.mark.parametrize(
    "words",
    [["far"], ["far=ftp://x"], ["Far=https://x"], ["far=https://u@x"], ["far=https://x,colour=red"],
     ["far=https://x,username=u"], ["a=https://x", "a/b=https://y"], ["a/*=https://x", "a=https://y"],
     ["far=https://x,ttl=soon"], ["far=https://x,limit=big"], ["far=https://x/A B"]],
)  # fmt: skip
def test_what_is_no_proxy(words: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        parse(words, lambda _: "")


def test_names_of_the_other_registry() -> None:
    plain, deep = parse(["docker.io=https://registry-1.docker.io", "team/*=https://r.test:5000/their/path/"], str)
    assert plain.path("docker.io/library/debian") == "library/debian"
    assert plain.path("docker.io/debian") == "library/debian"
    assert parse(["hub=https://docker.io"], str)[0].url == plain.url
    assert deep.path("team/app") == "their/path/app"


def test_an_orderly_end_in_the_middle_keeps_what_has_come(line: Line, there: Client, registry: RegistryProcess) -> None:
    there.push("app", "v1", LARGE)
    held = threading.Event()

    def fault(exchange: Exchange) -> None:
        if "/blobs/" in exchange.path:
            exchange.pause = held

    line.fault = fault
    path = f"/v2/far/app/blobs/{sha256(LARGE)}"
    with closing(registry.client()) as client:
        client("GET", "/v2/far/app/manifests/v1")
        assert client("GET", path, headers={"Range": "bytes=0-99"}).body == LARGE[:100]
    assert registry.stop() == 0
    held.set()
    line.fault = lambda _: None
    assert "Traceback" not in registry.log
    assert (registry.root / "fetching" / sha256(LARGE).replace(":", "-")).stat().st_size >= 1 << 20
    registry.start()
    with closing(registry.client()) as client:
        assert client("GET", path).body == LARGE
