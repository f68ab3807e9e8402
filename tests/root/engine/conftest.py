"""One engine per module on a bridge of its own, with busybox in it."""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess

FLAGS = ("--bridge", f"hfe{os.getpid() % 100000}", "--idle-shims", "1", "--idle-netns", "1")


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None) -> Iterator[EngineProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="hafen-engine-") as folder,
        EngineProcess(Path(folder) / "e", *FLAGS) as process,
    ):
        process.load_busybox()
        yield process


@pytest.fixture
def name(request: pytest.FixtureRequest, engine: EngineProcess) -> Iterator[str]:
    """A container name of the test's own; whatever has it afterwards is removed."""
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", request.node.name)
    yield name
    engine.docker("rm", "-f", "-v", name, check=False)


def wait_exists(path: Path) -> None:
    """A process of nobody we know makes it: polling is all there is."""
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
