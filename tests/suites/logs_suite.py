"""What every log driver that can be read must hold: subclass it with a `driver` and small files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from hafen.logs.driver import Entry, LogDriver, LogFile, LogReader, LogWriter

SECOND = 1_000_000_000


def in_place(work: Callable[[], None]) -> None:
    work()


class LogsSuite:
    driver: ClassVar[LogDriver]
    prefix: ClassVar[str] = ""  # of the options that bound it

    @pytest.fixture(autouse=True)
    def _no_nice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compression lowers the priority of its own process; here it is ours."""
        monkeypatch.setattr(os, "nice", lambda _: 0)

    @pytest.fixture
    def log(self, tmp_path: Path) -> LogFile:
        return LogFile(str(tmp_path / "logs"), "abc")

    def writer(self, log: LogFile, **options: str) -> LogWriter:
        named = {self.prefix + name.replace("_", "-"): value for name, value in options.items()}
        return self.driver.writer(log, named, {}, in_place)

    @staticmethod
    def drain(reader: LogReader) -> list[Entry]:
        entries = []
        while some := reader.read():
            entries += some
        return entries

    def text(self, reader: LogReader) -> bytes:
        text = b"".join(entry.data for entry in self.drain(reader))
        reader.close()
        return text

    def test_what_is_written_is_read(self, log: LogFile) -> None:
        writer = self.writer(log)
        writer.write(1, b"out\n", 5 * SECOND)
        writer.write(2, b"err\n", 6 * SECOND + 7)
        assert self.drain(self.driver.reader(log)) == [
            Entry(5 * SECOND, 1, b"out\n"),
            Entry(6 * SECOND + 7, 2, b"err\n"),
        ]
        writer.close()

    def test_an_unfinished_line_is_kept(self, log: LogFile) -> None:
        writer = self.writer(log)
        writer.write(1, b"no newline", SECOND)
        writer.close()
        assert self.text(self.driver.reader(log)) == b"no newline"

    def test_no_log_yet_reads_as_empty(self, log: LogFile) -> None:
        reader = self.driver.reader(log)
        reader.skip_to_tail(3)
        assert reader.read() == []
        reader.close()

    def test_a_reader_follows_across_rotation_without_loss_or_repetition(self, log: LogFile) -> None:
        for compress in ("false", "true"):
            writer = self.writer(log, max_size="2k", max_file="4", compress=compress)
            reader = self.driver.reader(log)
            self.drain(reader)
            read = b""
            for number in range(400):
                writer.write(1, b"line %d\n" % number, number * SECOND)
                if number % 7 == 0:
                    read += b"".join(entry.data for entry in self.drain(reader))
            read += b"".join(entry.data for entry in self.drain(reader))
            assert read == b"".join(b"line %d\n" % number for number in range(400))
            reader.close()
            writer.close()

    def test_rotation_bounds_the_size(self, log: LogFile) -> None:
        writer = self.writer(log, max_size="4k", max_file="3", compress="true")
        for number in range(2000):
            writer.write(1, b"%064d\n" % number, number * SECOND)
        writer.close()
        sizes = {path.name: path.stat().st_size for path in Path(log.directory).iterdir()}
        assert sum(sizes.values()) < 3 * 4096 + 1024, sizes
        text = self.text(self.driver.reader(log))
        assert text.endswith(b"%064d\n" % 1999)
        assert text == b"".join(b"%064d\n" % number for number in range(2000 - len(text) // 65, 2000))

    @pytest.mark.parametrize("lines", [0, 1, 2, 5, 99, 100, 101, 1000])
    @pytest.mark.parametrize("end", [b"\n", b""])
    def test_tail(self, log: LogFile, lines: int, end: bytes) -> None:
        writer = self.writer(log, max_size="1k", max_file="50", compress="true")
        written = [b"line %d\n" % number for number in range(99)] + [b"last" + end]
        for line in written:
            writer.write(1, line, SECOND)
        writer.close()
        reader = self.driver.reader(log)
        reader.skip_to_tail(lines)
        assert self.text(reader) == b"".join(written[max(0, 100 - lines) :] if lines else [])

    def test_tail_within_one_chunk(self, log: LogFile) -> None:
        writer = self.writer(log)
        writer.write(1, b"".join(b"%d\n" % number for number in range(1000)), SECOND)
        for lines in (1, 10, 999, 1000, 2000):
            reader = self.driver.reader(log)
            reader.skip_to_tail(lines)
            assert self.text(reader) == b"".join(b"%d\n" % n for n in range(max(0, 1000 - lines), 1000))
        writer.close()

    def test_skip_to_time_leaves_nothing_out(self, log: LogFile) -> None:
        writer = self.writer(log, max_size="100k", max_file="50")
        for number in range(3000):
            writer.write(1, b"%0500d\n" % number, number * SECOND)
        writer.close()
        for since in (0, 1, 1500, 2999, 5000):
            reader = self.driver.reader(log)
            reader.skip_to_time(since * SECOND)
            times = [entry.at // SECOND for entry in self.drain(reader)]
            assert [at for at in times if at >= since] == list(range(since, 3000))
            reader.close()

    @pytest.fixture
    def cuts(self, log: LogFile) -> tuple[Path, bytes]:
        """The file that is written, and its bytes after three records."""
        writer = self.writer(log)
        for word in (b"one\n", b"two\n", b"three\n"):
            writer.write(1, word, SECOND)
        writer.close()
        (path,) = (path for path in Path(log.directory).iterdir() if path.suffix == ".log")
        return path, path.read_bytes()

    def test_cut_at_any_byte(self, log: LogFile, cuts: tuple[Path, bytes]) -> None:
        path, whole = cuts
        for length in range(len(whole)):
            for name in Path(log.directory).iterdir():
                if name.suffix == ".log" and name != path:
                    name.unlink()
            path.write_bytes(whole[:length])
            text = self.text(self.driver.reader(log))
            assert b"one\ntwo\nthree\n".startswith(text)
            writer = self.writer(log)
            writer.write(1, b"again\n", SECOND)
            writer.close()
            assert self.text(self.driver.reader(log)) == text + b"again\n"
