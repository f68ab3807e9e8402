"""The OCI command line's options."""

import pytest

from hafen.errors import InvalidArgument
from hafen.runtime.argv import Syntax, parse

SYNTAX = Syntax(frozenset(("bundle", "env")), frozenset(("force",)), {"b": "bundle", "e": "env", "f": "force"})


def test_forms() -> None:
    found, _ = parse(["--bundle=/x", "-e", "A=1", "-env", "B=2", "id", "-f", "--", "--not-an-option"], SYNTAX)
    assert found.value("bundle") == "/x"
    assert found.values("env") == ("A=1", "B=2")
    assert found.on("force")
    assert found.positional == ("id", "--not-an-option")


def test_until_positional() -> None:
    found, rest = parse(["-f", "id", "sh", "-f"], SYNTAX, until_positional=True)
    assert (found.on("force"), rest) == (True, ("id", "sh", "-f"))


def test_a_switch_can_be_off() -> None:
    assert not parse(["--force=false"], SYNTAX)[0].on("force")


@pytest.mark.parametrize("argv", [["--bundle"], ["--nope"], ["--force=maybe"]])
def test_bad(argv: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        parse(argv, SYNTAX)
