"""The `json-file` driver: Docker's bytes. The expected text is what Docker 26.1.5 wrote for the same output."""

import json
import os
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument, NotImplemented
from hafen.logs.driver import LogFile, choose
from hafen.logs.drivers import DRIVERS
from hafen.logs.jsonfile import JSONFileDriver
from tests.suites.logs_suite import SECOND, LogsSuite, in_place


class TestJSONFile(LogsSuite):
    driver = JSONFileDriver()


def test_bytes(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path), "abc")
    attributes = {"a": "b", "c": "d", "E": "1", "tag": "x"}
    writer = JSONFileDriver().writer(log, {}, attributes, in_place)
    writer.write(1, b'a\tb<>&"\\ \xff \xe2\x80\xa8 \x7f\x01\r\nnonl', 1_700_000_000_120_000_000)
    writer.write(1, b"x" * 40_000 + b"\n", 1_700_000_000 * SECOND)
    writer.write(2, "err \ufffd é 日\n".encode(), 1_700_000_000 * SECOND + 1)
    writer.close()
    attrs = '"attrs":{"E":"1","a":"b","c":"d","tag":"x"},'
    out, moment = f'"stream":"stdout",{attrs}', '"time":"2023-11-14T22:13:20Z"}'
    assert (tmp_path / "abc-json.log").read_text().splitlines() == [
        '{"log":"a\\u0009b\\u003c\\u003e\\u0026\\"\\\\ \\ufffd \\u2028 \x7f\\u0001\\r\\n",'
        + out + '"time":"2023-11-14T22:13:20.12Z"}',
        '{"log":"nonl' + "x" * 16380 + '",' + out + moment,
        '{"log":"' + "x" * 16384 + '",' + out + moment,
        '{"log":"' + "x" * (40_000 - 16380 - 16384) + '\\n",' + out + moment,
        '{"log":"err \ufffd é 日\\n",' + f'"stream":"stderr",{attrs}' + '"time":"2023-11-14T22:13:20.000000001Z"}',
    ]  # fmt: skip


def test_every_line_is_json_whatever_is_written(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path), "abc")
    writer = JSONFileDriver().writer(log, {}, {}, in_place)
    everything = bytes(byte for byte in range(256) if byte != 10)
    writer.write(1, everything + b"\n\n" + everything[127:] + b"\xe2\x82", SECOND)
    writer.close()
    lines = [json.loads(line)["log"] for line in (tmp_path / "abc-json.log").read_text().splitlines()]
    assert [line.endswith("\n") for line in lines] == [True, True, False]
    assert lines[0] == everything[:127].decode() + "\ufffd" * 128 + "\n"
    assert lines[2] == "\ufffd" * 130


def test_emptied_at_the_limit_where_only_one_file_is_kept(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path), "abc")
    writer = JSONFileDriver().writer(log, {"max-size": "1k"}, {}, in_place)
    for number in range(100):
        writer.write(1, b"%d\n" % number, SECOND)
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["abc-json.log"]
    assert (tmp_path / "abc-json.log").stat().st_size < 1200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max-size": "abc"}, "invalid size: 'abc'"),
        ({"max-file": "0"}, "max-file cannot be less than 1"),
        ({"max-size": "1k", "max-file": "a"}, 'strconv.Atoi: parsing "a": invalid syntax'),
        ({"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"),
    ],
)
def test_bad_options_are_found_at_the_start(tmp_path: Path, options: dict[str, str], message: str) -> None:
    JSONFileDriver().validate(options)
    with pytest.raises(InvalidArgument) as caught:
        JSONFileDriver().writer(LogFile(str(tmp_path / "logs"), "abc"), options, {}, in_place)
    assert not (tmp_path / "logs").exists()
    assert str(caught.value) == message


def test_drivers_by_name() -> None:
    assert choose("json-file", DRIVERS).name == "json-file"
    with pytest.raises(NotImplemented, match="splunk"):
        choose("splunk", DRIVERS)
    with pytest.raises(InvalidArgument, match='error looking up logging plugin foo: plugin "foo" not found'):
        choose("foo", DRIVERS)
    none = choose("none", DRIVERS)
    assert not none.readable({})
    with pytest.raises(NotImplemented, match="configured logging driver does not support reading"):
        none.reader(LogFile("/nowhere", "abc"))


def test_a_time_is_found_without_reading_what_is_before(tmp_path: Path) -> None:
    """In the file that is written and in those that are compressed, of which none is unpacked for nothing."""
    log = LogFile(str(tmp_path), "abc")
    options = {"max-size": "4m", "max-file": "9", "compress": "true"}
    writer = JSONFileDriver().writer(log, options, {}, lambda work: None)
    for number in range(40_000):
        writer.write(1, b"%0200d\n" % number, number * SECOND)
    writer.close()
    for since in (39_990, 35_000, 10_000):
        reader = JSONFileDriver().reader(log)
        reader.skip_to_time(since * SECOND)
        first = reader.read()[0].at // SECOND
        assert since - 2000 < first <= since
        reader.close()


def test_old_compressed_files_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda _: 0)
    log = LogFile(str(tmp_path), "abc")
    writer = JSONFileDriver().writer(log, {"max-size": "10k", "max-file": "5", "compress": "true"}, {}, in_place)
    for number in range(500):
        writer.write(1, b"%d\n" % number, number * SECOND)
    writer.close()
    oldest = max(tmp_path.glob("*.gz"))
    header = oldest.read_bytes()[:64]
    oldest.write_bytes(header + b"no longer readable")
    reader = JSONFileDriver().reader(log)
    reader.skip_to_time(450 * SECOND)
    data = b"".join(entry.data for _ in range(5) for entry in reader.read())
    assert data.endswith(b"".join(b"%d\n" % number for number in range(450, 500)))
    reader.close()
