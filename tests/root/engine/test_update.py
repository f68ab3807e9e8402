"""Updates of limits reach a running, paused and stopped container, and stay for the next start."""

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root

# By the file of cgroup v1 and that of v2; what the container itself sees.
_FILES = {
    "memory": "memory/memory.limit_in_bytes memory.max",
    "swap": "memory/memory.memsw.limit_in_bytes memory.swap.max",
    "reservation": "memory/memory.soft_limit_in_bytes memory.low",
    "pids": "pids/pids.max pids.max",
    "cpus": "cpuset/cpuset.cpus cpuset.cpus",
    "quota": "cpu/cpu.cfs_quota_us cpu.max",
    "shares": "cpu/cpu.shares cpu.weight",
}


def kernel(engine: EngineProcess, name: str, limit: str) -> str:
    script = f'cd /sys/fs/cgroup; for file in {_FILES[limit]}; do [ ! -e "$file" ] || {{ cat "$file"; break; }}; done'
    return engine.docker("exec", name, "sh", "-c", script).stdout.strip()


@pytest.mark.parametrize(
    ("flags", "limit", "expected"),
    [
        (("--memory", "64m", "--memory-swap", "-1"), "memory", {str(64 << 20)}),
        (("--memory", "64m", "--memory-swap", "96m"), "swap", {str(96 << 20), str(32 << 20)}),
        (("--memory-reservation", "32m"), "reservation", {str(32 << 20)}),
        (("--pids-limit", "55"), "pids", {"55"}),
        (("--cpuset-cpus", "0"), "cpus", {"0"}),
        (("--cpus", "0.5"), "quota", {"50000", "50000 100000"}),
        (("--cpu-quota", "20000"), "quota", {"20000", "20000 100000"}),
        (("--cpu-shares", "512"), "shares", {"512", "20"}),
    ],
)
def test_a_limit_holds_at_once_and_after_a_restart(
    engine: EngineProcess, name: str, flags: tuple[str, ...], limit: str, expected: set[str]
) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "busybox", "sleep", "1000")
    assert kernel(engine, name, limit) not in expected or limit == "cpus"
    engine.docker("update", *flags, name)
    assert kernel(engine, name, limit) in expected
    engine.docker("restart", "-t", "0", name)
    assert kernel(engine, name, limit) in expected


def test_paused_stopped_and_unlimited_again(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--pids-limit", "50", "--name", name, "busybox", "sleep", "1000")
    engine.docker("pause", name)
    engine.docker("update", "--pids-limit", "60", name)
    engine.docker("unpause", name)
    assert kernel(engine, name, "pids") == "60"
    engine.docker("stop", "-t", "0", name)
    engine.docker("update", "--pids-limit", "70", name)
    engine.docker("start", name)
    assert kernel(engine, name, "pids") == "70"
    engine.docker("update", "--pids-limit", "-1", name)
    assert kernel(engine, name, "pids") == "max"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"Memory": 64 << 20}, 409, "Memory limit should be smaller than already set memoryswap limit"),
        ({"Memory": 64 << 20, "MemorySwap": 32 << 20}, 400, "Minimum memoryswap limit should be larger"),
        ({"CpuShares": 1}, 500, "the minimum allowed cpu-shares is 2"),
        ({"CpusetCpus": "999"}, 400, "Requested CPUs are not available - requested 999"),
        ({"RestartPolicy": {"Name": "often"}}, 400, "invalid restart policy: unknown policy 'often'"),
        ({"Memory": 1}, 400, "Minimum memory limit allowed is 6MB"),
    ],
)
def test_a_refused_update_changes_nothing(
    engine: EngineProcess, name: str, body: dict[str, object], status: int, text: str
) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "busybox", "sleep", "1000")
    shown = engine.docker("inspect", "-f", "{{json .HostConfig}}", name).stdout
    answer = call(engine, "POST", f"/containers/{name}/update", body)
    assert answer[0] == status
    assert text in str(answer[1])
    assert engine.docker("inspect", "-f", "{{json .HostConfig}}", name).stdout == shown


def test_a_new_policy_decides_at_the_next_exit(engine: EngineProcess, name: str) -> None:
    engine.docker(
        "run", "-d", "--net", "none", "--name", name, "busybox", "sh", "-c", "until [ -e /go ]; do sleep .02; done"
    )
    engine.docker("update", "--restart", "always", name)
    with engine.docker_beside(
        "events", "--since", "5m", "--filter", f"container={name}", "--filter", "event=start"
    ) as events:
        assert events.line()
        engine.docker("exec", name, "touch", "/go")
        assert events.line()
