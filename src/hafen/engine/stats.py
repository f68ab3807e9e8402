"""cgroup counters -> Docker's statistics."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import msgspec

from hafen.engine.hostfacts import HostFacts
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers
from hafen.kernel.cgroup import BlkioEntry as KernelEntry
from hafen.kernel.cgroup import Hierarchy
from hafen.spec import units
from hafen.spec.lifecycle import State
from hafen.spec.wire import stats as wire

_INTERVAL = 1.0
_USER_HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stats:
    """`Services.stats`."""

    containers: Containers
    hierarchy: Hierarchy
    host: HostFacts
    paths: Paths

    async def stats(self, ref: str, stream: bool = True, one_shot: bool = False) -> AsyncIterator[wire.StatsResponse]:
        """One sample a second; of a container that does not run, an empty one."""
        return self._samples(self.containers.find(ref), stream, one_shot)

    async def _samples(self, container: Container, stream: bool, one_shot: bool) -> AsyncIterator[wire.StatsResponse]:
        previous = self._sample(container)
        if not stream and one_shot:
            yield previous
            return
        if not stream:
            if container.alive:
                await asyncio.sleep(_INTERVAL)
            yield _after(previous, self._sample(container))
            return
        yield previous
        while container.status.state is not State.REMOVING and self.containers.lookup(container.id) is container:
            await asyncio.sleep(_INTERVAL)
            sample = self._sample(container)
            yield _after(previous, sample)
            previous = sample

    def _sample(self, container: Container) -> wire.StatsResponse:
        empty = wire.StatsResponse(id=container.id, name=f"/{container.name}", os_type="linux")
        if not container.alive:
            return empty
        try:
            counters = self.hierarchy.open(self.paths.cgroup(container.record)).counters()
        except OSError:  # it ended just now
            return empty
        memory = {name: value for name, value in counters.memory_stat}
        return msgspec.structs.replace(
            empty,
            read=units.format_timestamp(time.time_ns()),
            cpu_stats=wire.CpuStats(
                cpu_usage=wire.CpuUsage(
                    total_usage=counters.cpu_total,
                    percpu_usage=list(counters.per_cpu),
                    usage_in_kernelmode=counters.cpu_system,
                    usage_in_usermode=counters.cpu_user,
                ),
                system_cpu_usage=system_cpu(),
                online_cpus=len(self.host.cpus),
                throttling_data=wire.ThrottlingData(
                    periods=counters.periods,
                    throttled_periods=counters.throttled_periods,
                    throttled_time=counters.throttled_time,
                ),
            ),
            memory_stats=wire.MemoryStats(
                usage=counters.memory_usage,
                max_usage=counters.memory_max_usage or 0,
                stats=memory,
                failcnt=counters.memory_failures,
                limit=min(counters.memory_limit or self.host.memory, self.host.memory),
            ),
            networks=network_stats(container),
            pids_stats=wire.PidsStats(current=counters.pids, limit=counters.pids_limit or (1 << 64) - 1),
            blkio_stats=wire.BlkioStats(
                io_service_bytes_recursive=_entries(counters.io_service_bytes),
                io_serviced_recursive=_entries(counters.io_serviced),
            ),
        )


def _after(previous: wire.StatsResponse, sample: wire.StatsResponse) -> wire.StatsResponse:
    return msgspec.structs.replace(sample, preread=previous.read, precpu_stats=previous.cpu_stats)


def _entries(entries: Iterable[KernelEntry]) -> list[wire.BlkioEntry]:
    return [wire.BlkioEntry(major=one.major, minor=one.minor, op=one.op, value=one.value) for one in entries]


def system_cpu() -> int:
    """Nanoseconds of all CPUs together since boot; the first seven columns of /proc/stat, as Docker counts."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = sum(int(word) for word in file.readline().split()[1:8])
    return ticks * 1_000_000_000 // _USER_HERTZ


def network_stats(container: Container) -> dict[str, wire.NetworkStats]:
    """Interfaces of the container's network namespace, without `lo`; none where it shares another's."""
    if container.record.host_config.network_mode in ("host", "none"):
        return {}
    found = {}
    try:
        with open(f"/proc/{container.status.pid}/net/dev", encoding="ascii") as file:
            lines = file.readlines()[2:]
    except OSError:
        return {}
    for line in lines:
        name, _, rest = line.partition(":")
        columns = [int(word) for word in rest.split()]
        if name.strip() == "lo" or len(columns) < 12:
            continue
        found[name.strip()] = wire.NetworkStats(
            rx_bytes=columns[0], rx_packets=columns[1], rx_errors=columns[2], rx_dropped=columns[3],
            tx_bytes=columns[8], tx_packets=columns[9], tx_errors=columns[10], tx_dropped=columns[11],
        )  # fmt: skip
    return found
