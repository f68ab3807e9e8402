"""The `json-file` driver: Docker's files, byte for byte, rotated by renaming as Docker does.

A line of output is a line `{"log":"...\\n","stream":"stdout","attrs":{...},"time":"..."}`; longer than 16 KiB it is
several, only the last of which ends in a newline. `<id>-json.log` is written, `.1`, `.2` (`.gz` with `compress`) are
older. (moby daemon/logger/jsonfilelog, daemon/logger/copier.go, daemon/logger/loggerutils/logfile.go)
"""

import fcntl
import json
import os
import time
import zlib
from collections.abc import Mapping

from hafen.errors import InvalidArgument
from hafen.logs.driver import Background, LogFile, LogSender, Source
from hafen.logs.gotext import MARK, decode
from hafen.logs.jsonreader import JSONFileReader, last_time
from hafen.logs.lines import Lines
from hafen.logs.options import ATTRIBUTES, Options, check_known, parse_bool, parse_count, parse_size
from hafen.logs.timestamp import format_nano
from hafen.values import NamedTuple

_BLOCK = 256 << 10
_OPTIONS = ("max-size", "max-file", "compress", "tag", *ATTRIBUTES)
_NAMES = {1: "stdout", 2: "stderr"}
# gzip's header: deflate, an extra field, no time, unknown system; as Go's compress/gzip writes it.
_GZIP_HEADER = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"

# Go's encoder (moby pkg/jsonlog): control characters by number but for \n and \r, and what HTML and JavaScript mind.
# The backslash first, as the others bring backslashes; no newline, as lines are split at it.
_ESCAPES = (
    ("\\", "\\\\"),
    ('"', '\\"'),
    ("\r", "\\r"),
    *((chr(code), f"\\u{code:04x}") for code in (*range(0x20), *b"<>&", 0x2028, 0x2029) if code not in (10, 13)),
    (MARK, "\\ufffd"),
)


class _Limits(NamedTuple):
    size: int  # 0: none
    files: int
    compress: bool


class JSONFileDriver:
    name = "json-file"

    def available(self) -> bool:
        return True

    def readable(self, options: Options) -> bool:
        return True

    def validate(self, options: Options) -> None:
        check_known(options, _OPTIONS, "unknown log opt '{}' for json-file log driver")

    def path(self, log: LogFile) -> str:
        return f"{log.directory}/{log.container_id}-json.log"

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> "JSONFileWriter":
        limits = _limits(options)
        os.makedirs(log.directory, mode=0o700, exist_ok=True)
        return JSONFileWriter(self.path(log), limits, attributes, background)

    def sender(self, source: Source, options: Options) -> LogSender | None:
        return None

    def reader(self, log: LogFile) -> JSONFileReader:
        return JSONFileReader(self.path(log))


def _limits(options: Options) -> _Limits:
    size = 0
    if "max-size" in options:
        size = parse_size(options["max-size"], 1000)
        if size == 0:
            raise InvalidArgument("max-size must be a positive number")
    files = parse_count(options.get("max-file", "1"))
    if files < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    compress = parse_bool(options.get("compress", "false"))
    if compress and (files < 2 or not size):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return _Limits(size, files, compress)


class JSONFileWriter:
    full = False

    def __init__(self, path: str, limits: _Limits, attributes: Mapping[str, str], background: Background) -> None:
        self._path = path
        self._limits = limits
        self._background = background
        attrs = f'"attrs":{_attributes(attributes)},' if attributes else ""
        self._middle = {stream: f'","stream":"{name}",{attrs}"time":"' for stream, name in _NAMES.items()}
        self._lines = Lines()
        self._file = -1
        self._open()
        self._take_back_torn_line()

    def write(self, stream: int, data: bytes, at: int) -> None:
        block = self._lines.block(stream, data)
        if block is None:
            for line in self._lines.feed(stream, data, at):
                end = b"" if line.piece is not None and not line.piece.last else b"\n"
                self._write(self._encoded(stream, line.text + end, line.at))
        elif block:
            tail = f'{self._middle[stream]}{format_nano(at)}"}}\n'
            out = f'{{"log":"{_escape(block)}'.replace("\n", f'\\n{tail}{{"log":"')[: -len('{"log":"')]
            self._write(out.encode())

    @property
    def resting(self) -> bool:
        return self._lines.resting

    def close(self) -> None:
        for line in self._lines.finish(time.time_ns()):
            self._write(self._encoded(line.stream, line.text, line.at))
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _encoded(self, stream: int, text: bytes, at: int) -> bytes:
        escaped = _escape(text).replace("\n", "\\n")
        return f'{{"log":"{escaped}{self._middle[stream]}{format_nano(at)}"}}\n'.encode()

    def _write(self, out: bytes) -> None:
        """Whole lines; the next file begins with the line after the one that reached the limit."""
        limit = self._limits.size
        while limit and self._size + len(out) >= limit:
            if self._size < limit:
                end = (
                    out.index(b"\n", max(0, limit - self._size - 1)) + 1 if len(out) > limit - self._size else len(out)
                )
                self._append(out[:end])
                out = out[end:]
            if not out:
                return
            if not self._rotate():
                break
        self._append(out)

    def _append(self, out: bytes) -> None:
        try:
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

    def _rotate(self) -> bool:
        """Whether there is an empty file now; not so while the last is being compressed: this one grows meanwhile."""
        lock = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for number in range(self._limits.files - 1, 0, -1):
                older = self._path if number == 1 else f"{self._path}.{number - 1}"
                for suffix in ("", ".gz"):
                    _unlink(f"{self._path}.{number}{suffix}")
                    if os.path.exists(older + suffix):
                        os.rename(older + suffix, f"{self._path}.{number}{suffix}")
            if self._limits.files == 1:  # not emptied: a follower reads the old one to its end
                _unlink(self._path)
            self._open()
        except OSError:  # BlockingIOError; no space for a directory's entry
            return False
        finally:
            os.close(lock)
        if self._limits.compress:
            path, files = self._path, self._limits.files
            self._background(lambda: _compress_older(path, files))
        return self._size == 0


def _attributes(attributes: Mapping[str, str]) -> str:
    text = json.dumps(dict(attributes), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _escape(data: bytes) -> str:
    """One search per character that needs it: many times the speed of str.translate, as few occur."""
    text = decode(data)
    for character, escape in _ESCAPES:
        if character in text:
            text = text.replace(character, escape)
    return text


def _compress_older(path: str, files: int) -> None:
    """At the lowest priority: the container wants the processor. Locks rotation out."""
    os.nice(19)
    lock = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in range(1, files):
            if os.path.exists(f"{path}.{number}"):
                _compress(f"{path}.{number}")
    finally:
        os.close(lock)


def _compress(path: str) -> None:
    """Docker's `.gz` beside the file, with the time of its last line in the header; then without the file."""
    with open(path, "rb", buffering=0) as source, open(f"{path}.gz.new", "wb") as target:
        extra = b'{"lastTime":"%s"}' % format_nano(last_time(source.fileno())).encode()
        target.write(_GZIP_HEADER + len(extra).to_bytes(2, "little") + extra)
        compress = zlib.compressobj(6, zlib.DEFLATED, -15)
        checksum = 0
        while data := source.read(_BLOCK):
            checksum = zlib.crc32(data, checksum)
            target.write(compress.compress(data))
        stat = os.fstat(source.fileno())
        size = (stat.st_size & 0xFFFFFFFF).to_bytes(4, "little")
        target.write(compress.flush() + checksum.to_bytes(4, "little") + size)
    os.chmod(f"{path}.gz.new", 0o640)
    os.utime(f"{path}.gz.new", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    os.rename(f"{path}.gz.new", f"{path}.gz")
    os.unlink(path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
