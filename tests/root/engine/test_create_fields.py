"""Fields of `POST /containers/create` on a real engine: the rows of `tests/harness/createfields.py`."""

import http.client
import json
import os
import re
import socket
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import createfields
from tests.harness.createfields import Body, Refused, Works
from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root


class Client:
    """The engine's HTTP API over one connection."""

    def __init__(self, engine: EngineProcess) -> None:
        self.connection = http.client.HTTPConnection("engine")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(str(engine.socket))

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        sent = None if body is None else json.dumps(body)
        self.connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def create(self, body: Body) -> tuple[int, dict[str, Any]]:
        host: Any = body.get("HostConfig", {})
        whole = {"Image": "busybox", **body, "HostConfig": {"NetworkMode": "none", **host}}
        version = "/v1.47" if "MacAddress" in body else ""  # the newest has it in the endpoint alone
        status, answer = self.call("POST", f"{version}/containers/create", whole)
        return status, json.loads(answer)


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[Client]:
    client = Client(engine)
    yield client
    client.connection.close()


@pytest.fixture(scope="module")
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hafen-fields-") as folder:
        (Path(folder) / "here").touch()
        yield folder
    for pattern in ("hafen-fields", "*/hafen-fields"):  # a parent that was asked for stays, as with Docker
        for parent in Path("/sys/fs/cgroup").glob(pattern):
            parent.rmdir()


def run(client: Client, body: Body) -> str:
    """What a container that was made of this prints."""
    status, made = client.create(body)
    assert status == 201, made
    try:
        status, answer = client.call("POST", f"/containers/{made['Id']}/start")
        assert status == 204, answer
        client.call("POST", f"/containers/{made['Id']}/wait")
        _, output = client.call("GET", f"/containers/{made['Id']}/logs?stdout=1&stderr=1")
    finally:
        client.call("DELETE", f"/containers/{made['Id']}?force=1&v=1")
    if not body.get("Tty"):
        output = b"".join(frames(output))
    return output.decode().replace("\r\n", "\n")


def frames(output: bytes) -> Iterator[bytes]:
    """The payloads of a multiplexed stream."""
    while output:
        length = int.from_bytes(output[4:8], "big")
        yield output[8 : 8 + length]
        output = output[8 + length :]


@pytest.mark.parametrize("row", createfields.WORKS, ids=lambda row: row.fields.replace(" ", ","))
def test_works(client: Client, directory: str, row: Works) -> None:
    body: Body = json.loads(json.dumps(row.body).replace("{directory}", directory))
    if row.script:
        body["Cmd"] = ["sh", "-c", row.script]
    shown = re.sub(r"\{ns:(\w+)\}", lambda found: re.escape(createfields.namespace(found[1])), row.shown)
    output = run(client, body)
    assert re.search(shown, output), output


@pytest.mark.parametrize("row", createfields.REFUSED, ids=lambda row: row.message[:60])
def test_refused(client: Client, row: Refused) -> None:
    status, answer = client.create({"Cmd": ["true"], **row.body})
    if status == 201:
        status, text = client.call("POST", f"/containers/{answer['Id']}/start")
        client.call("DELETE", f"/containers/{answer['Id']}?force=1&v=1")
        answer = json.loads(text)
    assert (status, answer["message"]) == (row.status, row.message)


@pytest.mark.parametrize("field", createfields.KEPT)
def test_kept(client: Client, field: str) -> None:
    half, _, name = field.partition(".")
    value = createfields.KEPT[field]
    body: Body = {name: value} if half == "Config" else {"HostConfig": {name: value}}
    status, made = client.create({"Cmd": ["true"], **body})
    assert status == 201, made
    _, text = client.call("GET", f"/containers/{made['Id']}/json")
    status, answer = client.call("POST", f"/containers/{made['Id']}/start")
    client.call("DELETE", f"/containers/{made['Id']}?force=1&v=1")
    assert (status, json.loads(text)[half][name]) == (204, value), answer


@pytest.mark.skipif(not os.path.exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"), reason="no real-time groups here")
def test_real_time(client: Client) -> None:
    """The kernel gives a group real-time only where its parents have some."""
    parent = Path("/sys/fs/cgroup/cpu") / urllib.parse.quote(f"hafen-rt-{os.getpid()}")
    parent.mkdir()
    try:
        (parent / "cpu.rt_runtime_us").write_text("100000")
        script = "cat /sys/fs/cgroup/cpu/cpu.rt_runtime_us /sys/fs/cgroup/cpu/cpu.rt_period_us"
        limits = {"CpuRealtimeRuntime": 50_000, "CpuRealtimePeriod": 900_000}
        body: Body = {"Cmd": ["sh", "-c", script], "HostConfig": {"CgroupParent": f"/{parent.name}", **limits}}
        assert run(client, body) == "50000\n900000\n"
        status, made = client.create({"Cmd": ["true"], "HostConfig": limits})
        status, answer = client.call("POST", f"/containers/{made['Id']}/start")
        client.call("DELETE", f"/containers/{made['Id']}?force=1")
        assert (status, b"cpu.rt_runtime_us" in answer) == (500, True)
    finally:
        for hierarchy in Path("/sys/fs/cgroup").glob(f"*/{parent.name}"):
            hierarchy.rmdir()


def test_throttles(client: Client) -> None:
    disks = [name for name in sorted(os.listdir("/sys/block")) if os.path.exists(f"/dev/{name}")]
    if not disks:
        pytest.skip("no block device here")
    device = Path(f"/sys/block/{disks[0]}/dev").read_text().strip()
    limits = {
        f"BlkioDevice{what}": [{"Path": f"/dev/{disks[0]}", "Rate": rate}]
        for what, rate in (("ReadBps", 1048576), ("WriteBps", 2097152), ("ReadIOps", 30), ("WriteIOps", 40))
    }
    script = "cd /sys/fs/cgroup/blkio 2>/dev/null && cat blkio.throttle.*_device || cat /sys/fs/cgroup/io.max"
    shown = run(client, {"Cmd": ["sh", "-c", script], "HostConfig": limits})
    old = [f"{device} {rate}" for rate in (1048576, 30, 2097152, 40)]
    new = [f"{device} rbps=1048576 wbps=2097152 riops=30 wiops=40"]
    assert shown.splitlines() in (old, new)


def test_publish_all(client: Client) -> None:
    host = {"NetworkMode": "bridge", "PublishAllPorts": True}
    _, made = client.create({"Cmd": ["sleep", "100"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host})
    try:
        assert client.call("POST", f"/containers/{made['Id']}/start")[0] == 204
        _, text = client.call("GET", f"/containers/{made['Id']}/json")
        bindings = json.loads(text)["NetworkSettings"]["Ports"]["80/tcp"]
        assert int(bindings[0]["HostPort"]) >= 1024
    finally:
        client.call("DELETE", f"/containers/{made['Id']}?force=1")


@pytest.mark.parametrize("first", ["fields-a", "fields-b"])
def test_the_way_out(client: Client, first: str) -> None:
    networks = ("fields-a", "fields-b")
    gateways = {}
    for name in networks:
        assert client.call("POST", "/networks/create", {"Name": name})[0] == 201
        _, text = client.call("GET", f"/networks/{name}")
        gateways[name] = json.loads(text)["IPAM"]["Config"][0]["Gateway"]
    try:
        asked = {name: {"GwPriority": int(name == first)} for name in networks}
        body: Body = {
            "Cmd": ["ip", "route", "show", "default"],
            "HostConfig": {"NetworkMode": networks[0]},
            "NetworkingConfig": {"EndpointsConfig": asked},
        }
        assert f"via {gateways[first]} " in run(client, body)
    finally:
        for name in networks:
            client.call("DELETE", f"/networks/{name}")
