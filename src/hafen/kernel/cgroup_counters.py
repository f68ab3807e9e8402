"""Read what a cgroup has used so far, from the files of either version, as `Counters`."""

from collections.abc import Mapping

from hafen.kernel.cgroupfs import BlkioEntry, Counters, keyed, read, read_if_there

# The largest number of pages that the kernel counts, in bytes: v1's way to write "no limit" (page_counter.h).
_V1_UNLIMITED = 0x7FFFFFFFFFFFF000 - 0xFFFFFFF
_USER_HZ_NANOSECONDS = 10_000_000


def read_v1(directories: Mapping[str, str]) -> Counters:
    """`directories`: controller -> the cgroup's directory there; a controller that is missing counts nothing."""

    def text(controller: str, file: str) -> str:
        directory = directories.get(controller)
        return read_if_there(f"{directory}/{file}") if directory else ""

    def number(controller: str, file: str) -> int | None:
        value = text(controller, file).strip()
        return int(value) if value.isdigit() else None

    if "cpuacct" in directories:
        read(f"{directories['cpuacct']}/cpuacct.usage")  # says so when the cgroup is gone
    ticks = keyed(text("cpuacct", "cpuacct.stat"))
    cpu = keyed(text("cpu", "cpu.stat"))
    usage = number("memory", "memory.usage_in_bytes") or 0
    limit = number("memory", "memory.limit_in_bytes")
    with_swap = number("memory", "memory.memsw.usage_in_bytes")
    return Counters(
        cpu_total=number("cpuacct", "cpuacct.usage") or 0,
        cpu_user=ticks.get("user", 0) * _USER_HZ_NANOSECONDS,
        cpu_system=ticks.get("system", 0) * _USER_HZ_NANOSECONDS,
        per_cpu=tuple(map(int, text("cpuacct", "cpuacct.usage_percpu").split())),
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_time", 0),
        memory_usage=usage,
        memory_max_usage=number("memory", "memory.max_usage_in_bytes"),
        memory_limit=limit if limit is not None and limit < _V1_UNLIMITED else None,
        memory_failures=number("memory", "memory.failcnt") or 0,
        memory_stat=tuple(keyed(text("memory", "memory.stat")).items()),
        swap_usage=None if with_swap is None else max(with_swap - usage, 0),
        pids=number("pids", "pids.current") or 0,
        pids_limit=number("pids", "pids.max"),
        io_service_bytes=parse_blkio(text("blkio", "blkio.throttle.io_service_bytes_recursive")),
        io_serviced=parse_blkio(text("blkio", "blkio.throttle.io_serviced_recursive")),
    )


def read_v2(directory: str) -> Counters:
    def number(file: str) -> int | None:
        value = read_if_there(f"{directory}/{file}").strip()
        return int(value) if value.isdigit() else None

    cpu = keyed(read(f"{directory}/cpu.stat"))
    events = keyed(read_if_there(f"{directory}/memory.events"))
    io = read_if_there(f"{directory}/io.stat")
    return Counters(
        cpu_total=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_usec", 0) * 1000,
        memory_usage=number("memory.current") or 0,
        memory_max_usage=number("memory.peak"),
        memory_limit=number("memory.max"),
        memory_failures=events.get("max", 0),
        memory_stat=tuple(keyed(read_if_there(f"{directory}/memory.stat")).items()),
        swap_usage=number("memory.swap.current"),
        pids=number("pids.current") or 0,
        pids_limit=number("pids.max"),
        io_service_bytes=parse_io_stat(io, {"rbytes": "read", "wbytes": "write"}),
        io_serviced=parse_io_stat(io, {"rios": "read", "wios": "write"}),
    )


def parse_blkio(text: str) -> tuple[BlkioEntry, ...]:
    """v1: "8:0 Read 4096" in each line, and a total without a device at the end."""
    entries = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        op, _, value = rest.partition(" ")
        major, colon, minor = device.partition(":")
        if colon and value:
            entries.append(BlkioEntry(int(major), int(minor), op, int(value)))
    return tuple(entries)


def parse_io_stat(text: str, ops: Mapping[str, str]) -> tuple[BlkioEntry, ...]:
    """v2: "8:0 rbytes=4096 wbytes=0 rios=1 ..." in each line; `ops` says which keys count, and as what."""
    entries = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for key, _, value in (pair.partition("=") for pair in pairs):
            if key in ops and value.isdigit():
                entries.append(BlkioEntry(int(major), int(minor), ops[key], int(value)))
    return tuple(entries)
