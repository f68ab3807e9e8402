"""Bytes, durations, CPU sets, timestamps, signals; pure parsers of what clients write."""

from __future__ import annotations

import re
import signal as signals
from datetime import UTC, datetime

from hafen.errors import InvalidArgument

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?")
ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time, which Docker shows where something has not happened."""


def parse_size(text: str) -> int:
    """Bytes in `64m`, `1.5GiB`, `1024`; binary multiples, as Docker's RAM sizes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def parse_duration(text: str) -> float:
    """Seconds in Go's `1h2m3.5s`; InvalidArgument otherwise."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    parts = list(_DURATION_PART.finditer(rest))
    if not parts or "".join(part[0] for part in parts) != rest:
        problem = "missing unit in" if re.fullmatch(r"\d+(\.\d*)?|\.\d+", rest) else "invalid"
        raise InvalidArgument(f'time: {problem} duration "{text}"')
    return sign * sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


def parse_period(text: str) -> float:
    """Seconds in `90d`, `2w`, or a Go duration; InvalidArgument for those and for negative ones."""
    number, unit = text[:-1], text[-1:]
    if unit in ("d", "w") and number.isascii() and number.isdecimal():
        return float(number) * 86400 * (7 if unit == "w" else 1)
    seconds = parse_duration(text)
    if seconds < 0:
        raise InvalidArgument(f"not a period: {text!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """As Go prints a duration: `500ms`, `1.5s`, `1m30s`, `2h0m0s`."""
    nanoseconds = round(seconds * 1e9)
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000:
            return f"{_decimal(nanoseconds, size)}{unit}" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if minutes:
        text = f"{minutes % 60}m{text}"
    return f"{minutes // 60}h{text}" if minutes >= 60 else text


def _decimal(number: int, size: int) -> str:
    """`number / size` without trailing zeros; `size` is a power of ten."""
    whole, rest = divmod(number, size)
    return f"{whole}.{str(rest).rjust(len(str(size)) - 1, '0').rstrip('0')}" if rest else str(whole)


def human_duration(seconds: float) -> str:
    """go-units' HumanDuration: `About a minute`, `3 hours`, `2 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def parse_timestamp(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 in what `--since` takes: seconds (with a fraction), RFC 3339, or a duration ago."""
    if re.fullmatch(r"-?\d+(\.\d{1,9})?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
    match = _TIMESTAMP.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        try:
            moment = datetime(
                int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
            )
        except ValueError as error:
            raise InvalidArgument(f'parsing time "{text}": {error}') from error
        offset = 0
        if zone and zone != "Z":
            offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * (60 if zone[0] == "+" else -60)
        return (int(moment.timestamp()) - offset) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    try:
        return now_ns - int(parse_duration(text) * 1e9)
    except InvalidArgument:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None


def format_timestamp(nanoseconds: int) -> str:
    """RFC 3339 with up to nine digits, as Go prints it in UTC; Go's zero time for 0."""
    if not nanoseconds:
        return ZERO_TIME
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


def parse_cpu_set(text: str, what: str) -> frozenset[int]:
    """The numbers in `0-2,5`; `what` is "cpuset cpus" or "cpuset mems" for the message."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidArgument(f"Invalid value {text} for {what}: invalid format: {text}")
        found.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(found)


def format_cpu_set(numbers: frozenset[int]) -> str:
    """The inverse of `parse_cpu_set`, with ranges joined."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_signal(text: str) -> int:
    """The number of `KILL`, `SIGKILL`, `RTMIN+3` or `9`; InvalidArgument otherwise."""
    name = text.upper().removeprefix("SIG")
    if name.isdecimal():
        number = int(name)
        if not 0 < number <= 64:
            raise InvalidArgument(f"invalid signal: {text}")
        return number
    real_time = re.fullmatch(r"RT(MIN|MAX)(?:([+-])(\d+))?", name)
    if real_time is not None:
        base = 34 if real_time[1] == "MIN" else 64
        number = base + int(f"{real_time[2] or '+'}{real_time[3] or 0}")
        if 34 <= number <= 64:
            return number
    try:
        return int(signals.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {text}") from None
