"""Plays a scenario of requests against an engine and tells its answers with all that changes by itself taken out.

A scenario is text, one request after the other, empty lines and `#` comments between them:

    POST@1.24,1.45 /containers/create?name=diff-a > a=Id     once per version (else 1.45; `-` for no prefix);
        = {"Image": "busybox"}                               `= text` is a body, `< name` one of `BODIES`,
        | Content-Type: application/json                     `| name: value` a header (JSON is the default with a body),
    POST /containers/$a/start                                `> a=Id` keeps a field of the answer for later requests

A container made without a name is removed at once. `$begin` is the second before the scenario began, `$now` the time
at which the request is sent.
"""

import base64
import io
import json
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import cast
from urllib.parse import quote

SCENARIOS = {  # and what Docker answered
    Path(__file__).with_name("scenario.txt"): Path(__file__).with_name("answers.json"),
    Path(__file__).with_name("images.txt"): Path(__file__).with_name("images.json"),
    Path(__file__).with_name("networks.txt"): Path(__file__).with_name("networks.json"),
    Path(__file__).with_name("volumes.txt"): Path(__file__).with_name("volumes.json"),
}
DEFAULT_VERSION = "1.45"
HEADERS = (
    "content-type", "docker-experimental", "ostype", "cache-control", "pragma", "swarm", "upgrade",
    "x-docker-container-path-stat",
)  # fmt: skip
TIMEOUT = 30.0  # seconds for one answer

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Answer = dict[str, Json]


@dataclass
class Request:
    method: str
    version: str
    target: str
    body: str | None = None
    named_body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, str] | None = None

    @property
    def title(self) -> str:
        return f"{self.method}@{self.version} {self.target}"

    @property
    def text(self) -> str:
        """The title, and the body or its name."""
        return f"{self.title} {self.body or self.named_body}".strip()


def parse(text: str) -> list[Request]:
    """The requests of a scenario, those for several versions repeated."""
    requests: list[Request] = []
    same: list[Request] = []  # the last request, once per version
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            what, _, keep = line.partition(" > ")
            verb, _, target = what.partition(" ")
            method, _, versions = verb.partition("@")
            name, _, of = keep.strip().partition("=")
            kept = (name, of) if name else None
            same = [
                Request(method, version, target.strip(), keep=kept)
                for version in (versions or DEFAULT_VERSION).split(",")
            ]
            requests += same
            continue
        mark, _, rest = line.strip().partition(" ")
        for request in same:
            if mark == "=":
                request.body = rest
            elif mark == "<":
                request.named_body = rest
            else:
                header, _, value = rest.partition(":")
                request.headers[header.strip()] = value.strip()
    return requests


def play(requests: list[Request], path: str) -> Iterator[Answer]:
    """Each request's answer, in order, from the engine at a unix socket."""
    values = {"begin": str(int(time.time()) - 1)}
    for request in requests:
        values["now"] = f"{time.time():.6f}"
        status, headers, body = ask(path, encode(request, values))
        if request.keep and body.startswith(b"{"):
            values[request.keep[0]] = str(json.loads(body).get(request.keep[1], ""))
        if status == 201 and request.target == "/containers/create" and not request.keep:
            ask(path, encode(Request("DELETE", DEFAULT_VERSION, f"/containers/{json.loads(body)['Id']}?v=1"), {}))
        yield {"request": request.title, **answer(status, headers, body)}


def clean(path: str) -> None:
    """Remove every container, network, volume and image whose name starts with `diff-`."""
    for kind, field_name in (
        ("containers/json?all=1", "Names"), ("networks", "Name"), ("volumes", "Name"), ("images/json", "RepoTags"),
    ):  # fmt: skip
        items = json.loads(ask(path, encode(Request("GET", DEFAULT_VERSION, f"/{kind}"), {}))[2])
        for item in items["Volumes"] or [] if kind == "volumes" else items:
            names = item[field_name]
            for name in names if isinstance(names, list) else [names]:
                if name.lstrip("/").startswith("diff-"):
                    folder = kind.partition("/")[0]
                    target = f"/{folder}/{name.lstrip('/')}?force=1" + ("&v=1" if folder == "containers" else "")
                    ask(path, encode(Request("DELETE", DEFAULT_VERSION, target), {}))


# On the wire


def encode(request: Request, values: dict[str, str]) -> bytes:
    target = quote(Template(request.target).safe_substitute(values), safe="/?&=%:,+~!*'()@;")
    prefix = "" if request.version == "-" else f"/v{request.version}"
    body = BODIES[request.named_body]() if request.named_body else b""
    if request.body is not None:
        body = Template(request.body).safe_substitute(values).encode()
    headers = {"Host": "docker", **request.headers}
    if request.body is not None:
        headers.setdefault("Content-Type", "application/json")
    if body or request.method in ("POST", "PUT"):
        headers.setdefault("Content-Length", str(len(body)))
    lines = [f"{request.method} {prefix}{target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(path: str, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of the answer to one request on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(path)
        sock.sendall(data)
        with sock.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers = {}
            while line := stream.readline().strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            if data.startswith(b"HEAD ") or status in (204, 304):
                return status, headers, b""
            if headers.get("transfer-encoding") == "chunked":
                return status, headers, b"".join(_chunks(stream))
            if status == 101:
                sock.shutdown(socket.SHUT_WR)
            return status, headers, stream.read(int(headers.get("content-length", "-1")))


def _chunks(stream: io.BufferedIOBase) -> Iterator[bytes]:
    while size := int(stream.readline() or b"0", 16):
        yield stream.read(size)
        stream.readline()
    stream.readline()


# What stays of an answer


def answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    told: dict[str, Json] = {name: _header(name, headers[name]) for name in HEADERS if name in headers}
    result: Answer = {"status": status, "headers": told}
    kind = headers.get("content-type", "")
    if kind.startswith("application/json"):
        result["json"] = [normal(value) for value in _documents(body.decode())]
    elif kind == "application/x-tar":
        result["tar"] = _members(body)
    elif body:
        result["text"] = _text(body.decode("latin-1"))
    return result


def _header(name: str, value: str) -> Json:
    return normal(json.loads(base64.b64decode(value))) if name.endswith("path-stat") else value


def _documents(text: str) -> Iterator[Json]:
    """JSON values one after the other, as streams have them."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        value, end = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
        yield cast(Json, value)
        at = end


def _members(body: bytes) -> Json:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = sorted(f"{member.type.decode()} {member.name}" for member in archive)
    return [cast(Json, _text(name)) for name in names[:20]]


_KINDS = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b"), "<mac>"),
    (re.compile(r"^/\S*?(?=/(containers/<id>|volumes)/)"), "<root>"),
    (re.compile(r"\b(?!0\.0\.0\.0)\d+\.\d+\.\d+\.\d+\b(/\d+)?"), "<address>"),
)
_VARYING = (
    "Pid",
    "pid",
    "rx_bytes",
    "rx_packets",
    "total_usage",
    "percpu_usage",
    "usage_in_kernelmode",
    "usage_in_usermode",
)
_NEVER = re.compile(r"^0001-01-01T00:00:00Z$")


def _text(value: str) -> str:
    if _NEVER.match(value):
        return value
    for pattern, kind in _KINDS:
        value = pattern.sub(kind, value)
    return value


def normal(value: Json) -> Json:
    """The value with ids, times, addresses and large numbers (sizes, times, inodes) replaced by their kind."""
    if isinstance(value, dict):
        if isinstance(mounts := value.get("Mounts"), list):  # in no order
            value = {**value, "Mounts": sorted(mounts, key=_destination)}
        return {_text(name): "<number>" if name in _VARYING else normal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and item.keys() == {"Kind", "Path"} for item in value):  # in no order
            value = sorted(value, key=str)
        return [normal(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > 100_000:
        return "<number>"
    return value


def _destination(mount: Json) -> str:
    return str(mount.get("Destination")) if isinstance(mount, dict) else ""


# Bodies that are not text


def _tar(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _link_out() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"))
    return packed.getvalue()


BODIES: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"this is no archive, but it is long enough to be looked at " * 20,
    "tree": lambda: _tar({"file": b"content\n", "folder/inner": b"more\n"}),
    "outward": _link_out,
    "no manifest": lambda: _tar({"unrelated": b"x"}),
    "bad manifest": lambda: _tar({"manifest.json": b"{not json"}),
    "missing layer": lambda: _tar(
        {
            "c.json": b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:'
            + b"0" * 64
            + b'"]}}',
            "manifest.json": b'[{"Config":"c.json","RepoTags":["diff-x:1"],"Layers":["l/layer.tar"]}]',
        }
    ),
}
