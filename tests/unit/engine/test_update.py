"""What an update changes, and what it refuses; the texts are Docker's."""

import pytest

from hafen.engine.update import live_limits, merge
from hafen.errors import Conflict
from hafen.spec.runtime_config import Pids
from hafen.spec.wire.container import UpdateRequest
from hafen.spec.wire.hostconfig import DeviceMapping, HostConfig, RestartPolicy

_SWAP = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"


def test_what_is_not_said_stays() -> None:
    old = HostConfig(memory=8 << 20, memory_swap=16 << 20, cpu_shares=5, pids_limit=7, binds=["/a:/b"])
    assert merge(old, UpdateRequest()) == old
    new = UpdateRequest(cpu_shares=9, pids_limit=0, restart_policy=RestartPolicy(name="always"))
    merged = merge(old, new)
    assert (merged.cpu_shares, merged.pids_limit, merged.memory, merged.binds) == (9, 0, 8 << 20, ["/a:/b"])
    assert merged.restart_policy.name == "always"


def test_what_docker_does_not_update_is_passed_over() -> None:
    new = UpdateRequest(devices=[DeviceMapping(path_on_host="/dev/null")], memory_swappiness=5, cgroup_parent="/x")
    assert merge(HostConfig(), new) == HostConfig()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (HostConfig(), UpdateRequest(memory=8 << 20), _SWAP),
        (HostConfig(memory_swap=-1), UpdateRequest(memory=8 << 20), _SWAP),
        (
            HostConfig(nano_cpus=1),
            UpdateRequest(cpu_quota=5000),
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            HostConfig(cpu_period=5000),
            UpdateRequest(nano_cpus=1),
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            HostConfig(auto_remove=True),
            UpdateRequest(restart_policy=RestartPolicy(name="always")),
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
    ],
)
def test_what_does_not_fit_is_refused(old: HostConfig, new: UpdateRequest, message: str) -> None:
    with pytest.raises(Conflict) as caught:
        merge(old, new)
    assert caught.value.message == message


@pytest.mark.parametrize(("limit", "expected"), [(None, None), (5, Pids(5)), (0, Pids(-1)), (-1, Pids(-1))])
def test_no_limit_is_said_to_a_running_container(limit: int | None, expected: Pids | None) -> None:
    limits = live_limits(HostConfig(pids_limit=limit))
    assert limits.pids == expected
    assert not limits.devices
