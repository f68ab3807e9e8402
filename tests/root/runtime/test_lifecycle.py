"""create, start, exec, hooks and terminals: what happens when."""

import json
import os
import select
from pathlib import Path
from typing import Any

import pytest

from hafen.errors import Conflict, InvalidArgument, StartFailed, System
from hafen.kernel import process, tty
from hafen.runtime import join, parent
from hafen.runtime.child import Stdio
from hafen.spec.runtime_config import from_json
from tests.harness.container import Document, Machine

pytestmark = pytest.mark.root


def create(machine: Machine, document: Document) -> parent.Created:
    bundle, rootfs = machine.bundle()
    with open("/dev/null", "r+b", buffering=0) as null:
        stdio = Stdio(null.fileno(), null.fileno(), null.fileno())
        return parent.create(from_json(document), container_id="lifecycle", bundle=bundle, rootfs=rootfs, stdio=stdio)


def read_until(fd: int, wanted: bytes) -> bytes:
    """From a pty's master, until `wanted` came or the slave is closed."""
    said = b""
    while wanted not in said:
        try:
            chunk = os.read(fd, 4096)
        except OSError:
            break
        said += chunk
    return said


def test_created_runs_nothing_until_started(machine: Machine) -> None:
    created = create(machine, machine.document("touch", "/ran"))
    with open(f"/proc/{created.pid}/comm", encoding="ascii") as file:
        assert file.read() != "touch\n"
    assert not (machine.upper / "ran").exists()
    running = created.start()
    assert process.wait_pidfd(running.pidfd) == 0
    os.close(running.pidfd)
    running.cgroup.remove()
    assert (machine.upper / "ran").exists()


def test_abort_leaves_nothing(machine: Machine) -> None:
    document = machine.document("sleep", "60")
    created = create(machine, document)
    created.abort()
    assert not os.path.exists(f"/proc/{created.pid}")
    assert list(Path("/sys/fs/cgroup").glob(f"**{document['linux']['cgroupsPath']}")) == []


def test_a_child_that_is_killed_before_start_is_reported(machine: Machine) -> None:
    created = create(machine, machine.document("true"))
    process.pidfd_send_signal(created.pidfd, 9)
    select.select([created.pidfd], [], [])
    running = created.start()  # it had been ready: its end is an exit like any other
    assert process.wait_pidfd(running.pidfd) == 137
    os.close(running.pidfd)
    running.cgroup.remove()


def hook(directory: Path, name: str, script: str = "", **more: Any) -> dict[str, Any]:
    """A hook that appends its name, what it sees as its root and the status it got to a log outside."""
    text = f'state=$(cat); {script}\necho "{name} $(echo $state | grep -o \'"status": "[a-z]*"\')" >> {directory}/log'
    return {"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/bin:/usr/bin"], **more}


def test_hooks_run_in_order_and_place(machine: Machine) -> None:
    here = machine.directory

    def edit(document: Document) -> None:
        document["mounts"].append({"destination": str(here), "type": "bind", "source": str(here), "options": ["bind"]})
        document["hooks"] = {
            "prestart": [hook(here, "prestart")],
            "createRuntime": [hook(here, "createRuntime", f"readlink /proc/self/ns/pid > {here}/runtime-ns")],
            "createContainer": [hook(here, "createContainer", f"echo $$ > {here}/container-pid")],
            "startContainer": [hook(here, "startContainer", f"ls /bin/busybox > {here}/container-root")],
            "poststart": [hook(here, "poststart"), {"path": "/nope"}],
        }

    created = create(machine, machine.document("true", edit=edit))
    log = here / "log"
    assert log.read_text().splitlines() == [
        'prestart "status": "creating"', 'createRuntime "status": "creating"', 'createContainer "status": "creating"',
    ]  # fmt: skip
    running = created.start()
    assert process.wait_pidfd(running.pidfd) == 0
    os.close(running.pidfd)
    running.cgroup.remove()
    assert sorted(log.read_text().splitlines()[3:]) == [
        'poststart "status": "running"',
        'startContainer "status": "created"',
    ]
    assert (here / "runtime-ns").read_text().strip() == os.readlink("/proc/self/ns/pid")
    assert int((here / "container-pid").read_text()) == 2  # in the container's pid namespace
    assert (here / "container-root").read_text() == "/bin/busybox\n"
    assert len(running.warnings) == 1
    assert "/nope" in running.warnings[0]


def test_hooks_get_the_state(machine: Machine) -> None:
    script = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {machine.directory}/state"]}
    running = machine.start("true", edit=lambda d: d.update(hooks={"createRuntime": [script]}, annotations={"a": "b"}))
    machine.wait(running)
    state = json.loads((machine.directory / "state").read_text())
    assert (state["pid"], state["annotations"]) == (running.pid, {"a": "b"})
    assert state["bundle"].startswith(str(machine.directory))


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_a_failing_hook_stops_the_start(machine: Machine, kind: str) -> None:
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo because; exit 3"]}
    with pytest.raises(System, match=rf"error running {kind} hook #0: /bin/sh: exit status 3, output: because"):
        machine.start("touch", "/ran", edit=lambda d: d.update(hooks={kind: [failing]}))
    assert not (machine.upper / "ran").exists()


def test_a_hook_that_takes_too_long_is_killed(machine: Machine) -> None:
    slow = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 60"], "timeout": 1}
    with pytest.raises(System, match="timed out after 1 s"):
        machine.start("true", edit=lambda d: d.update(hooks={"createRuntime": [slow]}))


def test_terminal(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["process"]["terminal"] = True
        document["process"]["consoleSize"] = {"height": 33, "width": 111}

    running = machine.start(
        "sh", "-c", "tty; stty size; ls /dev/pts; stat -c %t:%T /dev/console; read x; echo got $x; exit 4", edit=edit
    )
    assert running.console is not None
    assert not os.get_inheritable(running.console)
    said = read_until(running.console, b":").decode()
    os.write(running.console, b"word\n")
    said += read_until(running.console, b"got word").decode()
    words = said.split()
    assert words[:5] == ["/dev/pts/0", "33", "111", "0", "ptmx"]
    assert "got word" in said
    assert machine.wait(running) == 4


def test_interrupt_key_reaches_the_foreground(machine: Machine) -> None:
    running = machine.start(
        "sh",
        "-c",
        "trap 'exit 9' INT; echo ready; while :; do read x; done",
        edit=lambda d: d["process"].update(terminal=True),
    )
    assert running.console is not None
    read_until(running.console, b"ready")
    os.write(running.console, b"\x03")
    while not select.select([running.pidfd], [], [], 0.5)[0]:
        os.write(running.console, b"\x03")  # the shell loses one that comes just before it begins to read
    assert machine.wait(running) == 9


def test_exec_joins_everything(machine: Machine) -> None:
    running = machine.start("sleep", "60", edit=lambda d: d.update(hostname="box"))
    script = "hostname; cat /proc/1/comm; cut -d: -f3 /proc/self/cgroup | sort -u; ls /proc/self/fd | wc -l"
    result = machine.execute(running, "sh", "-c", script)
    lines = result.stdout.splitlines()
    assert (lines[:2], result.code) == (["box", "sleep"], 0)
    assert lines[2:-1] == [running.cgroup.path]
    assert machine.execute(running, "sh", "-c", "exit 3").code == 3


def test_exec_has_the_containers_restrictions(machine: Machine) -> None:
    running = machine.start("sleep", "60")

    def config(document: Document) -> None:
        document["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        }
        document["process"]["user"] = {"name": "daemon"}

    result = machine.execute(
        running,
        "sh",
        "-c",
        "mkdir /tmp/x; id -u; grep -c ^CapEff:.*0000000000000000 /proc/self/status",
        config_edit=config,
    )
    assert "Operation not permitted" in result.stderr
    assert result.stdout == "1\n1\n"


@pytest.mark.parametrize(
    ("args", "cwd", "message", "code"),
    [
        (["foo"], "/", 'exec: "foo": executable file not found in $PATH', 127),
        (["/etc"], "/", 'exec: "/etc": is a directory', 126),
        (["true"], "/nope", 'chdir to cwd ("/nope") set in config.json failed: no such file or directory', 126),
    ],
)
def test_exec_that_cannot_start(machine: Machine, args: list[str], cwd: str, message: str, code: int) -> None:
    running = machine.start("sleep", "60")
    with pytest.raises(StartFailed) as caught:
        machine.execute(running, *args, edit=lambda d: d["process"].update(cwd=cwd))
    assert (caught.value.message, caught.value.exit_code) == (f"unable to start container process: {message}", code)


def test_exec_with_an_unknown_user(machine: Machine) -> None:
    running = machine.start("sleep", "60")
    with pytest.raises(InvalidArgument, match="unable to find user foo: no matching entries in passwd file"):
        machine.execute(running, "true", edit=lambda d: d["process"].update(user={"name": "foo"}))


def test_exec_in_a_container_that_ended(machine: Machine) -> None:
    running = machine.start("true")
    machine.wait(running)
    with pytest.raises(Conflict):
        machine.execute(running, "true")


def test_exec_on_a_terminal(machine: Machine) -> None:
    running = machine.start("sleep", "60")
    config = from_json(
        machine.document(
            "sh",
            "-c",
            "tty; stty size",
            edit=lambda d: d["process"].update(terminal=True, consoleSize={"height": 5, "width": 6}),
        )
    )
    assert config.process is not None
    inside = join.execute(
        config.process, pid=running.pid, stdio=Stdio(-1, -1, -1), config=config, cgroup=running.cgroup
    )
    assert inside.console is not None
    assert read_until(inside.console, b"5 6").split() == [b"/dev/pts/0", b"5", b"6"]
    tty.set_window_size(inside.console, 7, 8)
    assert process.wait_pidfd(inside.pidfd) == 0
    os.close(inside.pidfd)
    os.close(inside.console)
