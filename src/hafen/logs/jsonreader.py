"""Reads json-file's files, in order, also while they are written, renamed, compressed and removed.

What is wanted is found without reading all: lines are in the order of their times, so a plain file is searched by
halves, and a compressed one has the time of its last line in its header.
"""

import json
import os
import zlib

from hafen.logs.driver import Entry
from hafen.logs.timestamp import Parser

_BLOCK = 256 << 10
_STREAMS = {"stdout": 1, "stderr": 2}
_GZIP = 31  # zlib's window bits for the gzip format
_OLDEST = 100  # the highest number looked for beyond a gap
_TAIL = b'"time":"'


class _Found:
    """A file of the log: identity tells it from what has its name later."""

    __slots__ = ("identity", "modified", "name")

    def __init__(self, name: str, stat: os.stat_result) -> None:
        self.name = name
        self.modified = stat.st_mtime_ns
        self.identity = (stat.st_dev, stat.st_ino)


class JSONFileReader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._parser = Parser()
        self._file = -1
        self._current: _Found | None = None  # what is read, or was read last
        self._rest = b""

    def read(self) -> list[Entry]:
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
                self._close()
            elif os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
                os.lseek(self._file, 0, os.SEEK_SET)  # emptied by somebody else
                self._rest = b""
            else:
                return []

    def skip_to_tail(self, lines: int) -> None:
        """Counts lines of the files from the end, so that pieces of a long line count as Docker counts them."""
        for found in reversed(self._files()):
            if not self._open(found):
                continue
            lines -= self._back(lines)
            if lines <= 0:
                return
        self._close()
        self._current = None

    def skip_to_time(self, at: int) -> None:
        for found in self._files():
            if _last_time_of_compressed(found.name) < at or not self._open(found):
                continue
            if found.name.endswith(".gz") or last_time(self._file) >= at or found.name == self._path:
                os.lseek(self._file, _find(self._file, at), os.SEEK_SET)
                return
        self._close()
        self._current = None

    def close(self) -> None:
        self._close()

    def _back(self, lines: int) -> int:
        """Go back so many lines from the end of the file; how many there were."""
        end = os.fstat(self._file).st_size
        position, missing, last = end, lines, True
        while position > 0 and lines > 0:
            start = max(0, position - _BLOCK)
            data = os.pread(self._file, position - start, start)
            if last and data.endswith(b"\n"):
                data = data[:-1]
            last = False
            count = data.count(b"\n")
            if count >= missing:
                for _ in range(missing):
                    at = data.rfind(b"\n")
                    data = data[:at]
                os.lseek(self._file, start + at + 1, os.SEEK_SET)
                return lines
            missing -= count
            position = start
        os.lseek(self._file, 0 if lines > 0 else end, os.SEEK_SET)
        return lines - missing + (1 if end else 0)

    def _parse(self, data: bytes) -> list[Entry]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        entries = []
        for line in lines:
            try:
                value = json.loads(line)
                at = self._parser.parse(value["time"])
                entries.append(Entry(at, _STREAMS[value["stream"]], value["log"].encode(), value.get("attrs")))
            except (ValueError, KeyError, TypeError):  # a line that was cut, or somebody wrote
                continue
        return entries

    def _next(self) -> bool:
        """Open the file that is right behind the one read last; the oldest at first."""
        for _ in range(_OLDEST):  # renamed between looking and opening: look again
            files = self._files()
            if self._current is not None:
                files = _newer(files, self._current)
            if not files:
                return False
            if self._open(files[0]):
                return True
        return False

    def _files(self) -> list[_Found]:
        """From the oldest to the one that is written."""
        found: list[_Found] = []
        number = missing = 0
        while missing < 2:
            base = self._path if number == 0 else f"{self._path}.{number}"
            missing += 1 if number else 0
            for name in (f"{base}.gz", base) if number else (base,):
                try:
                    found.append(_Found(name, os.stat(name)))
                    missing = 0
                except FileNotFoundError:
                    continue
            number += 1
        return found[::-1]

    def _open(self, found: _Found) -> bool:
        """Whether it is still there by that name."""
        self._close()
        try:
            file = os.open(found.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        stat = os.fstat(file)
        if (stat.st_dev, stat.st_ino) != found.identity:
            os.close(file)
            return False
        self._current = found
        self._file = _plain(file, self._path) if found.name.endswith(".gz") else file
        return True

    def _replaced(self) -> bool:
        assert self._current is not None
        try:
            current = os.stat(self._path)
        except FileNotFoundError:  # between rename and creation
            return False
        return (current.st_dev, current.st_ino) != self._current.identity

    def _close(self) -> None:
        if self._file >= 0:
            if self._current is not None and not self._current.name.endswith(".gz"):
                self._current.modified = os.fstat(self._file).st_mtime_ns
            os.close(self._file)
            self._file = -1
        self._rest = b""


def _newer(files: list[_Found], last: _Found) -> list[_Found]:
    """Those behind the one that was read last, which may be compressed by now, or gone."""
    for position in range(len(files) - 1, -1, -1):
        one = files[position]
        if one.identity == last.identity or (one.name.endswith(".gz") and one.modified == last.modified):
            return files[position + 1 :]
    return [one for one in files if one.modified >= last.modified]


def _plain(file: int, path: str) -> int:
    """The content of a compressed file, in one without a name; what is readable of one that was cut."""
    plain = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        decompress = zlib.decompressobj(_GZIP)
        while data := os.read(file, _BLOCK):
            view = memoryview(decompress.decompress(data))
            while view:
                view = view[os.write(plain, view) :]
    except zlib.error:
        pass
    except OSError:
        os.close(plain)
        raise
    finally:
        os.close(file)
    os.lseek(plain, 0, os.SEEK_SET)
    return plain


def _last_time_of_compressed(name: str) -> int:
    """What Docker writes into the header: {"lastTime": ...}; for ever where there is none, and for plain files."""
    never = 1 << 63
    if not name.endswith(".gz"):
        return never
    try:
        with open(name, "rb", buffering=0) as file:
            head = file.read(12)
            if head[3] & 4:
                extra = json.loads(file.read(int.from_bytes(head[10:12], "little")))
                return Parser().parse(extra["lastTime"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        pass
    return never


def last_time(file: int) -> int:
    """Of the last whole line; 0 where there is none."""
    size = os.fstat(file).st_size
    data = os.pread(file, 64 << 10, max(0, size - (64 << 10)))
    return _time_of(data[: data.rfind(b"\n") + 1])


def _time_of(data: bytes) -> int:
    """The time that ends these lines; 0 where that cannot be read."""
    at = data.rfind(_TAIL)
    try:
        return Parser().parse(data[at + len(_TAIL) : data.index(b'"', at + len(_TAIL))].decode()) if at >= 0 else 0
    except ValueError:
        return 0


def _find(file: int, at: int) -> int:
    """Where a line begins before which all are older than `at`: by halves, down to a block."""
    low, high = 0, os.fstat(file).st_size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        data = os.pread(file, _BLOCK // 2, middle)
        begin = data.find(b"\n") + 1
        end = data.find(b"\n", begin) + 1
        if not begin or not end:
            break
        if _time_of(data[begin:end]) < at:
            low = middle + begin
        else:
            high = middle
    return low
