"""Every test of a network gets a machine of its own, made of network namespaces."""

from collections.abc import Iterator

import pytest

from tests.harness.netns import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()
