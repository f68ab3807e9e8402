"""Command-line flags as Docker's (pflag's) rules have them: one line of help text defines one flag.

A definition reads as the help that it becomes; the word after the name is the kind of value, none means a switch:

    -m, --memory bytes     Memory limit
        --sig-proxy        Proxy received signals to the process (default true)

`argparse` is not used: it knows neither pflag's grammar (`-it`, `--rm=false`, flags that end at the image) nor its
messages, and costs more start-up time than this whole module.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hafen.errors import InvalidArgument

Validator = Callable[[str], str]
HIDDEN = "(hidden)"


class Flag(NamedTuple):
    name: str
    short: str
    kind: str
    help: str

    @property
    def spelling(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"

    @property
    def switch(self) -> bool:
        return not self.kind

    @property
    def many(self) -> bool:
        return self.kind in ("list", "strings", "map", "filter", "mount", "network", "ulimit", "gpu-request")


class BadFlag(InvalidArgument):
    """A flag or its value is wrong; the usage line follows the message, and the exit code is 125."""


class Flags:
    """The values of one command's flags; what was not given has its default."""

    def __init__(self, definitions: Mapping[str, Flag]) -> None:
        self._definitions = definitions
        self._values: dict[str, str | int | bool | list[str]] = {}

    def put(self, name: str, value: str | int | bool | list[str]) -> None:
        self._values[name] = value

    def append(self, name: str, values: list[str]) -> None:
        present = self._values.setdefault(name, [])
        assert isinstance(present, list)
        present += values

    def changed(self, name: str) -> bool:
        """Given on the command line, even if with its default."""
        assert name in self._definitions, name
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        value = self._given(name, default)
        return value if isinstance(value, str) else str(value)

    def number(self, name: str, default: int = 0) -> int:
        value = self._given(name, default)
        return value if isinstance(value, int) else default

    def on(self, name: str, default: bool = False) -> bool:
        return bool(self._given(name, default))

    def values(self, name: str) -> list[str]:
        value = self._given(name, [])
        return value if isinstance(value, list) else [str(value)]

    def _given(self, name: str, default: str | int | bool | list[str]) -> str | int | bool | list[str]:
        assert name in self._definitions, name
        return self._values.get(name, default)


def parse_definitions(text: str) -> dict[str, Flag]:
    """The lines of a definition block, by long name."""
    flags: dict[str, Flag] = {}
    for line in text.splitlines():
        left, _, explanation = line.strip().partition("  ")
        if not left:
            continue
        short = ""
        if not left.startswith("--"):
            short, _, left = left.partition(", ")
            short = short[1:]
        name, _, kind = left[2:].partition(" ")
        flags[name] = Flag(name, short, kind, explanation.strip())
    return flags


def parse(
    definitions: Mapping[str, Flag],
    arguments: Sequence[str],
    *,
    interspersed: bool = True,
    aliases: Mapping[str, str] | None = None,
    validators: Mapping[str, Validator] | None = None,
) -> tuple[Flags, list[str]]:
    """(flags, positional arguments). With `interspersed` false flags end at the first positional argument."""
    return _Parser(definitions, aliases or {}, validators or {}, interspersed).parse(list(arguments))


class HelpAsked(Exception):
    """`--help`, or the deprecated `-h`, was among the flags."""

    def __init__(self, deprecated: bool = False) -> None:
        super().__init__()
        self.deprecated = deprecated


class _Parser:
    def __init__(
        self,
        definitions: Mapping[str, Flag],
        aliases: Mapping[str, str],
        validators: Mapping[str, Validator],
        interspersed: bool,
    ) -> None:
        self._definitions = definitions
        self._shorts = {flag.short: flag for flag in definitions.values() if flag.short}
        self._aliases = aliases
        self._validators = validators
        self._interspersed = interspersed
        self._flags = Flags(definitions)

    def parse(self, rest: list[str]) -> tuple[Flags, list[str]]:
        positional: list[str] = []
        rest.reverse()
        while rest:
            word = rest.pop()
            if word == "--":
                positional += reversed(rest)
                break
            if word.startswith("--"):
                self._long(word[2:], rest)
            elif len(word) > 1 and word.startswith("-"):
                self._short(word[1:], rest)
            else:
                positional.append(word)
                if not self._interspersed:
                    positional += reversed(rest)
                    break
        return self._flags, positional

    def _long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word.partition("=")
        if name in self._aliases:
            if name in _DEPRECATED:
                print(f"Flag --{name} has been deprecated, use --{self._aliases[name]} instead")
            name = self._aliases[name]
        if name == "help":
            raise HelpAsked
        flag = self._definitions.get(name)
        if flag is None:
            raise BadFlag(
                f"unknown flag: --{name}" if name and not name.startswith("-") else f"bad flag syntax: --{word}"
            )
        if not equals:
            if flag.switch:
                value = "true"
            elif rest:
                value = rest.pop()
            else:
                raise BadFlag(f"flag needs an argument: --{name}")
        self._put(flag, value)

    def _short(self, letters: str, rest: list[str]) -> None:
        while letters:
            word = f"-{letters}"
            letter, letters = letters[0], letters[1:]
            flag = self._shorts.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpAsked(deprecated=True)
                raise BadFlag(f"unknown shorthand flag: '{letter}' in {word}")
            if letters.startswith("="):
                return self._put(flag, letters[1:])
            if flag.switch:
                self._put(flag, "true")
                continue
            if letters:
                return self._put(flag, letters)
            if not rest:
                raise BadFlag(f"flag needs an argument: '{letter}' in {word}")
            return self._put(flag, rest.pop())
        return None

    def _put(self, flag: Flag, value: str) -> None:
        try:
            if flag.many:
                validator = self._validators.get(flag.name) or _MANY.get(flag.kind)
                items = value.split(",") if flag.kind == "strings" else [value]
                self._flags.append(flag.name, [validator(item) for item in items] if validator else items)
                return
            validator = self._validators.get(flag.name)
            convert = _integer if (flag.name, value) == _UNLIMITED else _ONE[flag.kind]
            self._flags.put(flag.name, convert(validator(value) if validator else value))
        except InvalidArgument as error:
            raise BadFlag(f'invalid argument "{value}" for "{flag.spelling}" flag: {error}') from None


_DEPRECATED = ("time",)  # of the names that are another flag's, those whose use docker remarks on
_UNLIMITED = ("memory-swap", "-1")  # the one size that may be negative
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def _switch(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def _integer(text: str) -> int:
    try:
        number = int(text, 0) if not text.lstrip("+-").startswith("0") else int(text, 8 if text.strip("+-0") else 10)
    except ValueError:
        try:
            number = int(text, 0)
        except ValueError:
            raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def _unsigned16(text: str) -> int:
    if not text.isdigit():
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 0xFFFF:
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _bytes(text: str) -> int:
    from hafen.spec.units import parse_size

    return parse_size(text)


def _duration(text: str) -> int:
    """Nanoseconds."""
    from hafen.spec.units import parse_duration

    if text.lstrip("+-").replace(".", "", 1).isdigit() and text.strip("+-0."):
        raise InvalidArgument(f'time: missing unit in duration "{text}"')
    return round(parse_duration(text) * 1_000_000_000)


def _decimal(text: str) -> int:
    """Thousand millionths, as `NanoCpus`."""
    from fractions import Fraction

    try:
        exact = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise InvalidArgument(f"failed to parse {text} as a rational number") from None
    if exact.denominator != 1:
        raise InvalidArgument("value is too precise")
    return exact.numerator


def _text(text: str) -> str:
    return text


def _filter(text: str) -> str:
    if "=" not in text:
        raise InvalidArgument("bad format of filter (expected name=value)")
    return text


_ONE: dict[str, Callable[[str], str | int | bool]] = {
    "": _switch,
    "string": _text,
    "int": _integer,
    "uint16": _unsigned16,
    "bytes": _bytes,
    "duration": _duration,
    "decimal": _decimal,
}
_MANY: dict[str, Validator] = {"filter": _filter}


def as_map(items: Sequence[str]) -> dict[str, str]:
    """`["a=b", "c"]` as `{"a": "b", "c": ""}`, as Docker reads labels and options."""
    return {name: value for name, _, value in (item.partition("=") for item in items)}


def moment(flags: Flags, name: str, told: str = 'invalid value for "{name}": ') -> str:
    """--since and --until: a time, or how long ago, as seconds since 1970, which is all that the engine takes.

    `told` opens what is said of another text.
    """
    text = flags.text(name)
    if not text:
        return ""
    import time

    from hafen.spec.units import parse_timestamp

    try:
        nanoseconds = parse_timestamp(text, time.time_ns())
    except InvalidArgument:
        raise InvalidArgument(told.format(name=name) + f'failed to parse value as time or duration: "{text}"') from None
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}"
