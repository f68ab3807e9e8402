"""Docker's filters: both JSON forms, matching, and what is refused."""

import pytest

from hafen.errors import InvalidArgument
from hafen.spec.filters import parse


def test_both_forms() -> None:
    assert parse('{"label": {"a=b": true, "c": false}}').get("label") == (
        "a=b",
        "c",
    )  # as Docker: said to be false, and wanted
    assert parse('{"label": ["a=b"]}').get("label") == ("a=b",)
    assert not parse(None)
    assert not parse("")
    assert not parse("null")
    assert parse('{"label": null, "name": ["a", null]}').fields == {"label": (), "name": ("a", "")}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": 1}', '{"a": [1]}', '{"a": {"b": 1}}', '{"a": ["x"], "b": {"x": true}}']
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        parse(text)


def test_unknown_field() -> None:
    with pytest.raises(InvalidArgument, match="invalid filter 'foo'"):
        parse('{"foo": ["x"]}').check({"label"})


def test_labels_must_all_match() -> None:
    filters = parse('{"label": ["a=b", "c"]}')
    assert filters.matches_labels({"a": "b", "c": ""})
    assert not filters.matches_labels({"a": "b"})
    assert not filters.matches_labels(None)
    assert parse('{"label!": ["a"]}').excludes_labels({"a": "1"})


def test_values_are_alternatives() -> None:
    filters = parse('{"status": ["running", "paused"]}')
    assert filters.matches_any("status", "paused")
    assert not filters.matches_any("status", "exited")
    assert filters.matches_any("other", "x")


def test_flags() -> None:
    assert parse('{"dangling": ["true"]}').flag("dangling", False)
    assert not parse('{"dangling": ["0"]}').flag("dangling", True)
    assert parse("{}").flag("dangling", True)
    with pytest.raises(InvalidArgument, match="invalid filter"):
        parse('{"dangling": ["zz"]}').flag("dangling", True)


def test_until_is_told_once() -> None:
    assert parse('{"until": ["1h"]}').until() == "1h"
    assert parse("{}").until() is None
    with pytest.raises(InvalidArgument, match="more than one until filter specified"):
        parse('{"until": ["1h", "2h"]}').until()
