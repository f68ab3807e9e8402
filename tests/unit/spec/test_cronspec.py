"""Restart back-off and policies, and the timing and judgement of health checks."""

import pytest

from hafen.spec.cronspec import (
    HealthTimes,
    has_probe,
    health_times,
    judge,
    next_back_off,
    next_probe,
    wants_restart,
    wants_start_at_boot,
)
from hafen.spec.wire.image import HealthConfig


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


def test_health_times_are_the_configurations_or_dockers() -> None:
    assert health_times(HealthConfig()) == HealthTimes(30.0, 30.0, 0.0, 5.0, 3)
    given = HealthConfig(interval=10**6, timeout=2 * 10**9, start_period=10**9, start_interval=5 * 10**8, retries=1)
    assert health_times(given) == HealthTimes(0.001, 2.0, 1.0, 0.5, 1)


@pytest.mark.parametrize(
    ("test", "expected"),
    [(["CMD", "a"], True), (["CMD-SHELL", "a"], True), (["NONE"], False), (["FOO", "a"], False), ([], False)],
)
def test_what_is_a_probe(test: list[str], expected: bool) -> None:
    assert has_probe(HealthConfig(test=test)) is expected
    assert not has_probe(None)


def test_the_start_interval_holds_in_the_start_period_and_until_the_first_success() -> None:
    times = HealthTimes(interval=30, start_period=10, start_interval=2)
    assert next_probe(times, "starting", 9.9) == 2
    assert next_probe(times, "starting", 10) == 30
    assert next_probe(times, "healthy", 1) == 30
    assert next_probe(HealthTimes(interval=30), "starting", 0) == 30


@pytest.mark.parametrize(
    ("status", "streak", "code", "up_for", "expected"),
    [
        ("starting", 0, 0, 0.1, ("healthy", 0)),  # the first success ends the start
        ("starting", 0, 1, 9.9, ("starting", 0)),  # failures in the start period do not count
        ("starting", 0, 1, 10, ("starting", 1)),
        ("starting", 2, 1, 10, ("unhealthy", 3)),
        ("healthy", 0, 1, 5, ("healthy", 1)),  # was healthy once: the start period is over
        ("healthy", 2, -1, 50, ("unhealthy", 3)),
        ("unhealthy", 7, 1, 50, ("unhealthy", 8)),
        ("unhealthy", 7, 0, 50, ("healthy", 0)),
        ("unhealthy", 0, 1, 50, ("unhealthy", 1)),  # after a pause
    ],
)
def test_judgement(status: str, streak: int, code: int, up_for: float, expected: tuple[str, int]) -> None:
    assert judge(HealthTimes(start_period=10), status, streak, code, up_for) == expected
