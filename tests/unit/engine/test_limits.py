"""Limits that the kernel lacks are left out of a new container's configuration, each with Docker's warning."""

from collections.abc import Callable

import pytest

from hafen.engine import limits
from hafen.spec.wire.hostconfig import HostConfig, ThrottleDevice, WeightDevice

ALL = HostConfig(
    memory=50_000_000,
    memory_swap=60_000_000,
    memory_swappiness=5,
    memory_reservation=40_000_000,
    oom_kill_disable=True,
    pids_limit=5,
    cpu_shares=5,
    nano_cpus=500_000_000,
    cpuset_cpus="0",
    blkio_weight=300,
    blkio_weight_device=[WeightDevice(path="/dev/sda", weight=300)],
    blkio_device_read_bps=[ThrottleDevice(path="/dev/sda", rate=300)],
)


def every(file: str) -> bool:
    return True


def none(file: str) -> bool:
    return False


def test_a_kernel_that_has_all_changes_nothing() -> None:
    assert limits.fit(ALL, 1, every) == (ALL, ())


@pytest.mark.parametrize("version", [1, 2])
def test_a_kernel_that_has_nothing_limits_nothing_and_says_so(version: int) -> None:
    fitted, warnings = limits.fit(ALL, version, none)
    assert fitted == HostConfig()
    assert len(warnings) == 11
    assert all(text.startswith("Your kernel does not support ") for text in warnings)


def without(lost: str) -> Callable[[str], bool]:
    return lambda file: file != lost and not file.startswith(f"{lost}.")


@pytest.mark.parametrize(
    ("lost", "field", "warning"),
    [
        (
            "memory.memsw",
            "memory_swap",
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap.",
        ),
        (
            "cpu.cfs_quota_us",
            "nano_cpus",
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        ),
        (
            "pids",
            "pids_limit",
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        ),
    ],
)
def test_one_limit_that_is_lacking_is_unset(lost: str, field: str, warning: str) -> None:
    fitted, warnings = limits.fit(ALL, 1, without(lost))
    assert warnings == (warning,)
    changed = [name for name in ALL.__struct_fields__ if getattr(fitted, name) != getattr(ALL, name)]
    assert changed == [field]


def test_an_oom_killer_that_is_off_without_a_limit_is_warned_of() -> None:
    wanted = HostConfig(oom_kill_disable=True)
    fitted, warnings = limits.fit(wanted, 1, every)
    assert fitted == wanted
    assert warnings[0].startswith("OOM killer is disabled for the container, but no memory limit is set")
