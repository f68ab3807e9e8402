"""Ids, prefixes, grammar and random names."""

import random

import pytest

from hafen.errors import InvalidArgument
from hafen.spec import names


def test_grammar() -> None:
    assert names.check_container_name("/web-1.x_y") == "web-1.x_y"
    for bad in ("-x", "a", "a b", "é1", ""):
        with pytest.raises(InvalidArgument, match="only \\[a-zA-Z0-9\\]"):
            names.check_container_name(bad)


def test_prefixes() -> None:
    ids = ["ab" + "0" * 62, "ac" + "0" * 62]
    assert names.find_by_prefix("ab", ids) == ids[0]
    assert names.find_by_prefix("x", ids) is None
    assert names.find_by_prefix("", ids) is None
    with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: a"):
        names.find_by_prefix("a", ids)


def test_random_names_avoid_what_is_taken() -> None:
    taken: set[str] = set()
    choose = random.Random(1).choice
    for _ in range(500):
        name = names.random_name(choose, taken.__contains__)
        assert name not in taken
        assert names.check_container_name(name) == name
        taken.add(name)


def test_random_names_end_even_where_everything_is_taken_at_first() -> None:
    asked = 0

    def taken(name: str) -> bool:
        nonlocal asked
        asked += 1
        return asked < 50

    assert names.random_name(random.Random(2).choice, taken)
