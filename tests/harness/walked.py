"""Which subcommands and flags of docker the command lines of transcripts name."""

import re
import shlex
import subprocess
from collections.abc import Iterator

from tests.harness.transcript import Scenario


def options(group: str, command: str) -> tuple[dict[str, str], set[str]]:
    """(long name by every name of a flag, the long names that take a value), as docker's help tells."""
    text = subprocess.run(["docker", group, command, "--help"], capture_output=True, text=True, check=True).stdout
    names: dict[str, str] = {}
    valued: set[str] = set()
    for short, long, value in re.findall(r"^  (?:(-\w),| {3}) (--[\w-]+)(?: (\w\S*))?", text, re.MULTILINE):
        names[long] = long
        if short:
            names[short] = long
        if value:
            valued.add(long)
    return names, valued


def commands_typed(scenarios: list[Scenario]) -> Iterator[list[str]]:
    """The words of every docker command in the transcripts, without `docker`."""
    for scenario in scenarios:
        for step in scenario.steps:
            lexer = shlex.shlex(step.command.replace("$(", "; "), posix=True, punctuation_chars="|;&()<>")
            lexer.whitespace_split, lexer.commenters = True, ""
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word.startswith(tuple("|;&()<>")):
                    if "docker" in words:
                        yield words[words.index("docker") + 1 :]
                    words = []
                else:
                    words.append(word)


def flags_of(words: list[str], names: dict[str, str], valued: set[str], to_the_end: bool) -> Iterator[str]:
    """Long names of the flags among a subcommand's words; those of `run` and `exec` end at the first argument."""
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            if name in names:
                yield names[name]
                if name in valued and not equals:
                    next(rest, "")
        elif word.startswith("-") and word != "-":
            for position, letter in enumerate(word[1:], 2):
                if f"-{letter}" not in names:
                    break
                long = names[f"-{letter}"]
                yield long
                if long in valued:
                    if position == len(word):
                        next(rest, "")
                    break
        elif not to_the_end:
            return
