"""Waiting: every condition in every state, several clients, clients that go away, starts that fail."""

import pytest

from tests.harness.api import Call, call
from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root

SLEEP = ("--net", "none", "busybox", "sleep", "1000")


def wait(engine: EngineProcess, name: str, condition: str) -> Call:
    """Registered when this returns."""
    waiting = Call(engine, "POST", f"/containers/{name}/wait?condition={condition}")
    assert waiting.head() == 200
    return waiting


def test_a_created_container_is_not_running(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, *SLEEP)
    assert call(engine, "POST", f"/containers/{name}/wait") == (200, {"StatusCode": 0})
    later = [wait(engine, name, "next-exit"), wait(engine, name, "next-exit")]
    engine.docker("start", name)
    engine.docker("kill", name)
    assert [one.body() for one in later] == [{"StatusCode": 137}, {"StatusCode": 137}]
    assert call(engine, "POST", f"/containers/{name}/wait?condition=not-running") == (200, {"StatusCode": 137})


def test_a_removal_answers_every_condition(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, *SLEEP)
    waiting = [wait(engine, name, condition) for condition in ("next-exit", "removed")]
    engine.docker("rm", name)
    assert [one.body() for one in waiting] == [{"StatusCode": 0}] * 2


def test_auto_removal(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--rm", "--name", name, *SLEEP)
    waiting = [wait(engine, name, condition) for condition in ("not-running", "next-exit", "removed")]
    engine.docker("kill", name)
    assert [one.body() for one in waiting] == [{"StatusCode": 137}] * 3
    assert call(engine, "GET", f"/containers/{name}/json")[0] == 404


def test_an_exit_under_a_restart_policy_is_an_exit(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, "--net", "none", "--restart", "always", "busybox", "false")
    waiting = wait(engine, name, "next-exit")
    engine.docker("start", name)
    assert waiting.body() == {"StatusCode": 1}
    assert call(engine, "POST", f"/containers/{name}/wait") == (200, {"StatusCode": 1})


def test_a_client_that_goes_away_is_forgotten(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, *SLEEP)
    wait(engine, name, "not-running").close()
    staying = wait(engine, name, "not-running")
    engine.docker("kill", name)
    assert staying.body() == {"StatusCode": 137}


@pytest.mark.parametrize("how", ["program", "directory"])
def test_an_auto_removed_container_that_cannot_start_is_removed(engine: EngineProcess, name: str, how: str) -> None:
    program = "/nosuch" if how == "program" else "true"
    engine.docker("create", "--rm", "--name", name, "--net", "none", "busybox", program)
    waiting = wait(engine, name, "removed")
    if how == "directory":  # what is no HafenError: a directory is where a file is to be written
        identity = engine.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()
        (engine.run / "containers" / identity / "config.json").mkdir(parents=True)
    assert engine.docker("start", name, check=False).code != 0
    answer = waiting.body()
    assert isinstance(answer, dict)
    assert answer["StatusCode"] != 0


def test_an_unknown_condition_is_refused(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, *SLEEP)
    status, answer = call(engine, "POST", f"/containers/{name}/wait?condition=bored")
    assert (status, answer) == (400, {"message": 'invalid condition: "bored"'})


def test_a_restart_that_is_called_off_is_answered(engine: EngineProcess, name: str) -> None:
    """Killing what waits for its next start stops it, as in Docker; the first pauses are 0.1, 0.2, 0.4 s."""
    engine.docker("create", "--name", name, "--net", "none", "--restart", "always", "busybox", "false")
    with engine.docker_beside("events", "--filter", f"container={name}", "--filter", "event=die") as events:
        engine.docker("start", name)
        for _ in range(4):
            assert events.line()
    waiting = wait(engine, name, "next-exit")
    engine.docker("kill", name)
    assert waiting.body() == {"StatusCode": 1}
    assert engine.docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", name).stdout == "exited 4\n"
