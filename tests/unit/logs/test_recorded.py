"""Log drivers beside what Docker 26.1 wrote and sent for the same output (`tests.differential.record_logs`)."""

import json
import os
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hafen.engine import logconfig
from hafen.engine.records import Record
from hafen.errors import HafenError
from hafen.logs import journald
from hafen.logs.driver import LogFile, LogSender, Source
from hafen.logs.drivers import DRIVERS
from hafen.logs.jsonfile import JSONFileDriver
from hafen.logs.lines import Lines
from hafen.logs.timestamp import Parser
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig, LogConfig
from tests.differential.record_logs import ANSWERS, NAME, unpacked
from tests.suites.logs_suite import in_place

Case = dict[str, Any]
RECORDED: dict[str, list[Case]] = json.loads(ANSWERS.read_text())
OUTPUT = [  # of the recorder's script
    (1, b'plain\n\nno <b>&"\\ \t\x01 \xc2 \xff \xe2\x80\xa8 \xc3\xa9\r\n'),
    (2, b"to stderr\n"),
    (1, b"x" * 40000 + b"\n"),
    (1, b"no newline"),
]
AT = 1_700_000_000_123_456_789
_START = "failed to create task for container: failed to initialize logging driver: "
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d")


def record_of(case: Case) -> Record:
    return Record(
        id=case.get("id", "c" * 64),
        name=NAME,
        created_ns=Parser().parse(case.get("created", "2026-11-20T00:00:00Z")),
        image="busybox",
        image_id=case.get("image", "sha256:" + "1" * 64),
        config=ContainerConfig(env=["E=1", "F=2", "Zed=z"], labels={"a": "b", "c": "d", "re.x": "y", "no": "n"}),
        host_config=HostConfig(log_config=LogConfig(type=case["driver"], config=case["options"])),
        path="sh",
        args=("-c", case.get("script", "true")),
        snapshotter="overlay",
    )


def ids(case: Case) -> str:
    return " ".join([case["driver"], *(f"{key}={value}" for key, value in case["options"].items())])


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RECORDED["validation"], ids=ids)
def test_create_says_what_docker_says(case: Case) -> None:
    if case["driver"] in ("awslogs", "splunk", "gcplogs"):
        pytest.skip("not implemented, and refused as such")
    try:
        logconfig.check(LogConfig(type=case["driver"], config=case["options"]), DRIVERS)
        message = ""
    except HafenError as error:
        message = error.message
    assert message == case["message"]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in RECORDED["validation"]
        if case["start"] and not any(word in case["start"] for word in ("lookup", "Unix syslog", "journald", "[[::1]]"))
        and "dial tcp :514" not in case["start"] and case["driver"] not in ("awslogs", "splunk", "gcplogs")
    ],
    ids=ids,
)  # fmt: skip
def test_start_says_what_docker_says(case: Case, tmp_path: Path) -> None:
    def start() -> None:
        log = logconfig.of_spawn(record_of(case), str(tmp_path / "logs"))
        driver = DRIVERS[log.driver]
        driver.writer(LogFile(log.directory, "c" * 64), log.options, log.attributes, in_place).close()
        sender = driver.sender(Source("c" * 64, log.attributes, **log.source), log.options)
        assert sender is not None
        sender.open()

    with pytest.raises((HafenError, OSError)) as caught:
        start()
    assert f"{_START}{caught.value}".replace(_START * 2, _START) == case["start"]


# --- files -----------------------------------------------------------------------------------------------------------


def masked(data: bytes) -> bytes:
    return _TIME.sub(b"TIME", data)


@pytest.mark.parametrize("case", RECORDED["json-file"], ids=ids)
def test_json_files_are_dockers_byte_for_byte(case: Case, tmp_path: Path) -> None:
    log = logconfig.of_spawn(record_of(case), str(tmp_path))
    file = LogFile(log.directory, case["id"])
    writer = JSONFileDriver().writer(file, log.options, log.attributes, in_place)
    for stream, data in OUTPUT:
        writer.write(stream, data, AT)
    writer.close()
    dockers = unpacked(case["files"]["-json.log"])
    assert masked(Path(JSONFileDriver().path(file)).read_bytes()) == masked(dockers)
    pieces = [json.loads(line)["time"] for line in dockers.splitlines() if b"xxx" in line]
    assert len(pieces) == 3
    assert len(set(pieces)) == 1  # as Lines has it


@pytest.mark.parametrize("case", RECORDED["rotated"], ids=ids)
def test_files_rotate_where_dockers_do(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda _: 0)
    files = {name: unpacked(data) for name, data in case["files"].items()}
    lines: list[bytes] = []
    for name in sorted(files, reverse=True):
        data = zlib.decompress(files[name], 31) if name.endswith(".gz") else files[name]
        lines += data.splitlines()
    file = LogFile(str(tmp_path), case["id"])
    driver = JSONFileDriver()
    writer = driver.writer(file, case["options"], {}, in_place)
    for line in lines:
        value = json.loads(line)
        writer.write(1, value["log"].encode(), Parser().parse(value["time"]))
    writer.close()
    ours = {path.name[len(case["id"]) :]: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(ours) == sorted(files)
    for name, data in files.items():
        if name.endswith(".gz"):
            assert zlib.decompress(ours[name], 31) == zlib.decompress(data, 31)
            header = 12 + int.from_bytes(data[10:12], "little")
            assert ours[name][:header] == data[:header]
        else:
            assert ours[name] == data


# --- what is sent ----------------------------------------------------------------------------------------------------


class End:
    """A remote end that keeps what comes: datagrams one by one, a stream as a whole."""

    def __init__(self, scheme: str, directory: Path) -> None:
        self.stream = scheme in ("tcp", "unix")
        kind = socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM
        if scheme.startswith("unix"):
            self.socket = socket.socket(socket.AF_UNIX, kind)
            self.socket.bind(str(directory / "end"))
            self.address = f"{scheme}://{directory}/end"
        else:
            self.socket = socket.socket(socket.AF_INET, kind)
            self.socket.bind(("127.0.0.1", 0))
            self.address = f"{scheme}://127.0.0.1:{self.socket.getsockname()[1]}"
        self.socket.settimeout(10)
        if self.stream:
            self.socket.listen()

    def collect(self, send: Callable[[], None]) -> list[bytes]:
        if not self.stream:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            send()
            self.socket.setblocking(False)
            return list(self._waiting())
        got: list[bytes] = []

        def receive() -> None:
            with self.socket.accept()[0] as connection:
                while data := connection.recv(1 << 16):
                    got.append(data)

        thread = threading.Thread(target=receive)
        thread.start()
        send()
        thread.join(10)
        return [b"".join(got)]

    def _waiting(self) -> Iterator[bytes]:
        try:
            while True:
                yield self.socket.recv(1 << 20)
        except BlockingIOError:
            pass


def send_output(sender: LogSender) -> None:
    lines = Lines()
    sender.open()
    for stream, data in OUTPUT:
        for line in lines.feed(stream, data, AT):
            sender.send(line)
    for line in lines.finish(AT):
        sender.send(line)
    sender.close()


def sent(case: Case, tmp_path: Path) -> list[bytes]:
    end = End(case.get("scheme", "unixgram"), tmp_path)
    options = {**case["options"], f"{case['driver']}-address": end.address}
    log = logconfig.of_spawn(record_of({**case, "options": options}), str(tmp_path))
    source = Source(case["id"], log.attributes, **log.source)
    sender: LogSender | None
    if case["driver"] == "journald":
        sender = journald.JournaldSender(source, str(tmp_path / "end"))
    else:
        sender = DRIVERS[case["driver"]].sender(source, log.options)
    assert sender is not None
    found = sender
    try:
        return end.collect(lambda: send_output(found))
    finally:
        end.socket.close()


def of_driver(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [one for one in RECORDED["sent"] if one["driver"] == name], ids=ids)


@of_driver("syslog")
def test_syslog(case: Case, tmp_path: Path) -> None:
    def plain(messages: list[bytes]) -> list[bytes]:
        host = os.uname().nodename.encode()
        text = [masked(one).replace(b" vm ", b" HOST ").replace(b" %s " % host, b" HOST ") for one in messages]
        return [re.sub(rb"\[\d+\]: | \d+ (?=(?:lg-record|[0-9a-f]{12}) - )", b" PID ", one) for one in text]

    assert plain(sent(case, tmp_path)) == plain([unpacked(one) for one in case["received"]])


def decoded(data: bytes, at: int = 0) -> tuple[Any, int]:
    """MessagePack with texts as bytes, since they need not be UTF-8, and what follows."""
    kind = data[at]
    at += 1
    if kind >> 4 == 0x8 or kind >> 4 == 0x9:
        values = []
        for _ in range((kind & 15) * (2 if kind >> 4 == 0x8 else 1)):
            value, at = decoded(data, at)
            values.append(value)
        return (dict(zip(values[::2], values[1::2], strict=True)) if kind >> 4 == 0x8 else values), at
    if kind >> 5 == 0b101:
        size = kind & 31
    elif kind in (0xD9, 0xDA, 0xDB):
        width = {0xD9: 1, 0xDA: 2, 0xDB: 4}[kind]
        size = int.from_bytes(data[at : at + width], "big")
        at += width
    else:
        size = {0xD2: 4, 0xD7: 9}[kind]  # a signed number, an extension
        return (kind, data[at] if kind == 0xD7 else None), at + size
    return data[at : at + size], at + size


@of_driver("fluentd")
def test_fluentd(case: Case, tmp_path: Path) -> None:
    def messages(data: bytes) -> list[Any]:
        found = []
        at = 0
        while at < len(data):
            message, at = decoded(data, at)
            if b"partial_id" in message[2]:
                message[2][b"partial_id"] = len(message[2][b"partial_id"])
            found.append(message)
        return found

    (ours,), (dockers,) = sent(case, tmp_path), [unpacked(one) for one in case["received"]]
    assert messages(ours) == messages(dockers)


@of_driver("gelf")
def test_gelf(case: Case, tmp_path: Path) -> None:
    def messages(received: list[bytes]) -> list[bytes]:
        chunks: dict[bytes, bytes] = {}
        for number, one in enumerate(received):
            key, data = (one[2:10], one[12:]) if one[:2] == b"\x1e\x0f" else (bytes([number]), one)
            chunks[key] = chunks.get(key, b"") + data
        window = {"none": 0, "zlib": 15}.get(case["options"].get("gelf-compression-type", ""), 31)
        whole = [zlib.decompress(one, window) if window and case["scheme"] == "udp" else one for one in chunks.values()]
        host = os.uname().nodename.encode()
        return [
            re.sub(rb'"timestamp":[\d.]+', b"TIME", one).replace(b'"host":"%s"' % host, b'"host":"vm"') for one in whole
        ]

    ours, dockers = sent(case, tmp_path), [unpacked(one) for one in case["received"]]
    assert messages(ours) == messages(dockers)
    if case["options"].get("gelf-compression-type") == "none":
        assert [len(one) for one in ours if one[:1] == b"\x1e"][:12] == [1420] * 12


@of_driver("journald")
def test_journald(case: Case, tmp_path: Path) -> None:
    def fields(message: bytes) -> dict[str, bytes]:
        found = dict(line.split(b"=", 1) for line in message.rstrip(b"\n").split(b"\n"))
        for name in (b"CONTAINER_LOG_EPOCH", b"CONTAINER_PARTIAL_ID"):
            if name in found:
                found[name] = b"%d" % len(found[name])
        return {name.decode(): masked(value) for name, value in found.items()}

    ours, dockers = sent(case, tmp_path), [unpacked(one) for one in case["received"]]
    assert [fields(one) for one in ours] == [fields(one) for one in dockers]
    assert all(one.startswith(b"PRIORITY=") for one in ours)
