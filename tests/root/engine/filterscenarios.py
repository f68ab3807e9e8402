"""Requests for the list of containers, whose answers are compared with Docker's.

`python -m tests.root.engine.filterscenarios /var/run/docker.sock` asks a Docker with `busybox:latest` and records into
`peer/filters.json`. Names begin with `fil-`. `@a` to `@e` stand for ids of containers, `@image` and `@network` for the
ids of theirs.
"""

import http.client
import json
import os
import shlex
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

RECORDED = Path(__file__).parent / "peer/filters.json"

MAKE = (
    "network create fil-n",
    "volume create fil-v",
    "tag busybox fil-image:one",
    "run -d --name fil-a --label team=x --label fil=1 -p 127.0.0.1:18080:80 -p 127.0.0.1:18081:81/udp -v fil-v:/data "
    "--expose 90 busybox sleep 600",
    "run --name fil-b --label fil=1 --network none busybox sh -c 'exit 3'",
    "run -d --name fil-c --label fil=1 --label team=y --network fil-n --expose 7000-7002 -v /tmp:/hosttmp "
    "fil-image:one sleep 600",
    "create --name fil-d --label fil=1 --network fil-n busybox echo 'a b' \"it's\"",
    "pause fil-c",
    "commit fil-b fil-child:one",
    "create --name fil-e --label fil=1 --tmpfs /x --mount type=volume,dst=/y fil-child:one",
)
CLEAN = (
    "rm -f -v fil-a fil-b fil-c fil-d fil-e", "rmi fil-image:one fil-child:one", "network rm fil-n", "volume rm fil-v",
)  # fmt: skip

# Fields beside `label: fil=1`, which keeps everybody else's containers out
FILTERS: tuple[dict[str, list[str]], ...] = (
    {"name": ["fil-a"]}, {"name": ["^/fil-a$"]}, {"name": ["^fil-[ab]$"]}, {"name": ["fil-("]}, {"name": ["/fil-c"]},
    {"name": ["fil-a", "fil-b"]}, {"name": ["FIL"]}, {"name": [""]},
    {"id": ["@a"]}, {"id": ["zz"]}, {"id": [""]},
    {"status": ["exited"]}, {"status": ["running", "paused"]}, {"status": ["Exited"]}, {"status": []},
    {"exited": ["3"]}, {"exited": ["0"]}, {"exited": ["x"]}, {"exited": ["1", "y"]}, {"exited": []},
    {"ancestor": ["busybox"]}, {"ancestor": ["busybox:latest"]}, {"ancestor": ["@image"]}, {"ancestor": ["fil-image"]},
    {"ancestor": ["fil-image:one"]}, {"ancestor": ["fil-child:one"]}, {"ancestor": ["nosuch"]},
    {"ancestor": ["sha256:zz"]}, {"ancestor": ["Bad Name"]}, {"ancestor": ["nosuch", "fil-child:one"]},
    {"ancestor": []},
    {"before": ["fil-c"]}, {"since": ["fil-c"]}, {"before": ["nosuch"]}, {"since": ["nosuch"]},
    {"before": ["fil-c"], "since": ["fil-a"]},
    {"volume": ["fil-v"]}, {"volume": ["/data"]}, {"volume": ["/tmp"]}, {"volume": ["/hosttmp"]},
    {"volume": ["/hosttmp/"]}, {"volume": ["fil"]}, {"volume": ["/x"]}, {"volume": ["/y"]}, {"volume": [""]},
    {"network": ["fil-n"]}, {"network": ["@network"]}, {"network": ["fil"]}, {"network": ["none"]},
    {"network": ["bridge"]}, {"network": ["nosuch"]}, {"network": []},
    {"publish": ["18080"]}, {"publish": ["18080/udp"]}, {"publish": ["18081/udp"]}, {"publish": ["18000-19000"]},
    {"publish": ["18000-19000/udp"]}, {"publish": ["80"]}, {"publish": ["x"]}, {"publish": ["80/xyz"]},
    {"publish": ["90-80"]}, {"publish": ["99999"]}, {"publish": [""]}, {"publish": ["-80"]}, {"publish": ["/tcp"]},
    {"publish": ["1-2-3"]}, {"publish": ["80/tcp/x"]},
    {"expose": ["90"]}, {"expose": ["80/tcp"]}, {"expose": ["7001"]}, {"expose": ["6000-8000"]}, {"expose": ["y-z"]},
    {"health": ["none"]}, {"health": ["healthy"]}, {"health": ["bogus"]}, {"health": [""]},
    {"isolation": ["default"]}, {"is-task": ["true"]}, {"is-task": ["false"]}, {"is-task": ["maybe"]}, {"is-task": []},
    {"label": ["fil=1", "team"]}, {"label": ["fil=1", "team=x"]}, {"label": ["fil=1", "team="]},
    {"label": ["fil=1", "te"]}, {"label!": ["x"]}, {"bogus": ["x"]}, {"bogus": []}, {"reference": ["x"]},
)  # fmt: skip
TEXTS = (
    '{"label":{"fil=1":true}}', '{"label":{"fil=1":false}}', '{"label":{"nosuch":false}}', '{"label":"fil"}',
    '{"label":["fil"]', "[]", '"x"', '{"label":[1]}', '{"label":{"fil":1}}', '{"a":["x"],"label":{"fil":true}}',
    '{"Label":["fil"]}', '{"label":["fil"]} x', '{"label":["fil=1"],"name":null}', '{"label":["fil=1",null]}',
)  # fmt: skip
_MINE = '{"label":["fil=1"]}'
QUERIES = (
    *(("all=1", json.dumps({"label": ["fil=1"], **fields})) for fields in FILTERS),
    *(("all=1", text) for text in TEXTS),
    *((query, _MINE) for query in (
        "", "all=0", "all=x", "all=false", "limit=2", "limit=0", "limit=-1", "limit=x", "limit=99999999999999999999",
        "size=1&limit=1", "all=1&size=maybe",
    )),
    *(("", json.dumps({"label": ["fil=1"], **fields})) for fields in (
        {"exited": ["3"]}, {"status": ["created"]}, {"since": ["fil-a"]}, {"ancestor": ["busybox"]},
    )),
)  # fmt: skip


def ask(path: str, target: str) -> tuple[int, object]:
    """Status and decoded body of a GET over the socket at `path`."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", target)
    answer = connection.getresponse()
    body: object = json.loads(answer.read())
    connection.close()
    return answer.status, body


def answers(path: str, docker: Callable[[str], int]) -> dict[str, object]:
    """Makes the containers, asks everything, removes them: names, or status and message, by request.

    `docker` runs one command line and returns its exit code.
    """
    try:
        assert {line: docker(line) for line in MAKE} == {line: 3 if "exit 3" in line else 0 for line in MAKE}
        found = {f"@{name}": ask(path, f"/v1.45/containers/fil-{name}/json")[1] for name in "abcde"}
        found["@image"] = ask(path, "/v1.45/images/busybox/json")[1]
        found["@network"] = ask(path, "/v1.45/networks/fil-n")[1]
        ids = {sign: shown["Id"] for sign, shown in found.items() if isinstance(shown, dict)}
        return {f"{query} {text}": _answer(path, query, text, ids) for query, text in QUERIES}
    finally:
        for line in CLEAN:
            docker(line)


def _answer(path: str, query: str, text: str, ids: dict[str, str]) -> object:
    for sign, identity in ids.items():
        text = text.replace(f'"{sign}"', f'"{identity}"')
    status, body = ask(path, f"/v1.45/containers/json?{query}&filters={urllib.parse.quote(text)}")
    if isinstance(body, list):
        return [one["Names"][0] for one in body]
    return [status, body]


def _record(path: str) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{path}"}

    def docker(line: str) -> int:
        return subprocess.run(["docker", *shlex.split(line)], env=environment, check=False).returncode

    RECORDED.write_text(json.dumps(answers(path, docker), indent=1) + "\n")


if __name__ == "__main__":
    _record(sys.argv[1])
