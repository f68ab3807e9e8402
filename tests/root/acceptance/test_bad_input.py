"""Bad input gets Docker's message and exit code, and nothing is left behind."""

import json
import shlex
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess

# A docker command; below it the exit code and a part of its standard error. Docker 26.1 answers all of them so.
CASES = """
run --rm busybox no-such-command
    127 exec: "no-such-command": executable file not found in $PATH
run --rm busybox /no/such
    127 no such file or directory
run --rm busybox /etc/passwd
    126 permission denied
run --rm busybox /etc
    126 is a directory
run --rm -u nosuch busybox true
    125 unable to find user nosuch: no matching entries in passwd file
run --rm --mount type=bind,src=/no/such,dst=/m busybox
    125 bind source path does not exist: /no/such
run --rm -v /tmp:relative busybox
    125 invalid mount path: 'relative' mount path must be absolute
run --rm -m 1m busybox true
    125 Minimum memory limit allowed is 6MB
run --rm --cap-add FLY busybox true
    125 invalid CapAdd: unknown capability: "CAP_FLY"
run --rm --security-opt what busybox true
    125 nvalid --security-opt
run --rm --cpus 4096 busybox true
    125 Range of CPUs is from 0.01 to
run --rm --runtime nope busybox true
    125 unknown or invalid runtime name: nope
run --rm --network nope busybox true
    125 network nope not found
start nosuch
    1 No such container: nosuch
run --rm --log-driver nope busybox true
    125 nope
run --rm --stop-signal SIGNOPE busybox true
    125 nvalid signal: SIGNOPE
run --rm -w relative busybox true
    125 the working directory 'relative' is invalid, it needs to be an absolute path
"""


def cases() -> list[tuple[str, int, str]]:
    lines = CASES.strip().splitlines()
    return [(command, *expected(said)) for command, said in zip(lines[::2], lines[1::2], strict=True)]


def expected(said: str) -> tuple[int, str]:
    code, _, message = said.strip().partition(" ")
    return int(code), message


@pytest.mark.parametrize(("command", "code", "message"), cases())
def test_refused_as_docker_does(engine: EngineProcess, command: str, code: int, message: str) -> None:
    before = traces(engine)
    said = engine.docker(*shlex.split(command), check=False)
    assert said.code == code, said
    assert message in said.stderr
    assert traces(engine) == before


def traces(engine: EngineProcess) -> dict[str, list[str]]:
    """What an engine has on disk and in the kernel that a refused request must not add to."""
    return {
        "containers": engine.docker("ps", "-aq").stdout.split(),
        "snapshots": sorted(path.name for path in (engine.data / "snapshots").glob("*/*") if path.name.isdigit()),
        "run": sorted(path.name for path in (engine.run / "containers").glob("*")),
        "data": sorted(path.name for path in (engine.data / "containers").glob("*")),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/hafen/*/")),
    }


def test_duplicate_name(engine: EngineProcess, name: str) -> None:
    ident = engine.docker("create", "--name", name, "busybox").stdout.strip()
    said = engine.docker("create", "--name", name, "busybox", check=False)
    assert said.code == 1
    assert f'Conflict. The container name "/{name}" is already in use by container "{ident}"' in said.stderr


def test_unknown_image_says_so(engine: EngineProcess) -> None:
    said = engine.docker("run", "--rm", "--pull", "never", "nosuch:1", check=False)
    assert said.code == 125
    assert "No such image: nosuch:1" in said.stderr


def test_bad_profile(engine: EngineProcess, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_FLY"}))
    said = engine.docker("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "true", check=False)
    assert said.code == 125
    assert "SCMP_ACT_FLY" in said.stderr or "seccomp" in said.stderr


def test_a_running_container_is_not_removed_without_force(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    said = engine.docker("rm", name, check=False)
    assert said.code == 1
    assert "container is running" in said.stderr
