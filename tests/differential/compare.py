"""Lists how one engine's answer differs from another's, less what is accepted."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.differential.play import Answer, Json

ACCEPTED = Path(__file__).with_name("accepted.toml")


@dataclass(frozen=True)
class Accepted:
    """Differences that may be: the request (`Request.text`) and the difference, where `*` is any text, and why.

    `sometimes`: by chance.
    """

    request: str
    difference: str
    reason: str
    sometimes: bool = False

    def allows(self, request: str, difference: str) -> bool:
        return _matches(self.request, request) and _matches(self.difference, difference)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def accepted() -> list[Accepted]:
    return [Accepted(**entry) for entry in tomllib.loads(ACCEPTED.read_text())["accepted"]]


def differences(ours: Answer, theirs: Answer) -> Iterator[str]:
    """One line for each: `json.0.Config.Image: value "a", Docker "b"`; or `type`, `more` or `missing` for `value`."""
    yield from _members(_without_title(ours), _without_title(theirs))


def _without_title(answer: Answer) -> Answer:
    return {name: value for name, value in answer.items() if name != "request"}


def _members(ours: dict[str, Json], theirs: dict[str, Json], path: str = "") -> Iterator[str]:
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"{path}{name}: more {ours[name]!r}"
        elif name not in ours:
            yield f"{path}{name}: missing, Docker {theirs[name]!r}"
        else:
            yield from _values(f"{path}{name}", ours[name], theirs[name])


def _values(path: str, ours: Json, theirs: Json) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        yield from _members(ours, theirs, f"{path}.")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _values(f"{path}.{index}", one, other)
    elif type(ours) is not type(theirs):
        yield f"{path}: type {ours!r}, Docker {theirs!r}"
    elif ours != theirs:
        yield f"{path}: value {ours!r}, Docker {theirs!r}"
