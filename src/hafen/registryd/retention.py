"""Retention: which tags and manifests of a repository have had their time; rules and plans, pure.

    keep 10 newest tags of team/*            # one rule a line
    keep tags matching v*
    remove tags older than 90d
    remove untagged older than 30d of team/*

What a `keep` line names stays, whatever the others say. Of the rest a tag goes where a `remove tags` line names it, and
an untagged manifest where a `remove untagged` line does. `matching` and `of` are shell patterns, of tags and of
repositories; a tag is as old as its last push, an untagged manifest as the loss of its last tag, or its own push.

A manifest stays as long as an index that stays needs it. What is about a manifest (its `subject`, or a tag
`sha256-<hex>...`) is neither counted nor removed by itself: it stays and goes with its subject. Members are pushed
before their index, so an untagged manifest stays that was pushed, or asked for by a client that pushes, within the time
of grace. https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from hafen.errors import InvalidArgument
from hafen.spec.digest import Digest
from hafen.spec.units import parse_period

_RULE: Final = re.compile(
    r"(?P<verb>keep|remove) (?:(?P<newest>\d{1,9}) newest )?(?P<what>tags|untagged)(?: matching (?P<matching>\S+))?"
    r"(?: older than (?P<age>\S+))?(?: of (?P<repositories>\S+))?",
    re.ASCII,
)
_REFERRER_TAG: Final = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})(?:\..*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `newest` None is all; `age` in seconds."""

    keeps: bool
    tags: bool
    newest: int | None
    matching: str
    age: float
    repositories: str
    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """`pushed_at` in Unix seconds, as all times here."""

    name: str
    manifest: Digest
    pushed_at: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """`unused_since` is when it was pushed, or lost its last tag. `members` are what an index needs. A `fresh` one may
    wait for an index that is about to need it."""

    digest: Digest
    subject: Digest | None
    unused_since: float
    members: frozenset[Digest]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a repository has at one moment."""

    repository: str
    tags: tuple[Tag, ...]
    manifests: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class RemoveTag:
    repository: str
    tag: str
    reason: str

    def describe(self) -> str:
        return f"remove tag {self.repository}:{self.tag} ({self.reason})"


@dataclass(frozen=True, slots=True)
class RemoveManifest:
    repository: str
    digest: Digest
    reason: str

    def describe(self) -> str:
        return f"remove manifest {self.repository}@{self.digest} ({self.reason})"


Step = RemoveTag | RemoveManifest


def parse(text: str) -> tuple[Rule, ...]:
    """InvalidArgument, with the line, for what is no rule, and where nothing would ever be removed."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = " ".join(shlex.split(line, comments=True))
        except ValueError as error:
            raise InvalidArgument(f"line {number} of the retention rules: {error}") from None
        if words:
            rules.append(_rule(words, f"line {number} of the retention rules"))
    if not any(not rule.keeps for rule in rules):
        raise InvalidArgument("the retention rules remove nothing: there is no line that begins with remove")
    return tuple(rules)


def _rule(words: str, where: str) -> Rule:
    found = _RULE.fullmatch(words)
    if found is None:
        raise InvalidArgument(
            f"{where} is none: {words!r}; it is keep [N newest] tags [matching PATTERN] [of REPOSITORIES], or "
            "remove tags|untagged [matching PATTERN] [older than PERIOD] [of REPOSITORIES]"
        )
    keeps, tags = found["verb"] == "keep", found["what"] == "tags"
    if keeps and (found["age"] or not tags):
        raise InvalidArgument(f"{where}: only tags are kept, and by number or name: {words!r}")
    if not keeps and found["newest"]:
        raise InvalidArgument(f"{where}: the newest can be kept, not removed: {words!r}")
    if not tags and found["matching"]:
        raise InvalidArgument(f"{where}: what is untagged has no name that could match: {words!r}")
    return Rule(
        keeps, tags, int(found["newest"]) if found["newest"] else None, found["matching"] or "*",
        parse_period(found["age"]) if found["age"] else 0.0, found["repositories"] or "*", words,
    )  # fmt: skip


def plan(inventory: Inventory, rules: Iterable[Rule], now: float) -> tuple[Step, ...]:
    """What to remove of a repository, in an order in which it can be."""
    valid = [rule for rule in rules if fnmatchcase(inventory.repository, rule.repositories)]
    present = {one.digest for one in inventory.manifests}
    tags = [tag for tag in inventory.tags if _named_subject(tag) not in present]
    doomed = _doomed_tags(tags, valid, now)
    tagged = {tag.manifest for tag in tags if tag.name not in doomed}
    untagged_now = {tag.manifest for tag in tags} - tagged
    old = {
        one.digest: rule.text
        for rule in reversed(valid)  # the first one that names it is the reason
        if not rule.tags
        for one in inventory.manifests
        if not one.fresh
        if (0.0 if one.digest in untagged_now else now - one.unused_since) >= rule.age
    }
    gone = _doomed_manifests(inventory, tagged, old)
    return (
        *(RemoveTag(inventory.repository, name, reason) for name, reason in doomed.items()),
        *(RemoveManifest(inventory.repository, digest, reason) for digest, reason in gone.items()),
    )


def _doomed_tags(tags: list[Tag], rules: list[Rule], now: float) -> dict[str, str]:
    """Reason by tag."""
    kept: set[str] = set()
    for rule in rules:
        if rule.keeps:
            matching = [tag for tag in tags if fnmatchcase(tag.name, rule.matching)]
            matching.sort(key=lambda tag: (tag.pushed_at, tag.name), reverse=True)
            kept.update(tag.name for tag in matching[: rule.newest])
    return {
        tag.name: rule.text
        for tag in tags
        if tag.name not in kept
        for rule in reversed(rules)
        if rule.tags and not rule.keeps and fnmatchcase(tag.name, rule.matching) and now - tag.pushed_at >= rule.age
    }


def _doomed_manifests(inventory: Inventory, tagged: set[Digest], old: Mapping[Digest, str]) -> dict[Digest, str]:
    """Reason by digest, in rounds: what goes may set free what it needed, and takes along what is about it. `old` has
    the reason for those whose time is up."""
    about = _subjects(inventory)
    gone: dict[Digest, str] = {}
    while True:
        staying = [one for one in inventory.manifests if one.digest not in gone]
        needed = {member for one in staying for member in one.members} | tagged
        found: dict[Digest, str] = {}
        for digest in (one.digest for one in staying if one.digest not in needed):
            subject = about.get(digest)
            if subject in gone:
                found[digest] = f"is about {subject}"
            elif subject is None and digest in old:
                found[digest] = old[digest]
        if not found:
            return gone
        gone |= found


def _named_subject(tag: Tag) -> Digest | None:
    """The manifest that a tag of the referrers' schema is about."""
    found = _REFERRER_TAG.fullmatch(tag.name)
    return Digest(f"{found[1]}:{found[2]}") if found else None


def _subjects(inventory: Inventory) -> Mapping[Digest, Digest]:
    """What a manifest is about, where that is in the repository too."""
    present = {one.digest for one in inventory.manifests}
    found = {one.digest: one.subject for one in inventory.manifests}
    found |= {tag.manifest: subject for tag in inventory.tags if (subject := _named_subject(tag)) in present}
    return {digest: subject for digest, subject in found.items() if subject in present and subject != digest}
