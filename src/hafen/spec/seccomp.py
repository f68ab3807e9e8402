"""Docker's form of a seccomp profile, with conditions, to the OCI form; pure.

A rule may depend on the container's capabilities, the architecture and the kernel's version ("includes", "excludes").
Docker's default profile is written so. Source: moby, profiles/seccomp.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from hafen.errors import InvalidArgument
from hafen.spec.runtime_config import Seccomp, decode

_T = TypeVar("_T")

# Machine of uname(2) -> Go's name, by which Docker's profiles speak, and libseccomp's.
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("386", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}


def from_docker_profile(
    profile: Mapping[str, Any],
    capabilities: Collection[str],
    machine: str,
    release: str,
) -> Seccomp | None:
    """Docker's form (conditions on capabilities, architecture and kernel version) as the OCI form; None where it
    says nothing, which Docker takes as unconfined. The OCI form is a case of it and passes unchanged.

    `capabilities` are the container's bounding set ("CAP_SYS_ADMIN"); `machine` and `release` are uname(2)'s.
    """
    names = {"defaultAction", "syscalls"}
    if not any(profile.get(name) for name in names):
        return None
    go_name, scmp_name = _ARCHITECTURES.get(machine, ("", ""))
    version = _version(release)
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    document = dict(profile)
    for entry in _objects(profile, "archMap"):
        if entry.get("architecture") == scmp_name:
            document["architectures"] = [scmp_name, *(entry.get("subArchitectures") or [])]
    document["syscalls"] = []
    for call in _objects(profile, "syscalls"):
        if call.get("name") and call.get("names"):
            raise InvalidArgument(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
            )
        includes, excludes = _condition(call, "includes"), _condition(call, "excludes")
        if (
            not set(includes.caps) <= set(capabilities)
            or (includes.arches and go_name not in includes.arches)
            or (includes.min_kernel and version < _version(includes.min_kernel))
            or set(excludes.caps) & set(capabilities)
            or go_name in excludes.arches
            or (excludes.min_kernel and version >= _version(excludes.min_kernel))
        ):
            continue
        document["syscalls"].append({**call, "names": call.get("names") or [call.get("name")]})
    return _decoded(Seccomp, document)


def _objects(profile: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = profile.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidArgument(f"Decoding seccomp profile failed: {name} must be an array of objects")
    return value


class _Condition(NamedTuple):
    """What a rule's "includes" or "excludes" says."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: str = ""


def _condition(call: Mapping[str, Any], which: str) -> _Condition:
    return _decoded(_Condition, call.get(which) or {}, which)


def _decoded(cls: type[_T], value: object, path: str = "") -> _T:
    try:
        return decode(cls, value, path)
    except InvalidArgument as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error.message.partition(': ')[2]}") from None


def _version(release: str) -> tuple[int, int]:
    """(major, minor) of "6.1.0-13-amd64"."""
    parts = [part for part in release.split("-")[0].split(".") if part.isdigit()][:2]
    if len(parts) < 2:
        raise InvalidArgument(f"Decoding seccomp profile failed: invalid kernel version {release!r}")
    return int(parts[0]), int(parts[1])
