"""cgroups of the machine's own version (v1, hybrid, or v2 in the VM): limits seen from inside and outside."""

import contextlib
import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.kernel.cgroup import Cgroup, Hierarchy, Setting, open_hierarchy
from hafen.runtime.resources import explain, impose, plan
from hafen.spec.runtime_config import CPU, BlockIO, DeviceRule, Memory, Pids, Resources, ThrottleDevice

pytestmark = pytest.mark.root

MIB = 1 << 20
PARENT = f"/hafen-test-cgroup-{os.getpid()}"

# Enters the cgroup by the descriptors in argv, then runs the program.
ENTER = "import os, sys\nfor fd in sys.argv[1:]: os.write(int(fd), b'0'); os.close(int(fd))\n"


@pytest.fixture(scope="module")
def hierarchy() -> Iterator[Hierarchy]:
    hierarchy = open_hierarchy()
    yield hierarchy
    hierarchy.open(PARENT).remove()
    assert not list(Path("/sys/fs/cgroup").glob(f"*{PARENT}")) + list(Path("/sys/fs/cgroup").glob(f"*/{PARENT}"))


@pytest.fixture
def cgroup(hierarchy: Hierarchy, request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    cgroup = hierarchy.create(f"{PARENT}/{request.node.name}")
    try:
        yield cgroup
    finally:
        cgroup.kill()
        cgroup.remove()


class Running(subprocess.Popen[bytes]):
    """A Python program inside the cgroup; killed and reaped when the block ends."""

    def __init__(self, cgroup: Cgroup, program: str) -> None:
        entries = cgroup.entries(cloned=False)
        try:
            super().__init__(
                [sys.executable, "-SI", "-c", ENTER + program, *map(str, entries)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=entries,
            )
        finally:
            for fd in entries:
                os.close(fd)

    def __exit__(self, *exc: object) -> None:
        self.kill()
        super().__exit__(None, None, None)

    def line(self) -> str:
        assert self.stdout
        line: bytes = self.stdout.readline()
        return line.decode().rstrip()


def apply(hierarchy: Hierarchy, cgroup: Cgroup, resources: Resources) -> None:
    assert impose(cgroup, resources, hierarchy.version) == ()


def wait_true(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def test_enters_every_hierarchy(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    with Running(cgroup, "print('in', flush=True); sys.stdin.read()") as running:
        assert running.line() == "in"
        assert cgroup.pids() == [running.pid]
        lines = Path(f"/proc/{running.pid}/cgroup").read_text().splitlines()
        outside = [line for line in lines if not line.endswith(cgroup.path)]
        if hierarchy.version == 2:
            assert not outside
        else:  # a v1 hierarchy may exist without being mounted
            mounted = Path("/proc/self/mountinfo").read_text()
            assert not [line for line in outside if f",{line.split(':')[1]}\n" in mounted]


def test_add_moves_a_running_process(cgroup: Cgroup) -> None:
    with subprocess.Popen(["sleep", "60"]) as running:
        try:
            cgroup.add(running.pid)
            assert cgroup.pids() == [running.pid]
        finally:
            running.kill()


def test_memory_limit_ends_in_an_oom_kill(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    apply(hierarchy, cgroup, Resources(memory=Memory(limit=32 * MIB, swap=32 * MIB)))
    watch = cgroup.watch_oom()
    assert watch
    poll = select.poll()
    poll.register(watch.fd, watch.events)
    assert not [event for _, event in poll.poll(0) if event & watch.events]
    assert cgroup.oom_kills() == 0
    with Running(cgroup, "data = b'x' * (128 << 20)\nprint('survived', flush=True)") as running:
        assert running.line() == ""
        assert running.wait() == -signal.SIGKILL
    assert [event for _, event in poll.poll(10000) if event & watch.events]
    wait_true(lambda: cgroup.oom_kills() == 1)
    watch.rearm()
    os.close(watch.fd)
    assert cgroup.counters().memory_limit == 32 * MIB


def test_pids_limit(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    apply(hierarchy, cgroup, Resources(pids=Pids(5)))
    program = """
import time
n = 0
try:
    while n < 50:
        if os.fork() == 0:
            time.sleep(60)
        n += 1
except BlockingIOError:
    print(n, flush=True)
sys.stdin.read()
"""
    with Running(cgroup, program) as running:
        assert running.line() == "4"
        assert cgroup.counters().pids == 5
        assert cgroup.counters().pids_limit == 5
        assert len(cgroup.pids()) == 5
        cgroup.kill()


def test_cpu_quota_shows_as_throttling(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    apply(hierarchy, cgroup, Resources(cpu=CPU(quota=5000, period=50000, shares=512)))
    with Running(cgroup, "while True: pass"):
        wait_true(lambda: cgroup.counters().throttled_periods >= 3)
        counters = cgroup.counters()
        assert counters.periods >= counters.throttled_periods
        assert counters.throttled_time > 0
        before = cgroup.counters().cpu_total
        wait_true(lambda: cgroup.counters().cpu_total > before > 0)


def test_cpuset(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    apply(hierarchy, cgroup, Resources(cpu=CPU(cpus="0", mems="0")))
    with Running(cgroup, "print(os.sched_getaffinity(0), flush=True); sys.stdin.read()") as running:
        assert running.line() == "{0}"


ECHO = "while True: os.write(1, os.read(0, 1))"


def test_freeze_and_thaw(cgroup: Cgroup) -> None:
    with Running(cgroup, ECHO) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(b"a")
        assert running.stdout.read(1) == b"a"
        assert not cgroup.frozen()
        cgroup.freeze()
        assert cgroup.frozen()
        running.stdin.write(b"b")
        assert select.select([running.stdout], [], [], 0.3)[0] == []
        cgroup.thaw()
        assert not cgroup.frozen()
        assert running.stdout.read(1) == b"b"


def test_kill_frozen(cgroup: Cgroup) -> None:
    with Running(cgroup, ECHO) as running:
        running.stdin and running.stdin.write(b"a")
        running.stdout and running.stdout.read(1)
        cgroup.freeze()
        cgroup.kill()
        assert running.wait() == -signal.SIGKILL
        assert cgroup.pids() == []


def test_kill_ends_a_fork_bomb(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    apply(hierarchy, cgroup, Resources(pids=Pids(40)))
    program = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        if os.fork() and os.getppid() == 1:
            os._exit(0)
    except BlockingIOError:
        pass
"""
    with Running(cgroup, program):
        wait_true(lambda: len(cgroup.pids()) > 20)
        cgroup.kill()
        assert cgroup.pids() == []


def test_devices(hierarchy: Hierarchy, cgroup: Cgroup, tmp_path: Path) -> None:
    node, made = tmp_path / "kmsg", tmp_path / "made"
    os.mknod(node, 0o20666, os.makedev(1, 11))
    os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK))
    program = f"""
def attempt(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
        return 'yes'
    except OSError as error:
        return error.strerror
for _ in range(4):
    print(attempt({str(node)!r}, os.O_RDONLY), attempt({str(node)!r}, os.O_WRONLY), attempt('/dev/null', os.O_RDWR),
          flush=True)
    sys.stdin.readline()
os.mknod({str(made)!r}, 0o60600, os.makedev(8, 0))
print(attempt({str(made)!r}, os.O_RDONLY), flush=True)
"""
    apply(hierarchy, cgroup, Resources())
    with Running(cgroup, program) as running:
        assert running.stdin
        no = os.strerror(errno.EPERM)
        assert running.line() == f"{no} {no} yes"
        apply(hierarchy, cgroup, Resources(devices=(DeviceRule(True, "c", 1, 11, "r"),)))
        running.stdin.write(b"\n")
        assert running.line() == f"yes {no} yes"
        impose(cgroup, Resources(pids=Pids(100)), hierarchy.version, update=True)  # changes no device rule
        running.stdin.write(b"\n")
        assert running.line() == f"yes {no} yes"
        apply(hierarchy, cgroup, Resources(devices=(DeviceRule(True, "a"), DeviceRule(False, "c", 1, 11, "w"))))
        running.stdin.write(b"\n")
        assert running.line() == f"yes {no} yes"
        apply(hierarchy, cgroup, Resources())
        running.stdin.write(b"\n")
        assert running.line() == no


def test_write_throttle_and_io_counters(hierarchy: Hierarchy, cgroup: Cgroup, tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    major, minor = os.major(device), os.minor(device)
    if major == 0:
        pytest.skip("the temporary directory is not on a block device")
    throttle = (ThrottleDevice(major, minor, MIB),)
    apply(hierarchy, cgroup, Resources(block_io=BlockIO(throttle_write_bps_device=throttle)))
    program = f"""
import mmap
fd = os.open({str(tmp_path / "data")!r}, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
page = mmap.mmap(-1, 1 << 19)
print('go', flush=True)
for _ in range(4): os.write(fd, page)
print('done', flush=True)
"""
    with open(tmp_path / "probe", "wb", buffering=0) as probe:
        try:
            fd = os.open(probe.name, os.O_WRONLY | os.O_DIRECT)
        except OSError:
            pytest.skip("no O_DIRECT here")
        with contextlib.closing(mmap.mmap(-1, mmap.PAGESIZE)):
            os.close(fd)
    with Running(cgroup, program) as running:
        assert running.line() == "go"
        begin = time.monotonic()
        assert running.line() == "done"
        assert time.monotonic() - begin > 1.0
    written = [entry for entry in cgroup.counters().io_service_bytes if entry.op.lower() == "write"]
    assert [entry for entry in written if (entry.major, entry.minor) == (major, minor)]
    assert sum(entry.value for entry in written) >= 2 * MIB
    assert sum(entry.value for entry in cgroup.counters().io_serviced if entry.op.lower() == "write") >= 4


def test_memory_counters(cgroup: Cgroup) -> None:
    with Running(cgroup, "data = b'x' * (20 << 20)\nprint('in', flush=True)\nsys.stdin.read()") as running:
        assert running.line() == "in"
        counters = cgroup.counters()
        assert counters.memory_usage > 20 * MIB
        assert dict(counters.memory_stat)["pgfault"] > 100
        assert counters.cpu_total > 0
        assert counters.memory_limit is None


def test_limits_change_in_both_directions_while_it_runs(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    with Running(cgroup, ECHO):
        for limit in (64, 256, 32, -1, 48):
            size = limit * MIB if limit > 0 else -1
            swap = 2 * size if limit > 0 else -1
            resources = Resources(memory=Memory(limit=size, swap=swap))
            cgroup.apply(plan(resources, hierarchy.version))
            assert cgroup.counters().memory_limit == (size if limit > 0 else None)
        for quota, period in ((200000, 100000), (10000, 20000), (1000000, 1000000), (-1, 100000)):
            cgroup.apply(plan(Resources(cpu=CPU(quota=quota, period=period)), hierarchy.version))


def test_refused_values_name_file_and_value(cgroup: Cgroup, hierarchy: Hierarchy) -> None:
    with pytest.raises(OSError, match="write '77777': ") as caught:
        cgroup.apply((Setting("cpuset.cpus", "77777"),))
    error = explain(caught.value)
    assert isinstance(error, InvalidArgument)
    assert "cpuset.cpus" in str(error)
    with pytest.raises(OSError, match="nothing") as missing:
        cgroup.apply((Setting("nothing.max", "1"),))
    assert missing.value.errno == errno.ENOENT


def test_create_refuses_an_occupied_cgroup(hierarchy: Hierarchy, cgroup: Cgroup) -> None:
    with Running(cgroup, ECHO) as running:
        running.stdin and running.stdin.write(b"a")
        running.stdout and running.stdout.read(1)
        with pytest.raises(OSError, match="processes") as caught:
            hierarchy.create(cgroup.path)
        assert caught.value.errno == errno.EBUSY
        assert running.poll() is None


def test_remove_copes_with_leftovers(hierarchy: Hierarchy) -> None:
    cgroup = hierarchy.create(f"{PARENT}/leftovers")
    nested = hierarchy.create(f"{PARENT}/leftovers/inner/most")
    with Running(nested, ECHO) as running:
        running.stdin and running.stdin.write(b"a")
        running.stdout and running.stdout.read(1)
        assert cgroup.pids() == [running.pid]
        cgroup.remove()
        assert running.wait() == -signal.SIGKILL
    cgroup.remove()
    assert cgroup.pids() == []
    with pytest.raises(FileNotFoundError):
        cgroup.counters()


def test_path_cannot_leave_the_hierarchy(hierarchy: Hierarchy) -> None:
    assert [m.source for m in hierarchy.open("/../../x/../y").mounts()] == [
        m.source for m in hierarchy.open("/y").mounts()
    ]
