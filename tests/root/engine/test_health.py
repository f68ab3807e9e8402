"""Health checks as a client sees them, with intervals of a tenth of a second; what they do is Docker 26.1's."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.engine import Beside, EngineProcess
from tests.root.engine.conftest import FLAGS, wait_exists

pytestmark = pytest.mark.root

RUN = ("run", "-d", "--net", "none", "--health-interval", "100ms")


def health(engine: EngineProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("inspect", "-f", "{{json .State.Health}}", name).stdout)
    return found


@contextmanager
def watched(engine: EngineProcess, name: str, *events: str) -> Iterator[Beside]:
    """The container's events since its beginning, as lines of `{{.Action}}`."""
    filters = [word for event in events for word in ("--filter", f"event={event}")]
    with engine.docker_beside(
        "events", "--since", "10m", "--filter", f"container={name}", *filters, "--format", "{{.Action}}"
    ) as found:
        yield found


def test_from_starting_to_healthy_to_unhealthy_and_back(engine: EngineProcess, name: str) -> None:
    check = "echo $HOSTNAME $PWD $(id -u); echo err >&2; test ! -e /tmp/bad"
    engine.docker(
        *RUN, "--name", name, "--user", "65534", "-w", "/tmp", "--hostname", "box",
        "--health-cmd", check, "--health-retries", "2", "busybox", "sleep", "1000",
    )  # fmt: skip
    with watched(engine, name, "health_status") as events:
        assert events.line() == "health_status: healthy\n"
        assert "(healthy)" in engine.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}}").stdout
        result = health(engine, name)["Log"][0]
        assert (result["ExitCode"], sorted(result["Output"].splitlines())) == (0, ["box /tmp 65534", "err"])
        assert result["Start"] < result["End"]
        engine.docker("exec", name, "touch", "/tmp/bad")
        assert events.line() == "health_status: unhealthy\n"
        assert health(engine, name)["FailingStreak"] >= 2
        assert name in engine.docker("ps", "--filter", "health=unhealthy", "--format", "{{.Names}}").stdout
        assert name not in engine.docker("ps", "--filter", "health=healthy", "--format", "{{.Names}}").stdout
        engine.docker("exec", name, "rm", "/tmp/bad")
        assert events.line() == "health_status: healthy\n"
    shown = health(engine, name)
    assert shown["FailingStreak"] == 0
    assert len(shown["Log"]) <= 5


def test_each_probe_is_told_as_an_exec(engine: EngineProcess, name: str) -> None:
    engine.docker(*RUN, "--name", name, "--health-cmd", "exit 0", "busybox", "sleep", "1000")
    with watched(engine, name) as events:
        told = [events.line().strip() for _ in range(6)]
    assert told == [
        "create", "start", "exec_create: /bin/sh -c exit 0", "exec_start: /bin/sh -c exit 0", "exec_die",
        "health_status: healthy",
    ]  # fmt: skip


def test_a_probe_that_takes_too_long_is_killed(engine: EngineProcess, name: str) -> None:
    engine.docker(
        *RUN, "--name", name, "--health-cmd", "echo begun; exec sleep 1000", "--health-timeout", "100ms",
        "--health-retries", "1", "busybox", "sleep", "1000",
    )  # fmt: skip
    with watched(engine, name, "health_status") as events:
        assert events.line() == "health_status: unhealthy\n"
    result = health(engine, name)["Log"][0]
    assert (result["ExitCode"], result["Output"]) == (-1, "Health check exceeded timeout (100ms): begun\n")


def test_output_is_cut(engine: EngineProcess, name: str) -> None:
    engine.docker(
        *RUN, "--name", name, "--health-cmd", "yes | head -c 5000; exit 2", "--health-retries", "1",
        "busybox", "sleep", "1000",
    )  # fmt: skip
    with watched(engine, name, "health_status") as events:
        assert events.line() == "health_status: unhealthy\n"
    result = health(engine, name)["Log"][0]
    assert (result["ExitCode"], result["Output"]) == (2, "y\n" * 2048 + "...")


def test_failures_of_the_start_period_do_not_count(engine: EngineProcess, name: str) -> None:
    engine.docker(
        "run", "-d", "--net", "none", "--name", name, "--health-cmd", "false", "--health-retries", "1",
        "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "50ms",
        "busybox", "sleep", "1000",
    )  # fmt: skip
    with watched(engine, name, "exec_die") as events:
        for _ in range(3):
            assert events.line()
    shown = health(engine, name)
    assert (shown["Status"], shown["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in engine.docker("ps", "--filter", f"name={name}", "--format", "{{.Status}}").stdout


def test_a_paused_or_stopped_container_is_not_probed(engine: EngineProcess, name: str) -> None:
    engine.docker(*RUN, "--name", name, "--health-cmd", "exit 0", "busybox", "sleep", "1000")
    with watched(engine, name, "health_status", "unpause", "start") as events:
        assert [events.line() for _ in range(2)] == ["start\n", "health_status: healthy\n"]
        engine.docker("pause", name)
        assert health(engine, name)["Status"] == "unhealthy"
        engine.docker("unpause", name)
        assert [events.line() for _ in range(2)] == ["unpause\n", "health_status: healthy\n"]
        engine.docker("stop", "-t", "0", name)
        before = health(engine, name)
        assert before["Status"] == "unhealthy"
        engine.docker("start", name)
        assert [events.line() for _ in range(2)] == ["start\n", "health_status: healthy\n"]
    assert health(engine, name)["Log"][0]["End"] <= before["Log"][-1]["End"]  # the log goes on


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"Test": ["CMD-SHELL", "img"], "Interval": 2 * 10**9, "Retries": 7}),
        (("--health-retries", "2"), {"Test": ["CMD-SHELL", "img"], "Interval": 2 * 10**9, "Retries": 2}),
        (("--health-cmd", "own"), {"Test": ["CMD-SHELL", "own"], "Interval": 2 * 10**9, "Retries": 7}),
        (("--no-healthcheck",), {"Test": ["NONE"], "Interval": 2 * 10**9, "Retries": 7}),
    ],
)
@pytest.mark.parametrize("command", ["docker", "hafen"])
def test_each_field_is_inherited(
    engine: EngineProcess, name: str, command: str, flags: tuple[str, ...], expected: object
) -> None:
    image = "checked:latest"
    if image not in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout:
        engine.docker("create", "--name", name, "busybox")
        engine.docker("commit", "-c", "HEALTHCHECK --interval=2s --retries=7 CMD img", name, image)
        engine.docker("rm", name)
    getattr(engine, command)("create", "--name", name, *flags, image, "sleep", "1000")
    assert json.loads(engine.docker("inspect", "-f", "{{json .Config.Healthcheck}}", name).stdout) == expected


def test_what_has_no_check_shows_none(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "--no-healthcheck", "busybox", "sleep", "1000")
    assert health(engine, name) is None
    assert name in engine.docker("ps", "--filter", "health=none", "--format", "{{.Names}}").stdout


@pytest.fixture
def own() -> Iterator[EngineProcess]:
    """An engine that the test may kill."""
    with (
        tempfile.TemporaryDirectory(prefix="hafen-engine-h-") as folder,
        EngineProcess(Path(folder) / "e", *FLAGS[2:]) as engine,
    ):
        engine.load_busybox()
        yield engine


def test_a_killed_engine_loses_no_health_and_doubles_no_probe(own: EngineProcess) -> None:
    own.docker(*RUN, "--name", "steady", "--health-cmd", "exit 0", "busybox", "sleep", "1000")
    own.docker(*RUN, "--name", "slow", "--health-cmd", "echo probed >> /log; sleep 1000", "busybox", "sleep", "1000")
    with watched(own, "steady", "health_status") as events:
        assert events.line() == "health_status: healthy\n"
    with watched(own, "slow", "exec_start") as events:
        assert events.line()
    pid = own.docker("inspect", "-f", "{{.State.Pid}}", "slow").stdout.strip()
    wait_exists(Path(f"/proc/{pid}/root/log"))  # the probe has begun, and never ends
    own.kill()
    own.start()
    assert health(own, "steady")["Status"] == "healthy"
    with watched(own, "slow", "exec_start") as events:
        assert [events.line() for _ in range(2)]  # the second is this engine's
    processes = own.docker("top", "slow", "-eo", "pid,args").stdout
    assert processes.count("sleep 1000") == 2, processes  # the container's and one probe's
    own.docker("exec", "steady", "true")
    with watched(own, "steady", "exec_die") as events:
        assert events.line()
