"""Query parameters as Docker's handlers read them; pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from hafen.errors import InvalidArgument
from hafen.spec import filters, platform
from hafen.spec.platform import Platform
from hafen.spec.wire import gojson
from hafen.spec.wire import image as wire

_NO = frozenset(("", "0", "no", "false", "none"))  # moby: httputils.BoolValue
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class Query:
    """The parameters of one request. A parameter given twice counts with its first value, as in Go."""

    __slots__ = ("_values",)

    def __init__(self, text: str = "") -> None:
        try:
            self._values = parse_qs(text, keep_blank_values=True, max_num_fields=1000) if text else {}
        except ValueError as error:
            raise InvalidArgument(f"invalid query: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """The value; empty where the parameter is absent."""
        values = self._values.get(name)
        return values[0] if values else ""

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a parameter that may be repeated."""
        return tuple(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """False for "", 0, no, false and none; true for all else; `default` where absent."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _NO

    def integer(self, name: str) -> int | None:
        """None where absent or empty; InvalidArgument, in Go's words, where it is no whole number of 64 bits."""
        value = self.text(name)
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax')
        if len(value) > 20 or not -(1 << 63) <= int(value) < 1 << 63:
            raise InvalidArgument(f'strconv.Atoi: parsing "{value}": value out of range')
        return int(value)

    def platforms(self, name: str) -> tuple[Platform, ...]:
        """JSON-encoded OCI platforms; InvalidArgument in the words of moby's `httputils.DecodePlatform`."""
        found = []
        for text in self.all(name):
            if not text:
                continue
            try:
                place = gojson.decode(text.encode(), wire.Platform)
            except InvalidArgument as error:
                raise InvalidArgument(f"failed to parse platform: {error}") from error
            if not place.os or not place.architecture:
                raise InvalidArgument("both OS and Architecture must be provided")
            found.append(platform.normal(Platform(place.os, place.architecture, place.variant)))
        return tuple(found)

    def platform(self, name: str = "platform") -> Platform | None:
        """The one platform, if any."""
        found = self.platforms(name)
        if len(found) > 1:
            raise InvalidArgument("specifying multiple platforms is not supported")
        return found[0] if found else None

    def filters(self) -> filters.Filters:
        return filters.parse(self.text("filters"))
