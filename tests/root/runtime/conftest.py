"""A machine that runs containers, and the proof that each test leaves no descriptor, child or mount of this process."""

import os
from collections.abc import Iterator

import pytest

from tests.harness.container import Machine


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    machine = Machine(request.node.name.split("[")[0][:24])
    before = set(os.listdir("/proc/self/fd"))
    yield machine
    machine.close()
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
