"""Records what a Docker Engine writes and sends for known output: `python -m tests.differential.record_logs`.

    --host unix:///var/run/docker.sock   an engine of this machine's network namespace, with `busybox:latest`
    --root /                             the directory that is the engine's own root

What it makes is named `lg-record` and removed again; an engine that finds a journald has it left alone. The answers are
in tests/unit/logs/docker.json: bytes as base64 of zlib's.
"""

import argparse
import array
import base64
import http.client
import json
import os
import socket
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).parents[1] / "unit/logs/docker.json"
NAME = "lg-record"
SCRIPT = r"""printf 'plain\n\nno <b>&"\\ \t\001 \302 \377 \342\200\250 \303\251\r\n'; sleep 0.2
printf 'to stderr\n' >&2; sleep 0.2; head -c 40000 /dev/zero | tr '\0' x; echo; sleep 0.2; printf 'no newline'"""
CHOSEN = {"labels": "a,c,x", "labels-regex": "^re", "env": "E", "env-regex": "^Z", "tag": "{{.Name}}/{{.ID}}"}
Case = dict[str, Any]


class Peer:
    def __init__(self, host: str, root: str) -> None:
        self.path = host.removeprefix("unix://")
        self.root = root.rstrip("/")

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        data = None if body is None else json.dumps(body)
        connection.request(method, f"/v1.45{path}", data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def create(self, driver: str, options: dict[str, str], script: str) -> tuple[int, dict[str, Any]]:
        self.call("DELETE", f"/containers/{NAME}?force=1")
        config = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "Env": ["E=1", "F=2", "Zed=z"],
            "Labels": {"a": "b", "c": "d", "re.x": "y", "no": "n"},
            "HostConfig": {"LogConfig": {"Type": driver, "Config": options}},
        }
        status, answer = self.call("POST", f"/containers/create?name={NAME}", config)
        return status, json.loads(answer)

    def validate(self, driver: str, options: dict[str, str]) -> Case:
        """What create says, and then what start says."""
        status, answer = self.create(driver, options, "true")
        start: str | None = None
        if status == 201:
            code, said = self.call("POST", f"/containers/{NAME}/start")
            start = None if code == 204 else json.loads(said)["message"]
            self.call("DELETE", f"/containers/{NAME}?force=1")
        message = answer.get("message", "")
        return {"driver": driver, "options": options, "status": status, "message": message, "start": start}

    def run(self, driver: str, options: dict[str, str], script: str = SCRIPT) -> Case:
        status, answer = self.create(driver, options, script)
        assert status == 201, answer
        status, said = self.call("POST", f"/containers/{NAME}/start")
        assert status == 204, said
        self.call("POST", f"/containers/{NAME}/wait")
        shown = json.loads(self.call("GET", f"/containers/{NAME}/json")[1])
        case: Case = {
            "driver": driver,
            "options": options,
            "script": script,
            "id": shown["Id"],
            "image": shown["Image"],
            "created": shown["Created"],
            "files": self._files(shown),
            "received": [],
        }
        case["logs"] = {
            query: packed(self.call("GET", f"/containers/{NAME}/logs?stdout=1&stderr=1&{query}")[1])
            for query in ("", "details=1", "tail=2")
        }
        self.call("DELETE", f"/containers/{NAME}?force=1")
        return case

    def _files(self, shown: dict[str, Any]) -> dict[str, str]:
        if not shown["LogPath"]:
            return {}
        path = Path(self.root + shown["LogPath"])
        return {
            one.name[len(shown["Id"]) :]: packed(one.read_bytes())
            for one in sorted(path.parent.iterdir())
            if one.name.startswith(path.name)
        }

    def send(self, driver: str, options: dict[str, str], scheme: str) -> Case:
        """With one of our sockets as the remote end."""
        kind = socket.SOCK_DGRAM if scheme in ("udp", "unixgram") else socket.SOCK_STREAM
        where = f"/tmp/{NAME}.sock"
        if scheme.startswith("unix"):
            ours = socket.socket(socket.AF_UNIX, kind)
            ours.bind(self.root + where)
            address = f"{scheme}://{where}"
        else:
            ours = socket.socket(socket.AF_INET, kind)
            ours.bind(("127.0.0.1", 0))
            address = f"{scheme}://127.0.0.1:{ours.getsockname()[1]}"
        try:
            collected = collect(ours)
            case = self.run(driver, {**options, f"{driver}-address": address})
        finally:
            if scheme.startswith("unix"):
                os.unlink(self.root + where)
        return {**case, "options": options, "scheme": scheme, "received": [packed(one) for one in collected()]}

    def journal(self, options: dict[str, str]) -> Case:
        directory = Path(self.root + "/run/systemd/journal")
        directory.mkdir(parents=True)
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.bind(str(directory / "socket"))
        try:
            collected = collect(ours)
            case = self.run("journald", options)
        finally:
            (directory / "socket").unlink()
            directory.rmdir()
            directory.parent.rmdir()
        return {**case, "received": [packed(one) for one in collected()]}


def collect(ours: socket.socket) -> Callable[[], list[bytes]]:
    """Receives until there was nothing for some seconds; the call waits for that."""
    got: list[bytes] = []
    if ours.type == socket.SOCK_STREAM:
        ours.listen()

    def loop() -> None:
        ours.settimeout(6)
        source = ours.accept()[0] if ours.type == socket.SOCK_STREAM else ours
        source.settimeout(4)
        try:
            while True:
                data, control, _, _ = source.recvmsg(1 << 20, 64)
                if control:
                    data = os.pread(array.array("i", control[0][2])[0], 1 << 20, 0)
                if not data:
                    break
                got.append(data)
        except TimeoutError:
            pass
        ours.close()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()

    def finish() -> list[bytes]:
        thread.join()
        return got if ours.type == socket.SOCK_DGRAM else [b"".join(got)]

    return finish


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def record(peer: Peer, questions: list[Case]) -> Case:
    count = "for i in $(seq 1 %d); do echo line $i; done"
    small = {"max-size": "10k", "max-file": "3"}
    local3 = {"syslog-facility": "local3", "tag": "{{.Name}}"}
    formats = [{"syslog-format": name} for name in ("rfc3164", "rfc5424", "rfc5424micro")]
    none, zlib9 = {"gelf-compression-type": "none"}, {"gelf-compression-type": "zlib", "gelf-compression-level": "9"}
    return {
        "validation": [peer.validate(one["driver"], one["options"]) for one in questions],
        "json-file": [peer.run("json-file", options) for options in ({}, CHOSEN)],
        "rotated": [
            peer.run("json-file", small, count % 700),
            peer.run("json-file", {**small, "compress": "true"}, f"{count % 200}; sleep 1; {count % 400}; sleep 1"),
            peer.run("json-file", {"max-size": "1k"}, count % 100),
        ],
        "sent": [
            *(peer.send("syslog", {}, scheme) for scheme in ("udp", "tcp", "unix", "unixgram")),
            *(peer.send("syslog", {**one, **local3}, "tcp") for one in formats),
            peer.send("fluentd", {}, "tcp"),
            peer.send("fluentd", {**CHOSEN, "fluentd-sub-second-precision": "true"}, "tcp"),
            *(peer.send("gelf", options, "udp") for options in ({}, {**CHOSEN, **none}, zlib9)),
            peer.send("gelf", CHOSEN, "tcp"),
            peer.journal(CHOSEN),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--root", default="/")
    arguments = parser.parse_args()
    questions = json.loads(ANSWERS.read_text())["validation"]
    found = record(Peer(arguments.host, arguments.root), questions)
    groups = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]" for name, cases in found.items()
    )
    ANSWERS.write_text(f"{{\n{groups}\n}}\n")


if __name__ == "__main__":
    main()
