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


def ago(seconds: float) -> str:
    from hafen.spec.units import human_duration

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
