"""A tiny parser for the OCI command line; pure. argparse alone would cost a third of a container's start."""

from collections.abc import Mapping, Sequence

from hafen.errors import InvalidArgument
from hafen.values import NamedTuple


class Arguments(NamedTuple):
    """`options` by long name: every value given, in order; a switch has "true" or "false"."""

    options: Mapping[str, tuple[str, ...]]
    positional: tuple[str, ...]

    def value(self, name: str, default: str = "") -> str:
        """The last one given."""
        return self.options.get(name, (default,))[-1]

    def values(self, name: str) -> tuple[str, ...]:
        return self.options.get(name, ())

    def on(self, name: str) -> bool:
        return self.value(name, "false") == "true"


class Syntax(NamedTuple):
    """`valued` options take a value, `switches` do not; `short` maps letters to long names."""

    valued: frozenset[str] = frozenset()
    switches: frozenset[str] = frozenset()
    short: Mapping[str, str] = {}


def parse(argv: Sequence[str], syntax: Syntax, *, until_positional: bool = False) -> tuple[Arguments, tuple[str, ...]]:
    """Options before the first positional argument and, unless `until_positional`, between later ones.

    Returns what is left too: with `until_positional` everything from the first positional argument on. Names may
    have one dash or two, as Go's flag packages take them; "--" ends the options.
    """
    options: dict[str, tuple[str, ...]] = {}
    positional: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest[0]
        if argument == "--":
            positional += rest[1:]
            rest = []
        elif argument == "-" or not argument.startswith("-"):
            if until_positional:
                return Arguments(options, ()), tuple(rest)
            positional.append(rest.pop(0))
        else:
            name, value, rest = _option(rest, syntax)
            options[name] = (*options.get(name, ()), value)
    return Arguments(options, tuple(positional)), ()


def _option(rest: list[str], syntax: Syntax) -> tuple[str, str, list[str]]:
    """(long name, value, what follows)."""
    given, separator, value = rest[0].lstrip("-").partition("=")
    name = syntax.short.get(given, given)
    following = rest[1:]
    if name in syntax.switches:
        if separator and value not in ("true", "false"):
            raise InvalidArgument(f"invalid boolean value {value!r} for flag --{name}")
        return name, value if separator else "true", following
    if name not in syntax.valued:
        raise InvalidArgument(f"flag provided but not defined: {rest[0]}")
    if separator:
        return name, value, following
    if not following:
        raise InvalidArgument(f"flag needs an argument: {rest[0]}")
    return name, following[0], following[1:]
