"""What comes in between: containers that start, removals, crashes, while something is done with their volumes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.engine import EngineProcess
from tests.harness.gate import Gate


def data(engine: EngineProcess, volume: str) -> Path:
    return engine.data / "volumes" / volume / "_data"


@contextmanager
def beside(engine: EngineProcess, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Our own command, while the test goes on."""
    command = [sys.executable, "-m", "hafen.cli.main", *words]
    process = subprocess.Popen(
        command, env=engine.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_prune_spares_what_comes_into_use_meanwhile(engine: EngineProcess, name: str) -> None:
    for volume in ("awaited", "other"):
        engine.docker("volume", "create", "--label", "race=1", volume)
        (data(engine, volume) / "file").write_text("x")
    prune = ("volume", "prune", "-af", "--filter", "label=race")
    with Gate(data(engine, "awaited")) as gate, beside(engine, *prune) as pruning:
        gate.wait_reached()  # its size is counted
        engine.docker("create", "--name", name, "-v", "awaited:/x:nocopy", "busybox")
        gate.open()
        told, _ = pruning.communicate(timeout=20)
    assert "awaited" not in told
    assert "other\n" in told
    assert "reclaimed space: 1B\n" in told
    assert (data(engine, "awaited") / "file").read_text() == "x"
    engine.docker("rm", name)
    engine.docker("volume", "rm", "awaited")
