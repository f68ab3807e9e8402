"""RFC 3339 times, against the standard library."""

import datetime

from hypothesis import given
from hypothesis import strategies as st

from hafen.logs.timestamp import Parser, format_fixed, format_nano


@given(st.integers(0, 7_000_000_000 * 10**9))
def test_there_and_back(at: int) -> None:
    parser = Parser()
    assert parser.parse(format_fixed(at)) == parser.parse(format_nano(at)) == at
    seconds = datetime.datetime.fromtimestamp(at // 10**9, datetime.UTC)
    assert format_fixed(at)[:19] == seconds.strftime("%Y-%m-%dT%H:%M:%S")


def test_gos_shortest_form() -> None:
    assert format_nano(10**9) == "1970-01-01T00:00:01Z"
    assert format_nano(10**9 + 120_000_000) == "1970-01-01T00:00:01.12Z"
    assert format_fixed(10**9) == "1970-01-01T00:00:01.000000000Z"
