"""Read and follow the logs of containers: the selection that clients ask for, framed as they expect it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import quote_plus

from hafen.engine.feed import in_thread
from hafen.engine.logconfig import OWN_DRIVER
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers
from hafen.engine.shimlink import Exit
from hafen.errors import NotImplemented, System
from hafen.kernel import inotify
from hafen.logs.driver import Entry, LogDriver, LogFile, LogReader, choose
from hafen.logs.timestamp import format_fixed
from hafen.spec import stdcopy

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a log. Times in ns since the epoch; `tail` in lines, None for all."""

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    until: int | None = None
    tail: int | None = None
    timestamps: bool = False
    follow: bool = False
    details: bool = False


@dataclass(frozen=True, slots=True)
class LogStream:
    """`chunks` are ready for the client: raw where the container has a terminal (`tty`), multiplexed otherwise."""

    tty: bool
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Logs:
    """`Services.logs`. `drivers` by Docker's names."""

    containers: Containers
    paths: Paths
    drivers: Mapping[str, LogDriver]
    _readings: Counter[str] = field(default_factory=Counter)
    _removed: set[str] = field(default_factory=set)

    async def delete(self, container_id: str) -> None:
        """Delete the directory of a container that no row knows any more; one whose log is being read keeps it until
        the client has it all, as docker-py's `run(remove=True)` begins to read when the container is gone."""
        if self._readings[container_id]:
            self._removed.add(container_id)
        else:
            await asyncio.to_thread(shutil.rmtree, self.paths.container(container_id), True)

    @contextmanager
    def _reading(self, container_id: str) -> Iterator[None]:
        self._readings[container_id] += 1
        try:
            yield
        finally:
            self._readings[container_id] -= 1
            if not self._readings[container_id]:
                del self._readings[container_id]
                if container_id in self._removed:
                    self._removed.remove(container_id)
                    directory = self.paths.container(container_id)
                    asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, directory, True)

    async def read(
        self,
        ref: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        since: str | None = None,
        until: str | None = None,
        tail: str | None = None,
        timestamps: bool = False,
        follow: bool = False,
        details: bool = False,
    ) -> LogStream:
        """`since` and `until` are unix times with an optional fraction, `tail` a number or `all`.

        NotFound for the container, InvalidArgument for a time, NotImplemented where its driver cannot be read.
        """
        container = self.containers.find(ref)
        begin, end = parse_time(since), parse_time(until)
        selection = Selection(stdout, stderr, begin, end, parse_tail(tail), timestamps, follow, details)
        reader = self._reader(container)
        ended = container.shim.exited if container.shim is not None else None
        tty = container.record.config.tty
        return LogStream(tty, self._chunks(reader, self._file(container), ended, selection, tty))

    def replay(self, container: Container, *, stdout: bool, stderr: bool, multiplexed: bool) -> Replay:
        """From the beginning; NotImplemented where the container's driver cannot be read."""
        reader = self._reader(container)
        return Replay(reader, Selection(stdout, stderr), container.record.config.tty or not multiplexed)

    def log_path(self, container: Container) -> str:
        """What inspect shows as LogPath."""
        return self._driver(container).path(self._file(container))

    def _driver(self, container: Container) -> LogDriver:
        return choose(container.record.host_config.log_config.type or OWN_DRIVER, self.drivers)

    def _reader(self, container: Container) -> LogReader:
        driver = self._driver(container)
        if not driver.readable(container.record.host_config.log_config.config or {}):
            raise NotImplemented("configured logging driver does not support reading")
        return driver.reader(self._file(container))

    def _file(self, container: Container) -> LogFile:
        return LogFile(self.paths.logs(container.id), container.id)

    async def _chunks(
        self,
        reader: LogReader,
        file: LogFile,
        ended: asyncio.Future[Exit] | None,
        selection: Selection,
        tty: bool,
    ) -> AsyncIterator[bytes]:
        shape = Shape(selection, tty)
        follow = selection.follow and ended is not None
        try:
            with self._reading(file.container_id), _Changes(file.directory if follow else None, ended) as changes:
                await in_thread(_position, reader, selection)
                while not shape.over:
                    last = changes.over  # before reading: what was written until then is read below
                    chunk, more = await in_thread(shape.next, reader)
                    if chunk:
                        yield chunk
                    elif not more:
                        if last or shape.past_until():
                            return
                        await changes.wait(shape.seconds_left())
        finally:
            reader.close()


class Replay:
    """A log as it is now, and later what has come since; `close` it."""

    def __init__(self, reader: LogReader, selection: Selection, tty: bool) -> None:
        self._reader = reader
        self._selection = selection
        self._tty = tty

    async def rest(self, before: int | None = None) -> AsyncIterator[bytes]:
        """What was not read yet, ready for the client; with `before` only that of earlier times (ns), as the last."""
        shape = Shape(replace(self._selection, until=None if before is None else before - 1), self._tty)
        more = True
        while more and not shape.over:
            chunk, more = await in_thread(shape.next, self._reader)
            if chunk:
                yield chunk

    def close(self) -> None:
        self._reader.close()


class Shape:
    """Turns entries into what the client gets; remembers where lines begin."""

    def __init__(self, selection: Selection, tty: bool) -> None:
        self.over = False
        self._selection = selection
        self._tty = tty
        self._wanted = {
            stream
            for stream, wanted in ((stdcopy.STDOUT, selection.stdout), (stdcopy.STDERR, selection.stderr))
            if wanted
        }
        self._inside_line = {stdcopy.STDOUT: False, stdcopy.STDERR: False}

    def next(self, reader: LogReader) -> tuple[bytes, bool]:
        """The next chunk, empty where nothing of it is wanted, and whether the reader had something."""
        entries = reader.read()
        return self.shape(entries), bool(entries)

    def shape(self, entries: list[Entry]) -> bytes:
        since, until = self._selection.since, self._selection.until
        pieces: list[tuple[int, bytes]] = []
        for entry in entries:
            if until is not None and entry.at > until:
                self.over = True
                break
            if entry.stream not in self._wanted or (since is not None and entry.at < since) or not entry.data:
                continue
            plain = not (self._selection.timestamps or self._selection.details)
            data = entry.data if plain else self._headed(entry)
            pieces.append((entry.stream, data))
        if self._tty:
            return b"".join(data for _, data in pieces)
        return _multiplexed(pieces)

    def past_until(self) -> bool:
        left = self.seconds_left()
        return left is not None and left <= 0

    def seconds_left(self) -> float | None:
        until = self._selection.until
        return None if until is None else (until - time.time_ns()) / _SECOND

    def _headed(self, entry: Entry) -> bytes:
        """A time, and the log's attributes, before every line that begins here."""
        head = f"{format_fixed(entry.at)} " if self._selection.timestamps else ""
        if self._selection.details:
            attributes = entry.attributes or {}
            head += ",".join(f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes)) + " "
        before = head.encode()
        body, end = entry.data[:-1], entry.data[-1:]
        inside, self._inside_line[entry.stream] = self._inside_line[entry.stream], end != b"\n"
        return (b"" if inside else before) + body.replace(b"\n", b"\n" + before) + end


class _Changes:
    """Wakes whoever waits when a file in the directory changes or the container ends; nothing to wait for without."""

    def __init__(self, directory: str | None, ended: asyncio.Future[Exit] | None) -> None:
        self._directory = directory
        self._ended = ended
        self._event = asyncio.Event()
        self._fd = -1

    def __enter__(self) -> _Changes:
        if self._directory is not None and self._ended is not None:
            self._fd = inotify.watch_directory(self._directory)
            asyncio.get_running_loop().add_reader(self._fd, self._changed)
            self._ended.add_done_callback(self._end)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0 and self._ended is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._ended.remove_done_callback(self._end)

    @property
    def over(self) -> bool:
        return self._fd < 0 or self._ended is None or self._ended.done()

    async def wait(self, timeout: float | None) -> None:
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            pass
        self._event.clear()

    def _changed(self) -> None:
        inotify.drain(self._fd)
        self._event.set()

    def _end(self, _: asyncio.Future[Exit]) -> None:
        self._event.set()


def _position(reader: LogReader, selection: Selection) -> None:
    if selection.tail is not None:
        reader.skip_to_tail(selection.tail)
    elif selection.since is not None:
        reader.skip_to_time(selection.since)


def _multiplexed(pieces: list[tuple[int, bytes]]) -> bytes:
    """A frame for each line, as clients expect who take frames for lines (docker-py's `logs(stream=True)`)."""
    parts: list[bytes | memoryview] = []
    for stream, data in pieces:
        *lines, rest = data.split(b"\n")
        between = _BETWEEN[stream]
        if lines:
            text = b"".join([part for line in lines for part in (between[len(line)], line)])
            parts += (memoryview(text)[1:], b"\n")
        if rest:
            parts += (stdcopy.header(stream, len(rest)), rest)
    return b"".join(parts)


class _Between(dict[int, bytes]):
    """What stands between two lines of a stream, by the length of the second: the newline and the next header."""

    def __init__(self, stream: int) -> None:
        super().__init__()
        self._stream = stream

    def __missing__(self, length: int) -> bytes:
        found = b"\n" + stdcopy.header(self._stream, length + 1)
        if length < _USUAL_LINE:
            self[length] = found
        return found


_USUAL_LINE = 1024  # bytes; headers of longer ones are not kept
_BETWEEN = {stream: _Between(stream) for stream in (stdcopy.STDOUT, stdcopy.STDERR)}


def parse_time(text: str | None) -> int | None:
    """Docker's `seconds[.fraction]`; None for nothing and for 0."""
    if not text:
        return None
    seconds, _, fraction = text.partition(".")
    try:
        at = int(seconds) * _SECOND + (int(fraction.ljust(9, "0")[:9]) if fraction else 0)
    except ValueError:
        raise System(f'strconv.ParseInt: parsing "{seconds}": invalid syntax') from None
    return at or None


def parse_tail(text: str | None) -> int | None:
    """A number of lines; everything else, and what is negative, is all."""
    try:
        lines = int(text or "all")
    except ValueError:
        return None
    return lines if lines >= 0 else None
