"""One engine and one docker-registry per module."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.upstream import Registry


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hafen-distribution-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Registry]:
    with Registry(folder / "registry") as process:
        yield process


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None, folder: Path) -> Iterator[EngineProcess]:
    flags = ("--idle-shims", "1", "--idle-netns", "1", "--registry-certs", str(folder / "certs.d"))
    with EngineProcess(folder / "e", *flags, "--insecure-registry", "127.77.0.0/16") as process:
        process.load_busybox()
        yield process
