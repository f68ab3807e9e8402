"""What a create request may say of the host; the texts were recorded from Docker 26.1."""

import pytest

from hafen.engine import hostconfig
from hafen.engine.hostfacts import HostFacts
from hafen.errors import HafenError, InvalidArgument, System
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import (
    HostConfig,
    RestartPolicy,
    Ulimit,
)
from hafen.spec.wire.image import HealthConfig
from hafen.spec.wire.network import PortBinding

HOST = HostFacts(
    hostname="vm",
    cgroup_version=1,
    capabilities=("CAP_CHOWN", "CAP_NET_ADMIN"),
    cpus=frozenset((0, 1)),
    memory_nodes=frozenset((0,)),
    memory=1 << 34,
    architecture="amd64",
    kernel="6.18",
    apparmor=False,
    init=True,
)


def check(wanted: HostConfig, config: ContainerConfig | None = None) -> None:
    hostconfig.check_host_config(wanted, config or ContainerConfig(), HOST, ("hafen",))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (HostConfig(memory=1000), "Minimum memory limit allowed is 6MB"),
        (
            HostConfig(memory=10_000_000, memory_swap=5),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            HostConfig(memory_swap=5_000_000_000),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            HostConfig(memory=10_000_000, memory_reservation=20_000_000),
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (HostConfig(memory_reservation=5), "Minimum memory reservation allowed is 6MB"),
        (HostConfig(memory_swappiness=200), "Invalid value: 200, valid memory swappiness range is 0-100"),
        (
            HostConfig(cpu_period=5),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (HostConfig(cpu_quota=5), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            HostConfig(nano_cpus=900_000_000_000),
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            HostConfig(nano_cpus=1_000_000_000, cpu_quota=50_000),
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (HostConfig(cpuset_cpus="99"), "Requested CPUs are not available - requested 99, available: 0-1"),
        (HostConfig(cpuset_cpus="x"), "Invalid value x for cpuset cpus: invalid format: x"),
        (HostConfig(cpuset_mems="9"), "Requested memory nodes are not available - requested 9, available: 0"),
        (HostConfig(oom_score_adj=5000), "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
        (HostConfig(cap_add=["FOO"]), 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        (HostConfig(cap_drop=["FOO"]), 'invalid CapDrop: unknown capability: "CAP_FOO"'),
        (
            HostConfig(cap_add=["SYS_RESOURCE"]),
            "invalid CapAdd: capability not supported by your kernel or not available in the current environment: "
            '"CAP_SYS_RESOURCE"',
        ),
        (HostConfig(ipc_mode="foo"), "invalid IPC mode: foo"),
        (HostConfig(pid_mode="foo"), "invalid PID mode: foo"),
        (HostConfig(uts_mode="foo"), "invalid UTS mode: foo"),
        (HostConfig(cgroupns_mode="foo"), "invalid cgroup namespace mode: foo"),
        (HostConfig(shm_size=-1), "SHM size can not be less than 0"),
        (
            HostConfig(restart_policy=RestartPolicy(name="foo")),
            "invalid restart policy: unknown policy 'foo'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=3)),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=-3)),
            "invalid restart policy: maximum retry count cannot be negative",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="always"), auto_remove=True),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (HostConfig(runtime="foo"), "unknown or invalid runtime name: foo"),
        (HostConfig(extra_hosts=["foo"]), 'bad format for add-host: "foo"'),
        (
            HostConfig(port_bindings={"80": [PortBinding(host_port="x")]}),
            'invalid port specification: "x"',
        ),
        (HostConfig(ulimits=[Ulimit(name="foo", soft=1, hard=1)]), "invalid ulimit type: foo"),
    ],
)
def test_invalid(wanted: HostConfig, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(wanted)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (HostConfig(security_opt=["foo=bar"]), 'invalid --security-opt 2: "foo=bar"'),
        (HostConfig(security_opt=["foo"]), 'invalid --security-opt 1: "foo"'),
        (HostConfig(storage_opt={"foo": "1"}), "Unknown option foo"),
        (HostConfig(isolation="foo"), "Invalid isolation: \"foo\" - linux only supports 'default'"),
    ],
)
def test_what_docker_answers_with_500(wanted: HostConfig, message: str) -> None:
    with pytest.raises(System) as caught:
        check(wanted)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            ContainerConfig(working_dir="rel"),
            "the working directory 'rel' is invalid, it needs to be an absolute path",
        ),
        (ContainerConfig(stop_signal="FOO"), "invalid signal: FOO"),
        (ContainerConfig(env=["=x"]), "invalid environment variable: =x"),
        (ContainerConfig(healthcheck=HealthConfig(interval=5)), "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_invalid_config(config: ContainerConfig, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        hostconfig.check_config(config)
    assert caught.value.message == message


def test_conflicts_with_shared_namespaces() -> None:
    config = ContainerConfig(hostname="foo")
    for wanted in (HostConfig(uts_mode="host"), HostConfig(network_mode="container:x")):
        with pytest.raises(HafenError, match="conflicting options: hostname"):
            check(wanted, config)


def test_defaults() -> None:
    shown = hostconfig.complete(HostConfig(memory=1 << 26), HOST)
    assert shown.memory_swap == 1 << 27
    assert (shown.network_mode, shown.ipc_mode, shown.cgroupns_mode) == ("bridge", "private", "host")
    assert (shown.shm_size, shown.restart_policy.name) == (64 << 20, "no")
    assert "/proc/kcore" in (shown.masked_paths or ())
    assert hostconfig.complete(HostConfig(privileged=True), HOST).masked_paths == []
    assert hostconfig.complete(HostConfig(masked_paths=["/x"]), HOST).masked_paths == ["/x"]
