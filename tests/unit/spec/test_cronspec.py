"""Restart back-off and policies."""

import pytest

from hafen.spec.cronspec import next_back_off, wants_restart, wants_start_at_boot


def test_back_off_doubles_up_to_a_minute_and_begins_again() -> None:
    pause, found = 0.0, []
    for _ in range(12):
        pause = next_back_off(pause, 0.01)
        found.append(pause)
    assert found[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert found[-1] == 60.0
    assert next_back_off(60.0, 10.0) == 0.1


@pytest.mark.parametrize(
    ("policy", "maximum", "code", "restarts", "stopped", "expected"),
    [
        ("no", 0, 1, 0, False, False),
        ("", 0, 1, 0, False, False),
        ("always", 0, 0, 99, False, True),
        ("always", 0, 0, 0, True, False),
        ("unless-stopped", 0, 0, 0, False, True),
        ("on-failure", 0, 1, 99, False, True),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 2, 1, 1, False, True),
        ("on-failure", 2, 1, 2, False, False),
    ],
)
def test_policies(policy: str, maximum: int, code: int, restarts: int, stopped: bool, expected: bool) -> None:
    assert wants_restart(policy, maximum, code, restarts, stopped) is expected


def test_at_boot() -> None:
    assert wants_start_at_boot("always", True)
    assert wants_start_at_boot("unless-stopped", False)
    assert not wants_start_at_boot("unless-stopped", True)
    assert not wants_start_at_boot("on-failure", False)
