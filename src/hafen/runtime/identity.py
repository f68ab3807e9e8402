"""Who the process is: user and groups, capabilities, no_new_privs, resource limits, and what it starts with.

Names are looked up in the container's own /etc/passwd and /etc/group, as `docker run -u` does (moby
daemon/oci_linux.go, moby/sys/user). Parsing is pure; `resolve` reads below a root descriptor.
"""

import errno
import os
import resource

from hafen.errors import InvalidArgument
from hafen.kernel import caps, consts, fs, process
from hafen.spec.runtime_config import Capabilities, Rlimit, User
from hafen.values import NamedTuple

_LARGEST_ID = 2**31 - 1  # moby's limit (sys/user: minID, maxID)


class Passwd(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


class Identity(NamedTuple):
    """`home` is where the user's passwd line says, "/" without one."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def parse_passwd(text: str) -> list[Passwd]:
    """Lines that are no passwd entries are skipped."""
    entries = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 4 and fields[2].isdecimal() and fields[3].isdecimal():
            entries.append(Passwd(fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else ""))
    return entries


def parse_group(text: str) -> list[Group]:
    entries = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= 3 and fields[2].isdecimal():
            members = tuple(filter(None, fields[3].split(","))) if len(fields) > 3 else ()
            entries.append(Group(fields[0], int(fields[2]), members))
    return entries


def resolve(root: int, user: User) -> Identity:
    """`user` in the root behind the descriptor `root`. InvalidArgument with Docker's words for an unknown name."""
    passwd = parse_passwd(_read(root, "/etc/passwd"))
    if not user.name and not user.group_add:
        entry = next((entry for entry in passwd if entry.uid == user.uid), None)
        groups = dict.fromkeys([user.gid, *user.additional_gids])  # the main one is among them, as runc has it
        return Identity(user.uid, user.gid, tuple(groups), _home(entry))
    return identify(user, passwd, parse_group(_read(root, "/etc/group")))


def identify(user: User, passwd: list[Passwd], group: list[Group]) -> Identity:
    """Pure part of `resolve`."""
    user_part, _, group_part = user.name.partition(":")
    entry, uid = _find_user(user_part or str(user.uid), passwd)
    gid = entry.gid if entry else user.gid
    supplementary: list[int] = []
    if group_part:
        gid = _find_group(group_part, group, "unable to find group")
    elif entry:
        supplementary = [line.gid for line in group if entry.name in line.members]
    extra = [_find_group(name, group, "Unable to find group") for name in user.group_add]
    groups = dict.fromkeys([gid, *supplementary, *user.additional_gids, *extra])
    return Identity(uid, gid, tuple(groups), _home(entry))


def _home(entry: Passwd | None) -> str:
    return (entry.home if entry else "") or "/"


def _find_user(name: str, passwd: list[Passwd]) -> tuple[Passwd | None, int]:
    """A name wins over a number; a number needs no entry."""
    entry = next((entry for entry in passwd if entry.name == name), None)
    if entry:
        return entry, entry.uid
    if not name.isdecimal():
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    uid = _in_range(name)
    return next((entry for entry in passwd if entry.uid == uid), None), uid


def _find_group(name: str, group: list[Group], failure: str) -> int:
    entry = next((entry for entry in group if entry.name == name), None)
    if entry:
        return entry.gid
    if not name.isdecimal():
        raise InvalidArgument(f"{failure} {name}: no matching entries in group file")
    return _in_range(name)


def _in_range(text: str) -> int:
    number = int(text)
    if number > _LARGEST_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{_LARGEST_ID}")
    return number


def _read(root: int, path: str) -> str:
    """The file inside the root, empty where there is none or it is no regular file."""
    try:
        return fs.read_in_root(root, path).decode(errors="replace")
    except OSError:
        return ""


def environment(env: tuple[str, ...], home: str) -> list[str]:
    """`env` with the last of duplicates only, and HOME where it is missing or empty."""
    values: dict[str, str] = {}
    for item in env:
        name, separator, _ = item.partition("=")
        if separator and name:
            values[name] = item
    if values.get("HOME", "HOME=") == "HOME=":
        values["HOME"] = f"HOME={home}"
    return list(values.values())


def set_groups_and_user(identity: Identity, *, set_groups: bool = True) -> None:
    """`set_groups` is False where the user namespace denies setgroups(2)."""
    if set_groups:
        os.setgroups(list(identity.groups))
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


class CapabilityMasks(NamedTuple):
    """The five sets as bits."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def capability_masks(capabilities: Capabilities | None) -> CapabilityMasks | None:
    """InvalidArgument for an unknown name; None leaves the process as it is."""
    if capabilities is None:
        return None

    def bits(names: tuple[str, ...]) -> int:
        try:
            return caps.mask(names)
        except KeyError as unknown:
            raise InvalidArgument(f"invalid capability: {unknown}") from None

    return CapabilityMasks(
        bits(capabilities.bounding), bits(capabilities.effective), bits(capabilities.permitted),
        bits(capabilities.inheritable), bits(capabilities.ambient),
    )  # fmt: skip


def available(masks: CapabilityMasks, have: int) -> tuple[CapabilityMasks, str]:
    """`masks` without what this process itself lacks, and a warning that names it (or "")."""
    missing = (masks.bounding | masks.permitted | masks.effective) & ~have
    if not missing:
        return masks, ""
    reduced = CapabilityMasks(*(value & have for value in masks))
    return reduced, f"capabilities that the runtime itself lacks are left out: {', '.join(caps.names(missing))}"


def set_no_new_privileges() -> None:
    process.prctl(consts.PR_SET_NO_NEW_PRIVS, 1)


def set_limits(limits: tuple[Rlimit, ...]) -> list[str]:
    """Set resource limits; what would need CAP_SYS_RESOURCE is clamped to the present hard limit, with a warning."""
    warnings = []
    for limit in limits:
        number = limit_number(limit.type)
        soft, hard = _limit(limit.soft), _limit(limit.hard)
        try:
            resource.setrlimit(number, (soft, hard))
        except (
            PermissionError,
            ValueError,
        ) as error:  # CPython turns EPERM into ValueError("not allowed to raise ...")
            if isinstance(error, ValueError) and "raise" not in str(error):
                raise InvalidArgument(f"error setting rlimit {limit.type}: invalid argument") from None
            _, ceiling = resource.getrlimit(number)
            clamped = _lower(hard, ceiling)
            resource.setrlimit(number, (_lower(soft, clamped), clamped))
            warnings.append(f"{limit.type}: {_words(hard)} needs CAP_SYS_RESOURCE; clamped to {_words(clamped)}")
    return warnings


def limit_number(name: str) -> int:
    """ "RLIMIT_NOFILE" -> RLIMIT_NOFILE."""
    number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if number is None:
        raise InvalidArgument(f'invalid rlimit type "{name}"')
    return int(number)


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value >= 2**63 - 1 or value < 0 else value


def _lower(one: int, other: int) -> int:
    if one == resource.RLIM_INFINITY:
        return other
    return one if other == resource.RLIM_INFINITY else min(one, other)


def _words(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def set_oom_score(process: str, score: int) -> str:
    """Write `score` for a process, a pid or `self`; "" or the warning that it was left where lowering needs a right."""
    path = f"/proc/{process}/oom_score_adj"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # an exec that has ended already, and whose parent was quick
        return ""
    try:
        present = int(os.read(fd, 16))
        if present == score:
            return ""
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, str(score).encode())
    except OSError as error:
        if error.errno == errno.ESRCH:
            return ""
        if error.errno == errno.EACCES:
            return f"oom_score_adj: {score} needs CAP_SYS_RESOURCE; left at {present}"
        if error.errno == errno.EINVAL:
            raise InvalidArgument(f"oomScoreAdj {score} is out of range [-1000, 1000]") from None
        raise
    finally:
        os.close(fd)
    return ""
