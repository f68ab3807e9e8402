"""Every test of a network gets a machine of its own, made of network namespaces."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.netns import World
from tests.harness.networks import NetworkEngine


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def engine(world: World, tmp_path: Path) -> Iterator[NetworkEngine]:
    made = NetworkEngine(world, tmp_path)
    asyncio.run(made.networks.restore())
    yield made
    made.crash()
