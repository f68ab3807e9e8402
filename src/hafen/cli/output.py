"""What people read: aligned tables, sizes and durations in Docker's wording, and where messages go."""

import sys
from collections.abc import Sequence

CELL = 10  # Docker's tabwriter: a cell is at least ten wide,
PADDING = 3  # and three blanks separate columns

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def out(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def err(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; a row's last cell is not padded."""
    lines = [list(header), *map(list, rows)]
    columns = max(len(line) for line in lines)
    widths = [max(CELL, *(len(line[i]) + PADDING for line in lines if i < len(line) - 1), 0) for i in range(columns)]
    return "".join(
        "".join(cell.ljust(widths[i]) for i, cell in enumerate(line[:-1])) + line[-1] + "\n" for line in lines
    )


def human_size(size: float, precision: int = 4) -> str:
    """`1.98MB`: powers of 1000, as go-units' HumanSize (`%.4g`)."""
    return _scaled(size, 1000.0, _DECIMAL, precision)


def binary_size(size: float) -> str:
    """`1.98MiB`: powers of 1024, as go-units' BytesSize."""
    return _scaled(size, 1024.0, _BINARY, 4)


def _scaled(size: float, base: float, units: Sequence[str], precision: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return go_g(size, precision) + units[index]


def go_g(value: float, precision: int) -> str:
    """Go's `%.<n>g`, whose exponents look like Python's."""
    return f"{value:.{precision}g}"


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
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(seconds: float) -> str:
    return human_duration(seconds) + " ago"


def quoted(text: str) -> str:
    """Go's strconv.Quote, near enough: JSON's escapes with the letters left alone."""
    import json

    return json.dumps(text, ensure_ascii=False)


def ellipsis(text: str, width: int) -> str:
    """Docker's Ellipsis: at most `width` characters, the last one `…`."""
    return text if len(text) <= width else (text[: width - 1] + "…" if width > 1 else text[:width])


def short_id(identifier: str) -> str:
    return identifier.rpartition(":")[2][:12] if identifier.startswith("sha256:") else identifier[:12]
