"""Docker's conditional profiles become plain ones for one container on one machine."""

from typing import Any

import pytest

from hafen.errors import InvalidArgument
from hafen.spec.runtime_config import Seccomp, Syscall
from hafen.spec.seccomp import from_docker_profile


def names(
    call: dict[str, Any], capabilities: tuple[str, ...] = (), machine: str = "x86_64", release: str = "6.1.0-13-amd64"
) -> list[str]:
    """Names of the rules that are left of a profile with this one."""
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ALLOW", **call}]}
    converted = from_docker_profile(profile, capabilities, machine, release)
    assert converted
    return [name for syscall in converted.syscalls for name in syscall.names]


def test_capabilities() -> None:
    call = {"includes": {"caps": ["CAP_A", "CAP_B"]}}
    assert names(call, ("CAP_A", "CAP_B", "CAP_C")) == ["x"]
    assert names(call, ("CAP_A",)) == []
    call = {"excludes": {"caps": ["CAP_A"]}}
    assert names(call, ("CAP_A",)) == []
    assert names(call) == ["x"]


def test_architectures() -> None:
    assert names({"includes": {"arches": ["amd64", "x32"]}}) == ["x"]
    assert names({"includes": {"arches": ["amd64"]}}, machine="aarch64") == []
    assert names({"excludes": {"arches": ["arm64"]}}, machine="aarch64") == []


@pytest.mark.parametrize(("release", "newer"), [("4.7.0", False), ("4.8-rc1", True), ("4.8.1", True), ("10.0", True)])
def test_kernel_versions(release: str, newer: bool) -> None:
    assert bool(names({"includes": {"minKernel": "4.8"}}, release=release)) == newer
    assert bool(names({"excludes": {"minKernel": "4.8"}}, release=release)) != newer


def test_one_name() -> None:
    assert names({"names": None, "name": "y"}) == ["y"]
    with pytest.raises(InvalidArgument, match="both 'name' and 'names' are specified"):
        names({"name": "y"})


def test_architecture_map() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
        ],
    }
    for machine, expected in (("x86_64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")), ("aarch64", ("SCMP_ARCH_AARCH64",))):
        converted = from_docker_profile(profile, (), machine, "6.1")
        assert converted
        assert converted.architectures == expected
    with pytest.raises(InvalidArgument, match="both 'architectures' and 'archMap' are specified"):
        from_docker_profile({**profile, "architectures": ["SCMP_ARCH_X86"]}, (), "x86_64", "6.1")


def test_the_oci_form_passes_unchanged() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert from_docker_profile(document, (), "x86_64", "6.1") == Seccomp(
        "SCMP_ACT_ERRNO",
        38,
        ("SCMP_ARCH_X86",),
        ("SECCOMP_FILTER_FLAG_LOG",),
        syscalls=(Syscall(("read",), "SCMP_ACT_ALLOW"),),
    )


@pytest.mark.parametrize("document", [{}, {"syscalls": []}, {"defaultAction": "", "archMap": []}])
def test_nothing_said_is_unconfined(document: dict[str, Any]) -> None:
    assert from_docker_profile(document, (), "x86_64", "6.1") is None


@pytest.mark.parametrize(
    "document",
    [
        {"defaultAction": 5},
        {"defaultAction": "A", "syscalls": 5},
        {"defaultAction": "A", "syscalls": [5]},
        {"defaultAction": "A", "syscalls": [{"names": "read", "action": "B"}]},
        {"defaultAction": "A", "syscalls": [{"action": "B"}]},
        {"defaultAction": "A", "syscalls": [{"names": ["x"], "action": "B", "includes": 7}]},
        {"defaultAction": "A", "syscalls": [{"names": ["x"], "action": "B", "includes": {"minKernel": "new"}}]},
        {"defaultAction": "A", "archMap": {"architecture": "B"}},
    ],
)
def test_malformed(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        from_docker_profile(document, (), "x86_64", "6.1")
