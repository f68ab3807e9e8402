"""The OCI command line, driven as containerd's shim drives runc."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hafen.kernel import consts, process
from hafen.kernel.unix import receive_descriptors
from hafen.runtime import parent
from tests.harness.container import Document, Machine, unpacked_busybox, write_bundle

pytestmark = pytest.mark.root


class CommandLine:
    """`hafen-runtime` on a state directory of its own; we are the subreaper, as a shim is."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.root = machine.directory / "state"
        self.log = machine.directory / "log.json"
        self.bundle = machine.directory / "bundle"
        (self.bundle / "rootfs").mkdir(parents=True)
        unpacked_busybox(self.bundle / "rootfs")

    def configure(self, *args: str, **changes: Any) -> Document:
        document = self.machine.document(*args, edit=lambda d: d.update(changes))
        write_bundle(self.bundle, document)
        return document

    def __call__(self, *args: str, code: int = 0, prefix: tuple[str, ...] = ()) -> str:
        """Its standard output. Files, not pipes: a container holds its standard streams for longer than the command."""
        command = [sys.executable, "-m", "hafen.runtime", "--root", str(self.root), "--log", str(self.log)]
        output, errors = self.machine.directory / "output", self.machine.directory / "errors"
        with output.open("w") as stdout, errors.open("w") as stderr:
            run = subprocess.run(
                [*prefix, *command, "--log-format", "json", *args],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                check=False,
            )
        assert run.returncode == code, (args, output.read_text(), errors.read_text())
        return output.read_text()

    def create(self, container_id: str, *args: str, code: int = 0) -> int:
        """The container's pid."""
        pid_file = self.machine.directory / "pid"
        self("create", "--bundle", str(self.bundle), "--pid-file", str(pid_file), *args, container_id, code=code)
        return int(pid_file.read_text()) if code == 0 else 0

    def status(self, container_id: str) -> str:
        state: dict[str, Any] = json.loads(self("state", container_id))
        return str(state["status"])

    def last_error(self) -> str:
        line: dict[str, str] = json.loads(self.log.read_text().splitlines()[-1])
        assert line["level"] == "error"
        return line["msg"]


@pytest.fixture
def runtime(machine: Machine) -> Iterator[CommandLine]:
    process.set_subreaper()
    runtime = CommandLine(machine)
    yield runtime
    for container_id in runtime("list", "--quiet").split():
        runtime("delete", "--force", container_id)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        process.prctl(consts.PR_SET_CHILD_SUBREAPER, 0)
    assert not runtime.root.exists() or list(runtime.root.iterdir()) == []


def test_life_cycle(runtime: CommandLine) -> None:
    runtime.configure("sh", "-c", "touch /started; exec sleep 60", annotations={"a": "b"})
    pid = runtime.create("c1")
    state = json.loads(runtime("state", "c1"))
    assert (state["status"], state["pid"], state["annotations"]) == ("created", pid, {"a": "b"})
    assert state["bundle"] == str(runtime.bundle)
    mark = runtime.bundle / "rootfs/started"
    assert not mark.exists()
    runtime("start", "c1")
    assert runtime.status("c1") == "running"
    while not mark.exists():
        os.sched_yield()
    assert json.loads(runtime("ps", "--format", "json", "c1")) == [pid]
    runtime("start", "c1", code=1)
    assert runtime.last_error() == "cannot start an already running container"
    runtime("delete", "c1", code=1)
    assert runtime.last_error() == "cannot delete container c1 that is not stopped: running"
    runtime("pause", "c1")
    assert runtime.status("c1") == "paused"
    runtime("exec", "c1", "true", code=255)
    assert runtime.last_error() == "cannot exec in a paused container"
    runtime("resume", "c1")
    pidfd = process.pidfd_open(pid)
    runtime("kill", "c1", "KILL")
    select.select([pidfd], [], [])
    os.close(pidfd)
    assert runtime.status("c1") == "stopped"  # a zombie is
    runtime("kill", "c1", "TERM", code=1)
    assert runtime.last_error() == "container not running"
    runtime("delete", "c1")
    runtime("state", "c1", code=1)
    assert runtime.last_error() == "container does not exist: c1"
    runtime("delete", "--force", "c1")


def test_run_in_the_foreground(runtime: CommandLine) -> None:
    runtime.configure("sh", "-c", "echo out; exit 7")
    assert runtime("run", "--bundle", str(runtime.bundle), "r1", code=7) == "out\n"
    assert runtime("list", "--quiet") == ""


def test_exec(runtime: CommandLine) -> None:
    runtime.configure("sleep", "60", hostname="box")
    runtime.create("c1")
    runtime("start", "c1")
    assert runtime("exec", "-e", "X=1", "--cwd", "/tmp", "-u", "daemon", "c1", "sh", "-c", "pwd; id -u; echo $X") == (
        "/tmp\n1\n1\n"
    )
    runtime("exec", "c1", "sh", "-c", "exit 9", code=9)
    runtime("exec", "c1", "/nope", code=255)
    assert runtime.last_error() == (
        'unable to start container process: exec: "/nope": stat /nope: no such file or directory'
    )
    described = runtime.machine.directory / "process.json"
    described.write_text(json.dumps({"args": ["hostname"], "cwd": "/", "env": ["PATH=/bin"]}))
    assert runtime("exec", "--process", str(described), "c1") == "box\n"
    pid_file = runtime.machine.directory / "exec-pid"
    runtime("exec", "--detach", "--pid-file", str(pid_file), "c1", "sleep", "50")
    pid = int(pid_file.read_text())
    assert pid in json.loads(runtime("ps", "--format", "json", "c1"))
    runtime("kill", "--all", "c1", "9")
    os.waitpid(pid, 0)


def test_console_socket(runtime: CommandLine) -> None:
    document = runtime.configure("sh", "-c", "tty; exec sleep 60")
    document["process"]["terminal"] = True
    write_bundle(runtime.bundle, document)
    path = runtime.machine.directory / "console.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        runtime.create("t1", "--console-socket", str(path))
        connection, _ = listener.accept()
        with connection:
            data, descriptors, _ = receive_descriptors(connection, 100, 1)
    assert data
    runtime("start", "t1")
    said = b""
    while b"/dev/pts/0" not in said:
        said += os.read(descriptors[0], 100)
    os.close(descriptors[0])
    runtime.create("t2", code=1)
    assert "without setting console socket" in runtime.last_error()


def test_update(runtime: CommandLine) -> None:
    document = runtime.configure("sleep", "60")
    runtime.create("u1")
    runtime("start", "u1")
    resources = runtime.machine.directory / "resources.json"
    resources.write_text(json.dumps({"pids": {"limit": 33}}))
    runtime("update", "--resources", str(resources), "u1")
    cgroup = parent.hierarchy().open(document["linux"]["cgroupsPath"])
    assert cgroup.counters().pids_limit == 33


def test_preserved_descriptors(runtime: CommandLine) -> None:
    runtime.configure("sh", "-c", "cat <&4; ls /proc/$$/fd; true")
    handed = runtime.machine.directory / "handed"
    handed.write_text("through\n")
    shell = ("sh", "-c", 'exec 3</dev/null 4<"$0" 5</dev/null; exec "$@"', str(handed))
    assert (
        runtime("run", "--bundle", str(runtime.bundle), "--preserve-fds", "2", "p1", prefix=shell)
        == "through\n0\n1\n2\n3\n4\n"
    )


def test_a_failing_start_container_hook_is_reported_by_start(runtime: CommandLine) -> None:
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo because; exit 3"]}
    runtime.configure("true", hooks={"startContainer": [failing]})
    runtime.create("h1")
    runtime("start", "h1", code=1)
    assert "startContainer hook #0: /bin/sh: exit status 3, output: because" in runtime.last_error()
    assert runtime.status("h1") == "stopped"


def test_poststop_hooks(runtime: CommandLine) -> None:
    mark = runtime.machine.directory / "stopped"
    script = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {mark}"]}
    runtime.configure("true", hooks={"poststop": [script]})
    runtime("run", "--bundle", str(runtime.bundle), "p1")
    assert json.loads(mark.read_text())["status"] == "stopped"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["frob"], "no such command: frob"),
        (["create", "--bogus", "x"], "flag provided but not defined: --bogus"),
        (["create", "--bundle", "/nowhere", "x"], "JSON specification file /nowhere/config.json not found"),
        (["start", "../x"], "invalid container ID format: '../x'"),
        (["start"], "exactly one container ID is needed"),
        (["kill", "x", "NOPE"], "unknown signal 'NOPE'"),
        (["delete", "x"], "container does not exist: x"),
    ],
)
def test_bad_command_lines(runtime: CommandLine, args: list[str], words: str) -> None:
    runtime(*args, code=1)
    assert runtime.last_error() == words


def test_systemd_cgroups_are_refused_by_name(runtime: CommandLine) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "hafen.runtime", "--systemd-cgroup", "create", "x"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (run.returncode, "--systemd-cgroup is not supported" in run.stderr) == (1, True)


def test_a_bad_configuration_leaves_no_state(runtime: CommandLine) -> None:
    runtime.configure("/nope")
    runtime.create("b1", code=1)
    runtime.configure("true")
    document = json.loads((runtime.bundle / "config.json").read_text())
    document["mounts"] = "x"
    write_bundle(runtime.bundle, document)
    runtime.create("b2", code=1)
    assert runtime.last_error() == "runtime config: mounts must be an array, not str"
    assert runtime("list", "--quiet") == ""


def test_two_creates_of_one_name(runtime: CommandLine) -> None:
    runtime.configure("sleep", "60")
    runtime.create("c1")
    runtime.create("c1", code=1)
    assert runtime.last_error() == "container with given ID already exists: c1"
    assert runtime.status("c1") == "created"


def test_version_features_and_spec(runtime: CommandLine) -> None:
    assert runtime("--version").startswith("hafen-runtime version ")
    features = json.loads(runtime("features"))
    assert "mount" in features["linux"]["namespaces"]
    new: Path = runtime.machine.directory / "new"
    new.mkdir()
    runtime("spec", "--bundle", str(new))
    assert json.loads((new / "config.json").read_text())["process"]["args"] == ["sh"]
    runtime("spec", "--bundle", str(new), code=1)


def test_list(runtime: CommandLine) -> None:
    runtime.configure("sleep", "60")
    pid = runtime.create("c1")
    row = runtime("list").splitlines()[1].split()
    assert row[:4] == ["c1", str(pid), "created", str(runtime.bundle)]
    assert [entry["id"] for entry in json.loads(runtime("list", "--format", "json"))] == ["c1"]
    os.kill(pid, signal.SIGKILL)
