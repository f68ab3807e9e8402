"""Resources as settings of v1 and v2 files, what a kernel lacks, and how a refusal is told."""

import errno

import pytest

from hafen.errors import Forbidden, HafenError, InvalidArgument, OutOfSpace, System
from hafen.kernel.cgroup import Setting
from hafen.runtime.resources import explain, fit, plan, weight_of_blkio, weight_of_shares
from hafen.spec.runtime_config import (
    CPU,
    BlockIO,
    HugepageLimit,
    Memory,
    NetworkResources,
    Pids,
    Rdma,
    Resources,
    ThrottleDevice,
    WeightDevice,
)

MIB = 1 << 20


def planned(resources: Resources, version: int) -> dict[str, str]:
    """File -> value, devices left out; each file is set once in these tests."""
    settings = [setting for setting in plan(resources, version) if not setting.file.startswith("devices.")]
    assert len({setting.file for setting in settings}) == len(settings)
    return {setting.file: setting.value for setting in settings}


def test_nothing_but_devices_by_default() -> None:
    for version in (1, 2):
        assert planned(Resources(), version) == {}
        assert planned(Resources(memory=Memory(), cpu=CPU(), pids=Pids(), block_io=BlockIO()), version) == {}


MEMORY = Resources(memory=Memory(limit=100 * MIB, swap=150 * MIB, reservation=50 * MIB, swappiness=10, kernel=MIB))


def test_memory() -> None:
    assert planned(MEMORY, 1) == {
        "memory.limit_in_bytes": str(100 * MIB),
        "memory.memsw.limit_in_bytes": str(150 * MIB),
        "memory.soft_limit_in_bytes": str(50 * MIB),
        "memory.swappiness": "10",
    }
    assert planned(MEMORY, 2) == {
        "memory.max": str(100 * MIB),
        "memory.swap.max": str(50 * MIB),
        "memory.low": str(50 * MIB),
    }


def test_unlimited_memory_takes_the_limit_on_swap_away() -> None:
    resources = Resources(memory=Memory(limit=-1))
    assert planned(resources, 1) == {"memory.limit_in_bytes": "-1", "memory.memsw.limit_in_bytes": "-1"}
    assert planned(resources, 2) == {"memory.max": "max", "memory.swap.max": "max"}


def test_no_swap() -> None:
    assert planned(Resources(memory=Memory(limit=MIB, swap=MIB)), 2)["memory.swap.max"] == "0"
    assert planned(Resources(memory=Memory(limit=MIB, swap=-1)), 2)["memory.swap.max"] == "max"


def test_oom_killer() -> None:
    resources = Resources(memory=Memory(limit=MIB, disable_oom_killer=True))
    assert planned(resources, 1)["memory.oom_control"] == "1"
    assert set(planned(resources, 2)) == {"memory.max"}
    assert "memory.oom_control" not in planned(Resources(memory=Memory(disable_oom_killer=False)), 1)


def test_cpu() -> None:
    resources = Resources(cpu=CPU(shares=1024, quota=50000, period=100000, cpus="0-1", mems="0", burst=10000))
    assert planned(resources, 1) == {
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "cpu.cfs_burst_us": "10000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
    }
    assert planned(resources, 2) == {
        "cpu.weight": "39",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
    }
    assert planned(Resources(cpu=CPU(quota=-1)), 2) == {"cpu.max": "max 100000"}
    assert planned(Resources(cpu=CPU(quota=20000)), 2) == {"cpu.max": "20000 100000"}
    assert planned(Resources(cpu=CPU(period=20000)), 2) == {"cpu.max": "max 20000"}
    assert planned(Resources(cpu=CPU(quota=-1)), 1) == {"cpu.cfs_quota_us": "-1"}
    assert planned(Resources(cpu=CPU(shares=1024, idle=1)), 2) == {"cpu.idle": "1"}


def test_realtime_is_v1s() -> None:
    resources = Resources(cpu=CPU(realtime_runtime=5000, realtime_period=100000))
    assert list(planned(resources, 1)) == ["cpu.rt_period_us", "cpu.rt_runtime_us"]
    assert planned(resources, 2) == {}


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


@pytest.mark.parametrize(("blkio", "io"), [(10, 1), (500, 4950), (1000, 10000)])
def test_weight_of_blkio(blkio: int, io: int) -> None:
    assert weight_of_blkio(blkio) == io


def test_pids() -> None:
    for version in (1, 2):
        assert planned(Resources(pids=Pids(7)), version) == {"pids.max": "7"}
        assert planned(Resources(pids=Pids(-1)), version) == {"pids.max": "max"}
        assert planned(Resources(pids=Pids(0)), version) == {}


def test_block_io() -> None:
    resources = Resources(
        block_io=BlockIO(
            weight=500,
            weight_device=(WeightDevice(8, 0, 100),),
            throttle_read_bps_device=(ThrottleDevice(8, 0, MIB),),
            throttle_write_iops_device=(ThrottleDevice(8, 16, 10), ThrottleDevice(8, 32, 0)),
        )
    )
    assert plan(resources, 1)[-5:] == (
        Setting("blkio.weight", "500", Setting("blkio.bfq.weight", "500")),
        Setting("blkio.weight_device", "8:0 100", Setting("blkio.bfq.weight_device", "8:0 100")),
        Setting("blkio.throttle.read_bps_device", f"8:0 {MIB}"),
        Setting("blkio.throttle.write_iops_device", "8:16 10"),
        Setting("blkio.throttle.write_iops_device", "8:32 0"),
    )
    assert plan(resources, 2)[-5:] == (
        Setting("io.bfq.weight", "500", Setting("io.weight", "default 4950")),
        Setting("io.bfq.weight", "8:0 100", Setting("io.weight", "8:0 910")),
        Setting("io.max", f"8:0 rbps={MIB}"),
        Setting("io.max", "8:16 wiops=10"),
        Setting("io.max", "8:32 wiops=max"),
    )


def test_hugepages_network_rdma() -> None:
    resources = Resources(
        hugepage_limits=(HugepageLimit("2MB", 4 * MIB),),
        network=NetworkResources(class_id=0x100001),
        rdma={"mlx5_1": Rdma(hca_handles=3)},
    )
    assert plan(resources, 1)[-3] == Setting(
        "hugetlb.2MB.limit_in_bytes", str(4 * MIB), Setting("hugetlb.2MB.max", str(4 * MIB))
    )
    assert planned(resources, 1)["net_cls.classid"] == str(0x100001)
    assert planned(resources, 2) == {
        "hugetlb.2MB.max": str(4 * MIB),
        "rdma.max": "mlx5_1 hca_handle=3 hca_object=max",
    }


def test_unified() -> None:
    resources = Resources(unified={"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 wbps=2"})
    assert [(s.file, s.value) for s in plan(resources, 2)[-3:]] == [
        ("memory.high", "1000"),
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:16 wbps=2"),
    ]


@pytest.mark.parametrize(
    ("resources", "version", "words"),
    [
        (Resources(cpu=CPU(shares=1)), 1, "the minimum allowed cpu-shares is 2"),
        (Resources(cpu=CPU(shares=262145)), 2, "the maximum allowed cpu-shares is 262144"),
        (Resources(memory=Memory(limit=-2)), 1, "invalid memory value: -2"),
        (Resources(memory=Memory(limit=10, swap=5)), 2, "memory+swap limit should be >= memory limit"),
        (Resources(memory=Memory(swap=5)), 2, "unable to set swap limit without memory limit"),
        (Resources(memory=Memory(swappiness=101)), 1, "Valid memory swappiness range is 0-100"),
        (Resources(block_io=BlockIO(weight=5)), 2, "Range of blkio weight is from 10 to 1000"),
        (Resources(hugepage_limits=(HugepageLimit("../x", 1),)), 2, "invalid hugepage size"),
        (Resources(unified={"../../x.y": "1"}), 2, "must be a file name"),
        (Resources(unified={"max": "1"}), 2, "must be a file name"),
        (Resources(unified={"memory.high": "1"}), 1, "need cgroup v2"),
    ],
)
def test_bad_limits(resources: Resources, version: int, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words.replace("+", r"\+")):
        plan(resources, version)


def test_what_the_kernel_lacks_is_left_out_with_dockers_warning() -> None:
    resources = Resources(
        memory=Memory(limit=MIB, swap=2 * MIB, swappiness=5),
        cpu=CPU(shares=100, quota=5),
        block_io=BlockIO(weight=100, throttle_read_bps_device=(ThrottleDevice(8, 0, 1),)),
    )
    fitting, warnings = fit(resources, 1, {"memory.limit_in_bytes", "cpu.shares", "blkio.bfq.weight"}.__contains__)
    assert fitting == Resources(memory=Memory(limit=MIB), cpu=CPU(shares=100), block_io=BlockIO(weight=100))
    assert warnings == (
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap.",
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
        "Memory swappiness discarded.",
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. "
        "Block I/O BPS read limit discarded.",
    )


def test_a_kernel_with_everything_is_asked_about_what_is_set_alone() -> None:
    asked: list[str] = []

    def has(file: str) -> bool:
        asked.append(file)
        return True

    assert fit(Resources(pids=Pids(5)), 2, has) == (Resources(pids=Pids(5)), ())
    assert asked == ["pids.max"]


def test_v2_has_no_switch_for_the_oom_killer() -> None:
    fitting, warnings = fit(Resources(memory=Memory(limit=MIB, disable_oom_killer=True)), 2, lambda file: True)
    assert fitting.memory == Memory(limit=MIB)
    assert warnings == ("Your kernel does not support OomKillDisable. OomKillDisable discarded.",)


def test_no_oom_killer_and_no_limit() -> None:
    _, warnings = fit(Resources(memory=Memory(disable_oom_killer=True)), 1, lambda file: True)
    assert warnings[0].startswith("OOM killer is disabled for the container, but no memory limit is set")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EINVAL, InvalidArgument),
        (errno.ERANGE, InvalidArgument),
        (errno.EBUSY, InvalidArgument),
        (errno.ENOSPC, OutOfSpace),
        (errno.EACCES, Forbidden),
        (errno.ENOENT, System),
        (errno.EIO, System),
    ],
)
def test_refusals_name_file_and_value(number: int, expected: type[HafenError]) -> None:
    error = explain(OSError(number, "write '5': no", "/sys/fs/cgroup/x/pids.max"))
    assert type(error) is expected
    assert "write '5'" in str(error)
    assert "/sys/fs/cgroup/x/pids.max" in str(error)
