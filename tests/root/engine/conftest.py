"""One engine per module on a bridge of its own, with busybox in it."""

import os
import tempfile
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
    name = request.node.name.replace("[", "-").replace(":", "-").strip("]")
    yield name
    engine.docker("rm", "-f", "-v", name, check=False)
