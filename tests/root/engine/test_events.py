"""Whole sequences of events, compared with those that Docker 26.1 sent for the same commands."""

import http.client
import json
import socket
import time

import pytest

from tests.harness.engine import EngineProcess
from tests.root.engine.eventscenarios import RECORDED, SCENARIOS, Shown, perform

PEER: dict[str, list[Shown]] = json.loads(RECORDED.read_text())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_events_are_dockers(engine: EngineProcess, scenario: str) -> None:
    read = perform(scenario, lambda arguments: engine.docker(*arguments, check=False).stdout)
    deadline = time.monotonic() + 3
    while (found := read()) != PEER[scenario] and time.monotonic() < deadline:
        pass  # some come after the answer: the end of a detached exec
    assert found == PEER[scenario]


def stream(engine: EngineProcess, target: str, accept: str = "*/*") -> tuple[str, bytes]:
    """Content type and body of a GET that ends."""
    answer = http.client.HTTPConnection("localhost")
    answer.sock = socket.socket(socket.AF_UNIX)
    answer.sock.connect(str(engine.socket))
    answer.request("GET", target, headers={"Accept": accept})
    response = answer.getresponse()
    body = response.read()
    answer.close()
    return response.getheader("Content-Type") or "", body


def test_a_killed_engine_replays_all_that_was_told(engine: EngineProcess) -> None:
    since = f"{time.time():.9f}"
    engine.docker("volume", "create", "evt-v")
    engine.docker("volume", "rm", "evt-v")
    engine.kill()
    engine.start()
    until = f"{time.time():.9f}"
    told = engine.docker("events", "--since", since, "--until", until, "--format", "{{.Action}} {{.Actor.ID}}").stdout
    assert told.splitlines() == ["create evt-v", "destroy evt-v"]


@pytest.mark.parametrize(
    ("version", "accept", "expected"),
    [
        ("v1.51", "application/x-ndjson", "application/json"),
        ("v1.52", "*/*", "application/json"),
        ("v1.52", "application/x-ndjson", "application/x-ndjson"),
        ("v1.52", "application/jsonl", "application/jsonl"),
        ("v1.52", "application/json-seq", "application/json-seq"),
    ],
)
def test_content_types(engine: EngineProcess, version: str, accept: str, expected: str) -> None:
    since = f"{time.time():.9f}"
    engine.docker("volume", "create", "evt-v")
    engine.docker("volume", "rm", "evt-v")
    kind, body = stream(engine, f"/{version}/events?since={since}&until={time.time():.9f}", accept)
    assert kind == expected
    lines = body.splitlines(keepends=True)
    assert len(lines) == 2
    assert all(line.startswith(b"\x1e") == (expected == "application/json-seq") for line in lines)
    assert [json.loads(line.removeprefix(b"\x1e"))["Action"] for line in lines] == ["create", "destroy"]
