"""Device rules end in the shortest list that a device cgroup can keep."""

import pytest

from hafen.errors import InvalidArgument
from hafen.runtime.device_rules import DEFAULT_RULES, device_settings
from hafen.spec.runtime_config import DeviceRule


def lines(*rules: DeviceRule) -> list[str]:
    """The settings, without what the default rules add."""
    defaults = {setting.value for setting in device_settings(())} - {"a"}
    return [
        f"{setting.file.removeprefix('devices.')} {setting.value}"
        for setting in device_settings(rules)
        if setting.value not in defaults
    ]


def test_defaults_follow_a_denied_rest() -> None:
    settings = device_settings(())
    assert (settings[0].file, settings[0].value) == ("devices.deny", "a")
    assert len(settings) == 1 + len(DEFAULT_RULES)
    assert ("devices.allow", "c 136:* rwm") in [(setting.file, setting.value) for setting in settings]


def test_dockers_own_list() -> None:
    rules = (
        DeviceRule(False, "a", None, None, "rwm"),
        DeviceRule(True, "c", 1, 5, "rwm"),
        DeviceRule(True, "c", 5, 1, "rwm"),
        DeviceRule(False, "c", 10, 229, "rwm"),
    )
    assert lines(*rules) == ["deny a", "allow c 5:1 rwm"]


def test_privileged() -> None:
    assert [(s.file, s.value) for s in device_settings((DeviceRule(True, "a", -1, -1, "rwm"),))] == [
        ("devices.allow", "a")
    ]


def test_the_last_rule_wins() -> None:
    allow, deny = DeviceRule(True, "b", 8, 0, "rw"), DeviceRule(False, "b", 8, 0, "w")
    assert lines(allow, deny) == ["deny a", "allow b 8:0 r"]
    assert lines(deny, allow) == ["deny a", "allow b 8:0 rw"]
    assert lines(allow, DeviceRule(False, "b", 8, None, "rwm")) == ["deny a"]
    assert lines(allow, DeviceRule(False, "a")) == ["deny a"]


def test_access_adds_up() -> None:
    assert lines(DeviceRule(True, "b", 8, 0, "r"), DeviceRule(True, "b", 8, 0, "w")) == ["deny a", "allow b 8:0 rw"]


def test_a_type_of_all_with_numbers_is_both_types() -> None:
    assert lines(DeviceRule(True, "a", 8, 0, "r")) == ["deny a", "allow b 8:0 r", "allow c 8:0 r"]


@pytest.mark.parametrize(
    "rules",
    [
        (DeviceRule(True, "b", 8, None, "rw"), DeviceRule(False, "b", 8, 0, "w")),
        (DeviceRule(True, "x", 1, 2, "r"),),
        (DeviceRule(True, "c", 1, 2, "rx"),),
    ],
)
def test_refused(rules: tuple[DeviceRule, ...]) -> None:
    with pytest.raises(InvalidArgument):
        device_settings(rules)
