"""DOCKER_HOST=ssh:// through a real sshd: both commands, and either of them as the remote end."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, Output

SSHD = "/usr/sbin/sshd"  # wants to be called by its full path, sshd(8)
PRIVILEGE_SEPARATION = Path("/run/sshd")
RUN = ("run", "--rm", "-i", "--net", "none", "busybox")

pytestmark = pytest.mark.skipif(not os.path.exists(SSHD), reason="needs openssh-server")


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="hafen-ssh-") as folder, EngineProcess(Path(folder) / "e") as process:
        process.load_busybox()
        yield process


class Remote:
    """An sshd of the test's own, whose users find one program as `docker` or `hafen` and reach one engine with it."""

    def __init__(self, folder: Path, engine: EngineProcess) -> None:
        self.bin = folder / "remote"
        self.bin.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"SetEnv PATH={self.bin}:/usr/bin:/bin DOCKER_HOST={engine.address} HAFEN_HOST={engine.address}\n"
        )
        (folder / "ssh_config").write_text(
            f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\nBatchMode yes\n"
        )
        self.local = folder / "local"
        self.local.mkdir()
        script(self.local / "ssh", f'exec {shutil.which("ssh")} -F {folder}/ssh_config "$@"')
        self.log = folder / "sshd.log"
        self.process = subprocess.Popen([SSHD, "-D", "-f", folder / "sshd_config", "-E", self.log])
        self._wait_listening()

    def _wait_listening(self) -> None:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text()

    def offer(self, program: str) -> None:
        """Only this one is installed there."""
        for old in self.bin.iterdir():
            old.unlink()
        if program == "docker":
            (self.bin / "docker").symlink_to(shutil.which("docker") or "")
        else:
            script(self.bin / program, f'exec {sys.executable} -m hafen.cli.main "$@"')

    def run(self, program: str, *arguments: str, stdin: bytes = b"", check: bool = True) -> Output:
        """`docker` or `hafen` here, with the engine there."""
        environment = {name: value for name, value in os.environ.items() if name not in ("DOCKER_HOST", "HAFEN_HOST")}
        environment["PATH"] = f"{self.local}:{environment['PATH']}"
        command = [program] if program == "docker" else [sys.executable, "-m", "hafen.cli.main"]
        command += ["-H", f"ssh://root@127.0.0.1:{self.port}", *arguments]
        run = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=60, check=False)
        output = Output(run.returncode, run.stdout.decode(), run.stderr.decode())
        assert not check or output.code == 0, f"{output}\n{self.log.read_text()}"
        return output


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def remote(engine: EngineProcess) -> Iterator[Remote]:
    made = not PRIVILEGE_SEPARATION.exists()
    PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hafen-ssh-") as folder:
        found = Remote(Path(folder), engine)
        yield found
        found.process.terminate()
        found.process.wait(10)
    if made:
        PRIVILEGE_SEPARATION.rmdir()


@pytest.mark.parametrize(("local", "there"), [("docker", "docker"), ("hafen", "docker"), ("hafen", "hafen")])
def test_a_container_runs_at_the_other_end(remote: Remote, local: str, there: str) -> None:
    """Its input ends, its output comes whole, its exit code is the command's."""
    remote.offer(there)
    data = os.urandom(1 << 19).hex()
    got = remote.run(local, *RUN, "sh", "-c", "cat; exit 7", stdin=data.encode(), check=False)
    assert (got.stdout, got.code) == (data, 7)


def test_our_dial_stdio_serves_the_real_docker_command(remote: Remote) -> None:
    remote.offer("hafen")
    (remote.bin / "hafen").rename(remote.bin / "docker")
    assert remote.run("docker", *RUN, "cat", stdin=b"words").stdout == "words"


def test_what_ssh_says_is_shown(remote: Remote) -> None:
    failed = remote.run("hafen", "-H", "ssh://root@127.0.0.1:1", "ps", check=False)
    assert failed.code == 1
    assert "Connection refused" in failed.stderr
