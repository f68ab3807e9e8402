"""Parse and match Docker's `filters=` JSON; pure.

Clients send either `{"label": ["a=b"]}` or, before API 1.22 and still from the Go client, `{"label": {"a=b": true}}`.
Values of one field are alternatives, except labels, which must all match; different fields must all match.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hafen.errors import InvalidArgument

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


@dataclass(frozen=True, slots=True)
class Filters:
    """The fields a client filters by, each with its wanted values."""

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fields)

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def get(self, name: str) -> tuple[str, ...]:
        """Wanted values of a field; empty where the field is not filtered by."""
        return self.fields.get(name, ())

    def check(self, accepted: Collection[str]) -> None:
        """Raise InvalidArgument for a field that the listing does not know."""
        for name in self.fields:
            if name not in accepted:
                raise InvalidArgument(f"invalid filter '{name}'")

    def until(self) -> str | None:
        """The one value of prune's `until`, as the client wrote it."""
        values = self.get("until")
        if len(values) > 1:
            raise InvalidArgument("more than one until filter specified")
        return values[0] if values else None

    def flag(self, name: str, default: bool) -> bool:
        """A field that says yes or no, in Go's spelling of booleans."""
        values = self.get(name)
        if not values:
            return default
        if len(values) == 1 and values[0] in _TRUE:
            return True
        if len(values) == 1 and values[0] in _FALSE:
            return False
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")

    def matches_any(self, name: str, *candidates: str) -> bool:
        """True where the field is not filtered by, or one of the candidates is wanted."""
        wanted = self.get(name)
        return not wanted or any(candidate in wanted for candidate in candidates)

    def matches_labels(self, labels: Mapping[str, str] | None, name: str = "label") -> bool:
        """Each wanted `key` or `key=value` must be among the labels."""
        return all(_has_label(labels or {}, wanted) for wanted in self.get(name))

    def excludes_labels(self, labels: Mapping[str, str] | None, name: str = "label!") -> bool:
        """True where one of the unwanted labels is present (prune's `label!=`)."""
        return any(_has_label(labels or {}, unwanted) for unwanted in self.get(name))


NO_FILTERS = Filters()


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def parse(text: str | None) -> Filters:
    """The value of the `filters` query parameter; InvalidArgument where it is not such JSON."""
    if not text:
        return NO_FILTERS
    try:
        decoded = json.loads(text)
    except ValueError as error:
        raise InvalidArgument("invalid filter") from error
    if decoded is None:
        return NO_FILTERS
    if not isinstance(decoded, dict):
        raise InvalidArgument("invalid filter")
    shapes = {type(values) for values in decoded.values() if values is not None}
    if shapes not in (set(), {dict}, {list}):
        raise InvalidArgument("invalid filter")  # one form or the other
    return Filters({name: _values(values) for name, values in decoded.items()})


def _values(values: object) -> tuple[str, ...]:
    """Go's zero value in place of every null; a value that is said to be false is wanted all the same."""
    if isinstance(values, dict):
        if not all(wanted is None or isinstance(wanted, bool) for wanted in values.values()):
            raise InvalidArgument("invalid filter")
        return tuple(values)
    found = []
    for value in values if isinstance(values, list) else ():
        if value is not None and not isinstance(value, str):
            raise InvalidArgument("invalid filter")
        found.append(value or "")
    return tuple(found)
