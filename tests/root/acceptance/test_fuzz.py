"""Hostile requests to every route of a real engine: it lives on, keeps nothing open, and logs every fault of its own.

Not asked: `bootstrap`, which would fetch a distribution, and what always answers that it is absent.
"""

import json
import os
import re
import socket
import time
import types
import typing
from typing import cast
from urllib.parse import quote

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from hafen.api.router import Route
from hafen.api.routes import absent
from hafen.api.routes.table import ROUTES as TABLE
from hafen.spec.wire import container, exec, hostconfig, network, volume
from tests.harness.engine import EngineProcess

ROUTES = [route for route in TABLE if "bootstrap" not in route.path and route not in absent.ROUTES]
_WITH_BODIES = [
    route
    for route in ROUTES
    if route.method == "POST" and route.path.endswith(("create", "exec", "update", "connect", "start"))
]
EXAMPLES = 400  # of each of two runs
PATIENCE = 0.3  # seconds for an answer; streams go on without end
GROWTH = 24 << 20  # bytes that the engine's memory may grow by

_NAMES = (
    "fuzz",
    "fuzz",
    "fuzz",
    "running",
    "running",
    "nosuch",
    "busybox",
    "bridge",
    "",
    "..",
    "%2e%2e",
    "a/b",
    "\0",
    "é",
    "x" * 5000,
    "%",
    "%zz",
    "*",
    "-",
    "'\"",
)
_QUERY = (
    "all", "limit", "size", "filters", "name", "platform", "t", "signal", "condition", "h", "w", "stdout", "stderr",
    "stdin", "stream", "logs", "tail", "since", "until", "timestamps", "detachKeys", "ps_args", "path", "force", "v",
    "link", "type", "repo", "tag", "fromSrc", "changes", "container", "pause", "one-shot", "names",
    "noOverwriteDirNonDir", "copyUIDGID", "verbose", "dangling", "quiet", "scope", "manifests",
)  # fmt: skip
_STRUCTS = (
    container.CreateRequest, hostconfig.HostConfig, exec.ExecConfig, exec.ExecStartConfig, container.UpdateRequest,
    network.NetworkCreateRequest, network.NetworkConnectRequest, volume.VolumeCreateRequest,
)  # fmt: skip
_KEYS = sorted({field.encode_name for struct in _STRUCTS for field in fields(struct)})

_TEXTS = st.sampled_from(
    (
        "", "0", "1", "-1", "true", "x", "1.5", "99999999999999999999", "NaN", "1h", "busybox", "fuzz", "/tmp", "/",
        "..", "\0", "\ud7ff", "a=b", "80/tcp", "10.0.0.0/8", "::/0", "SIGKILL", '{"label":["a"]}',
        '{"name":{"a":true}}', "[" * 500, '{"until":["x"]}', "%00", "x" * 70_000,
    )
)  # fmt: skip
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS | st.sampled_from((1 << 63, -(1 << 70), 10**400))
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS) | _TEXTS, inner, max_size=4),
    max_leaves=12,
)


def typed(annotation: object) -> st.SearchStrategy[object]:
    """JSON of the type that a wire struct declares, with a few of its fields, so that what is wrong is the value."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return typed(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return typed(next(argument for argument in arguments if argument is not type(None)))
    if origin is list:
        return st.lists(typed(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(_TEXTS, typed(arguments[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        names = {field.name: field.encode_name for field in fields(annotation)}
        hints = typing.get_type_hints(annotation, include_extras=True)
        if not names:
            return st.just({})
        members = st.sampled_from(sorted(names)).flatmap(
            lambda name: st.tuples(st.just(names[name]), typed(hints[name]))
        )
        return st.lists(members, max_size=4).map(dict)
    numbers = st.sampled_from((-1, 0, 1, 7, 65536, (1 << 31), (1 << 63) - 1, -(1 << 63)))
    kinds: dict[object, st.SearchStrategy[object]] = {
        int: numbers,
        bool: st.booleans(),
        str: _TEXTS,
        float: st.floats(),
    }
    return kinds.get(annotation, _SCALARS)


_OBJECTS = st.sampled_from(_STRUCTS).flatmap(typed).map(lambda body: cast("dict[str, object]", body))
_BODIES = (
    _OBJECTS.map(lambda body: json.dumps({"Image": "busybox", "Cmd": ["true"], **body}).encode())
    | _OBJECTS.map(lambda body: json.dumps({"Container": "fuzz", "Name": "fuzz", **body}).encode())
    | _VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        (
            b"", b"{", b"null", b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe", b'{"Image":"\xff"}',
            b'{"Image":1,"Image":"b"}', b"1e999", b'{"Memory":-0}', b"\x1f\x8b\x08garbage",
            b"\x28\xb5\x2f\xfd", b"ustar" * 200, b"\0" * 1024,
        )
    )
)  # fmt: skip
_VERSIONS = st.sampled_from(("", "/v1.24", "/v1.30", "/v1.41", "/v1.44", "/v1.47", "/v1.55"))
_UPGRADES = st.sampled_from(
    ({}, {}, {}, {"Connection": "Upgrade", "Upgrade": "tcp"}, {"Connection": "Upgrade", "Upgrade": "websocket"})
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Route, bytes]:
    route = draw(st.sampled_from(ROUTES) | st.sampled_from(_WITH_BODIES))
    name = draw(st.sampled_from(_NAMES))
    path = re.sub(r"\{\w+(:path)?\}", lambda _: name if "%" in name else quote(name), route.path)
    query = draw(st.lists(st.tuples(st.sampled_from(_QUERY), _TEXTS), max_size=4))
    text = "&".join(f"{key}={quote(value)}" for key, value in query)
    body = draw(_BODIES) if route.method in ("POST", "PUT") else b""
    headers = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body)), **draw(_UPGRADES)}
    lines = [f"{route.method} {draw(_VERSIONS)}{path}?{text} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return route, "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status(path: str, data: bytes) -> int | None:
    """The status code of the answer; None where there is none in time, or the engine hung up on the body."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(path)
            sock.sendall(data)
            answer = sock.recv(64)
        except (TimeoutError, ConnectionError):
            return None
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else None


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) << 10 for line in rollup if line.startswith("Pss:"))


def fault(log: str) -> list[str]:
    """What the engine's log says of exceptions that nobody raised on purpose."""
    return re.findall(r"^.* failed\nTraceback.*(?:\n .*)*\n.*$", log, re.MULTILINE)


def furnish(engine: EngineProcess) -> None:
    engine.docker("create", "--name", "fuzz", "busybox", "true")
    engine.docker("run", "-d", "--name", "running", "--stop-signal", "KILL", "busybox", "sleep", "600")


def clear(engine: EngineProcess) -> None:
    names = engine.docker("ps", "-aq").stdout.split()
    if names:
        engine.docker("rm", "-f", "-v", *names)


def test_hostile_requests(engine: EngineProcess) -> None:
    assert engine.process
    pid, sock = engine.process.pid, str(engine.socket)
    faults: list[bytes] = []

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests())
    def ask(asked: tuple[Route, bytes]) -> None:
        code = status(sock, asked[1])
        assert code is None or 100 <= code < 600
        if code == 500:
            faults.append(asked[1][:300])

    furnish(engine)
    ask()
    clear(engine)
    before, at_rest = descriptors(pid), memory(pid)
    furnish(engine)
    ask()
    clear(engine)
    assert engine.process.poll() is None
    log = engine.log.read_text()
    assert not fault(log), fault(log)[:3]
    assert len(re.findall(r" ERROR ", log)) >= len(faults), faults
    deadline = time.monotonic() + 10
    while descriptors(pid) > before + 4 and time.monotonic() < deadline:
        time.sleep(0.05)  # the engine tells nobody when a client's end has been dealt with
    assert descriptors(pid) <= before + 4
    assert memory(pid) < at_rest + GROWTH
    furnish(engine)
    clear(engine)
