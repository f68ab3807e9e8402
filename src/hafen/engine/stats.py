"""cgroup counters -> Docker's statistics.

One sampler reads a container's counters once a second, however many clients follow it, and ends with the last of them.
A client that reads slowly misses samples and holds up nobody.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable

import msgspec

from hafen.engine.hostfacts import HostFacts
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers
from hafen.engine.scope import Scope
from hafen.kernel.cgroup import BlkioEntry as KernelEntry
from hafen.kernel.cgroup import Counters, Hierarchy
from hafen.spec import units
from hafen.spec.lifecycle import State
from hafen.spec.wire import stats as wire

_INTERVAL = 1.0
_NO_LIMIT = (1 << 64) - 1  # of processes, on version 2
_USER_HERTZ = os.sysconf("SC_CLK_TCK")


class Stats:
    """`Services.stats`."""

    def __init__(
        self, containers: Containers, hierarchy: Hierarchy, host: HostFacts, paths: Paths, scope: Scope
    ) -> None:
        self.containers = containers
        self.hierarchy = hierarchy
        self.host = host
        self.paths = paths
        self._scope = scope
        self._samplers: dict[str, _Sampler] = {}

    async def stats(self, ref: str, stream: bool = True, one_shot: bool = False) -> AsyncIterator[wire.StatsResponse]:
        """One sample a second; of a container that does not run, an empty one."""
        return self._samples(self.containers.find(ref), stream, one_shot)

    async def _samples(self, container: Container, stream: bool, one_shot: bool) -> AsyncIterator[wire.StatsResponse]:
        if not stream and (one_shot or not container.alive):
            yield self._sample(container)
            return
        sampler = self._samplers.get(container.id)
        if sampler is None:
            sampler = self._samplers[container.id] = _Sampler(self._sample(container))
            self._scope.start(self._follow(container, sampler), f"sample {container.id}")
        sampler.followers += 1
        try:
            if stream:
                yield sampler.latest
            while (sample := await asyncio.shield(sampler.next)) is not None:
                yield sample
                if not stream:
                    return
        finally:
            sampler.followers -= 1

    async def _follow(self, container: Container, sampler: _Sampler) -> None:
        """A sample a second until nobody is there for it, or nothing to sample."""
        loop = asyncio.get_running_loop()
        tick = loop.time()
        try:
            while sampler.followers and container.status.state is not State.REMOVING:
                tick = max(tick + _INTERVAL, loop.time())
                await asyncio.sleep(tick - loop.time())
                if self.containers.lookup(container.id) is not container:
                    break
                sampler.tell(_after(sampler.latest, self._sample(container)))
        finally:
            del self._samplers[container.id]
            sampler.next.set_result(None)

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
            pids_stats=wire.PidsStats(
                current=counters.pids, limit=counters.pids_limit or (0 if self.host.cgroup_version == 1 else _NO_LIMIT)
            ),
            blkio_stats=self._io(counters),
        )

    def _io(self, counters: Counters) -> wire.BlkioStats:
        """Version 2 has no more than these two; version 1 has the others too, where the scheduler counts."""
        told = wire.BlkioStats(
            io_service_bytes_recursive=_entries(counters.io_service_bytes),
            io_serviced_recursive=_entries(counters.io_serviced),
        )
        if self.host.cgroup_version == 1:
            empty: dict[str, list[wire.BlkioEntry]] = {
                name: [] for name in wire.BlkioStats.__struct_fields__ if getattr(told, name) is None
            }
            told = msgspec.structs.replace(told, **empty)
        return told


class _Sampler:
    """What the followers of one container share: the latest sample, and the one to come (None: no more)."""

    __slots__ = ("followers", "latest", "next")

    def __init__(self, first: wire.StatsResponse) -> None:
        self.followers = 0
        self.latest = first
        self.next: asyncio.Future[wire.StatsResponse | None] = asyncio.get_running_loop().create_future()

    def tell(self, sample: wire.StatsResponse) -> None:
        before, self.next = self.next, asyncio.get_running_loop().create_future()
        self.latest = sample
        before.set_result(sample)


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
