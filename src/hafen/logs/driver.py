"""Protocols of log drivers, and the options and names that they share.

Life of a log: `writer()` at each start of the container, appending; `write()` per chunk of output; `close()` at its
end. Any number of `reader()`s at any time, also while it is written and rotated, and after the writer was killed at
any byte. A reader returns what there is, then nothing until there is more; `watch` names the directory whose changes
mean more.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from hafen.errors import InvalidArgument, NotImplemented
from hafen.values import NamedTuple

Options = Mapping[str, str]
Background = Callable[[Callable[[], None]], None]

_KNOWN_ELSEWHERE = frozenset(
    {"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "logentries", "splunk", "syslog"}
)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class Entry(NamedTuple):
    """A piece of output: `at` in ns since the epoch, `stream` as in `spec.stdcopy`; `data` is any number of bytes."""

    at: int
    stream: int
    data: bytes


class LogFile(NamedTuple):
    """Where a container's log is: a directory of its own, and the container's id."""

    directory: str
    container_id: str


class LogWriter(Protocol):
    def write(self, stream: int, data: bytes, at: int) -> None:
        """Keep a chunk as it was read. Raises nothing: a full disk loses the record and not the container."""

    @property
    def resting(self) -> bool:
        """Whether it could be closed and opened again without a trace: no half line is held back."""

    def close(self) -> None: ...


class LogReader(Protocol):
    """Reads in the order of writing. OSError where the log cannot be read."""

    def read(self) -> list[Entry]:
        """The next entries, up to some hundred KiB; empty: no more at present."""

    def skip_to_tail(self, lines: int) -> None:
        """Before the first `read`: leave out all but the last `lines` lines."""

    def skip_to_time(self, at: int) -> None:
        """Before the first `read`: leave out what is surely older than `at`; some of it may still come."""

    def close(self) -> None: ...


class LogDriver(Protocol):
    """`name` is Docker's. `readable`: whether `reader` works."""

    name: str
    readable: bool

    def validate(self, options: Options) -> None:
        """InvalidArgument, with Docker's texts, for an option that is unknown or has a wrong value."""

    def path(self, log: LogFile) -> str:
        """What clients are told as LogPath; empty where there is no one file."""

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> LogWriter:
        """Creates the directory. `background` runs long work beside the writer, some time, in a process of its own."""

    def reader(self, log: LogFile) -> LogReader: ...


def choose(name: str, drivers: Mapping[str, LogDriver]) -> LogDriver:
    """The driver of that name; NotImplemented for Docker's others, InvalidArgument for the rest."""
    driver = drivers.get(name)
    if driver is not None:
        return driver
    if name in _KNOWN_ELSEWHERE:
        raise NotImplemented(f"the log driver {name} is not implemented; there are: {', '.join(sorted(drivers))}")
    raise InvalidArgument(f'error looking up logging plugin {name}: plugin "{name}" not found')


def attributes_of(options: Options, labels: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables that the options `labels` and `env` choose, and `tag`: what json-file calls attrs."""
    chosen = {}
    for option, values in (("labels", labels), ("env", environment)):
        for key in filter(None, options.get(option, "").split(",")):
            if key in values:
                chosen[key] = values[key]
    if options.get("tag"):
        chosen["tag"] = options["tag"]
    return chosen


def parse_size(text: str) -> int:
    """Docker's sizes: `10`, `10k`, `10KB`, `10kib`, `1.5g`; InvalidArgument `invalid size: '10x'`."""
    number = text.lower().removesuffix("ib").removesuffix("b").rstrip()
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        size = float(number.removesuffix(unit)) * _UNITS[unit]
    except (KeyError, ValueError):
        size = -1
    if not 0 <= size < 1 << 63:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(size)


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool, with its error."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_count(text: str) -> int:
    """Go's strconv.Atoi, with its error."""
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def check_common(options: Options) -> None:
    """The options that every driver takes: how output is passed on to it. Ours never blocks and never loses."""
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        parse_size(options["max-buffer-size"])
