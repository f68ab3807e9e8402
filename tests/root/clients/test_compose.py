"""docker compose (2.26, Debian 13's) against the engine: a project of two services, from `up` to `down`."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root

PROJECT = """
services:
  db:
    image: busybox
    command: ["sh", "-c", "echo db-ready; echo page > /data/page; exec httpd -f -p 8080 -h /data"]
    volumes: ["kept:/data"]
    networks: [back]
    stop_grace_period: 0s
  web:
    image: busybox
    command: ["sh", "-c", "echo web-$$WORD; exec httpd -f -p 8000 -h /etc"]
    environment: {WORD: hello}
    depends_on: [db]
    ports: ["127.0.0.1::8000"]
    networks: [back]
    labels: {role: front}
    stop_grace_period: 0s
networks: {back: {}}
volumes: {kept: {}}
"""

Compose = Callable[..., str]


def find_compose() -> str | None:
    """The plugin, which also runs alone, where docker looks for plugins."""
    folders = [Path.home() / ".docker/cli-plugins"]
    folders += [Path(root) / "docker/cli-plugins" for root in ("/usr/local/lib", "/usr/libexec", "/usr/lib")]
    return next((found for folder in folders if (found := shutil.which("docker-compose", path=str(folder)))), None)


@pytest.fixture
def compose(engine: EngineProcess, tmp_path: Path) -> Iterator[Compose]:
    """`docker compose ...` of a project named `shop`; its standard output."""
    command = find_compose()
    if command is None:
        pytest.skip("docker compose 2 is not installed (Debian 13: docker-compose)")
    (tmp_path / "compose.yaml").write_text(PROJECT)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [command, "--ansi", "never", "-p", "shop", *arguments],
            cwd=tmp_path, env=engine.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done}\n{engine.log.read_text()[-3000:]}"
        return done.stdout

    yield run
    run("down", "-v", "-t", "0")


def states(compose: Compose) -> dict[str, str]:
    """State of every container of the project, by name."""
    lines = compose("ps", "-a", "--format", "json").splitlines()
    return {one["Name"]: one["State"] for one in map(json.loads, lines)}


def fetch(address: str) -> bytes:
    host, _, port = address.strip().rpartition(":")
    with socket.create_connection((host, int(port)), 5) as sock:
        sock.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_project_comes_up_and_is_used(compose: Compose, engine: EngineProcess) -> None:
    compose("up", "-d")
    assert states(compose) == {"shop-db-1": "running", "shop-web-1": "running"}
    assert compose("ps", "--services").split() == ["db", "web"]
    logs = compose("logs", "--no-color", "--no-log-prefix", "web")
    assert "web-hello" in logs
    assert compose("exec", "-T", "web", "wget", "-qO-", "http://db:8080/page") == "page\n"
    assert compose("exec", "-T", "-e", "A=b", "-w", "/tmp", "web", "sh", "-c", "echo $A $PWD") == "b /tmp\n"
    assert compose("run", "--rm", "-T", "web", "sh", "-c", "echo ran-$WORD") == "ran-hello\n"
    assert b"root:x:0:0" in fetch(compose("port", "web", "8000"))
    assert "httpd -f -p 8080" in compose("top", "db")
    assert engine.docker("ps", "-q", "--filter", "label=role=front").stdout.count("\n") == 1
    assert json.loads(compose("ls", "--format", "json"))[0]["Status"] == "running(2)"


def test_a_project_is_scaled_stopped_and_taken_down(compose: Compose, engine: EngineProcess) -> None:
    compose("up", "-d", "--scale", "web=2")
    first = compose("ps", "-q", "db")
    compose("restart", "web")
    compose("stop")
    assert set(states(compose).values()) == {"exited"}
    compose("up", "-d", "--scale", "web=1")
    assert states(compose) == {"shop-db-1": "running", "shop-web-1": "running"}
    assert compose("ps", "-q", "db") == first  # nothing about it changed: the same container
    compose("down", "-v")
    assert states(compose) == {}
    assert engine.docker("volume", "ls", "-q").stdout == ""
    assert "shop" not in engine.docker("network", "ls").stdout
