"""The `local` driver: framed records in numbered files of bounded size and number, old ones compressed.

A directory holds `00000001.log`, `00000002.log`, ...; the highest is written. A record is a chunk of output as it was
read: length (u32), stream (u8), ns since the epoch (u64), payload, and the length again. What does not end so was cut
(kill -9, power) and is not read; a writer that finds such an end begins the next file. `N.idx` has (time, offset) of
a record about every 256 KiB, so that neither `tail` nor `since` reads everything; it may be short or missing. A full
file is compressed to `N.log.z` (zlib), by another process. Nothing is ever renamed or moved: a reader goes on to the
next number, and so can neither lose nor repeat a line.
"""

import os
import struct
import zlib
from collections.abc import Mapping

from hafen.errors import InvalidArgument
from hafen.logs.driver import Background, Entry, LogFile, LogSender, Source
from hafen.logs.options import Options, check_known, parse_bool, parse_count, parse_size
from hafen.values import NamedTuple

_HEADER = struct.Struct("<IBQ")
_TRAILER = struct.Struct("<I")
_INDEX = struct.Struct("<QQ")
_OVERHEAD = _HEADER.size + _TRAILER.size
_BLOCK = 256 << 10
_LARGEST = 64 << 20  # no writer makes such a record
_STREAMS = (1, 2)
_DEFAULT_SIZE = 20 << 20


class _Limits(NamedTuple):
    size: int
    files: int
    compress: bool


class LocalDriver:
    name = "local"

    def available(self) -> bool:
        return True

    def readable(self, options: Options) -> bool:
        return True

    def validate(self, options: Options) -> None:
        check_known(options, ("max-size", "max-file", "compress"), "unknown log opt '{}' for log driver local")

    def path(self, log: LogFile) -> str:
        return ""

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> "LocalWriter":
        limits = _limits(options)
        os.makedirs(log.directory, mode=0o700, exist_ok=True)
        return LocalWriter(log.directory, limits, background)

    def sender(self, source: Source, options: Options) -> LogSender | None:
        return None

    def reader(self, log: LogFile) -> "LocalReader":
        return LocalReader(log.directory)


def _limits(options: Options) -> _Limits:
    """InvalidArgument with the texts that Docker has at the start of a container."""
    try:
        size = parse_size(options.get("max-size", "0"))
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid value for max-size: {options['max-size']}: {error}") from None
    try:
        files = parse_count(options.get("max-file", "5"))
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid value for max-file: {options['max-file']}: {error}") from None
    try:
        compress = parse_bool(options.get("compress", "true"))
    except InvalidArgument as error:
        raise InvalidArgument(f"error reading compress log option: {error}") from None
    if compress and files < 2:
        raise InvalidArgument("compression cannot be enabled when max file count is 1")
    return _Limits(size or _DEFAULT_SIZE, max(1, files), compress)


class LocalWriter:
    full = False

    def __init__(self, directory: str, limits: _Limits, background: Background) -> None:
        self._directory = directory
        self._limits = limits
        self._background = background
        self._log = self._index = -1
        self._offset = self._indexed = 0
        self._number = max(_numbers(directory), default=0)
        for name in os.listdir(directory):
            if name.endswith(".new"):  # a compression that was killed
                os.unlink(os.path.join(directory, name))
        if self._number == 0 or not _ends_well(_path(directory, self._number, "log")):
            self._number += 1
        self._open()
        if limits.compress:
            self._compress_older()

    def write(self, stream: int, data: bytes, at: int) -> None:
        length = len(data)
        try:
            if self._offset and self._offset + length + _OVERHEAD > self._limits.size:
                self._rotate()
            if self._offset >= self._indexed:
                os.write(self._index, _INDEX.pack(at, self._offset))
                self._indexed = self._offset + _BLOCK
            written = os.writev(self._log, (_HEADER.pack(length, stream, at), data, _TRAILER.pack(length)))
            if written == length + _OVERHEAD:
                self._offset += written
                return
        except OSError:  # no space: this record is lost, and what was written of it is taken back
            pass
        try:
            os.ftruncate(self._log, self._offset)
        except OSError:
            pass

    @property
    def resting(self) -> bool:
        return True

    def close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            os.close(self._index)
            self._log = self._index = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(_path(self._directory, self._number, "log"), flags, 0o600)
        try:
            index = os.open(_path(self._directory, self._number, "idx"), flags, 0o600)
        except OSError:
            os.close(log)
            raise
        self.close()
        self._log, self._index = log, index
        self._offset = os.fstat(log).st_size
        self._indexed = self._offset

    def _rotate(self) -> None:
        self._number += 1
        try:
            self._open()
        except OSError:
            self._number -= 1
            raise
        for number in _numbers(self._directory):
            if number <= self._number - self._limits.files:
                for kind in ("log", "log.z", "idx"):
                    _unlink(_path(self._directory, number, kind))
        if self._limits.compress:
            self._compress_older()

    def _compress_older(self) -> None:
        """Also at the start: what the last writer left."""
        directory, current = self._directory, self._number
        if any(os.path.exists(_path(directory, number, "log")) for number in _numbers(directory) if number < current):
            self._background(lambda: _compress_older(directory, current))


class LocalReader:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._number = 0
        self._file = -1
        self._offset = 0
        self._leave_out = 0  # bytes of the first entry

    def read(self) -> list[Entry]:
        while True:
            if self._file < 0 and not self._next():
                return []
            newer = self._has_newer()  # before reading: what is written now is written to a file we then know of
            entries, self._offset = _parse(self._file, self._offset)
            if entries:
                if wanted := self._cut(entries):
                    return wanted
            elif newer:
                self._close()
            else:
                return []

    def skip_to_tail(self, lines: int) -> None:
        """Counts newlines from the end, block by block; an unfinished last line counts as a line."""
        missing = lines
        last = True
        for number in reversed(_numbers(self._directory)):
            file = _open_plain(self._directory, number)
            if file < 0:
                continue
            self._take(number, file)
            for start, end in reversed(_blocks(self._directory, number, os.fstat(file).st_size)):
                records = _records(file, start, end)
                if lines <= 0:
                    self._offset = records[-1][0] + len(records[-1][1].data) + _OVERHEAD if records else start
                    return
                for offset, entry in reversed(records):
                    if last and entry.data.endswith(b"\n"):
                        missing += 1  # the newline that ends the last line begins none
                    last = False
                    count = entry.data.count(b"\n")
                    if count >= missing:
                        self._offset = offset
                        self._leave_out = _after_newline(entry.data, count - missing + 1)
                        return
                    missing -= count
        self._close()
        self._number = 0

    def skip_to_time(self, at: int) -> None:
        best: tuple[int, int] | None = None
        for number in _numbers(self._directory):
            for time, offset in _index(self._directory, number):
                if time < at:
                    best = (number, offset)
        if best is not None:
            file = _open_plain(self._directory, best[0])
            if file >= 0:
                self._take(best[0], file)
                self._offset = best[1]

    def close(self) -> None:
        self._close()

    def _cut(self, entries: list[Entry]) -> list[Entry]:
        if self._leave_out:
            rest = entries[0].data[self._leave_out :]
            entries[:1] = [entries[0]._replace(data=rest)] if rest else []
            self._leave_out = 0
        return entries

    def _next(self) -> bool:
        for number in _numbers(self._directory):
            if number > self._number:
                file = _open_plain(self._directory, number)
                if file >= 0:
                    self._take(number, file)
                    return True
        return False

    def _has_newer(self) -> bool:
        return any(number > self._number for number in _numbers(self._directory))

    def _take(self, number: int, file: int) -> None:
        self._close()
        self._number, self._file, self._offset = number, file, 0

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _parse(file: int, offset: int) -> tuple[list[Entry], int]:
    """The complete records from `offset` on, about a block of them, and where the next begins."""
    data = os.pread(file, _BLOCK, offset)
    if len(data) >= _HEADER.size:
        length = _HEADER.unpack_from(data)[0] + _OVERHEAD
        if len(data) < length <= _LARGEST:
            data = os.pread(file, length, offset)
    entries: list[Entry] = []
    position, size = 0, len(data)
    while position + _OVERHEAD <= size:
        length, stream, at = _HEADER.unpack_from(data, position)
        end = position + _HEADER.size + length
        if end + _TRAILER.size > size or stream not in _STREAMS or _TRAILER.unpack_from(data, end)[0] != length:
            break
        entries.append(Entry(at, stream, data[position + _HEADER.size : end]))
        position = end + _TRAILER.size
    return entries, offset + position


def _records(file: int, start: int, end: int) -> list[tuple[int, Entry]]:
    """The complete records that begin in [start, end), with their offsets."""
    records: list[tuple[int, Entry]] = []
    offset = start
    while offset < end:
        entries, after = _parse(file, offset)
        if not entries:
            break
        for entry in entries:
            records.append((offset, entry))
            offset += len(entry.data) + _OVERHEAD
        offset = after
    return [record for record in records if record[0] < end]


def _ends_well(path: str) -> bool:
    """Whether the file's last bytes are the end of a record."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # compressed already
        return False
    try:
        size = os.fstat(file).st_size
        if size == 0:
            return True
        if size < _OVERHEAD:
            return False
        (length,) = _TRAILER.unpack(os.pread(file, _TRAILER.size, size - _TRAILER.size))
        if length + _OVERHEAD > size:
            return False
        start = size - length - _OVERHEAD
        again, stream, _ = _HEADER.unpack(os.pread(file, _HEADER.size, start))
        return bool(again == length and stream in _STREAMS)
    finally:
        os.close(file)


def _after_newline(data: bytes, count: int) -> int:
    """The position after the `count`th newline; 0 for none."""
    position = 0
    for _ in range(count):
        position = data.index(b"\n", position) + 1
    return position


def _blocks(directory: str, number: int, size: int) -> list[tuple[int, int]]:
    starts = [offset for _, offset in _index(directory, number) if offset < size]
    if not starts or starts[0] != 0:
        starts.insert(0, 0)
    return list(zip(starts, [*starts[1:], size], strict=True))


def _index(directory: str, number: int) -> list[tuple[int, int]]:
    try:
        file = os.open(_path(directory, number, "idx"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        data = os.read(file, 1 << 20)
    finally:
        os.close(file)
    return list(_INDEX.iter_unpack(data[: len(data) // _INDEX.size * _INDEX.size]))


def _numbers(directory: str) -> list[int]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted({int(name[:8]) for name in names if name[:8].isdigit() and name[8:] in (".log", ".log.z")})


def _path(directory: str, number: int, kind: str) -> str:
    return f"{directory}/{number:08d}.{kind}"


def _open_plain(directory: str, number: int) -> int:
    """The file's content as it was written, also where it is compressed; -1 where rotation has removed it."""
    try:
        return os.open(_path(directory, number, "log"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    try:
        compressed = os.open(_path(directory, number, "log.z"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    plain = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        decompress = zlib.decompressobj()
        while data := os.read(compressed, _BLOCK):
            _write_all(plain, decompress.decompress(data))
    except zlib.error:  # cut: what was readable is
        pass
    except OSError:
        os.close(plain)
        raise
    finally:
        os.close(compressed)
    return plain


def _compress_older(directory: str, current: int) -> None:
    """Every full file that is not compressed yet. At the lowest priority: the container wants the processor."""
    os.nice(19)
    for number in _numbers(directory):
        path = _path(directory, number, "log")
        if number >= current or not os.path.exists(path):
            continue
        new = _path(directory, number, "log.z.new")
        try:
            _compress(path, new)
            os.rename(new, _path(directory, number, "log.z"))
        except FileNotFoundError:  # rotated away meanwhile
            _unlink(new)
            continue
        os.unlink(path)


def _compress(path: str, new: str) -> None:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            compress = zlib.compressobj(1)
            while data := os.read(source, _BLOCK):
                _write_all(target, compress.compress(data))
            _write_all(target, compress.flush())
        finally:
            os.close(target)
    finally:
        os.close(source)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
