"""Engine API JSON shape for container statistics (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import UInt16, UInt64, Wire, null, shown, unless_empty


class _Stats(Wire, frozen=True, rename=None):
    """Statistics have snake-case names."""


class PidsStats(_Stats, frozen=True):
    current: UInt64 = 0
    limit: UInt64 = 0


class BlkioEntry(_Stats, frozen=True):
    major: UInt64 = shown(int)
    minor: UInt64 = shown(int)
    op: str = shown(str)
    value: UInt64 = shown(int)


class BlkioStats(_Stats, frozen=True):
    io_service_bytes_recursive: list[BlkioEntry] | None = shown(null)
    io_serviced_recursive: list[BlkioEntry] | None = shown(null)
    io_queue_recursive: list[BlkioEntry] | None = shown(null)
    io_service_time_recursive: list[BlkioEntry] | None = shown(null)
    io_wait_time_recursive: list[BlkioEntry] | None = shown(null)
    io_merged_recursive: list[BlkioEntry] | None = shown(null)
    io_time_recursive: list[BlkioEntry] | None = shown(null)
    sectors_recursive: list[BlkioEntry] | None = shown(null)


class CpuUsage(_Stats, frozen=True):
    """Nanoseconds."""

    total_usage: UInt64 = shown(int)
    percpu_usage: list[UInt64] = unless_empty(list[int])
    usage_in_kernelmode: UInt64 = shown(int)
    usage_in_usermode: UInt64 = shown(int)


class ThrottlingData(_Stats, frozen=True):
    periods: UInt64 = shown(int)
    throttled_periods: UInt64 = shown(int)
    throttled_time: UInt64 = shown(int)


class CpuStats(_Stats, frozen=True):
    cpu_usage: CpuUsage = shown(CpuUsage)
    system_cpu_usage: UInt64 = 0
    online_cpus: UInt16 = 0
    throttling_data: ThrottlingData = shown(ThrottlingData)


class MemoryStats(_Stats, frozen=True):
    """Bytes."""

    usage: UInt64 = 0
    max_usage: UInt64 = 0
    stats: dict[str, int] = unless_empty(dict[str, int])
    failcnt: UInt64 = 0
    limit: UInt64 = 0


class NetworkStats(_Stats, frozen=True):
    rx_bytes: UInt64 = shown(int)
    rx_packets: UInt64 = shown(int)
    rx_errors: UInt64 = shown(int)
    rx_dropped: UInt64 = shown(int)
    tx_bytes: UInt64 = shown(int)
    tx_packets: UInt64 = shown(int)
    tx_errors: UInt64 = shown(int)
    tx_dropped: UInt64 = shown(int)


class StorageStats(_Stats, frozen=True):
    """Windows only; an empty object elsewhere."""


class StatsResponse(_Stats, frozen=True):
    """One sample and the one before it."""

    id: str = ""
    name: str = ""
    os_type: str = ""
    read: str = shown(lambda: "0001-01-01T00:00:00Z")
    cpu_stats: CpuStats = shown(CpuStats)
    memory_stats: MemoryStats = shown(MemoryStats)
    networks: dict[str, NetworkStats] = unless_empty(dict[str, NetworkStats])
    pids_stats: PidsStats = shown(PidsStats)
    blkio_stats: BlkioStats = shown(BlkioStats)
    num_procs: UInt16 = shown(int)
    storage_stats: StorageStats = shown(StorageStats)
    preread: str = shown(lambda: "0001-01-01T00:00:00Z")
    precpu_stats: CpuStats = shown(CpuStats)
