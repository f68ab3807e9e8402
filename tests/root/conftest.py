"""Every test here is run as root on the real kernel, and must leave the machine as it found it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.kernel.cgroup import open_hierarchy
from tests.harness.machine import leftovers, machine_state

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True, scope="module")
def machine_left_as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compares mounts, links, tables, cgroups and processes before the module's first and after its last test."""
    if os.environ.get("HAFEN_MACHINE_IS_SHARED"):  # others run engines here meanwhile: their traces are not ours
        yield
        return
    before = machine_state()
    yield
    open_hierarchy().tidy("/hafen")  # an engine does this at its end; tests of the runtime alone have none
    assert not leftovers(before), f"{request.path.name} left behind"
