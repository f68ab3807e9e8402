"""Restart policies, waiting, attaching, events: what a client sees of a container's life."""

import json
import time
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.root.engine.conftest import wait_exists


def inspect(engine: EngineProcess, name: str, template: str) -> str:
    return engine.docker("inspect", "-f", template, name).stdout.strip()


def test_on_failure_gives_up_after_so_many(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--restart", "on-failure:2", "--name", name, "busybox", "false")
    filters = ("--filter", f"container={name}", "--format", "{{.Action}}")
    with engine.docker_beside("events", "--since", "1m", *filters) as events:
        assert [events.line().strip() for _ in range(7)] == ["create", *["start", "die"] * 3]
    assert inspect(engine, name, "{{.State.Status}} {{.RestartCount}}") == "exited 2"


def test_always_comes_back_until_it_is_stopped(engine: EngineProcess, name: str) -> None:
    script = "echo run; sleep 0.05"
    engine.docker("run", "-d", "--net", "none", "--restart", "always", "--name", name, "busybox", "sh", "-c", script)
    with engine.docker_beside("events", "--filter", f"container={name}", "--filter", "event=start") as events:
        assert events.line()
    engine.docker("stop", name)
    assert inspect(engine, name, "{{.State.Status}}") == "exited"
    assert int(inspect(engine, name, "{{.RestartCount}}")) >= 1
    count = inspect(engine, name, "{{.RestartCount}}")
    time.sleep(0.3)  # longer than its first pause: nothing may come
    assert inspect(engine, name, "{{.State.Status}} {{.RestartCount}}") == f"exited {count}"


@pytest.mark.parametrize(
    ("flags", "signal", "expected"),
    [
        ((), "KILL", "exited 0"),
        ((), "HUP", "exited 0"),  # without a stop signal of its own any signal calls the policy off, as in Docker
        (("--stop-signal", "USR1"), "USR1", "exited 0"),
        (("--stop-signal", "USR1"), "HUP", "running 1"),
    ],
)
def test_who_kills_it_decides_whether_it_comes_back(
    engine: EngineProcess, name: str, flags: tuple[str, ...], signal: str, expected: str
) -> None:
    script = "trap 'exit 3' HUP USR1; touch /ready; while :; do sleep 0.02; done"
    engine.docker(
        "run", "-d", "--net", "none", "--restart", "always", *flags, "--name", name, "busybox", "sh", "-c", script
    )
    wait_exists(Path(f"/proc/{inspect(engine, name, '{{.State.Pid}}')}/root/ready"))
    filters = ("--filter", f"container={name}", "--filter", "event=die", "--filter", "event=start")
    with engine.docker_beside("events", "--since", "1m", *filters) as events:
        engine.docker("kill", "-s", signal, name)
        for _ in range(3 if expected.startswith("running") else 2):
            assert events.line()
    assert inspect(engine, name, "{{.State.Status}} {{.RestartCount}}") == expected


def test_output_of_the_first_instant_reaches_an_attached_client(engine: EngineProcess) -> None:
    for number in range(10):
        assert engine.docker("run", "--rm", "--net", "none", "busybox", "echo", str(number)).stdout == f"{number}\n"


def test_start_attached_with_input(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "-i", "--net", "none", "--name", name, "busybox", "cat")
    assert engine.docker("start", "-ai", name, stdin="through\n").stdout == "through\n"


def test_stop_sends_the_signal_and_waits(engine: EngineProcess, name: str) -> None:
    script = "trap 'echo told; exit 5' INT; while :; do sleep 0.05; done"
    engine.docker("run", "-d", "--net", "none", "--stop-signal", "INT", "--name", name, "busybox", "sh", "-c", script)
    engine.docker("stop", name)
    assert inspect(engine, name, "{{.State.ExitCode}}") == "5"
    assert engine.docker("logs", name).stdout == "told\n"


def test_events_of_one_life(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "busybox", "sleep", "1000")
    engine.docker("exec", name, "true")
    engine.docker("pause", name)
    engine.docker("unpause", name)
    engine.docker("rename", name, f"{name}-2")
    engine.docker("rm", "-f", f"{name}-2")
    arguments = (
        "--since",
        "1m",
        "--until",
        f"{time.time():.9f}",
        "--filter",
        "type=container",
        "--format",
        "{{json .}}",
    )
    events = [json.loads(line) for line in engine.docker("events", *arguments).stdout.splitlines()]
    own = [event for event in events if event["Actor"]["Attributes"].get("name", "").startswith(name)]
    assert [event["Action"].partition(":")[0] for event in own] == [
        *("create", "start", "exec_create", "exec_start", "exec_die", "pause", "unpause"),
        *("rename", "kill", "die", "destroy"),
    ]
    by_action = {event["Action"].partition(":")[0]: event["Actor"]["Attributes"] for event in own}
    assert by_action["exec_die"]["exitCode"] == "0"
    assert by_action["exec_create"]["execID"] == by_action["exec_die"]["execID"]
    assert by_action["rename"]["oldName"] == f"/{name}"
    assert by_action["die"]["exitCode"] == "137"
    assert by_action["kill"]["signal"] == "9"
    assert by_action["create"]["image"] == "busybox"


def test_a_failed_start_leaves_it_created(engine: EngineProcess, name: str) -> None:
    failed = engine.docker("run", "-d", "--net", "none", "--name", name, "busybox", "/absent", check=False)
    assert failed.code == 127
    assert inspect(engine, name, "{{.State.Status}} {{.State.ExitCode}}") == "created 127"
    assert "no such file or directory" in inspect(engine, name, "{{.State.Error}}")
    assert engine.docker("run", "--rm", "--net", "none", "busybox", "/absent", check=False).code == 127
    assert (
        engine.docker("ps", "-aq", "--filter", "ancestor=busybox", "--filter", "status=created").stdout.count("\n") == 1
    )


def test_namespaces_of_other_containers(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--ipc", "shareable", "--net", "none", "--name", name, "busybox", "sleep", "1000")
    run = ("run", "--rm", "--net", "none")
    engine.docker(*run, "--ipc", f"container:{name}", "busybox", "touch", "/dev/shm/met")
    assert engine.docker("exec", name, "ls", "/dev/shm").stdout == "met\n"
    assert "sleep 1000" in engine.docker(*run, "--pid", f"container:{name}", "busybox", "ps").stdout
    assert (
        str(engine.process and engine.process.pid)
        in engine.docker(*run, "--pid", "host", "busybox", "ls", "/proc").stdout
    )
    engine.docker("rm", "-f", name)
    assert str(engine.base) not in Path("/proc/mounts").read_text()
    engine.docker("run", "-d", "--net", "none", "--name", name, "busybox", "sleep", "1000")
    refused = engine.docker(*run, "--ipc", f"container:{name}", "busybox", "true", check=False)
    assert "non-shareable IPC" in refused.stderr


def test_update_and_stats(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--memory", "64m", "--name", name, "busybox", "sleep", "1000")
    engine.docker("update", "--memory", "128m", "--memory-swap", "256m", "--restart", "always", name)
    assert inspect(engine, name, "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}") == f"{128 << 20} always"
    shown = engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name).stdout
    assert "/ 128MiB 1" in shown
