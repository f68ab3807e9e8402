"""Webhooks: what a receiver is told of pushes and deletions, until it has taken it."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hafen.errors import InvalidArgument
from hafen.registryd.rows import Rows
from hafen.registryd.schema import MIGRATIONS
from hafen.registryd.webhooks import EVENTS, Hook, parse
from hafen.storage.database import Database
from tests.harness.registry import EMPTY, OCI_IMAGE, RegistryProcess, image, sha256


@dataclass(frozen=True)
class Delivery:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        events: list[dict[str, Any]] = json.loads(self.body)["events"]
        assert len(events) == 1
        return events[0]


class Receiver:
    """Answers with the statuses it was given, then 200."""

    def __init__(self) -> None:
        self.got: queue.Queue[Delivery] = queue.Queue()
        self.statuses: queue.Queue[int] = queue.Queue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = 200 if receiver.statuses.empty() else receiver.statuses.get()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.got.put(Delivery(self.path, headers, body))

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def next(self) -> Delivery:
        return self.got.get(timeout=10)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as found:
        yield found


def test_pushes_and_deletions_are_told_in_docker_registrys_form(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    hook = f"{receiver.url}/path?a=b,secret-file={tmp_path / 'secret'}"
    with RegistryProcess(tmp_path / "root", "--webhook", hook) as process, closing(process.client()) as client:
        manifest = client.push("team/a", "v1", b"layer")
        digest = sha256(manifest)
        pushed = receiver.next()
        assert client("DELETE", "/v2/team/a/manifests/v1").status == 202
        tag = receiver.next()
        assert client("DELETE", f"/v2/team/a/manifests/{digest}").status == 202
        deleted = receiver.next()
        host = f"127.0.0.1:{process.port}"
    assert pushed.path == "/path?a=b"
    assert pushed.headers["content-type"] == "application/vnd.docker.distribution.events.v1+json"
    wanted = hmac.new(b"hush", pushed.body, hashlib.sha256).hexdigest()
    assert pushed.headers["x-hub-signature-256"] == f"sha256={wanted}"
    event = pushed.event
    assert (event["action"], event["request"]["method"], event["request"]["host"]) == ("push", "PUT", host)
    assert event["target"] == {
        "mediaType": OCI_IMAGE, "size": len(manifest), "length": len(manifest), "digest": digest, "tag": "v1",
        "repository": "team/a", "url": f"http://{host}/v2/team/a/manifests/{digest}",
    }  # fmt: skip
    assert (tag.event["action"], tag.event["target"]) == ("delete", {"repository": "team/a", "tag": "v1"})
    assert (deleted.event["action"], deleted.event["target"]["digest"]) == ("delete", digest)
    assert len({one.event["id"] for one in (pushed, tag, deleted)}) == 3


@pytest.mark.parametrize(
    ("flags", "headers", "base"),
    [((), {"X-Forwarded-Proto": "https"}, "https://HOST"),
     (("--url", "https://registry.example.com/"), {}, "https://registry.example.com")],
)  # fmt: skip
def test_an_event_says_where_clients_find_it(
    receiver: Receiver, tmp_path: Path, flags: tuple[str, ...], headers: dict[str, str], base: str
) -> None:
    """Also where a proxy stands before the registry."""
    with RegistryProcess(tmp_path, "--webhook", receiver.url, *flags) as process, closing(process.client()) as client:
        client.push_blob("a", EMPTY)
        data = image()
        client("PUT", "/v2/a/manifests/v1", data, {"Content-Type": OCI_IMAGE, **headers})
        url = base.replace("HOST", f"127.0.0.1:{process.port}")
        assert receiver.next().event["target"]["url"] == f"{url}/v2/a/manifests/{sha256(data)}"


@pytest.mark.parametrize("url", ["", "https://registry.example.com"])
def test_an_event_of_retention_has_no_request_to_tell_where(receiver: Receiver, tmp_path: Path, url: str) -> None:
    (tmp_path / "rules").write_text("remove untagged older than 0s")
    with RegistryProcess(tmp_path / "root") as process, closing(process.client()) as client:
        client.push_blob("a", EMPTY)
        data = image()
        assert client.push_manifest("a", sha256(data), data).status == 201
    flags = ("--retention", str(tmp_path / "rules"), "--gc-grace", "0", "--gc-interval", "0.1", "--url", url)
    with RegistryProcess(tmp_path / "root", "--webhook", receiver.url, *flags):
        event = receiver.next().event
    about = {"repository": "a", "digest": sha256(data)}
    assert event["target"] == ({**about, "url": f"{url}/v2/a/manifests/{sha256(data)}"} if url else about)


def test_a_hook_is_told_of_what_it_asked_for_only(receiver: Receiver, tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--webhook", f"{receiver.url},events=delete") as process:
        with closing(process.client()) as client:
            client.push("a", "v1")
            assert client("DELETE", "/v2/a/manifests/v2").status == 404
            assert client("DELETE", "/v2/a/manifests/v1").status == 202
        delivery = receiver.next()
    assert (delivery.event["action"], delivery.event["target"]["tag"]) == ("delete", "v1")
    assert "x-hub-signature-256" not in delivery.headers
    assert receiver.got.empty()


def test_what_was_not_taken_comes_again(receiver: Receiver, tmp_path: Path) -> None:
    statuses = [500, 404, 302]
    for status in statuses:
        receiver.statuses.put(status)
    with RegistryProcess(tmp_path, "--webhook", f"{receiver.url}/hook") as process:
        with closing(process.client()) as client:
            for tag in ("v1", "v2", "v3"):
                client.push("a", tag)
        got = [receiver.next() for _ in range(6)]
    assert sorted(one.event["target"]["tag"] for one in got) == ["v1", "v1", "v2", "v2", "v3", "v3"]
    assert len({one.event["id"] for one in got}) == 3
    assert {one.path for one in got} == {"/hook"}
    for status in statuses:
        assert f"status {status}; the next attempt is in 1 seconds" in process.log


def test_what_waits_survives_a_killed_registry(receiver: Receiver, tmp_path: Path) -> None:
    receiver.statuses.put(503)
    with RegistryProcess(tmp_path, "--webhook", receiver.url) as process:
        with closing(process.client()) as client:
            client.push("a", "v1")
            first = receiver.next()
            process.kill()
        process.start()
        assert receiver.next().event == first.event


def test_a_slow_or_absent_receiver_holds_up_nobody_else(receiver: Receiver, tmp_path: Path) -> None:
    absent = Receiver()
    absent.close()
    hooks = ("--webhook", absent.url, "--webhook", receiver.url)
    with RegistryProcess(tmp_path, *hooks) as process, closing(process.client()) as client:
        for tag in ("v1", "v2", "v3"):
            client.push("a", tag)
        assert [receiver.next().event["target"]["tag"] for _ in range(3)] == ["v1", "v2", "v3"]
        for _ in range(200):  # the last may have been taken, and its row not yet have gone
            waiting = client("GET", "/metrics").body
            if b"hafen_registry_notifications 3\n" in waiting:
                break
        assert b"hafen_registry_notifications 3\n" in waiting


def test_a_queue_is_bounded_and_goes_with_its_hook(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "registry.db", MIGRATIONS)) as database:
        rows = Rows(database)
        told: list[int] = []
        dropped = []
        for number in range(5):
            with rows.together():
                dropped.append(rows.notify("http://a", f'"{number}"', 3, lambda: told.append(1)))
        with rows.together():
            rows.notify("http://b", '"b"', 3, lambda: told.append(1))
        assert (dropped, len(told)) == ([0, 0, 0, 1, 1], 6)
        first = rows.next_notification("http://a")
        assert first is not None
        assert first.event == '"2"'
        rows.postpone_notification(first.number, first.next_at + 1000)
        second = rows.next_notification("http://a")
        assert second is not None
        assert second.event == '"3"'
        rows.keep_notifications(["http://b"])
        assert rows.next_notification("http://a") is None
        assert rows.next_notification("http://b") is not None


def test_hooks_of_a_command_line() -> None:
    texts = {"file": "word\n"}
    assert parse("https://ci:8443/x", texts.__getitem__) == Hook("https://ci:8443/x", EVENTS)
    found = parse("http://ci/,secret-file=file,events=push", texts.__getitem__)
    assert found == Hook("http://ci/", frozenset(("push",)), b"word")
    assert parse("http://ci/,events=push+delete", texts.__getitem__).events == EVENTS


@pytest.mark.parametrize(
    "text",
    ["", "ci", "ftp://ci/", "http://", "http://anna:word@ci/", "http://ci:x/", "http://ci/ x", "http://ci/,events=pull",
     "http://ci/,events=", "http://ci/,secret-file=", "http://ci/,secret-file=empty", "http://ci/,more=x"],
)  # fmt: skip
def test_what_is_no_hook_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text, {"empty": "\n"}.__getitem__)
