"""The `local` driver."""

from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.logs.driver import LogFile
from hafen.logs.local import LocalDriver
from tests.suites.logs_suite import SECOND, LogsSuite, in_place


class TestLocal(LogsSuite):
    driver = LocalDriver()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max-size": "-1"}, "invalid value for max-size: -1: invalid size: '-1'"),
        ({"max-file": "x"}, 'invalid value for max-file: x: strconv.Atoi: parsing "x": invalid syntax'),
        ({"compress": "x"}, 'error reading compress log option: strconv.ParseBool: parsing "x": invalid syntax'),
        ({"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
    ],
)
def test_bad_options_are_found_at_the_start(tmp_path: Path, options: dict[str, str], message: str) -> None:
    LocalDriver().validate(options)
    with pytest.raises(InvalidArgument) as caught:
        LocalDriver().writer(LogFile(str(tmp_path / "logs"), "abc"), options, {}, in_place)
    assert not (tmp_path / "logs").exists()
    assert str(caught.value) == message


def test_garbage_and_zeros_at_the_end_are_not_read(tmp_path: Path) -> None:
    """After a power cut a file system may give back a longer file than was written, full of zeros."""
    log = LogFile(str(tmp_path), "abc")
    driver = LocalDriver()
    for tail in (bytes(4096), b"\xff" * 4096, b"\x01" * 17):
        writer = driver.writer(log, {}, {}, in_place)
        writer.write(1, b"good\n", SECOND)
        writer.close()
        last = max(path for path in tmp_path.iterdir() if path.suffix == ".log")
        last.write_bytes(last.read_bytes() + tail)
    reader = driver.reader(log)
    assert [entry.data for _ in range(4) for entry in reader.read()] == [b"good\n"] * 3


def test_a_missing_index_costs_time_only(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path), "abc")
    writer = LocalDriver().writer(log, {}, {}, in_place)
    for number in range(10):
        writer.write(1, b"%d" % number + b"x" * 100_000 + b"\n", number * SECOND)
    writer.close()
    (tmp_path / "00000001.idx").unlink()
    reader = LocalDriver().reader(log)
    reader.skip_to_tail(2)
    entries = []
    while some := reader.read():
        entries += some
    assert [entry.data[:1] for entry in entries] == [b"8", b"9"]
