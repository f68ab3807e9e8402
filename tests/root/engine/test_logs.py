"""Log drivers of real containers: what arrives, what a client reads, and what happens where nobody listens."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("logs")) as running:
        running.load_busybox()
        yield running


@pytest.fixture(autouse=True)
def _removed(engine: EngineProcess) -> Iterator[None]:
    yield
    for name in engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", name)


class Listener:
    """A TCP end. It reads only after `read`."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        self.socket.settimeout(20)
        self.port = self.socket.getsockname()[1]
        self.data = b""

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self) -> Callable[[], bytes]:
        """Begin; the call waits for the stream's end."""
        connection = self.socket.accept()[0]

        def loop() -> None:
            with connection:
                while data := connection.recv(1 << 16):
                    self.data += data

        thread = threading.Thread(target=loop)
        thread.start()

        def finish() -> bytes:
            thread.join(20)
            assert not thread.is_alive()
            return self.data

        return finish


def syslog(port: int, *options: str) -> list[str]:
    return ["--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}", *options]


def wait_until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_torrent_arrives_whole_and_can_be_read_here_too(engine: EngineProcess) -> None:
    with Listener() as end:
        started = engine.docker("run", "-d", "--name", "torrent", *syslog(end.port), "busybox", "seq", "20000")
        assert started.code == 0
        data = end.read()()
    assert [int(line.rsplit(b": ", 1)[1]) for line in data.splitlines()] == list(range(1, 20001))
    assert engine.docker("logs", "--tail", "2", "torrent").stdout == "19999\n20000\n"


def test_who_does_not_read_stops_the_container_and_nobody_else(engine: EngineProcess) -> None:
    with Listener() as end:
        engine.docker("run", "-d", "--name", "held", *syslog(end.port), "busybox", "sh", "-c", "yes; echo end")
        size = engine.data / "containers"

        def stuck() -> bool:
            """It writes no more: its output is not taken."""
            before = sum(path.stat().st_size for path in size.glob("*/logs/*"))
            time.sleep(0.3)
            return before > 0 and before == sum(path.stat().st_size for path in size.glob("*/logs/*"))

        wait_until(stuck)
        assert engine.docker("exec", "held", "echo", "hi").stdout == "hi\n"
        assert engine.docker("run", "--rm", "busybox", "echo", "other").stdout == "other\n"
        began = time.monotonic()
        assert engine.docker("kill", "held").code == 0
        assert engine.docker("wait", "held").stdout == "137\n"
        assert time.monotonic() - began < 5
        assert engine.docker("rm", "held").code == 0


def test_non_blocking_leaves_lines_out_and_the_container_goes_on(engine: EngineProcess) -> None:
    with Listener() as end:
        options = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"]
        ran = engine.docker(
            "run", "--name", "free", *syslog(end.port, *options), "busybox", "sh", "-c", "seq 300000 >&2; echo end"
        )
        assert ran.stdout == "end\n"
        data = end.read()()
    lines = data.splitlines()
    assert 0 < len(lines) < 300001
    numbers = [int(line.rsplit(b": ", 1)[1]) for line in lines if b"<27>" in line]
    assert numbers == sorted(set(numbers))  # none cut, none twice
    assert engine.docker("logs", "--tail", "2", "free").stdout == "end\n"  # the copy has all


def test_an_end_that_goes_away_and_comes_back(engine: EngineProcess) -> None:
    script = "while read x; do echo $x; done"
    with Listener() as end:
        port = end.port
        engine.docker("create", "-i", "--name", "again", *syslog(port), "busybox", "sh", "-c", script)
        client = subprocess.Popen(
            ["docker", "start", "-ai", "again"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=engine.environment,
        )
        assert client.stdin is not None
        connection = end.socket.accept()[0]
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert b": one" in connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        client.stdin.write(b"two\n")
        client.stdin.flush()
        finish = end.read()
        client.stdin.write(b"three\n")
        client.stdin.close()
        assert b": three" in finish()
    assert client.wait(10) == 0
    assert engine.docker("logs", "again").stdout == "one\ntwo\nthree\n"


def test_a_sender_that_is_killed_is_replaced(engine: EngineProcess) -> None:
    with Listener() as end:
        script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two"
        engine.docker("run", "-d", "--name", "sender", *syslog(end.port), "busybox", "sh", "-c", script)
        first = end.socket.accept()[0]
        assert b": one" in first.recv(4096)
        shim = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "sender").stdout)
        keeper = int(Path(f"/proc/{shim}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(_children(_children(keeper, besides=shim)[0])[0], signal.SIGKILL)
        assert first.recv(4096) == b""
        engine.docker("exec", "sender", "touch", "/go")
        assert b": two" in end.read()()
        assert engine.docker("logs", "sender").stdout == "one\ntwo\n"
        first.close()


def _children(pid: int, besides: int = 0) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if int(child) != besides]


def test_what_cannot_be_read_says_so(engine: EngineProcess) -> None:
    refused = "Error response from daemon: configured logging driver does not support reading\n"
    engine.docker("run", "--name", "none", "--log-driver", "none", "busybox", "true")
    assert engine.docker("logs", "none", check=False).stderr == refused
    with Listener() as end:
        options = syslog(end.port, "--log-opt", "cache-disabled=true")
        engine.docker("run", "--name", "uncached", *options, "busybox", "echo", "hi")
        assert b": hi" in end.read()()
    assert engine.docker("logs", "uncached", check=False).stderr == refused


def test_a_start_without_a_remote_end_fails_as_docker_does(engine: EngineProcess) -> None:
    engine.docker("create", "--name", "nobody", *syslog(1), "busybox", "true")
    failed = engine.docker("start", "nobody", check=False)
    assert (
        "failed to create task for container: failed to initialize logging driver: "
        "dial tcp 127.0.0.1:1: connect: connection refused" in failed.stderr
    )
    assert engine.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "nobody").stdout == "created 128\n"


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_followed_over_rotation_every_line_comes_once(engine: EngineProcess, driver: str) -> None:
    """A count and a checksum of what a client gets that keeps up, over some twenty files."""
    script = "i=0; while [ $i -lt 40 ]; do seq $((i * 500 + 1)) $((i * 500 + 500)); sleep 0.02; i=$((i + 1)); done"
    options = ["--log-driver", driver, "--log-opt", "max-size=60k", "--log-opt", "max-file=50"]
    compress = ["--log-opt", "compress=true"]
    engine.docker("run", "-d", "--name", driver, *options, *compress, "busybox", "sh", "-c", script)
    got = engine.docker("logs", "-f", driver).stdout.encode()
    wanted = b"".join(b"%d\n" % number for number in range(1, 20001))
    assert (got.count(b"\n"), hashlib.sha256(got).hexdigest()) == (20000, hashlib.sha256(wanted).hexdigest())
    assert engine.docker("logs", driver).stdout.encode() == wanted
    path = next((engine.data / "containers").glob("*/logs"))
    assert len([name for name in os.listdir(path) if ".log" in name]) > (1 if driver == "local" else 5)


def test_details_and_files_of_json(engine: EngineProcess) -> None:
    options = ["--log-driver", "json-file", "--log-opt", "labels=a", "--log-opt", "env-regex=^V", "--log-opt"]
    engine.docker(
        "run", "--name", "details", "--label", "a=b/c", "-e", "V1=x", *options, "tag={{.Name}}", "busybox", "echo", "hi"
    )
    assert engine.docker("logs", "--details", "details").stdout == "V1=x,a=b%2Fc,tag=details hi\n"
    path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "details").stdout.strip())
    line = json.loads(path.read_text())
    assert (line["log"], line["attrs"]) == ("hi\n", {"V1": "x", "a": "b/c", "tag": "details"})


def test_a_driver_outlives_the_engine(engine: EngineProcess) -> None:
    with Listener() as end:
        script = "echo before; sleep 2; echo after"
        engine.docker("run", "-d", "--name", "kept", *syslog(end.port), "busybox", "sh", "-c", script)
        finish = end.read()
        engine.kill()
        data = finish()
        engine.start()
    assert [line.rsplit(b": ", 1)[1] for line in data.splitlines()] == [b"before", b"after"]
    assert engine.docker("logs", "kept").stdout == "before\nafter\n"


def test_a_removed_containers_log_is_read_to_its_end(engine: EngineProcess) -> None:
    """docker-py's `run(remove=True)` asks for the log, removes the container, and only then reads."""
    ident = engine.docker("create", "--tty", "busybox", "sh", "-c", "yes | head -c 9000000; echo end").stdout.strip()
    engine.docker("start", ident)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.sendall(f"GET /containers/{ident}/logs?stdout=1&follow=1 HTTP/1.0\r\n\r\n".encode())
        head = client.recv(15)
        engine.docker("wait", ident)
        engine.docker("rm", ident)
        data = bytearray()
        while piece := client.recv(1 << 20):
            data += piece
    assert head == b"HTTP/1.1 200 OK"
    assert (data.count(b"y\r\n"), bytes(data[-5:])) == (4_500_000, b"end\r\n")
    directory = engine.data / "containers" / ident
    deadline = time.monotonic() + 10
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # deleted in the background
    assert not directory.exists()
