"""testcontainers (Python) against the engine, and what its reaper does from inside a container."""

import json
import socket
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy, PortWaitStrategy

from tests.harness.engine import EngineProcess

pytestmark = [pytest.mark.root, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

# As a database's image does: the port is open once before it is ready, and then for good.
DATABASE = """
echo "starting up"; echo ok > /tmp/ok
httpd -p 5432 -h /tmp; echo "database system is ready to accept connections"
sleep 300
"""


@pytest.fixture(autouse=True)
def to_the_engine(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its reaper, whose image only a registry has."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.setattr("testcontainers.core.config.testcontainers_config.ryuk_disabled", True)


def test_waiting_for_a_line_and_a_port(engine: EngineProcess) -> None:
    wait = LogMessageWaitStrategy("ready to accept connections")
    with DockerContainer("postgres", command=f"sh -c '{DATABASE}'").with_exposed_ports(5432).waiting_for(wait) as made:
        address = (made.get_container_host_ip(), int(made.get_exposed_port(5432)))
        with socket.create_connection(address, 5) as sock:
            sock.sendall(b"GET /ok HTTP/1.0\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.")
        stdout, _ = made.get_logs()
        assert stdout.splitlines()[0] == b"starting up"
    assert engine.docker("ps", "-aq").stdout == ""

    made = DockerContainer("busybox", command="httpd -f -p 8080").with_exposed_ports(8080)
    with made.waiting_for(PortWaitStrategy(8080)):
        assert engine.docker("ps", "-q").stdout.count("\n") == 1


def test_environment_volumes_exec_and_names(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "seed").write_text("seeded")
    with Network() as network:
        first = DockerContainer("busybox", command="httpd -f -p 80 -h /seed").with_network(network)
        second = DockerContainer("busybox", command="sleep 300").with_network(network).with_env("WORD", "hello")
        with first.with_network_aliases("store").with_volume_mapping(str(tmp_path), "/seed", "ro"), second:
            assert second.exec("sh -c 'echo $WORD'").output == b"hello\n"
            assert second.exec(["wget", "-qO-", "http://store/seed"]).output == b"seeded"
            assert second.exec("false").exit_code == 1
    assert engine.docker("ps", "-aq").stdout == ""
    assert engine.docker("network", "ls", "-q", "--filter", "type=custom").stdout == ""


def test_a_reaper_inside_a_container(engine: EngineProcess) -> None:
    """A container that has the engine's socket finds containers by label and removes them."""
    engine.docker("run", "-d", "--label", "session=s1", "--name", "reaped", "busybox", "sleep", "300")
    engine.docker("run", "-d", "--label", "session=s2", "--name", "kept", "busybox", "sleep", "300")
    engine.docker(
        "run", "-d", "--name", "reaper", "-v", f"{engine.socket}:/var/run/docker.sock", "host", "sleep", "300"
    )
    ask = ("exec", "reaper", "curl", "-s", "--unix-socket", "/var/run/docker.sock")
    found = engine.docker(
        *ask, "-G", "--data-urlencode", 'filters={"label":["session=s1"]}', "http://x/containers/json"
    )
    listed = json.loads(found.stdout)
    assert [one["Names"] for one in listed] == [["/reaped"]]
    engine.docker(*ask, "-X", "DELETE", f"http://x/containers/{listed[0]['Id']}?force=1&v=1")
    assert set(engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()) == {"kept", "reaper"}
