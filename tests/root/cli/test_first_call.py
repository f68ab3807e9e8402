"""The first command on a machine: the launcher sets up, the engine is started by itself."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.engine import ROOT

pytestmark = pytest.mark.root

# Mounts and network of its own, where /run, the data and the log are empty: as on a machine without an engine.
PRIVATE = """
set -e; mount --make-rprivate /; for place in /run /var/lib /var/log; do mount -t tmpfs t $place; done; set +e
"""


def alone(script: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("DOCKER_HOST", "HAFEN_HOST")}
    environment["HAFEN"] = f"{sys.executable} -m hafen.cli.main"
    return subprocess.run(
        ["unshare", "-mnpf", "--mount-proc", "--kill-child", "sh", "-c", PRIVATE + script],
        capture_output=True, text=True, env=environment, timeout=90, check=False,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare command to be alone with")
class TestEngineStartedByItself:
    def test_by_the_first_of_several_commands(self) -> None:
        done = alone("""
            $HAFEN ps -q & first=$!
            $HAFEN ps -q & second=$!
            wait $first && wait $second && $HAFEN version -f '{{.Server.Os}}' && test -s /var/log/hafen.log
        """)
        assert (done.returncode, done.stdout) == (0, "linux\n"), done.stderr
        assert 1 <= done.stderr.count("hafen: starting the engine (log: /var/log/hafen.log)\n") <= 2

    def test_not_for_completion_nor_for_another_address(self) -> None:
        done = alone("$HAFEN __complete rm ''; $HAFEN -H unix:///run/other.sock ps; test ! -e /run/hafen")
        assert done.returncode == 0, done.stderr
        assert "starting" not in done.stderr

    def test_what_failed_is_said(self) -> None:
        done = alone("echo in the way >/var/lib/hafen; $HAFEN ps")
        assert done.returncode == 1
        assert "the engine was started and ended" in done.stderr
        assert "/var/log/hafen.log" in done.stderr


def test_the_users_interrupt_does_not_reach_the_engine() -> None:
    """The engine has a session of its own, so that Ctrl-C in the first command's terminal is not its end."""
    done = alone(
        "$HAFEN ps -q && kill -INT 0; $HAFEN ps -q",
    )
    assert done.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT), done.stderr
    assert done.stderr.count("starting the engine") == 1


class TestLauncher:
    """The script with stand-ins for what it calls: the real set-up is what every first `./check` does."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        shutil.copy(ROOT / "hafen", tmp_path / "hafen")
        (tmp_path / "pyproject.toml").touch()
        (tmp_path / "src").symlink_to(ROOT / "src")
        (tmp_path / "tools").mkdir()
        for name, result in (("install-packages", 0), ("make-venv", 0)):
            self.tool(tmp_path, name, result)
        return tmp_path

    def tool(self, checkout: Path, name: str, result: int) -> None:
        script = checkout / "tools" / name
        script.write_text(
            f'#!/bin/sh\ncd "$(dirname "$0")/.." && echo "{name} $*" >>calls\n'
            f"[ {name} = make-venv ] && mkdir -p .venv/bin && ln -sf {sys.executable} .venv/bin/python "
            f"&& touch .venv/hafen-stamp\nexit {result}\n"
        )
        script.chmod(0o755)

    def run(self, checkout: Path, *words: str, name: str = "./hafen", cwd: Path | None = None) -> tuple[int, str]:
        done = subprocess.run([name, *words], cwd=cwd or checkout, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def test_the_first_call_sets_up_and_later_ones_do_not(self, checkout: Path) -> None:
        for _ in range(2):
            code, out = self.run(checkout, "--version")
            assert code == 0
            assert out.startswith("Hafen version")
        assert (checkout / "calls").read_text().splitlines()[-1] == "make-venv run"
        assert (checkout / "calls").read_text().count("make-venv") == 1

    def test_a_changed_project_is_set_up_again(self, checkout: Path) -> None:
        self.run(checkout, "--version")
        later = (checkout / ".venv/hafen-stamp").stat().st_mtime + 5
        os.utime(checkout / "pyproject.toml", (later, later))
        self.run(checkout, "--version")
        assert (checkout / "calls").read_text().count("make-venv") == 2

    def test_from_elsewhere_and_through_a_link(self, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (elsewhere / "h").symlink_to(checkout / "hafen")
        assert self.run(checkout, "--version", name=str(elsewhere / "h"), cwd=elsewhere)[0] == 0
        assert self.run(checkout, "--version", name=str(checkout / "hafen"), cwd=elsewhere)[0] == 0

    @pytest.mark.parametrize("failing", ["install-packages", "make-venv"])
    def test_a_failed_set_up_ends_it(self, checkout: Path, failing: str) -> None:
        self.tool(checkout, failing, 3)
        (checkout / ".venv").mkdir()
        assert self.run(checkout, "--version") == (1, "")

    def test_arguments_arrive_as_they_are(self, checkout: Path) -> None:
        code, out = self.run(checkout, "__complete", "run", "--name", "a b", "--na")
        assert (code, out.split("\t")[0]) == (0, "--name")
