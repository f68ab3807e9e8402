"""What specgen writes beside what Docker 26.1 wrote for the same container (recorded on this project's peer)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hafen.engine import hostfacts, specgen
from hafen.engine.hostfacts import HostFacts
from hafen.engine.records import Record
from hafen.errors import InvalidArgument
from hafen.spec import mounts, runtime_config
from hafen.spec.runtime_config import Device, DeviceRule
from hafen.spec.wire import gojson
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.hostconfig import HostConfig

PEER = Path(__file__).parent / "peer"
HOST_CAPABILITIES = tuple(
    json.loads((PEER / "privileged.json").read_text())["spec"]["process"]["capabilities"]["bounding"]
)
HOST = HostFacts(
    hostname="vm",
    cgroup_version=1,
    capabilities=HOST_CAPABILITIES,
    cpus=frozenset((0, 1)),
    memory_nodes=frozenset((0,)),
    memory=1 << 34,
    architecture="amd64",
    kernel="6.18",
    apparmor=False,
    init=True,
)
_SETS = ("bounding", "effective", "permitted")
FILES = {f"/etc/{name}": f"files/etc/{name}" for name in ("resolv.conf", "hostname", "hosts")}


def record(config: ContainerConfig, wanted: HostConfig, path: str = "sh", args: tuple[str, ...] = ()) -> Record:
    return Record(
        id="a" * 64,
        name="x",
        created_ns=1,
        image="busybox",
        image_id="sha256:0",
        config=config,
        host_config=wanted,
        path=path,
        args=args,
        snapshotter="overlay",
    )


def peers(name: str) -> tuple[Record, dict[str, Any]]:
    """The container as Docker describes it, and the specification that Docker made of it."""
    document = json.loads((PEER / f"{name}.json").read_text())
    config = gojson.read(document["config"], ContainerConfig)
    wanted = gojson.read(document["host_config"], HostConfig)
    return record(config, wanted, document["path"], tuple(document["args"])), document["spec"]


def found_for(name: str) -> specgen.Found:
    match name:
        case "many":
            return specgen.Found(
                rootfs="",
                cgroup="",
                mounts=(specgen.tmpfs_mount(mounts.parse_tmpfs("/t", "size=1m")),),
                files=FILES,
                namespaces={"ipc": "host"},
                shm="/dev/shm",
                devices=(Device("/dev/xx", "c", 1, 3, 0o666, 0, 0),),
                device_rules=(DeviceRule(True, "c", 1, 3, "r"),),
            )
        case "hosts":
            others = {"pid": "host", "uts": "host", "network": "host"}
            return specgen.Found("", "", files=FILES, namespaces=others, shm="SHM")
        case "capall":
            return specgen.Found("", "", files=FILES, device_rules=(specgen.parse_device_rule("c 42:* rmw"),))
    return specgen.Found("", "", files=FILES)


def theirs(spec: dict[str, Any]) -> dict[str, Any]:
    """Docker's specification without what is its runtime's business or only another way to say the same."""
    process = spec["process"]
    return {
        "args": process["args"],
        "cwd": process.get("cwd", "/"),
        "env": set(process["env"]),
        "capabilities": {name: set(process["capabilities"].get(name, ())) for name in _SETS},
        "rlimits": process.get("rlimits", []),
        "no_new_privileges": process.get("noNewPrivileges", False),
        "oom_score_adj": process.get("oomScoreAdj"),
        "terminal": process.get("terminal", False),
        "readonly": spec["root"].get("readonly", False),
        "hostname": spec.get("hostname", ""),
        "mounts": {one["destination"]: (one["type"], one["source"], set(one["options"])) for one in spec["mounts"]},
        "namespaces": {one["type"]: one.get("path", "") for one in spec["linux"]["namespaces"]},
        "masked": set(spec["linux"].get("maskedPaths", ())),
        "read_only": set(spec["linux"].get("readonlyPaths", ())),
        "cpu": spec["linux"]["resources"].get("cpu", {}),
        "memory": {k: v for k, v in spec["linux"]["resources"].get("memory", {}).items() if k != "disableOOMKiller"},
        "pids": spec["linux"]["resources"].get("pids", {}),
        "devices": spec["linux"].get("devices", []),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["default", "privileged", "many", "hosts", "capall"])
def test_same_as_docker(name: str) -> None:
    container, spec = peers(name)
    config = specgen.build(container, HOST, found_for(name))
    ours = theirs(runtime_config.to_json(config._replace(root=config.root and config.root._replace(path="r"))))
    expected = theirs(spec)
    if name in ("many", "hosts"):  # read-only /etc files: nothing below them to be recursive about
        for where in FILES:
            kind, source, options = expected["mounts"][where]
            expected["mounts"][where] = (kind, source, {"ro" if one == "rro" else one for one in options})
    if name == "many":  # with the host's IPC namespace the host's queues are shared, as a mount of their own would not
        assert ours["mounts"].pop("/sbin/docker-init") == ("bind", hostfacts.TINI, {"bind", "ro"})
        del expected["mounts"]["/sbin/docker-init"]
        assert ours["mounts"].pop("/dev/mqueue")[0] == "bind"
        del expected["mounts"]["/dev/mqueue"]
    for key, value in expected.items():
        assert ours[key] == value, key


def test_domain_name_and_user() -> None:
    container, _ = peers("many")
    config = specgen.build(container, HOST, found_for("many"))
    assert config.domainname == "dom"
    assert config.process is not None
    assert config.process.user.name == "1:2"
    assert config.process.user.group_add == ("5",)


def test_device_rules_come_after_the_defaults() -> None:
    container, spec = peers("capall")
    rules = runtime_config.to_json(specgen.build(container, HOST, found_for("capall")))["linux"]["resources"]["devices"]
    assert rules[-1] == {"allow": True, "type": "c", "major": 42, "access": "rmw"}
    assert spec["linux"]["resources"]["devices"][-1]["major"] == 42


def test_a_volume_on_a_default_mount_replaces_it() -> None:
    point = mounts.parse_bind("/tmp:/dev/shm")
    mount = runtime_config.Mount(point.destination, "bind", point.source, specgen.bind_options(point))
    container, _ = peers("default")
    config = specgen.build(container, HOST, specgen.Found("", "", mounts=(mount,), files=FILES))
    assert [one.source for one in config.mounts if one.destination == "/dev/shm"] == ["/tmp"]


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        ([], [], "CAP_CHOWN", "CAP_SYS_ADMIN"),
        (["sys_admin"], [], "CAP_SYS_ADMIN", "CAP_NET_ADMIN"),
        (["ALL"], ["CAP_CHOWN"], "CAP_SYS_ADMIN", "CAP_CHOWN"),
        (["net_raw"], ["ALL"], "CAP_NET_RAW", "CAP_CHOWN"),
    ],
)
def test_capabilities(add: list[str], drop: list[str], has: str, lacks: str) -> None:
    given = specgen.capabilities(HostConfig(cap_add=add, cap_drop=drop), HOST)
    assert has in given
    assert lacks not in given


def test_capabilities_that_the_host_lacks_are_not_given() -> None:
    assert "CAP_SYS_RESOURCE" not in specgen.capabilities(HostConfig(cap_add=["SYS_RESOURCE"]), HOST)


def test_environment() -> None:
    env = specgen.environment("h", True, ("PATH=/x", "A=1", "TERM", "B=2=3"))
    assert env == ("PATH=/x", "HOSTNAME=h", "A=1", "B=2=3")


def test_limits() -> None:
    wanted = HostConfig(memory=1 << 26, memory_swap=-1, nano_cpus=1_500_000_000, pids_limit=-1, cpuset_cpus="0-1")
    limits = specgen.resources(wanted, specgen.Found("", ""))
    assert limits.memory is not None
    assert limits.cpu is not None
    assert (limits.memory.limit, limits.memory.swap) == (1 << 26, -1)
    assert (limits.cpu.quota, limits.cpu.period, limits.cpu.cpus) == (150_000, 100_000, "0-1")


@pytest.mark.parametrize("text", ["", "c 1 r", "x 1:2 r", "c 1:2 q", "c a:b r"])
def test_bad_device_rules(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid device cgroup rule format"):
        specgen.parse_device_rule(text)
