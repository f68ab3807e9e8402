"""A configuration becomes an ordered tuple of steps, or the reason why it cannot."""

from typing import Any

import pytest

from hafen.errors import InvalidArgument, NotImplemented
from hafen.kernel import consts
from hafen.runtime import template
from hafen.runtime.plan import Plan, plan, sysctl_path
from hafen.spec.runtime_config import RootMount, from_json

LAYERS = (RootMount("overlay", "overlay", ("lowerdir=/a:/b", "upperdir=/u", "workdir=/w")),)


def document(**changes: Any) -> dict[str, Any]:
    """A valid configuration with top-level parts replaced; `linux` and `process` are merged."""
    found = template.config()
    for key, value in changes.items():
        found[key] = {**found[key], **value} if key in ("linux", "process") else value
    return found


def planned(**changes: Any) -> Plan:
    return plan(from_json(document(**changes)), LAYERS, bundle="/bundle")


def test_steps_in_order() -> None:
    steps = [type(step).__name__ for step in planned().steps]
    assert steps == [
        "Propagation", "MountRoot", "NewMount", "NewMount", "NewMount", "NewMount", "NewMount", "NewMount",
        "MountCgroups", "MakeDevices", "MakeLinks", "OpenConsole", "SetNames", "MakeReadonly", "MaskPaths",
        "MakeWorkingDirectory", "MakeRootReadonly", "PivotRoot",
    ]  # fmt: skip


def test_description_is_for_people() -> None:
    lines = planned(process={"terminal": False}, hostname="", root={"path": "rootfs"}).describe()
    assert lines[0] == "new namespaces: mount, pid, network, ipc, uts, cgroup"
    assert "mounting the root file system (overlay) at /bundle/rootfs" in lines
    assert "mounting proc at /proc" in lines
    assert lines[-1] == "changing the root"


def test_namespaces() -> None:
    found = planned(
        linux={"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "cgroup"}]},
        hostname="",
    )
    assert found.clone_flags == consts.CLONE_NEWNS
    assert [tuple(joined) for joined in found.joined] == [("pid", "/proc/7/ns/pid")]
    assert found.cgroup_namespace


def test_time_namespace_with_offsets_is_made_beforehand() -> None:
    found = planned(
        linux={"namespaces": [{"type": "mount"}, {"type": "time"}], "timeOffsets": {"boottime": {"secs": 9}}},
        hostname="",
    )
    assert not found.clone_flags & consts.CLONE_NEWTIME
    assert found.time_offsets == ("boottime 9 0",)


def test_bind_of_dev_keeps_its_content() -> None:
    bind = {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}
    names = {type(step).__name__ for step in planned(mounts=[bind], process={"terminal": False}).steps}
    assert "MakeDevices" not in names
    assert "MakeLinks" not in names


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"process": {"args": []}}, "process.args is missing"),
        ({"process": {"cwd": "relative"}}, "not an absolute path"),
        ({"process": {"capabilities": {"bounding": ["CAP_NONSENSE"]}}}, "invalid capability: 'CAP_NONSENSE'"),
        ({"process": {"rlimits": [{"type": "RLIMIT_X", "hard": 1, "soft": 1}]}}, 'invalid rlimit type "RLIMIT_X"'),
        ({"process": {"rlimits": [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}] * 2}}, "given twice"),
        ({"process": {"ioPriority": {"class": "X"}}}, "ioPriority.class"),
        ({"process": {"scheduler": {"policy": "X"}}}, "scheduler.policy"),
        ({"linux": {"namespaces": []}}, "mount namespace of its own"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "given twice"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "what"}]}}, "unknown type 'what'"),
        ({"linux": {"namespaces": [{"type": "mount"}]}}, "without a private UTS namespace"),
        ({"linux": {"sysctl": {"vm.swappiness": "1"}}}, "not in a separate kernel namespace"),
        ({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}, "namespaces": [{"type": "mount"}, {"type": "uts"}]}},
         "not allowed in host network namespace"),
        ({"linux": {"sysctl": {"net/../vm/swappiness": "1"}}}, "invalid sysctl name"),
        ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}, "uidMappings"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "q"}]}}, "unknown type 'q' of /dev/x"),
        ({"linux": {"rootfsPropagation": "sideways"}}, "sideways"),
        ({"mounts": [{"destination": "/", "type": "tmpfs"}]}, "is the root itself"),
        ({"mounts": [{"destination": "/x"}]}, "/x has no type"),
    ],
)  # fmt: skip
def test_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        planned(**changes)
    assert words in caught.value.message


def test_what_is_not_supported_is_named() -> None:
    with pytest.raises(NotImplemented, match=r"linux\.intelRdt is not supported"):
        planned(linux={"intelRdt": {"closID": "x"}})


def test_sysctl_path_first_separator_decides() -> None:
    assert sysctl_path("net.ipv4.conf.eth0/100.forwarding") == "net/ipv4/conf/eth0.100/forwarding"
    assert sysctl_path("net/ipv4/conf/eth0.100/forwarding") == "net/ipv4/conf/eth0.100/forwarding"
