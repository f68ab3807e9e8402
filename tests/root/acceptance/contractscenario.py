"""Calls every operation of the Engine API on an engine and tells what its answers are against the definitions.

`python -m tests.root.acceptance.contractscenario SOCKET` prints it for any engine that has busybox, such as a Docker.
"""

import http.client
import io
import json
import socket
import sys
import tarfile
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, urlencode

from tests.harness.contract import Definition, definition, differences

# The version asked for, and that of the nearest newer definition there is
VERSIONS = {
    "1.24": "1.41", "1.41": "1.41", "1.44": "1.47", "1.45": "1.47", "1.46": "1.47", "1.47": "1.47", "1.55": "1.55",
}  # fmt: skip
OLD = ("1.24", "1.41")  # where a prune of volumes is of all of them
NO_REGISTRY = "127.0.0.1:1"
PREFIX = "hafen-contract"
LABELS = {PREFIX: ""}
IMAGE = "busybox:latest"

Json = object


class Called(NamedTuple):
    """One answer: `problems` is what its definition does not allow."""

    operation: str
    version: str
    status: int
    problems: tuple[str, ...]


class Play:
    """Calls of one version."""

    def __init__(self, address: str, version: str) -> None:
        self.address = address
        self.version = version
        self.contract: Definition = definition(VERSIONS[version])
        self.called: list[Called] = []

    def call(self, operation: str, id: str = "", /, body: Json = None, line: str = "", **query: str) -> Json:
        """The decoded answer, checked. `id` fills the path's template; bytes are a body as they are.

        A `line` names the definition of an answer of many lines; its value is the last line's.
        """
        status, content_type, data = self._send(operation, id, body, query)
        known = self.contract["operations"][operation]
        responses = known["responses"]
        problems = [] if str(status) in responses else [f"{operation}: status {status}"]
        schema = responses.get(str(status))
        lines: list[Json] = []
        if status >= 400:
            schema = {"$ref": "#/definitions/ErrorResponse"}
        elif line:
            schema = {"$ref": f"#/definitions/{line}"}
        if content_type == "application/json":
            lines = [json.loads(text) for text in data.splitlines()]
        if known["method"] != "HEAD" and not lines and schema and schema.get("type") != "string":
            problems.append(f"{operation}: {status} as {content_type or 'nothing'}")
        for value in lines:
            if schema:
                problems += differences(value, schema, self.contract["definitions"], operation)
        self.called.append(Called(operation, self.version, status, tuple(dict.fromkeys(problems))))
        return lines[-1] if lines else data

    def _send(self, operation: str, id: str, body: Json, query: dict[str, str]) -> tuple[int, str, bytes]:
        known = self.contract["operations"][operation]
        path = known["path"].replace("{id}", id).replace("{name}", quote(id))
        given = {key.replace("_", "-") if key.endswith("_shot") else key: value for key, value in query.items()}
        target = f"/v{self.version}{path}{'?' + urlencode(given) if given else ''}"
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(self.address)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(known["method"], target, data, headers)
            response = connection.getresponse()
            kind = (response.headers.get("Content-Type") or "").partition(";")[0]
            if operation == "ContainerStats" and query.get("stream") != "0":
                return response.status, kind, response.readline()
            return response.status, kind, response.read()
        finally:
            connection.close()


def field(answer: Json, *names: str) -> str:
    """A text inside an answer."""
    for name in names:
        assert isinstance(answer, dict), answer
        answer = answer[name]
    return str(answer)


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"x\n"))
    return data.getvalue()


CONTAINERS: dict[str, dict[str, Json]] = {
    "created": {"Cmd": ["true"]},
    "running": {
        "Cmd": ["sh", "-c", "echo begun; touch /changed; exec sleep 1000"],
        "Env": ["A=b"],
        "ExposedPorts": {"81/udp": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 200_000_000, "Timeout": 10_000_000_000, "Retries": 3},
        "StopSignal": "SIGKILL",
        "HostConfig": {
            "NetworkMode": PREFIX,
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
            "Binds": [f"{PREFIX}:/volume", "/tmp:/host:ro"],
            "Mounts": [
                {"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": 65536}},
                {"Type": "volume", "Target": "/anonymous"},
            ],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "Memory": 64 << 20,
            "NanoCpus": 500_000_000,
        },
        "NetworkingConfig": {
            "EndpointsConfig": {PREFIX: {"Aliases": ["other"], "IPAMConfig": {"IPv4Address": "10.213.7.9"}}}
        },
    },
    "terminal": {"Cmd": ["sleep", "1000"], "Tty": True, "OpenStdin": True, "StopSignal": "SIGKILL"},
    "linked": {
        "Cmd": ["sleep", "1000"],
        "StopSignal": "SIGKILL",
        "HostConfig": {"Links": [f"{PREFIX}-terminal:alias"]},
    },
    "paused": {"Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL", "HostConfig": {"NetworkMode": "host"}},
    "exited": {"Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"], "HostConfig": {"NetworkMode": "none"}},
    "restarting": {"Cmd": ["false"], "HostConfig": {"RestartPolicy": {"Name": "always"}}},
}


def prepare(play: Play) -> None:
    """Containers of every state, and images, a network and a volume of every kind; the calls that change are checked
    as they are made."""
    play.call("ImageTag", IMAGE, repo=PREFIX, tag="tagged")
    play.call("ImageCreate", body=tar(), line="CreateImageInfo", fromSrc="-", changes='LABEL hafen-contract=""')
    pool = {"Subnet": "10.213.7.0/24", "Gateway": "10.213.7.1", "AuxiliaryAddresses": {"spare": "10.213.7.200"}}
    network = {"Name": PREFIX, "Labels": LABELS, "Options": {"k": "v"}, "IPAM": {"Driver": "default", "Config": [pool]}}
    play.call("NetworkCreate", body=network)
    play.call("VolumeCreate", body={"Name": PREFIX, "Labels": LABELS})
    for state, config in CONTAINERS.items():
        play.call("ContainerCreate", body={"Image": IMAGE, "Labels": LABELS, **config}, name=f"{PREFIX}-{state}")
        if state != "created":
            play.call("ContainerStart", f"{PREFIX}-{state}")
    play.call("ContainerPause", f"{PREFIX}-paused")
    play.call("ContainerWait", f"{PREFIX}-exited")
    wait_state(play, "restarting", "State", "Restarting", "True")
    wait_state(play, "running", "State", "Health", "Status", "healthy")
    play.call(
        "NetworkConnect", PREFIX, body={"Container": f"{PREFIX}-terminal", "EndpointConfig": {"Aliases": ["extra"]}}
    )


def wait_state(play: Play, state: str, *names_and_value: str) -> None:
    *names, value = names_and_value
    deadline = time.monotonic() + 20
    while field(play.call("ContainerInspect", f"{PREFIX}-{state}"), *names) != value:
        assert time.monotonic() < deadline, f"{state} is not {value}"
        time.sleep(0.02)  # a container that restarts tells of its waiting in its state alone


def read(play: Play) -> None:
    """Every operation that only looks, at everything there is."""
    for state in CONTAINERS:
        play.call("ContainerInspect", f"{PREFIX}-{state}", size="1")
    play.call("ContainerList", all="1", size="1", filters=json.dumps({"label": [PREFIX]}))
    play.call("ContainerTop", f"{PREFIX}-running")
    play.call("ContainerTop", f"{PREFIX}-running", ps_args="-o pid,comm")
    play.call("ContainerChanges", f"{PREFIX}-running")
    play.call("ContainerChanges", f"{PREFIX}-created")
    play.call("ContainerStats", f"{PREFIX}-exited", stream="0", one_shot="1")
    play.call("ContainerStats", f"{PREFIX}-running")
    play.call("ContainerExport", f"{PREFIX}-created")
    play.call("ContainerArchive", f"{PREFIX}-exited", path="/etc")
    play.call("ContainerArchiveInfo", f"{PREFIX}-exited", path="/etc")
    logs = play.call("ContainerLogs", f"{PREFIX}-exited", stdout="1", stderr="1", timestamps="1")
    attached = play.call("ContainerAttach", f"{PREFIX}-exited", logs="1", stdout="1", stderr="1")
    for data in (logs, attached):
        assert sorted(frames(data)) == [(1, b"out"), (2, b"err")]
    images = play.call("ImageList", all="1")
    assert isinstance(images, list)
    for image in images:
        play.call("ImageInspect", field(image, "Id"))
        play.call("ImageHistory", field(image, "Id"))
    play.call("NetworkList")
    for network in (PREFIX, "bridge", "host", "none"):
        play.call("NetworkInspect", network)
    play.call("VolumeList")
    play.call("VolumeInspect", PREFIX)
    for operation in ("SystemPing", "SystemPingHead", "SystemInfo", "SystemVersion", "SystemDataUsage"):
        play.call(operation)
    play.call("SystemDataUsage", verbose="1")


def frames(data: Json) -> Iterator[tuple[int, bytes]]:
    """(stream, last word) of each frame of a multiplexed stream."""
    assert isinstance(data, bytes), data
    while data:
        length = int.from_bytes(data[4:8])
        yield data[0], data[8 : 8 + length].split()[-1]
        data = data[8 + length :]


def change(play: Play) -> None:
    """Every operation that makes, changes or removes, on things of its own."""
    began = time.time()
    name = f"{PREFIX}-{play.version}"
    labels = {PREFIX: play.version}
    config = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL", "Labels": labels, "Tty": True}
    for one in (name, name + "-pruned"):
        play.call("ContainerCreate", name=one, body=config)
        play.call("NetworkCreate", body={"Name": one, "Labels": labels, "CheckDuplicate": True})
        play.call("VolumeCreate", body={"Name": one, "Labels": labels})
    play.call("VolumeDelete", field(play.call("VolumeCreate", body={}), "Name"))
    for operation in ("ContainerStart", "ContainerPause", "ContainerUnpause", "ContainerRestart"):
        play.call(operation, name)
    play.call("ContainerResize", name, h="10", w="20")
    play.call("ContainerUpdate", name, body={"Memory": 32 << 20, "MemorySwap": 64 << 20})
    play.call("PutContainerArchive", name, body=tar(), path="/tmp")
    execute(play, name)
    play.call("NetworkConnect", name, body={"Container": name})
    play.call("NetworkDisconnect", name, body={"Container": name, "Force": True})
    play.call("ImageTag", IMAGE, repo=PREFIX, tag="tagged")
    committed = play.call("ImageCommit", container=name, repo=PREFIX, tag=play.version, comment="c", author="a")
    play.call("ImageHistory", field(committed, "Id"))
    if play.version == "1.55":  # no older definition has it
        play.call("ImageAttestations", field(committed, "Id"))
    saved = play.call("ImageGet", f"{PREFIX}:{play.version}")
    play.call("ImageGetAll", names=f"{PREFIX}:{play.version}")
    play.call("ImageDelete", f"{PREFIX}:{play.version}")
    play.call("ImageLoad", body=saved, line="BuildInfo")
    play.call("ImageDelete", f"{PREFIX}:{play.version}", force="1")
    play.call("ImageCreate", body=tar(), line="CreateImageInfo", fromSrc="-", repo=PREFIX, tag="imported")
    play.call("ImageDelete", f"{PREFIX}:imported")
    play.call("ContainerRename", name, name=name + "-renamed")
    play.call("ContainerKill", name + "-renamed", signal="KILL")
    play.call("ContainerWait", name + "-renamed")
    play.call("ContainerStop", name + "-renamed")
    play.call("ContainerStart", name + "-pruned")
    play.call("ContainerStop", name + "-pruned")
    play.call("ContainerDelete", name + "-renamed", force="1", v="1")
    play.call("NetworkDelete", name)
    play.call("VolumeDelete", name)
    mine = {"label": [f"{PREFIX}={play.version}"]}
    play.call("ContainerPrune", filters=json.dumps(mine))
    play.call("NetworkPrune", filters=json.dumps(mine))
    play.call("VolumePrune", filters=json.dumps({**mine, **({} if play.version in OLD else {"all": ["1"]})}))
    play.call("ImagePrune", filters=json.dumps(mine))
    play.call("BuildPrune")
    play.call("SystemEvents", since=f"{began:.9f}", until=f"{time.time():.9f}")


def execute(play: Play, container: str) -> None:
    made = field(play.call("ContainerExec", container, body={"Cmd": ["cat"], "Tty": True, "AttachStdin": True}), "Id")
    play.call("ExecInspect", made)
    play.call("ExecStart", made, body={"Detach": True, "Tty": True})
    play.call("ExecInspect", made)
    play.call("ExecResize", made, h="10", w="20")
    ended = field(
        play.call("ContainerExec", container, body={"Cmd": ["sh", "-c", "exit 4"], "AttachStdout": True}), "Id"
    )
    play.call("ExecStart", ended, body={"Detach": False})
    play.call("ExecInspect", ended)


def fail(play: Play) -> None:
    """An error of each operation that can have one: what it names is not there, or its body is no JSON."""
    for operation, known in play.contract["operations"].items():
        if "404" in known["responses"] and known["method"] != "HEAD":
            absent = {"path": "/", "stdout": "1", "h": "1", "w": "1", "container": "absent", "name": "absent"}
            body = {"Cmd": ["x"], "Container": "absent", "Image": "absent"} if known["method"] == "POST" else None
            play.call(operation, "absent", body=body, **{key: absent[key] for key in known["query"] if key in absent})
        if known["method"] == "POST" and operation.endswith("Create"):
            play.call(operation, body=b"{")


def refuse(play: Play) -> None:
    """What is left of the definition, asked for once: what this engine does not have, a registry that is not there."""
    called = {one.operation for one in play.called}
    for operation, known in play.contract["operations"].items():
        if operation not in called:
            name = f"{NO_REGISTRY}/absent" if operation == "DistributionInspect" else "absent"
            query = {"term": f"{NO_REGISTRY}/absent"} if "term" in known["query"] else {}
            play.call(operation, name, body={"serveraddress": NO_REGISTRY}, **query)


def clean(play: Play) -> None:
    for state in CONTAINERS:
        play.call("ContainerDelete", f"{PREFIX}-{state}", force="1", v="1")
    play.call("NetworkDelete", PREFIX)
    play.call("VolumeDelete", PREFIX, force="1")
    play.call("ImageDelete", f"{PREFIX}:tagged")
    play.call("ImagePrune", filters=json.dumps({"label": [PREFIX]}))


def play_all(address: str, versions: tuple[str, ...] = tuple(VERSIONS)) -> list[Called]:
    """Every call at every version."""
    base = Play(address, "1.47" if "1.47" in versions else versions[-1])
    called = base.called
    try:
        prepare(base)
        for version in versions:
            play = Play(address, version)
            read(play)
            change(play)
            fail(play)
            refuse(play)
            called += play.called
    finally:
        clean(base)
    return called


def main(address: str, versions: tuple[str, ...]) -> None:
    began = time.monotonic()
    found: dict[str, set[str]] = {}
    called = play_all(address, versions or tuple(VERSIONS))
    for one in called:
        for problem in one.problems:
            found.setdefault(problem, set()).add(one.version)
    for problem, where in sorted(found.items()):
        print(problem, "@", ",".join(sorted(where)))
    print(len(called), "calls,", f"{time.monotonic() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], tuple(sys.argv[2:]))
