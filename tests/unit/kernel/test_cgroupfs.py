"""Which hierarchies are mounted, where a path lies in them, and what their counters say."""

from pathlib import Path

import pytest

from hafen.kernel import cgroupfs
from hafen.kernel.cgroup import BlkioEntry, Setting
from hafen.kernel.cgroup_counters import parse_blkio, parse_io_stat, read_v1, read_v2
from hafen.kernel.cgroupfs import MountedHierarchy, parse_mountinfo, parse_own

HYBRID = r"""
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
90 24 0:29 / /opt/jail/sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/with\040space rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mount_table() -> None:
    found = parse_mountinfo(HYBRID.strip().splitlines(keepends=True))
    assert found.v1 == (
        MountedHierarchy("/sys/fs/cgroup/cpu,cpuacct", "/", ("cpu", "cpuacct")),
        MountedHierarchy("/sys/fs/cgroup/memory", "/docker/abc", ("memory",)),
        MountedHierarchy("/sys/fs/cgroup/with space", "/", ("name=systemd",)),
    )
    assert found.v2 == MountedHierarchy("/sys/fs/cgroup/unified", "/", ())


def test_own_cgroup() -> None:
    own = parse_own(["9:name=systemd:/init.scope\n", "2:cpu,cpuacct:/a:b\n", "0::/user\n"])
    assert own == {"name=systemd": "/init.scope", "cpu": "/a:b", "cpuacct": "/a:b", "": "/user"}


@pytest.mark.parametrize(
    ("root", "own", "path", "expected"),
    [
        ("/", "/", "/hafen/1", "/cg/hafen/1"),
        ("/", "/user", "/hafen/1", "/cg/hafen/1"),
        ("/", "/user", "hafen/1", "/cg/user/hafen/1"),
        ("/docker/abc", "/docker/abc", "hafen/1", "/cg/hafen/1"),
        ("/docker/abc", "/docker/abc/sub", "hafen/1", "/cg/sub/hafen/1"),
        ("/docker/abc", "/docker/abcd", "hafen/1", "/cg/hafen/1"),
        ("/../..", "/", "x", "/cg/x"),
        ("/", "/", "/../../etc", "/cg/etc"),
        ("/", "/own", "../../../etc", "/cg/own/etc"),
        ("/", "/", "//a/./b//", "/cg/a/b"),
    ],
)
def test_directory(root: str, own: str, path: str, expected: str) -> None:
    assert MountedHierarchy("/cg", root, ()).directory(path, own) == expected


def test_settings_that_depend_on_each_other_are_tried_again(tmp_path: Path) -> None:
    """Files that do not exist yet stand for a refusal; the alternative is taken before the refusal counts."""
    (tmp_path / "blkio.bfq.weight").touch()
    weight = Setting("blkio.weight", "100", Setting("blkio.bfq.weight", "200"))
    cgroupfs.apply_settings([weight], lambda file: str(tmp_path))
    assert (tmp_path / "blkio.bfq.weight").read_text() == "200"
    with pytest.raises(FileNotFoundError, match=r"write '1': .*other\.max"):
        cgroupfs.apply_settings([Setting("other.max", "1")], lambda file: str(tmp_path))


def test_blkio_entries() -> None:
    text = "254:0 Read 4096\n254:0 Write 0\n254:0 Total 4096\nTotal 4096\n"
    assert parse_blkio(text) == (
        BlkioEntry(254, 0, "Read", 4096),
        BlkioEntry(254, 0, "Write", 0),
        BlkioEntry(254, 0, "Total", 4096),
    )
    text = "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0 \n"
    assert parse_io_stat(text, {"rbytes": "read", "wbytes": "write"}) == (
        BlkioEntry(254, 0, "read", 1),
        BlkioEntry(254, 0, "write", 2),
    )


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def test_counters_of_v2(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n",
            "memory.current": "4096\n",
            "memory.max": "max\n",
            "memory.events": "low 0\nmax 7\noom 1\noom_kill 1\n",
            "memory.stat": "anon 1\nfile 2\n",
            "pids.current": "2\n",
            "pids.max": "10\n",
        },
    )
    counters = read_v2(str(tmp_path))
    assert (counters.cpu_total, counters.cpu_user, counters.cpu_system) == (30_000, 20_000, 10_000)
    assert (counters.periods, counters.throttled_periods, counters.throttled_time) == (4, 3, 2000)
    assert (counters.memory_usage, counters.memory_limit, counters.memory_failures) == (4096, None, 7)
    assert counters.memory_stat == (("anon", 1), ("file", 2))
    assert (counters.pids, counters.pids_limit) == (2, 10)
    assert counters.swap_usage is None


def test_counters_of_v1(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "cpuacct.usage": "5000\n",
            "cpuacct.usage_percpu": "2000 3000 \n",
            "cpuacct.stat": "user 2\nsystem 1\n",
            "memory.usage_in_bytes": "100\n",
            "memory.memsw.usage_in_bytes": "150\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "pids.max": "max\n",
        },
    )
    counters = read_v1({"cpuacct": str(tmp_path), "memory": str(tmp_path), "pids": str(tmp_path)})
    assert (counters.cpu_total, counters.per_cpu) == (5000, (2000, 3000))
    assert (counters.cpu_user, counters.cpu_system) == (20_000_000, 10_000_000)
    assert (counters.memory_usage, counters.swap_usage, counters.memory_limit) == (100, 50, None)
    assert counters.pids_limit is None
    with pytest.raises(FileNotFoundError):
        read_v1({"cpuacct": str(tmp_path / "gone")})
