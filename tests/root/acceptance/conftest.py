"""One engine per module, with busybox in it, shared by the module's tests; nothing stays."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None) -> Iterator[EngineProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="hafen-acceptance-") as folder,
        EngineProcess(Path(folder) / "e") as process,
    ):
        process.load_busybox()
        yield process


@pytest.fixture
def name(request: pytest.FixtureRequest, engine: EngineProcess) -> Iterator[str]:
    """A container name of the test's own; whatever has it afterwards is removed."""
    name = request.node.name.replace("[", "-").strip("]")
    yield name
    engine.docker("rm", "-f", "-v", name, check=False)
