"""Query parameters, read as Docker's handlers do."""

import pytest

from hafen.api.query import Query
from hafen.errors import InvalidArgument


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "on", "t", "2"])
def test_true_is_all_that_is_not_false(value: str) -> None:
    assert Query(f"a={value}").flag("a")


@pytest.mark.parametrize("value", ["", "0", "no", "No", "false", "FALSE", "none", "%20false%20"])
def test_false_has_five_spellings(value: str) -> None:
    assert not Query(f"a={value}").flag("a", True)


def test_an_absent_flag_is_its_default() -> None:
    assert Query("b=1").flag("a", True)
    assert not Query("").flag("a")


def test_the_first_of_several_values_counts_and_all_can_be_had() -> None:
    query = Query("names=a%2Fb&names=c+d&x")
    assert query.text("names") == "a/b"
    assert query.all("names") == ("a/b", "c d")
    assert "x" in query
    assert query.text("y") == ""


def test_integers() -> None:
    query = Query("a=5&b=-1&c=&d=5s&e=99999999999999999999&f=%2B7&g=\u0665")
    assert [query.integer(name) for name in "abcfx"] == [5, -1, None, 7, None]
    for name, message in (("d", 'strconv.Atoi: parsing "5s": invalid syntax'), ("e", "value out of range")):
        with pytest.raises(InvalidArgument) as caught:
            query.integer(name)
        assert message in caught.value.message
    with pytest.raises(InvalidArgument):
        query.integer("g")


@pytest.mark.parametrize("text", ['{"status":["a","b"]}', '{"status":{"a":true,"b":true}}'])
def test_filters_in_both_forms(text: str) -> None:
    assert sorted(Query(f"filters={text}").filters().get("status")) == ["a", "b"]


@pytest.mark.parametrize("text", ["x", "[]", '{"a":3}', '{"a":[1]}', "1"])
def test_bad_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        Query(f"filters={text}").filters()


def test_a_flood_of_parameters_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Query("&".join(f"a{index}=1" for index in range(2000)))
