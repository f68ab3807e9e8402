"""What an engine finds when it starts: truth, whatever happened to the one before."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess
from tests.root.engine.conftest import FLAGS


@pytest.fixture
def own() -> Iterator[EngineProcess]:
    """An engine that the test may kill."""
    with tempfile.TemporaryDirectory(prefix="hafen-engine-r-") as folder:
        flags = (FLAGS[0], f"hfr{os.getpid() % 100000}", *FLAGS[2:])
        with EngineProcess(Path(folder) / "e", *flags) as engine:
            engine.load_busybox()
            yield engine


def state(engine: EngineProcess, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(engine.docker("inspect", "-f", "{{json .State}}", name).stdout)
    return found


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a process of nobody we know: polling is all there is


def wait_for(condition: "object", engine: EngineProcess, name: str) -> None:
    deadline = time.monotonic() + 10
    while state(engine, name)["Status"] != condition:
        assert time.monotonic() < deadline, state(engine, name)
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_running_container_keeps_running(own: EngineProcess, how: str) -> None:
    script = "echo before; while ! [ -e /go ]; do sleep 0.05; done; echo after; exit 7"
    own.docker("run", "-d", "--name", "c1", "busybox", "sh", "-c", script)
    before = state(own, "c1")
    address = own.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "c1").stdout
    getattr(own, how)()
    own.start()
    after = state(own, "c1")
    assert (after["Pid"], after["StartedAt"], after["Status"]) == (before["Pid"], before["StartedAt"], "running")
    assert own.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "c1").stdout == address
    own.docker("exec", "c1", "touch", "/go")
    assert own.docker("wait", "c1").stdout == "7\n"
    assert own.docker("logs", "c1").stdout == "before\nafter\n"
    own.docker("rm", "c1")


def test_an_exit_without_an_engine_is_known_later(own: EngineProcess) -> None:
    own.docker("run", "-d", "--name", "c1", "busybox", "sh", "-c", "while ! [ -e /go ]; do sleep 0.02; done; exit 9")
    pid = int(str(state(own, "c1")["Pid"]))
    own.kill()
    Path(f"/proc/{pid}/root/go").touch()
    wait_gone(pid)
    own.start()
    assert state(own, "c1")["Status"] == "exited"
    assert state(own, "c1")["ExitCode"] == 9
    assert not list(own.run.glob("containers/*"))


def test_an_auto_removed_container_that_ended_meanwhile_is_gone(own: EngineProcess) -> None:
    script = "while ! [ -e /go ]; do sleep 0.02; done"
    own.docker("run", "-d", "--rm", "--name", "c1", "-v", "/anonymous", "busybox", "sh", "-c", script)
    pid = int(str(state(own, "c1")["Pid"]))
    own.kill()
    Path(f"/proc/{pid}/root/go").touch()
    wait_gone(pid)
    own.start()
    assert own.docker("ps", "-aq").stdout == ""
    assert own.docker("volume", "ls", "-q").stdout == ""
    assert not list((own.data / "containers").iterdir())


def test_a_killed_shim_is_an_exit_with_137(own: EngineProcess) -> None:
    own.docker("run", "-d", "--name", "c1", "busybox", "sleep", "1000")
    pid = int(str(state(own, "c1")["Pid"]))
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    own.kill()
    os.kill(shim, signal.SIGKILL)
    wait_gone(pid)
    own.start()
    assert (state(own, "c1")["Status"], state(own, "c1")["ExitCode"]) == ("exited", 137)
    own.docker("start", "c1")
    pid = int(str(state(own, "c1")["Pid"]))
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    assert own.docker("wait", "c1").stdout == "137\n"


@pytest.mark.parametrize(
    ("policy", "expected"), [("always", "running"), ("unless-stopped", "running"), ("no", "exited")]
)
def test_restart_policies_are_carried_out(own: EngineProcess, policy: str, expected: str) -> None:
    own.docker("run", "-d", "--restart", policy, "--name", "c1", "busybox", "sleep", "1000")
    own.docker("run", "-d", "--restart", policy, "--name", "stopped", "busybox", "sleep", "1000")
    own.docker("stop", "-t", "0", "stopped")
    pid = int(str(state(own, "c1")["Pid"]))
    own.kill()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    own.start()
    wait_for(expected, own, "c1")
    wait_for("running" if policy == "always" else "exited", own, "stopped")


def test_what_no_record_knows_is_removed(own: EngineProcess) -> None:
    own.stop()
    stray = "0123456789abcdef" * 4
    (own.data / "containers" / stray / "logs").mkdir(parents=True)
    (own.run / "containers" / stray).mkdir(parents=True)
    mine = own.data / "volumes/precious/_data"
    mine.mkdir(parents=True)
    (mine / "data").touch()
    own.start()
    assert not (own.data / "containers" / stray).exists()
    assert not (own.run / "containers" / stray).exists()
    assert (mine / "data").exists()  # data that no row knows is never thrown away


def test_a_second_engine_on_the_same_root_is_refused(own: EngineProcess) -> None:
    assert own.process
    command = [sys.executable, "-m", "hafen.daemon.main", "--root", str(own.data), "--run", f"{own.base}/other"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert second.stderr == f"hafen engine: another engine (pid {own.process.pid}) uses {own.data}\n"
    assert own.docker("version", "-f", "{{.Server.Version}}").stdout


def test_events_of_the_past_survive(own: EngineProcess) -> None:
    own.docker("run", "--rm", "--net", "none", "--label", "a=b", "busybox", "true")
    own.stop()
    own.start()
    arguments = ("--since", "5m", "--until", f"{time.time():.9f}", "--filter", "label=a=b", "--format", "{{.Action}}")
    assert own.docker("events", *arguments).stdout.split() == ["create", "attach", "start", "die", "destroy"]


def exec_state(engine: EngineProcess, exec_id: str) -> tuple[object, object, object]:
    status, answer = call(engine, "GET", f"/exec/{exec_id}/json")
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer["Running"], answer["ExitCode"], answer["Pid"]


def test_execs_outlive_the_engine(own: EngineProcess) -> None:
    own.docker("run", "-d", "--net", "none", "--name", "c1", "busybox", "sleep", "1000")
    root = Path(f"/proc/{state(own, 'c1')['Pid']}/root")
    until = "while ! [ -e /{} ]; do sleep 0.02; done; touch /{}.done; exit {}"
    ids = {}
    for name, code in (("meanwhile", 5), ("later", 6), ("new", 7), ("before", 8)):
        command = ["sh", "-c", until.format(name, name, code)]
        _, answer = call(own, "POST", "/containers/c1/exec", {"Cmd": command})
        assert isinstance(answer, dict)
        ids[name] = str(answer["Id"])
    for name in ("meanwhile", "later", "before"):
        assert call(own, "POST", f"/exec/{ids[name]}/start", {"Detach": True})[0] == 200
    (root / "before").touch()
    with own.docker_beside("events", "--since", "1m", "--filter", "event=exec_die") as events:
        assert events.line()
    running = exec_state(own, ids["later"])
    pid = int(str(exec_state(own, ids["meanwhile"])[2]))
    own.kill()
    (root / "meanwhile").touch()
    wait_gone(pid)
    own.start()
    assert exec_state(own, ids["before"])[:2] == (False, 8)
    assert exec_state(own, ids["meanwhile"])[:2] == (False, 5)
    assert running[0] is True
    assert exec_state(own, ids["later"]) == running
    assert exec_state(own, ids["new"]) == (False, None, 0)
    assert call(own, "POST", f"/exec/{ids['new']}/start", {"Detach": True})[0] == 200
    with own.docker_beside(
        "events", "--since", "1m", "--filter", "event=exec_die", "--format", "{{.Actor.Attributes.exitCode}}"
    ) as events:
        assert sorted(events.line() for _ in range(2)) == ["5\n", "8\n"]
        (root / "later").touch()
        assert events.line() == "6\n"
        (root / "new").touch()
        assert events.line() == "7\n"
    assert exec_state(own, ids["later"])[:2] == (False, 6)
    status, answer = call(own, "POST", f"/exec/{ids['later']}/start", {"Detach": True})
    assert status == 409
    own.docker("rm", "-f", "c1")
    assert call(own, "GET", f"/exec/{ids['later']}/json")[0] == 404
    own.kill()
    own.start()
    assert call(own, "GET", f"/exec/{ids['later']}/json")[0] == 404


def test_execs_of_a_container_that_ended_meanwhile_have_ended(own: EngineProcess) -> None:
    own.docker("run", "-d", "--net", "none", "--name", "c1", "busybox", "sleep", "1000")
    _, answer = call(own, "POST", "/containers/c1/exec", {"Cmd": ["sleep", "1000"]})
    assert isinstance(answer, dict)
    assert call(own, "POST", f"/exec/{answer['Id']}/start", {"Detach": True})[0] == 200
    pid = int(str(state(own, "c1")["Pid"]))
    own.kill()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    own.start()
    assert exec_state(own, str(answer["Id"]))[:2] == (False, 137)


@pytest.mark.parametrize("copying", [False, True], ids=["paused", "for a copy"])
def test_an_engine_killed_before_it_noted_a_pause(own: EngineProcess, copying: bool) -> None:
    """It is paused, and shows so; where that was for the time of a copy, it goes on."""
    container = own.docker("run", "-d", "--net", "none", "--name", "held", "busybox", "sleep", "600").stdout.strip()
    own.docker("pause", "held")
    own.kill()
    with contextlib.closing(sqlite3.connect(own.data / "hafen.db")) as database, database:
        (status,) = database.execute("SELECT status FROM containers WHERE id = ?", (container,)).fetchone()
        before = json.loads(status) | {"state": "running"}
        database.execute("UPDATE containers SET status = ? WHERE id = ?", (json.dumps(before).encode(), container))
        if copying:
            work = json.dumps({"creates": "", "paused": [container]}).encode()
            database.execute("INSERT INTO volume_work (id, record) VALUES ('copy', ?)", (work,))
    own.start()
    state = own.docker("inspect", "-f", "{{.State.Status}}", "held").stdout.strip()
    assert state == ("running" if copying else "paused")
    if not copying:
        own.docker("unpause", "held")
    assert own.docker("exec", "held", "echo", "alive").stdout == "alive\n"
