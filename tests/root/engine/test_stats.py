"""Statistics over the API: docker's own arithmetic on them, and one sampler for all who follow a container."""

import http.client
import json
import socket
import time
from typing import cast

import pytest

from tests.harness.engine import EngineProcess

Sample = dict[str, object]


def connect(engine: EngineProcess) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost", timeout=15)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(15)
    connection.sock.connect(str(engine.socket))
    return connection


def get(engine: EngineProcess, target: str) -> Sample:
    connection = connect(engine)
    connection.request("GET", target)
    found: Sample = json.loads(connection.getresponse().read())
    connection.close()
    return found


def number(sample: Sample, *path: str) -> int:
    value: object = sample
    for name in path:
        value = cast(Sample, value)[name]
    return cast(int, value)


def cpu_percent(sample: Sample) -> float:
    """docker/cli `calculateCPUPercentUnix`."""
    used = number(sample, "cpu_stats", "cpu_usage", "total_usage") - number(
        sample, "precpu_stats", "cpu_usage", "total_usage"
    )
    whole = number(sample, "cpu_stats", "system_cpu_usage") - number(sample, "precpu_stats", "system_cpu_usage")
    return used / whole * number(sample, "cpu_stats", "online_cpus") * 100


def test_a_throttled_loop_uses_what_it_may(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "--cpus", "0.2", "-m", "32m", "--pids-limit", "9", "--net", "none",
                  "busybox", "sh", "-c", "while :; do :; done")  # fmt: skip
    sample = get(engine, f"/containers/{name}/stats?stream=false")
    assert 2 < cpu_percent(sample) < 30
    assert number(sample, "cpu_stats", "throttling_data", "throttled_periods") > 0
    assert number(sample, "memory_stats", "limit") == 32 << 20
    assert 0 < number(sample, "memory_stats", "usage") < 32 << 20
    assert sample["pids_stats"] == {"current": 1, "limit": 9}
    assert "networks" not in sample


def test_network_bytes_are_those_sent(engine: EngineProcess, name: str) -> None:
    engine.docker("network", "create", f"{name}-2")
    try:
        engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
        engine.docker("network", "connect", f"{name}-2", name)
        before = get(engine, f"/containers/{name}/stats?stream=false&one-shot=true")
        gateway = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", name).stdout.strip()
        engine.docker("exec", name, "ping", "-q", "-c", "10", "-i", "0.01", "-s", "1000", gateway)
        after = get(engine, f"/containers/{name}/stats?stream=false&one-shot=true")
        assert set(cast(Sample, after["networks"])) == {"eth0", "eth1"}
        sent = number(after, "networks", "eth0", "tx_bytes") - number(before, "networks", "eth0", "tx_bytes")
        assert (
            10 * 1042 <= sent < 10 * 1042 + 600
        )  # an Ethernet, an IP and an ICMP header each; and neighbour discovery
        assert number(after, "networks", "eth1", "tx_bytes") < sent
    finally:
        engine.docker("rm", "-f", name)
        engine.docker("network", "rm", f"{name}-2")


def test_all_clients_share_one_sampler(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "--net", "none", "busybox", "sleep", "600")
    tasks = number(get(engine, "/info"), "NGoroutines")
    clients = [connect(engine) for _ in range(4)]
    streams = []
    for client in clients:
        client.request("GET", f"/containers/{name}/stats")
        streams.append(client.getresponse())
    seen = [[json.loads(stream.readline())["read"] for _ in range(3)] for stream in streams]
    assert len(set(map(tuple, seen))) == 1
    for client, stream in zip(clients, streams, strict=True):
        stream.close()
        client.close()
    deadline = time.monotonic() + 5
    while number(get(engine, "/info"), "NGoroutines") > tasks:
        assert time.monotonic() < deadline, "the sampler goes on without a client"


def test_a_stream_ends_with_its_container(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "--net", "none", "busybox", "sleep", "600")
    client = connect(engine)
    client.request("GET", f"/containers/{name}/stats")
    stream = client.getresponse()
    assert json.loads(stream.readline())["name"] == f"/{name}"
    engine.docker("rm", "-f", name)
    rest = stream.read().splitlines()
    client.close()
    assert len(rest) <= 3


@pytest.mark.parametrize("query", ["stream=false", "stream=false&one-shot=true"])
def test_a_stopped_container_has_empty_ones(engine: EngineProcess, name: str, query: str) -> None:
    engine.docker("create", "--name", name, "--net", "none", "busybox")
    sample = get(engine, f"/containers/{name}/stats?{query}")
    assert sample["read"] == sample["preread"] == "0001-01-01T00:00:00Z"
    assert sample["pids_stats"] == {}
