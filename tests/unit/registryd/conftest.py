"""A registry for the tests of a module, over real HTTP, and a repository for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.harness.registry import Client, RegistryProcess


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path_factory.mktemp("registry")) as process:
        yield process


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    with closing(registry.client()) as found:
        yield found


@pytest.fixture
def name() -> str:
    """A repository of this test's own."""
    return "t/" + os.urandom(6).hex()
