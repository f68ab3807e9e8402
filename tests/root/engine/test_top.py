"""`top` with ps(1)'s own arguments; the refusals are those of Docker 26.1 for the same requests."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.harness.engine import EngineProcess
from tests.root.engine.filterscenarios import ask


@pytest.fixture(scope="module")
def sleeper(engine: EngineProcess) -> Iterator[str]:
    engine.docker("run", "-d", "--name", "sleeper", "--net", "none", "busybox", "sleep", "604800")
    yield "sleeper"
    engine.docker("rm", "-f", "sleeper")


@pytest.mark.parametrize(
    ("arguments", "titles", "last"),
    [
        ("", ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "sleep 604800"),
        ("-o pid,comm", ["PID", "COMMAND"], "sleep"),
        ("axo stat,pid,args", ["STAT", "PID", "COMMAND"], "sleep 604800"),
    ],
)
def test_columns(engine: EngineProcess, sleeper: str, arguments: str, titles: list[str], last: str) -> None:
    status, body = ask(str(engine.socket), f"/containers/{sleeper}/top?ps_args={quote(arguments)}")
    assert status == 200
    assert isinstance(body, dict)
    assert body["Titles"] == titles
    assert [row[-1] for row in body["Processes"]] == [last]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-o comm", "Couldn't find PID field in ps output"),
        ("-o pid=x,comm", "Couldn't find PID field in ps output"),
        ("-o uid,pid=PID", 'specifying "uid,pid=PID" is not allowed'),
        ("-o comm=PID", 'specifying "comm=PID" is not allowed'),
    ],
)
def test_refused_columns(engine: EngineProcess, sleeper: str, arguments: str, message: str) -> None:
    answer = ask(str(engine.socket), f"/containers/{sleeper}/top?ps_args={quote(arguments)}")
    assert answer == (500, {"message": message})
