"""Lists how one engine's answer differs from another's, less what is accepted."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.differential.play import Answer, Json

ACCEPTED = Path(__file__).with_name("accepted.toml")


@dataclass(frozen=True)
class Accepted:
    """Differences that may be: patterns (`*`) of the request and of the difference, and why."""

    request: str
    difference: str
    reason: str

    def allows(self, request: str, difference: str) -> bool:
        return fnmatchcase(request, self.request) and fnmatchcase(difference, self.difference)


def accepted() -> list[Accepted]:
    return [Accepted(**entry) for entry in tomllib.loads(ACCEPTED.read_text())["accepted"]]


def differences(ours: Answer, theirs: Answer) -> Iterator[str]:
    """One line for each: `json.0.Config.Image: "a" instead of "b"`."""
    for name in ("status", "headers", "json", "tar", "text"):
        yield from _differ(name, ours.get(name, _ABSENT), theirs.get(name, _ABSENT))


_ABSENT: Json = "<absent>"


def _differ(path: str, ours: Json, theirs: Json) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            yield from _differ(f"{path}.{name}", ours.get(name, _ABSENT), theirs.get(name, _ABSENT))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differ(f"{path}.{index}", one, other)
    elif ours != theirs or type(ours) is not type(theirs):
        yield f"{path}: {ours!r} instead of {theirs!r}"
