"""`hafen` on a real pseudo-terminal, against our own engine: raw mode, size, detaching, signals, and the way back."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.terminal import Terminal

pytestmark = pytest.mark.root

SECONDS = 20


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("hafen-cli") / "engine") as process:
        process.load_busybox()
        yield process


def hafen(engine: EngineProcess, *arguments: str) -> Terminal:
    return Terminal([sys.executable, "-m", "hafen.cli.main", *arguments], engine.environment)


def test_a_shell_is_typed_at_and_its_exit_code_comes_back(engine: EngineProcess) -> None:
    with hafen(engine, "run", "--rm", "-it", "--net", "none", "busybox", "sh") as shell:
        shell.expect("# ")
        assert not shell.restored()  # raw, for now
        shell.type("echo $((40+2)); tty\r")
        shell.expect("42\r\n/dev/")
        shell.type("exit 5\r")
        assert shell.wait() == 5
        assert shell.restored()


def test_an_interrupt_key_is_the_containers(engine: EngineProcess) -> None:
    script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done"
    with hafen(engine, "run", "--rm", "-it", "--net", "none", "host", "sh", "-c", script) as shell:
        shell.expect("ready")
        shell.type("\x03")
        shell.expect("caught")
        assert shell.wait() == 6
        assert shell.restored()


def test_the_size_is_right_at_once_and_follows(engine: EngineProcess) -> None:
    script = "trap 'echo now $(stty size)' WINCH; echo first $(stty size); while :; do sleep 0.05; done"
    with hafen(engine, "run", "--rm", "-it", "--net", "none", "host", "sh", "-c", script) as shell:
        shell.expect("first 30 100")
        shell.resize(50, 120)
        shell.expect("now 50 120")
        shell.type("\x03")
        assert shell.wait() == 130


def test_detaching_leaves_it_running_and_attaching_comes_back(engine: EngineProcess) -> None:
    with hafen(engine, "run", "-it", "--name", "cli-detached", "--net", "none", "busybox", "sh") as shell:
        shell.expect("# ")
        shell.type("\x10\x11")
        assert shell.wait() == 0
        assert shell.restored()
    assert engine.hafen("inspect", "-f", "{{.State.Running}}", "cli-detached").stdout == "true\n"
    with hafen(engine, "attach", "--detach-keys", "ctrl-a,d", "cli-detached") as again:
        again.type("echo ba''ck\r")
        again.expect("back\r\n")
        again.type("\x01d")
        again.expect("read escape sequence")
        assert again.wait() == 1  # as docker: only run and start take detaching for success
    engine.hafen("rm", "-f", "cli-detached")


def test_the_terminal_is_restored_when_we_are_terminated(engine: EngineProcess) -> None:
    with hafen(engine, "run", "-it", "--name", "cli-killed", "--net", "none", "busybox", "sh") as shell:
        shell.expect("# ")
        shell.process.terminate()
        assert shell.wait() == 128 + signal.SIGTERM
        assert shell.restored()
    engine.hafen("rm", "-f", "cli-killed")


def test_exec_on_a_terminal(engine: EngineProcess) -> None:
    engine.hafen("run", "-d", "--name", "cli-exec", "--net", "none", "busybox", "sleep", "1000")
    with hafen(engine, "exec", "-it", "cli-exec", "sh") as shell:
        shell.expect("# ")
        shell.type("exit 9\r")
        assert shell.wait() == 9
        assert shell.restored()
    engine.hafen("rm", "-f", "cli-exec")


def test_signals_go_to_the_container_without_a_terminal(engine: EngineProcess) -> None:
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "hafen.cli.main", "run", "--rm", "--net", "none", "host", "sh", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=engine.environment,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.stdout.readline() == b"caught\n"
    assert process.wait(SECONDS) == 3
    process.stdout.close()


def test_a_reader_that_goes_away_ends_us_quietly(engine: EngineProcess) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hafen.cli.main", "run", "--rm", "--net", "none", "host", "seq", "10000000"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=engine.environment,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.wait(SECONDS) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
