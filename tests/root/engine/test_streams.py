"""Attach and exec against a real engine: every byte once, clients that go or do not read, and very many of them."""

import json
import os
import re
import resource
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import docker
import pytest
from websocket import ABNF

from tests.harness.engine import EngineProcess
from tests.harness.ports import free_port
from tests.root.engine.conftest import FLAGS

CLIENTS = 500


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None, port: int) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="hafen-streams-") as folder:
        base = Path(folder) / "e"
        hosts = ("-H", f"unix://{base}/run/hafen.sock", "-H", f"tcp://127.0.0.1:{port}", "--insecure")
        with EngineProcess(base, *FLAGS, *hosts) as process:
            process.load_busybox()
            yield process


def begin(engine: EngineProcess, name: str, *command: str, flags: tuple[str, ...] = ()) -> str:
    return engine.docker("run", "-d", "--net", "none", "--name", name, *flags, "busybox", *command).stdout.strip()


def hijack(engine: EngineProcess, target: str, body: bytes = b"") -> socket.socket:
    """A connection behind the head of the answer."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(engine.socket))
    about = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{about}\r\n"
    sock.sendall(head.encode() + body)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, answer
        answer += byte
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return sock


def payload(sock: socket.socket) -> bytes:
    """Of all frames up to the end."""
    with sock.makefile("rb") as file:
        pieces = []
        while header := file.read(8):
            pieces.append(file.read(struct.unpack(">4xI", header)[0]))
    return b"".join(pieces)


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)  # between looks from outside; nothing tells


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def pid_of(engine: EngineProcess) -> int:
    assert engine.process
    return engine.process.pid


def test_logs_then_stream_gives_every_byte_once(engine: EngineProcess, name: str) -> None:
    """Attached in the midst of output, and again at its end."""
    lines = 150_000
    begin(engine, name, "sh", "-c", f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i+1)); done")
    wanted = b"".join(b"%d\n" % number for number in range(lines))
    with hijack(engine, f"/containers/{name}/attach?logs=1&stream=1&stdout=1") as sock:
        assert payload(sock) == wanted
    with hijack(engine, f"/containers/{name}/attach?logs=1&stdout=1") as sock:
        assert payload(sock) == wanted


def test_a_client_that_never_reads_holds_nobody_up(engine: EngineProcess, name: str) -> None:
    size = 100 << 20
    script = f"read x; head -c {size} /dev/zero; sleep 1000"
    begin(engine, name, "sh", "-c", script, flags=("-i", "--log-opt", "max-size=200m"))
    with (
        hijack(engine, f"/containers/{name}/attach?stream=1&stdout=1"),
        hijack(engine, f"/containers/{name}/attach?stream=1&stdout=1&stdin=1") as reading,
    ):
        reading.sendall(b"go\n")
        with reading.makefile("rb") as file:
            left = size
            while left:
                length = struct.unpack(">4xI", file.read(8))[0]
                assert not file.read(length).strip(b"\0")
                left -= length
    engine.docker("kill", name)


def test_who_goes_away_before_the_start_is_forgotten(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "-i", "--net", "none", "--name", name, "busybox", "cat")
    before = descriptors(pid_of(engine))
    with hijack(engine, f"/containers/{name}/attach?stream=1&stdin=1&stdout=1") as staying:
        for _ in range(5):
            with hijack(engine, f"/containers/{name}/attach?stream=1&stdin=1&stdout=1") as going:
                going.sendall(b"lost\n")
        eventually(lambda: descriptors(pid_of(engine)) <= before + 3, "sockets of clients that have gone")
        engine.docker("start", name)
        staying.sendall(b"kept\n")
        staying.shutdown(socket.SHUT_WR)
        assert payload(staying) == b"kept\n"


def test_many_clients_are_served_and_freed(engine: EngineProcess, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        identity = begin(engine, name, "sh", "-c", "read x; echo all; read x", flags=("-i",))
        before = descriptors(pid_of(engine))
        with ExitStack() as scope:
            attached = [
                scope.enter_context(hijack(engine, f"/containers/{name}/attach?stream=1&stdout=1"))
                for _ in range(CLIENTS)
            ]
            watching = [scope.enter_context(events(engine, identity)) for _ in range(CLIENTS)]
            typing = scope.enter_context(hijack(engine, f"/containers/{name}/attach?stream=1&stdin=1"))
            typing.sendall(b"go\n")
            for sock in attached:
                assert sock.recv(100) == b"\1\0\0\0\0\0\0\4all\n"
            engine.docker("pause", name)
            for sock in watching:
                told = b""
                while b'"pause"' not in told:
                    told += sock.recv(1 << 16)
            engine.docker("unpause", name)
        # What the engine keeps warm for the next start comes and goes meanwhile.
        eventually(lambda: descriptors(pid_of(engine)) <= before + 10, "descriptors of clients that have gone")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def events(engine: EngineProcess, identity: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(engine.socket))
    filters = json.dumps({"container": [identity]}).replace('"', "%22").replace(" ", "")
    sock.sendall(f"GET /events?filters={filters} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
    return sock


def test_a_container_has_the_descriptor_limit_that_the_engine_was_given(engine: EngineProcess) -> None:
    assert engine.process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = engine.docker("run", "--rm", "--net", "none", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn").stdout
    assert said.split() == [str(soft), str(hard)]


def test_docker_py_attaches_over_websocket(engine: EngineProcess, name: str, port: int) -> None:
    begin(engine, name, "sh", "-c", "read x; echo got $x; echo err >&2; read x", flags=("-i",))
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}")
    try:
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        ws = client.containers.get(name).attach_socket(params=params, ws=True)
        ws.send_binary(b"words\n")
        said = b""
        while said != b"got words\nerr\n":
            opcode, data = ws.recv_data()
            assert opcode == ABNF.OPCODE_BINARY
            said += data
        engine.docker("kill", name)
        assert ws.recv_data_frame()[0] == ABNF.OPCODE_CLOSE
        ws.shutdown()
    finally:
        client.close()


def test_detach_keys_in_pieces_detach_and_a_half_close_is_no_detaching(engine: EngineProcess, name: str) -> None:
    identity = begin(engine, name, "cat", flags=("-it",))
    target = f"/containers/{name}/attach?stream=1&stdin=1&stdout=1"
    with events(engine, identity) as told:
        with hijack(engine, target) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        with hijack(engine, f"{target}&detachKeys=ctrl-a,b") as sock:
            for piece in (b"x\x01", b"y\x01", b"b"):
                sock.sendall(piece)
                if piece != b"b":  # the beginning of the sequence is kept, what broke it passes
                    wanted = {b"x\x01": b"x", b"y\x01": b"^Ay"}[piece]
                    assert sock.recv(len(wanted), socket.MSG_WAITALL) == wanted
            assert sock.recv(1) == b""
        seen = b""
        while seen.count(b'"Action"') < 3:
            seen += told.recv(1 << 16)
        assert re.findall(rb'"Action":"([a-z]+)"', seen) == [b"attach", b"attach", b"detach"]


@pytest.mark.parametrize("size", [70_000, (1 << 32) - 1])
def test_no_window_size_ends_a_container(engine: EngineProcess, name: str, size: int) -> None:
    begin(engine, name, "cat", flags=("-it",))
    client = docker.APIClient(base_url=engine.address)
    try:
        client.resize(name, size, size)
        assert client.inspect_container(name)["State"]["Running"]
    finally:
        client.close()


def test_an_exec_that_cannot_start_any_more(engine: EngineProcess, name: str) -> None:
    begin(engine, name, "sleep", "1000")
    client = docker.APIClient(base_url=engine.address)
    try:
        ran, never = (client.exec_create(name, ["true"])["Id"] for _ in range(2))
        client.exec_start(ran)
        with hijack(engine, f"/exec/{ran}/start", b"{}") as sock:
            assert payload(sock) == f"Error: Exec command {ran} has already run\r\n".encode()
        engine.docker("kill", name)
        engine.docker("wait", name)
        assert client.exec_inspect(ran)["ExitCode"] == 0
        with pytest.raises(docker.errors.NotFound, match=f"No such exec instance: {never}"):
            client.exec_inspect(never)
        with pytest.raises(docker.errors.APIError, match="is not running"):
            client.exec_start(ran, detach=True)
    finally:
        client.close()


def test_a_hundred_execs_at_once(engine: EngineProcess, name: str) -> None:
    begin(engine, name, "sleep", "1000")
    client = docker.APIClient(base_url=engine.address)
    try:
        with ExitStack() as scope:
            made = [client.exec_create(name, ["sh", "-c", f"echo {code}; exit {code}"])["Id"] for code in range(100)]
            started = [scope.enter_context(hijack(engine, f"/exec/{one}/start", b"{}")) for one in made]
            assert [payload(sock) for sock in started] == [b"%d\n" % code for code in range(100)]
        assert [client.exec_inspect(one)["ExitCode"] for one in made] == list(range(100))
    finally:
        client.close()


def test_a_process_left_behind_by_an_exec_ends_its_stream_two_seconds_later(engine: EngineProcess, name: str) -> None:
    """As with Docker: somebody still holds the output, and nobody waits for it for ever."""
    begin(engine, name, "sleep", "1000")
    began = time.monotonic()
    assert engine.docker("exec", name, "sh", "-c", "sleep 600 & echo begun; exit 3", check=False).stdout == "begun\n"
    assert time.monotonic() - began < 10
    assert "sleep 600" in engine.docker("top", name).stdout


def test_what_docker_exec_says_of_commands_that_cannot_run(engine: EngineProcess, name: str) -> None:
    begin(engine, name, "sleep", "1000")

    def said(*arguments: str) -> str:
        return engine.docker("exec", *arguments, check=False).stdout

    start = "OCI runtime exec failed: exec failed: "
    assert said("-w", "tmp", name, "pwd") == f"{start}Cwd must be an absolute path: unknown\r\n"
    assert 'exec: "absent": executable file not found in $PATH: unknown\r\n' in said(name, "absent")
    engine.docker("pause", name)
    paused = engine.docker("exec", name, "true", check=False)
    assert f"Container {name} is paused, unpause the container before exec" in paused.stderr
    engine.docker("unpause", name)
    assert engine.docker("exec", name, "sh", "-c", "kill -9 $$", check=False).code == 137
