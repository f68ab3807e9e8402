"""Protocols of log drivers.

Life of a log that is kept here: `writer()` at each start of the container, appending; `write()` per chunk of output;
`close()` at its end. Any number of `reader()`s at any time, also while it is written and rotated, and after the writer
was killed at any byte. A reader returns what there is, then nothing until there is more.

A remote driver has a `sender()` besides, for a process of its own, in which everything may block (`shim.forwarder`):
`open()`, then `send()` per line, `close()`. What it keeps here is a bounded copy, for `docker logs`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from hafen.logs.lines import Line
from hafen.logs.options import Options, refuse_absent
from hafen.values import NamedTuple

Background = Callable[[Callable[[], None]], None]


class Entry(NamedTuple):
    """A piece of output: `at` in ns since the epoch, `stream` as in `spec.stdcopy`; `data` is any number of bytes.

    `attributes`: what `docker logs --details` shows.
    """

    at: int
    stream: int
    data: bytes
    attributes: Mapping[str, str] | None = None


class LogFile(NamedTuple):
    """Where a container's log is: a directory of its own, and the container's id."""

    directory: str
    container_id: str


class Source(NamedTuple):
    """What a remote end is told about a container. `attributes`: the labels and variables that options have chosen."""

    container_id: str
    attributes: Mapping[str, str]
    name: str = ""
    tag: str = ""
    image_id: str = ""
    image_name: str = ""
    command: str = ""
    created: str = ""  # RFC 3339


class LogWriter(Protocol):
    def write(self, stream: int, data: bytes, at: int) -> None:
        """Keep a chunk as it was read. Raises nothing: a full disk loses the record and not the container."""

    @property
    def resting(self) -> bool:
        """Whether it could be closed and opened again without a trace: no half line is held back."""

    @property
    def full(self) -> bool:
        """Whether whoever writes should wait."""

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


class LogSender(Protocol):
    """Every method may block for long; only `open` raises."""

    def open(self) -> None:
        """Connect for the first time: OSError, with Docker's text, where that fails and a container must not start."""

    def send(self, line: Line) -> None:
        """As hard as the driver's options say; what then cannot be sent is lost, and standard error told once."""

    def close(self) -> None: ...


class LogDriver(Protocol):
    """`name` is Docker's."""

    name: str

    def available(self) -> bool:
        """Whether it can work on this host."""

    def readable(self, options: Options) -> bool:
        """Whether `reader` works."""

    def validate(self, options: Options) -> None:
        """What `create` refuses of the driver's own options: InvalidArgument with Docker's texts."""

    def path(self, log: LogFile) -> str:
        """What clients are told as LogPath; empty where there is no one file."""

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> LogWriter:
        """InvalidArgument for what Docker refuses at the start only. Creates the directory.

        `background` runs long work beside the writer, some time, in a process of its own.
        """

    def sender(self, source: Source, options: Options) -> LogSender | None:
        """None: what is written stays here. InvalidArgument as with `writer`."""

    def reader(self, log: LogFile) -> LogReader: ...


def choose(name: str, drivers: Mapping[str, LogDriver]) -> LogDriver:
    """The driver of that name; NotImplemented for Docker's others, InvalidArgument for the rest."""
    driver = drivers.get(name)
    if driver is None:
        refuse_absent(name)
        raise AssertionError
    return driver
