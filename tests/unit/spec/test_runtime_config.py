"""The OCI configuration: JSON in, values out, and back."""

import json

import pytest

from hafen.errors import InvalidArgument
from hafen.spec import runtime_config as rc

DOCUMENT = {
    "ociVersion": "1.2.0",
    "process": {
        "args": ["sh"],
        "cwd": "/work",
        "env": ["PATH=/bin"],
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4], "name": "db:users", "groupAdd": ["disk"]},
        "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 10}],
        "noNewPrivileges": True,
        "oomScoreAdj": -5,
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
        "execCPUAffinity": {"initial": "0-1"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    "hooks": {"createRuntime": [{"path": "/bin/true", "timeout": 5}]},
    "linux": {
        "uidMappings": [{"containerID": 1, "hostID": 100000, "size": 65536}],
        "resources": {
            "devices": [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {"kernelTCP": 1, "disableOOMKiller": True},
            "blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 9}]},
            "unified": {"memory.high": "1"},
        },
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/self/fd/7"}],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 3}],
                }
            ],
        },
        "timeOffsets": {"monotonic": {"secs": 5}},
    },
}


def test_round_trip() -> None:
    config = rc.from_json(DOCUMENT)
    assert config.process is not None
    assert config.process.user.group_add == ("disk",)
    assert config.linux.namespaces[1] == rc.Namespace("network", "/proc/self/fd/7")
    assert rc.to_json(config) == DOCUMENT
    assert rc.from_json(json.loads(json.dumps(rc.to_json(config)))) == config


def test_unknown_fields_are_ignored_and_null_is_absence() -> None:
    config = rc.from_json({"ociVersion": "1.0", "windows": {}, "mounts": None, "linux": {"sysctl": None}})
    assert config == rc.Config("1.0")


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], "the document"),
        ({}, "ociVersion"),
        ({"ociVersion": "1", "process": {"args": "sh"}}, "process.args"),
        ({"ociVersion": "1", "process": {"args": ["a", 1]}}, "process.args[1]"),
        ({"ociVersion": "1", "process": {"args": ["a\0b"]}}, "process.args[0]"),
        ({"ociVersion": "1", "process": {"terminal": 1}}, "process.terminal"),
        ({"ociVersion": "1", "linux": {"resources": {"memory": {"limit": 1.5}}}}, "linux.resources.memory.limit"),
        ({"ociVersion": "1", "linux": {"resources": {"pids": {"limit": True}}}}, "linux.resources.pids.limit"),
        ({"ociVersion": "1", "linux": {"sysctl": {"a": 1}}}, "linux.sysctl.a"),
        ({"ociVersion": "1", "mounts": [{}]}, "mounts[0].destination"),
    ],
)
def test_wrong_type_names_its_path(document: object, path: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        rc.from_json(document)
    assert f"{path} " in caught.value.message
