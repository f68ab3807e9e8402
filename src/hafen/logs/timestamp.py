"""Times of log lines: nanoseconds since the epoch to and from RFC 3339 in UTC, as Go writes it; pure."""

import time

_SECOND = 1_000_000_000


def format_fixed(at: int) -> str:
    """`2006-01-02T15:04:05.000000000Z`: what `docker logs -t` puts before a line."""
    seconds, rest = divmod(at, _SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def format_nano(at: int) -> str:
    """Go's RFC3339Nano: without trailing zeros, without a fraction where it is zero."""
    text = format_fixed(at)
    return text[:-1].rstrip("0").removesuffix(".") + "Z"


class Parser:
    """Parses what the formats above write; remembers the last second, as lines come in order."""

    def __init__(self) -> None:
        self._text = ""
        self._seconds = 0

    def parse(self, text: str) -> int:
        """ValueError where it is none."""
        if text[:19] != self._text:
            if len(text) < 20 or text[10] != "T":
                raise ValueError(f"not a time: {text!r}")
            self._seconds = _seconds(text)
            self._text = text[:19]
        fraction = text[19:].removesuffix("Z").removeprefix(".")
        return self._seconds * _SECOND + (int(fraction.ljust(9, "0")[:9]) if fraction else 0)


def _seconds(text: str) -> int:
    """Days since the epoch by the civil calendar, years counted from March (no calendar or datetime: lean set)."""
    year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
    if month < 3:
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 1 - 719468
    return days * 86400 + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
