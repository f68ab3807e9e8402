"""The lean processes' NamedTuple behaves as typing's does."""

import copy
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest

from hafen import values


class Ours(values.NamedTuple):
    """Documented."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    def describe(self) -> str:
        return f"{self.first} {self.second}"


class Theirs(typing.NamedTuple):
    """Documented."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    def describe(self) -> str:
        return f"{self.first} {self.second}"


class Below(Ours):
    """A class derived from one that has fields."""

    def more(self) -> int:
        return self.first + 1


BOTH: tuple[Any, Any] = (Ours, Theirs)
CALLS: list[Callable[[Any], object]] = [
    lambda make: tuple(make(1)),
    lambda make: tuple(make(1, "b", (3,))),
    lambda make: tuple(make(third=(3,), first=1)),
    lambda make: make(1)._asdict(),
    lambda make: make._fields,
    lambda make: make._field_defaults,
    lambda make: make.__match_args__,
    lambda make: make.__annotations__,
    lambda make: make.__doc__,
    lambda make: tuple(make._make([1, "x", ()])),
    lambda make: make(1)._replace(second="z").second,
    lambda make: repr(make(1)).replace("Ours", "").replace("Theirs", ""),
    lambda make: make(5).describe(),
    lambda make: make(1) == (1, "two", ()),
    lambda make: hash(make(1)) == hash((1, "two", ())),
    lambda make: copy.copy(make(1)).second,
    lambda make: pickle.loads(pickle.dumps(make(1))).second,
    lambda make: hasattr(make(1), "__dict__"),
]
ERRORS: list[tuple[type[Exception], Callable[[Any], object]]] = [
    (TypeError, lambda make: make()),
    (TypeError, lambda make: make(1, "b", (), 4)),
    (TypeError, lambda make: make(1, first=1)),
    (TypeError, lambda make: make(1, fourth=1)),
    (TypeError, lambda make: make._make([])),
    (ValueError, lambda make: make(1)._replace(fourth=1)),
    (AttributeError, lambda make: setattr(make(1), "first", 2)),
    (AttributeError, lambda make: setattr(make(1), "fifth", 2)),
]


@pytest.mark.parametrize("call", CALLS)
def test_same_as_typing(call: Callable[[Any], object]) -> None:
    ours, theirs = BOTH
    assert call(ours) == call(theirs)


@pytest.mark.parametrize(("error", "call"), ERRORS)
def test_refuses_what_typing_refuses(error: type[Exception], call: Callable[[Any], object]) -> None:
    for make in BOTH:
        with pytest.raises(error):
            call(make)


def test_derived_classes_keep_their_fields() -> None:
    assert Below(1, "x").more() == 2
    assert Below._fields == Ours._fields
    match Below(7):
        case Below(first, second):
            assert (first, second) == (7, "two")


def test_defaults_come_last() -> None:
    make: Any = type(Ours)
    with pytest.raises(TypeError):
        make("Wrong", (values.NamedTuple,), {"__annotations__": {"a": int, "b": int}, "a": 1})
