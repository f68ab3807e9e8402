"""The real docker command, unchanged, against our socket: what a person types in the first hour."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.terminal import Terminal


def test_version_and_info(engine: EngineProcess) -> None:
    version = json.loads(engine.docker("version", "--format", "{{json .}}").stdout)
    assert version["Server"]["Os"] == "linux"
    info = json.loads(engine.docker("info", "--format", "{{json .}}").stdout)
    assert info["Images"] >= 1
    assert info["Driver"] == "overlay2"
    assert info["NCPU"] >= 1


def test_hello_world_on_the_host_image(engine: EngineProcess) -> None:
    assert engine.docker("run", "--rm", "host", "echo", "Hello World").stdout == "Hello World\n"


def test_hello_world_with_a_terminal(engine: EngineProcess) -> None:
    with Terminal(["docker", "run", "--rm", "-t", "host", "echo", "Hello World"], engine.environment) as terminal:
        terminal.expect("Hello World\r")
        assert terminal.wait() == 0


def test_interactive_shell(engine: EngineProcess) -> None:
    command = ["docker", "run", "--rm", "-it", "busybox", "sh"]
    with Terminal(command, engine.environment, rows=33, columns=111) as terminal:
        terminal.expect("#")
        terminal.type("stty size; tty\r")
        terminal.expect("33 111")
        terminal.expect("/dev/pts/0")
        terminal.resize(44, 122)
        terminal.type("trap 'stty size' WINCH; sleep 0.2; stty size\r")
        terminal.expect("44 122")
        terminal.type("echo $((6 * 7))\r")
        terminal.expect("42")
        terminal.type("sh -c 'echo ready; exec cat'\r")
        terminal.expect("ready\r\n")
        terminal.type("echoed by cat\r")
        terminal.expect("echoed by cat\r\nechoed by cat\r\n")
        terminal.type("\x03")
        terminal.expect("#")
        terminal.type("exit 7\r")
        assert terminal.wait() == 7
        assert terminal.restored()


def test_detach_keys_leave_the_container_running(engine: EngineProcess, name: str) -> None:
    with Terminal(["docker", "run", "-it", "--name", name, "busybox", "sh"], engine.environment) as terminal:
        terminal.expect("#")
        terminal.type("\x10\x11")
        assert terminal.wait() == 0
    assert engine.docker("inspect", "-f", "{{.State.Running}}", name).stdout == "true\n"
    with Terminal(["docker", "attach", name], engine.environment) as terminal:
        terminal.type("exit 5\r")
        assert terminal.wait() == 5


def test_stdin_reaches_the_container_and_ends(engine: EngineProcess) -> None:
    text = "a line\n" * 20_000
    assert engine.docker("run", "--rm", "-i", "busybox", "cat", stdin=text).stdout == text
    assert engine.docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin=text).stdout.split() == [str(len(text))]


def test_streams_are_apart(engine: EngineProcess) -> None:
    said = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (said.stdout, said.stderr, said.code) == ("out\n", "err\n", 3)


def test_detached_life(engine: EngineProcess, name: str) -> None:
    script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
    ident = engine.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).stdout.strip()
    assert len(ident) == 64
    row = engine.docker("ps", "--no-trunc", "--filter", f"name=^{name}$", "--format", "{{.ID}} {{.Names}} {{.Status}}")
    assert row.stdout.startswith(f"{ident} {name} Up ")

    with engine.docker_beside("logs", "-f", name) as follow:
        assert [follow.line() for _ in range(5)] == [f"line {i}\n" for i in range(1, 6)]
        looked_into(engine, name, ident)
        engine.docker("stop", "-t", "1", name)
        rest = follow.rest().splitlines()
        assert follow.wait() == 0
    every = engine.docker("logs", name).stdout.splitlines()
    assert every == [f"line {i}" for i in range(1, len(every) + 1)]
    assert rest == every[5:]
    assert engine.docker("logs", "--tail", "2", name).stdout.splitlines() == every[-2:]
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", name).stdout == "137 exited\n"


def looked_into(engine: EngineProcess, name: str, ident: str) -> None:
    assert engine.docker("exec", name, "hostname").stdout.strip() == ident[:12]
    assert "sh -c i=0" in engine.docker("top", name).stdout  # its sleeps come and go


def test_exec_with_a_terminal(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    with Terminal(
        ["docker", "exec", "-it", "-e", "COLOUR=blue", "-w", "/tmp", name, "sh"], engine.environment
    ) as terminal:
        terminal.expect("#")
        terminal.type("echo $COLOUR in $PWD\r")
        terminal.expect("blue in /tmp")
        terminal.type("exit 9\r")
        assert terminal.wait() == 9


def test_diff_commit_and_run_again(engine: EngineProcess, name: str) -> None:
    engine.docker(
        "run", "--name", name, "busybox", "sh", "-c", "echo kept > /root/new; rm /etc/group; echo x >> /etc/passwd"
    )
    assert sorted(engine.docker("diff", name).stdout.splitlines()) == [
        "A /root/new", "C /etc", "C /etc/passwd", "C /root", "D /etc/group",
    ]  # fmt: skip
    image = engine.docker("commit", "-c", 'CMD ["cat", "/root/new"]', "-m", "said", name, "kept:1").stdout.strip()
    try:
        assert image.startswith("sha256:")
        assert engine.docker("run", "--rm", "kept:1").stdout == "kept\n"
        assert "group" not in engine.docker("run", "--rm", "kept:1", "ls", "/etc").stdout.split()
    finally:
        engine.docker("rmi", "kept:1")


@pytest.mark.parametrize("running", [True, False])
def test_copy_both_ways(engine: EngineProcess, name: str, running: bool, tmp_path: Path) -> None:
    engine.docker(
        "run" if running else "create", *(["-d"] if running else []), "--name", name, "busybox", "sleep", "600"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "in/file").chmod(0o640)
    (tmp_path / "in/link").symlink_to("file")
    engine.docker("cp", str(tmp_path / "in"), f"{name}:/root/copied")
    engine.docker("cp", f"{name}:/root/copied", str(tmp_path / "out"))
    assert (tmp_path / "out/file").read_bytes() == (tmp_path / "in/file").read_bytes()
    assert (tmp_path / "out/file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out/link").readlink() == Path("file")
    missing = engine.docker("cp", f"{name}:/no/such", str(tmp_path), check=False)
    assert missing.code == 1
    assert "Could not find the file /no/such in container" in missing.stderr


def test_inspect_templates(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, "-e", "A=1", "-l", "k=v", "--restart", "on-failure:3", "busybox", "true")
    out = engine.docker(
        "inspect", "-f", '{{.Name}} {{index .Config.Labels "k"}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}', name
    )
    assert out.stdout == f"/{name} v 3\n"


def test_events_tell_the_life(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "--rm", "--name", name, "--network", "none", "busybox", "true")
    events = engine.docker(
        "events",
        "--since",
        "1m",
        "--until",
        f"{time.time():.6f}",
        "--filter",
        f"container={name}",
        "--format",
        "{{.Action}}",
    )
    assert events.stdout.split() == ["create", "attach", "start", "die", "destroy"]


def test_pause_holds_and_unpause_lets_go(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    engine.docker("pause", name)
    assert engine.docker("inspect", "-f", "{{.State.Status}}", name).stdout == "paused\n"
    refused = engine.docker("exec", name, "true", check=False)
    assert refused.code != 0
    assert "paused" in refused.stderr
    engine.docker("unpause", name)
    assert engine.docker("exec", name, "echo", "awake").stdout == "awake\n"


def test_signals_and_exit_codes(engine: EngineProcess, name: str) -> None:
    engine.docker(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "trap 'exit 42' USR1; while true; do sleep 0.05; done"
    )
    engine.docker("kill", "-s", "USR1", name)
    assert engine.docker("wait", name).stdout == "42\n"
    engine.docker("start", name)
    engine.docker("kill", name)
    assert engine.docker("wait", name).stdout == "137\n"


def test_a_foreground_run_forwards_signals(engine: EngineProcess, name: str) -> None:
    script = "trap 'echo bye; exit 6' TERM; echo up; while true; do sleep 0.05; done"
    with engine.docker_beside("run", "--rm", "--name", name, "busybox", "sh", "-c", script) as run:
        assert run.line() == "up\n"
        run.process.send_signal(signal.SIGTERM)
        assert run.rest() == "bye\n"
        assert run.wait() == 6


def test_restart_policy_tries_again(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "--restart", "on-failure:2", "busybox", "sh", "-c", "echo try; exit 1")
    died = ("events", "--since", "1m", "-f", f"container={name}", "-f", "event=die", "--format", "x")
    with engine.docker_beside(*died) as deaths:
        assert [deaths.line() for _ in range(3)] == ["x\n"] * 3
    assert engine.docker("wait", name).stdout == "1\n"
    assert engine.docker("logs", name).stdout == "try\n" * 3
    assert engine.docker("inspect", "-f", "{{.RestartCount}}", name).stdout == "2\n"


def test_rename_and_remove(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", f"{name}-old", "busybox")
    engine.docker("rename", f"{name}-old", name)
    assert engine.docker("ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.Names}}").stdout == f"{name}\n"
    engine.docker("start", name)
    engine.docker("rm", "-f", name)
    gone = engine.docker("inspect", name, check=False)
    assert gone.code == 1
    assert "no such object" in gone.stderr.lower()


def test_network_and_names_work_inside(engine: EngineProcess) -> None:
    out = engine.docker(
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip -4 -o addr show eth0; ip route; cat /etc/hosts /etc/resolv.conf; hostname",
    )
    assert " 172." in out.stdout or " 10." in out.stdout or " 192.168." in out.stdout
    assert "default via" in out.stdout
    assert "nameserver" in out.stdout
    assert "127.0.0.1\tlocalhost" in out.stdout


def test_none_host_and_shared_networks(engine: EngineProcess, name: str) -> None:
    assert engine.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").stdout.split() == ["lo"]
    host = engine.docker("run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net").stdout.split()
    assert set(host) == {entry.name for entry in Path("/sys/class/net").iterdir()}
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    address = engine.docker("exec", name, "ip", "-4", "-o", "addr", "show", "eth0").stdout.split()[3]
    shared = engine.docker(
        "run", "--rm", "--network", f"container:{name}", "busybox", "ip", "-4", "-o", "addr", "show", "eth0"
    )
    assert shared.stdout.split()[3] == address


def test_our_own_command_counts_what_is_there(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, "busybox")
    rows = engine.hafen("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").stdout.splitlines()
    images = len(set(engine.docker("images", "-q").stdout.split()))
    assert rows[:2] == [f"Images {images} 1", "Containers 1 0"]
