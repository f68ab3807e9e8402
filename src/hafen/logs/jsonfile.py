"""The `json-file` driver: Docker's files, byte for byte, rotated by renaming as Docker does.

A line of output is a line `{"log":"...\\n","stream":"stdout","attrs":{...},"time":"..."}`; longer than 16 KiB it is
several, only the last of which ends in a newline. `<id>-json.log` is written, `.1`, `.2` (`.gz` with `compress`) are
older. (moby daemon/logger/jsonfilelog, daemon/logger/copier.go, daemon/logger/loggerutils/logfile.go)
"""

import codecs
import fcntl
import json
import os
import time
import zlib
from collections.abc import Mapping

from hafen.errors import InvalidArgument
from hafen.logs.driver import Background, Entry, LogFile, Options, check_common, parse_bool, parse_count, parse_size
from hafen.logs.timestamp import Parser, format_nano
from hafen.values import NamedTuple

LINE = 16 << 10
_BLOCK = 256 << 10
_OPTIONS = (
    "max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size",
)  # fmt: skip
_NAMES = {1: "stdout", 2: "stderr"}
_STREAMS = {name: stream for stream, name in _NAMES.items()}
_GZIP = 31  # zlib's window bits for the gzip format

# Go's encoder (moby pkg/jsonlog): control characters by number but for \n and \r, and what HTML and JavaScript mind.
# The backslash first, as the others bring backslashes; no newline, as lines are split at it.
_ESCAPES = (
    ("\\", "\\\\"),
    ('"', '\\"'),
    ("\r", "\\r"),
    *((chr(code), f"\\u{code:04x}") for code in (*range(0x20), *b"<>&", 0x2028, 0x2029) if code not in (10, 13)),
    ("\ud800", "\\ufffd"),
)


def _replace_invalid(error: UnicodeError) -> tuple[str, int]:
    """One replacement per byte, as Go does; a lone surrogate stands for it, since U+FFFD itself is not escaped."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ud800" * (error.end - error.start), error.end


codecs.register_error("hafen-go", _replace_invalid)


class _Limits(NamedTuple):
    size: int  # 0: none
    files: int
    compress: bool


class JSONFileDriver:
    name = "json-file"
    readable = True

    def validate(self, options: Options) -> None:
        for option in options:
            if option not in _OPTIONS:
                raise InvalidArgument(f"unknown log opt '{option}' for json-file log driver")
        check_common(options)
        _limits(options)

    def path(self, log: LogFile) -> str:
        return f"{log.directory}/{log.container_id}-json.log"

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> "JSONFileWriter":
        os.makedirs(log.directory, mode=0o700, exist_ok=True)
        return JSONFileWriter(self.path(log), _limits(options), attributes, background)

    def reader(self, log: LogFile) -> "JSONFileReader":
        return JSONFileReader(self.path(log))


def _limits(options: Options) -> _Limits:
    size = parse_size(options["max-size"]) if options.get("max-size", "-1") != "-1" else 0
    files = parse_count(options.get("max-file", "1"))
    if files < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    compress = parse_bool(options.get("compress", "false"))
    if compress and (files < 2 or not size):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return _Limits(size, files, compress)


class JSONFileWriter:
    def __init__(self, path: str, limits: _Limits, attributes: Mapping[str, str], background: Background) -> None:
        self._path = path
        self._limits = limits
        self._background = background
        attrs = f'"attrs":{json.dumps(dict(attributes), separators=(",", ":"), sort_keys=True)},' if attributes else ""
        self._middle = {stream: f'","stream":"{name}",{attrs}"time":"' for stream, name in _NAMES.items()}
        self._partial = {1: b"", 2: b""}
        self._file = -1
        self._open()
        self._take_back_torn_line()

    def write(self, stream: int, data: bytes, at: int) -> None:
        data = self._partial[stream] + data
        lines = data.split(b"\n")
        rest = lines.pop()
        whole = len(rest) // LINE * LINE
        self._partial[stream] = rest[whole:]
        tail = f'{self._middle[stream]}{format_nano(at)}"}}\n'
        if max(map(len, lines), default=0) < LINE:
            block = data[: len(data) - len(rest)]
            text = _escape(block)
            out = f'{{"log":"{text}'.replace("\n", f'\\n{tail}{{"log":"')[: -len('{"log":"')] if block else ""
        else:
            out = "".join(_long_line(line, tail) for line in lines)
        out += "".join(_encode(rest[start : start + LINE], tail) for start in range(0, whole, LINE))
        self._write(out.encode())

    @property
    def resting(self) -> bool:
        return not any(self._partial.values())

    def close(self) -> None:
        at = 0
        for stream, rest in self._partial.items():
            if rest:
                at = at or time.time_ns()
                self._write(_encode(rest, f'{self._middle[stream]}{format_nano(at)}"}}\n').encode())
                self._partial[stream] = b""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, out: bytes) -> None:
        try:
            if self._limits.size and self._size >= self._limits.size:
                self._rotate()
            written = os.write(self._file, out)
            if written == len(out):
                self._size += written
                return
        except OSError:  # no space: these lines are lost, and what was written of them is taken back
            pass
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            pass

    def _open(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._size = os.fstat(file).st_size

    def _take_back_torn_line(self) -> None:
        """A writer that was killed may have left half a line; the next must not be glued to it."""
        tail = os.pread(self._file, 1 << 20, max(0, self._size - (1 << 20)))
        if tail and not tail.endswith(b"\n"):
            self._size -= len(tail) - (tail.rfind(b"\n") + 1)
            os.ftruncate(self._file, self._size)

    def _rotate(self) -> None:
        if self._limits.files < 2:
            os.ftruncate(self._file, 0)
            self._size = 0
            return
        lock = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # the last file is still being compressed: this one may grow meanwhile
            os.close(lock)
            return
        try:
            for number in range(self._limits.files - 1, 0, -1):
                older = self._path if number == 1 else f"{self._path}.{number - 1}"
                for suffix in ("", ".gz"):
                    _unlink(f"{self._path}.{number}{suffix}")
                    if os.path.exists(older + suffix):
                        os.rename(older + suffix, f"{self._path}.{number}{suffix}")
            self._open()
        finally:
            os.close(lock)
        if self._limits.compress:
            path = f"{self._path}.1"
            self._background(lambda: _compress(path))


def _escape(data: bytes) -> str:
    """One search per character that needs it: many times the speed of str.translate, as few occur."""
    text = data.decode(errors="hafen-go")
    for character, escape in _ESCAPES:
        if character in text:
            text = text.replace(character, escape)
    return text


def _encode(line: bytes, tail: str) -> str:
    text = _escape(line).replace("\n", "\\n")
    return f'{{"log":"{text}{tail}'


def _long_line(line: bytes, tail: str) -> str:
    """A line without its newline, as the pieces that the 16 KiB buffer makes of it."""
    whole = len(line) // LINE * LINE
    pieces = [_encode(line[start : start + LINE], tail) for start in range(0, whole, LINE)]
    return "".join([*pieces, _encode(line[whole:] + b"\n", tail)])


class JSONFileReader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._parser = Parser()
        self._file = -1
        self._modified = -1  # of the file that was read to its end last
        self._rest = b""
        self._pending: list[Entry] | None = None

    def read(self) -> list[Entry]:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            if pending:
                return pending
        while True:
            if self._file < 0 and not self._next():
                return []
            replaced = self._replaced()  # before reading: what is still to come in this file has come by then
            data = os.read(self._file, _BLOCK)
            if data:
                entries = self._parse(data)
                if entries:
                    return entries
            elif replaced:
                self._modified = os.fstat(self._file).st_mtime_ns
                self._close()
                self._rest = b""
            else:
                if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
                    os.lseek(self._file, 0, os.SEEK_SET)  # max-file=1: the file was emptied
                    self._rest = b""
                    continue
                return []

    def skip_to_tail(self, lines: int) -> None:
        kept: list[Entry] = []
        while entries := self.read():
            kept = (kept + entries)[-_messages(kept + entries, lines) :] if lines > 0 else []
        self._pending = kept

    def skip_to_time(self, at: int) -> None:
        """Docker's files have no index."""

    def close(self) -> None:
        self._close()

    def _parse(self, data: bytes) -> list[Entry]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        entries = []
        for line in lines:
            try:
                value = json.loads(line)
                at = self._parser.parse(value["time"])
                entries.append(Entry(at, _STREAMS[value["stream"]], value["log"].encode()))
            except (ValueError, KeyError, TypeError):  # a line that was cut, or somebody wrote
                continue
        return entries

    def _next(self) -> bool:
        """Open the oldest file that is newer than the one read last."""
        names = [self._path] + [f"{self._path}.{n}{suffix}" for n in range(1, 100) for suffix in ("", ".gz")]
        found = []
        for age, name in enumerate(names):
            try:
                stat = os.stat(name)
            except FileNotFoundError:
                continue
            if stat.st_mtime_ns > self._modified or name == self._path:
                found.append((-age, name))
        for _, name in sorted(found):
            try:
                self._file = _open_plain(name)
                return True
            except FileNotFoundError:  # renamed meanwhile: its new name was seen, or will be
                continue
        return False

    def _replaced(self) -> bool:
        try:
            current = os.stat(self._path)
        except FileNotFoundError:  # between rename and creation
            return False
        mine = os.fstat(self._file)
        return (current.st_dev, current.st_ino) != (mine.st_dev, mine.st_ino)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _messages(entries: list[Entry], lines: int) -> int:
    """How many entries at the end make up `lines` lines; pieces of a long line count as one."""
    count = 0
    for position in range(len(entries) - 1, -1, -1):
        if entries[position].data.endswith(b"\n") or position == len(entries) - 1:
            count += 1
            if count > lines:
                return len(entries) - 1 - position
    return len(entries)


def _open_plain(path: str) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if not path.endswith(".gz"):
        return file
    try:
        plain = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        decompress = zlib.decompressobj(_GZIP)
        while data := os.read(file, _BLOCK):
            os.write(plain, decompress.decompress(data))
        stat = os.fstat(file)
        os.utime(plain, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        os.lseek(plain, 0, os.SEEK_SET)
        return plain
    finally:
        os.close(file)


def _compress(path: str) -> None:
    """Docker's `.gz` beside the file, with the time of its last line; then without the file. Locks rotation out."""
    os.nice(19)
    lock = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path, "rb", buffering=0) as source, open(f"{path}.gz.new", "wb") as target:
            compress = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
            while data := source.read(_BLOCK):
                target.write(compress.compress(data))
            target.write(compress.flush())
            stat = os.fstat(source.fileno())
        os.chmod(f"{path}.gz.new", 0o640)
        os.utime(f"{path}.gz.new", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        os.rename(f"{path}.gz.new", f"{path}.gz")
        os.unlink(path)
    finally:
        os.close(lock)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
