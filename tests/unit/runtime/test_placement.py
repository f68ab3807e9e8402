"""The kernel's list format."""

import pytest

from hafen.errors import InvalidArgument
from hafen.runtime.placement import parse_list


def test_parse_list() -> None:
    assert parse_list("0-2,5") == {0, 1, 2, 5}
    assert parse_list("") == frozenset()
    for bad in ("a", "1-", "-1", "1-b", "2-1"):
        with pytest.raises(InvalidArgument):
            parse_list(bad)
