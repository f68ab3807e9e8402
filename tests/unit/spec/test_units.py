"""Sizes, durations, timestamps, CPU sets and signals as clients write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafen.errors import InvalidArgument
from hafen.spec import units


@pytest.mark.parametrize(("text", "value"), [("64m", 64 << 20), ("1.5GiB", 3 << 29), ("10", 10), ("2 kb", 2048)])
def test_sizes(text: str, value: int) -> None:
    assert units.parse_size(text) == value


@pytest.mark.parametrize("text", ["", "m", "1x", "-1m"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(InvalidArgument):
        units.parse_size(text)


@pytest.mark.parametrize(("text", "value"), [("1h2m3.5s", 3723.5), ("-10s", -10), ("100ms", 0.1), ("0", 0)])
def test_durations(text: str, value: float) -> None:
    assert units.parse_duration(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5", "1x", "1s2", "s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(InvalidArgument):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.000000005", 1_700_000_000_000_000_005),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500_000_000),
        ("10s", 90_000_000_000),
    ],
)
def test_timestamps(text: str, value: int) -> None:
    assert units.parse_timestamp(text, 100_000_000_000) == value


@pytest.mark.parametrize("text", ["x", "2023-13-01", "10", ""])
def test_bad_timestamps(text: str) -> None:
    if text == "10":
        assert units.parse_timestamp(text, 0) == 10_000_000_000
        return
    with pytest.raises(InvalidArgument):
        units.parse_timestamp(text, 0)


@given(st.integers(min_value=1, max_value=4_000_000_000_000_000_000))
def test_timestamps_come_back(nanoseconds: int) -> None:
    assert units.parse_timestamp(units.format_timestamp(nanoseconds), 0) == nanoseconds


def test_zero_time() -> None:
    assert units.format_timestamp(0) == "0001-01-01T00:00:00Z"


@given(st.frozensets(st.integers(min_value=0, max_value=200), min_size=1))
def test_cpu_sets_come_back(numbers: frozenset[int]) -> None:
    assert units.parse_cpu_set(units.format_cpu_set(numbers), "cpuset cpus") == numbers


def test_bad_cpu_set() -> None:
    with pytest.raises(InvalidArgument, match="Invalid value 1-x for cpuset cpus: invalid format: 1-x"):
        units.parse_cpu_set("1-x", "cpuset cpus")


@pytest.mark.parametrize(
    ("text", "number"), [("KILL", 9), ("SIGTERM", 15), ("sigint", 2), ("9", 9), ("RTMIN", 34), ("RTMAX-1", 63)]
)
def test_signals(text: str, number: int) -> None:
    assert units.parse_signal(text) == number


@pytest.mark.parametrize("text", ["FOO", "0", "65", "RTMIN+99", ""])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal"):
        units.parse_signal(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (2e-9, "2ns"),
        (1.5e-6, "1.5µs"),
        (0.5, "500ms"),
        (0.0005, "500µs"),
        (1.05, "1.05s"),
        (30, "30s"),
        (90, "1m30s"),
        (7200.25, "2h0m0.25s"),
    ],
)
def test_durations_as_go_prints_them(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text
