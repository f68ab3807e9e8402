"""OCI device rules -> the shortest equal list for devices.deny and devices.allow; pure.

The rules are an ordered list in which the last match wins. The v1 controller has another memory: one default and a
set of exceptions, and taking away access that no exception has by that very name does nothing, silently. So the rules
are carried out here, on that model, and only the result is written. A rule that would cut a hole into a broader one
cannot be kept by v1 and is refused (runc refuses it too). v2's program is made from the same result.
"""

from collections.abc import Iterable, Sequence

from hafen.errors import InvalidArgument
from hafen.kernel.cgroup import Setting
from hafen.spec.runtime_config import DeviceRule

_Key = tuple[str, int | None, int | None]

# Whatever the configuration says, a container has these (OCI runtime specification, config-linux.md, "Default
# Devices"), and may make any device node, which by itself opens nothing.
DEFAULT_RULES = (
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "b", None, None, "m"),
    DeviceRule(True, "c", 1, 3, "rwm"),  # null
    DeviceRule(True, "c", 1, 5, "rwm"),  # zero
    DeviceRule(True, "c", 1, 7, "rwm"),  # full
    DeviceRule(True, "c", 1, 8, "rwm"),  # random
    DeviceRule(True, "c", 1, 9, "rwm"),  # urandom
    DeviceRule(True, "c", 5, 0, "rwm"),  # tty
    DeviceRule(True, "c", 5, 2, "rwm"),  # ptmx
    DeviceRule(True, "c", 136, None, "rwm"),  # pts
)


def device_settings(rules: Sequence[DeviceRule]) -> tuple[Setting, ...]:
    """Settings that make the rules, followed by the default ones, true from any state before."""
    allow, exceptions = _carry_out([*rules, *DEFAULT_RULES])
    default, other = ("devices.allow", "devices.deny") if allow else ("devices.deny", "devices.allow")
    return (
        Setting(default, "a"),
        *(Setting(other, _line(key, access)) for key, access in exceptions.items() if access),
    )


def _carry_out(rules: Iterable[DeviceRule]) -> tuple[bool, dict[_Key, set[str]]]:
    allow = False
    exceptions: dict[_Key, set[str]] = {}
    for rule in rules:
        access = set(rule.access or "rwm")
        if rule.type not in ("a", "b", "c") or not access <= set("rwm"):
            raise InvalidArgument(f"invalid device rule: type {rule.type!r}, access {rule.access!r}")
        major, minor = _number(rule.major), _number(rule.minor)
        if rule.type == "a" and major is minor is None and access == set("rwm"):
            allow, exceptions = rule.allow, {}
            continue
        for kind in "bc" if rule.type == "a" else rule.type:
            key = (kind, major, minor)
            if rule.allow == allow:
                _take_away(exceptions, key, access)
            else:
                exceptions.setdefault(key, set()).update(access)
    return allow, exceptions


def _take_away(exceptions: dict[_Key, set[str]], key: _Key, access: set[str]) -> None:
    for other, has in exceptions.items():
        if _covers(key, other):
            has -= access
        elif _overlaps(key, other) and has & access:
            raise InvalidArgument(
                f"device rule {_line(key, access)!r} makes an exception to {_line(other, has)!r}; "
                "device cgroups cannot express that"
            )


def _covers(key: _Key, other: _Key) -> bool:
    return key[0] == other[0] and key[1] in (None, other[1]) and key[2] in (None, other[2])


def _overlaps(key: _Key, other: _Key) -> bool:
    return key[0] == other[0] and all(a is None or b is None or a == b for a, b in zip(key[1:], other[1:], strict=True))


def _line(key: _Key, access: set[str]) -> str:
    kind, major, minor = key
    letters = "".join(letter for letter in "rwm" if letter in access)
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {letters}"


def _number(value: int | None) -> int | None:
    """runc and Docker write -1 for "every"."""
    return None if value is None or value < 0 else value
