"""What a command is: its usage line, its flags, how many arguments it takes, and the function that runs it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hafen.cli.flags import Flags, Validator
from hafen.client.engine import Engine

PROGRAM = "hafen"
MANY = 1 << 30


class Call(NamedTuple):
    """One run of a command."""

    path: str  # as typed: "ps", "container ls"
    flags: Flags
    arguments: list[str]
    engine: Engine
    settings: Mapping[str, object]  # Docker's config.json


class Command(NamedTuple):
    """`run` returns the exit code. `usage` follows the command's name in the usage line."""

    run: Callable[[Call], int]
    usage: str
    summary: str
    flags: str = ""
    least: int = 0
    most: int = MANY
    interspersed: bool = True
    aliases: Mapping[str, str] = {}
    validators: Mapping[str, Validator] = {}
    complete: Callable[[Engine, list[str]], list[str]] | None = None
    description: str = ""
