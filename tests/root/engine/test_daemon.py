"""The engine as a process: handed sockets, TLS, other addresses, and what it says when it cannot start."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.ports import free_port
from tests.root.engine.conftest import FLAGS

# systemd starts the process itself, so that it can name it beforehand; a script has to do that from within.
ACTIVATED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
    "os.execv(sys.executable, [sys.executable, '-m', 'hafen.daemon.main', *sys.argv[2:]])"
)


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hafen-engine-d-") as folder:
        yield Path(folder)


@contextmanager
def running(command: list[str], **options: object) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]  # Popen's own
    try:
        assert process.stderr
        for line in process.stderr:
            if "listening on" in line:
                break
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def roots(base: Path, *flags: str) -> list[str]:
    bridge = f"hfd{os.getpid() % 100000}"
    return ["--root", str(base / "lib"), "--run", str(base / "run"), FLAGS[0], bridge, *FLAGS[2:], *flags]


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def ping(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/_ping")
    answer = connection.getresponse().read()
    connection.close()
    return answer


def test_a_socket_handed_over_by_systemd(base: Path) -> None:
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(base / "handed.sock"))
        handed.listen()
        command = [sys.executable, "-c", ACTIVATED, str(handed.fileno()), *roots(base)]
        with running(command, pass_fds=(handed.fileno(),)):
            assert ping(Unix(base / "handed.sock")) == b"OK"
            assert not (base / "run/hafen.sock").exists()
    assert (base / "handed.sock").exists()  # systemd's own, which it goes on listening on


def test_tcp_where_it_is_asked_for(base: Path) -> None:
    port = free_port()
    flags = ("-H", f"tcp://127.0.0.1:{port}", "-H", f"unix://{base}/e.sock", "--insecure")
    with running([sys.executable, "-m", "hafen.daemon.main", *roots(base, *flags)]):
        assert ping(http.client.HTTPConnection("127.0.0.1", port)) == b"OK"
        assert ping(Unix(base / "e.sock")) == b"OK"
    assert not (base / "e.sock").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-H", "tcp://127.0.0.1:2375"), "would give root on this machine"),
        (("--config-file", "/absent"), "configuration file /absent"),
        (("--log-driver", "awslogs"), "the log driver awslogs is not implemented"),
        (("--storage-driver", "zfs"), "unknown storage driver zfs"),
    ],
)
def test_what_it_says_when_it_cannot_start(base: Path, flags: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "hafen.daemon.main", *roots(base, *flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("hafen engine: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("found", [None, 0o711], ids=["new", "of an older engine"])
def test_nobody_else_runs_what_is_in_a_volume(base: Path, found: int | None) -> None:
    """Set-uid files of a container would be anybody's way to root (CVE-2021-41091)."""
    base.chmod(0o755)
    if found is not None:
        (base / "lib").mkdir()
        (base / "lib").chmod(found)
    with running([sys.executable, "-m", "hafen.daemon.main", *roots(base)]):
        connection = Unix(base / "run/hafen.sock")
        body = json.dumps({"Name": "tools"})
        connection.request("POST", "/v1.45/volumes/create", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        data = Path(answer["Mountpoint"])
        connection.close()
        shutil.copy("/usr/bin/id", data / "tool")
        (data / "tool").chmod(0o4755)
        ours = subprocess.run([data / "tool", "-u"], capture_output=True, text=True, check=True)
        assert ours.stdout == "0\n"
        with pytest.raises(PermissionError):
            subprocess.run([data / "tool", "-u"], user=65534, group=65534, extra_groups=(), check=True)
