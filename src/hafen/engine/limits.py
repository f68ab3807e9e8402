"""Limits of a new container that this kernel lacks: left out, each with Docker's warning; pure.

What belongs together and in which words is the runtime's (`runtime.resources.fit`); here it is said of a HostConfig.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

import msgspec

from hafen.engine import specgen
from hafen.runtime import resources
from hafen.spec.wire.hostconfig import HostConfig

# Fields of an OCI configuration's resources, and of a HostConfig
_FIELDS: Final = (
    ("memory", "limit", ("memory", "memory_swap")),
    ("memory", "swap", ("memory_swap",)),
    ("memory", "swappiness", ("memory_swappiness",)),
    ("memory", "reservation", ("memory_reservation",)),
    ("memory", "disable_oom_killer", ("oom_kill_disable",)),
    ("pids", "limit", ("pids_limit",)),
    ("cpu", "shares", ("cpu_shares",)),
    ("cpu", "quota", ("cpu_quota", "cpu_period", "nano_cpus")),
    ("cpu", "period", ("cpu_quota", "cpu_period", "nano_cpus")),
    ("cpu", "realtime_runtime", ("cpu_realtime_runtime",)),
    ("cpu", "realtime_period", ("cpu_realtime_period",)),
    ("cpu", "cpus", ("cpuset_cpus",)),
    ("cpu", "mems", ("cpuset_mems",)),
    ("block_io", "weight", ("blkio_weight",)),
    ("block_io", "weight_device", ("blkio_weight_device",)),
    ("block_io", "throttle_read_bps_device", ("blkio_device_read_bps",)),
    ("block_io", "throttle_write_bps_device", ("blkio_device_write_bps",)),
    ("block_io", "throttle_read_iops_device", ("blkio_device_read_iops",)),
    ("block_io", "throttle_write_iops_device", ("blkio_device_write_iops",)),
)


def fit(wanted: HostConfig, version: int, has: Callable[[str], bool]) -> tuple[HostConfig, tuple[str, ...]]:
    """`wanted` with what the kernel lacks unset, and the warnings. `version` and files (`has`) are the cgroups'."""
    numbers: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))  # it matters only that there are devices
    asked = specgen.resources(wanted, specgen.Found("", "", device_numbers=numbers))
    given, warnings = resources.fit(asked, version, has)
    unset = {
        field: getattr(_NONE, field)
        for part, name, fields in _FIELDS
        if getattr(getattr(asked, part), name, None) != getattr(getattr(given, part), name, None)
        for field in fields
    }
    return msgspec.structs.replace(wanted, **unset), warnings


_NONE: Final = HostConfig()
