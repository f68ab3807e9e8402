"""What somebody may: rules per user, narrowed by what an access token and a bearer token are for.

Rules are lines `WHO REPOSITORIES ACTIONS`, for example `anna team/* pull,push`; `*` as WHO is everybody, also without a
name, and `@` everybody with one; REPOSITORIES is a shell pattern whose `*` crosses slashes; actions are pull, push and
delete. What no rule allows is forbidden. Without rules, users may do everything, and others nothing; a registry that
has neither users nor rules asks nobody for a name, and everybody may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from hafen.errors import Forbidden, InvalidArgument, Unauthorized

ACTIONS: Final = frozenset(("pull", "push", "delete"))
ANYBODY: Final = ""  # who gives no name


class InsufficientScope(Unauthorized):
    """The user may do it, but the token was not made for it: another one helps."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on the repositories that a shell pattern names."""

    repositories: str
    actions: frozenset[str]

    def allows(self, repository: str, action: str) -> bool:
        return action in self.actions and fnmatchcase(repository, self.repositories)

    def __str__(self) -> str:
        return f"{self.repositories}:{','.join(sorted(self.actions))}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: who may do what where."""

    who: str
    grant: Grant

    def allows(self, user: str, repository: str, action: str) -> bool:
        named = self.who == "*" or (user != ANYBODY and self.who in ("@", user))
        return named and self.grant.allows(repository, action)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a bearer token is for: repositories by their whole names, and whether the catalogue."""

    repositories: tuple[Grant, ...] = ()
    catalogue: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and what narrows their rights: the scope of an access token, the claims of a bearer token. None where
    nothing does."""

    user: str = ANYBODY
    scope: tuple[Grant, ...] | None = None
    claims: Claims | None = None


def parse_actions(text: str) -> frozenset[str]:
    """InvalidArgument where there is anything but pull, push and delete in it."""
    actions = frozenset(text.split(","))
    if not ACTIONS.issuperset(actions):
        raise InvalidArgument(f"actions are pull, push and delete, with commas between them, not {text!r}")
    return actions


def parse_rules(text: str) -> tuple[Rule, ...]:
    """InvalidArgument, with the line, for what is no rule."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or not ACTIONS.issuperset(words[2].split(",")):
            raise InvalidArgument(f"line {number} of the rules is not WHO REPOSITORIES pull,push,delete: {line!r}")
        rules.append(Rule(words[0], Grant(words[1], parse_actions(words[2]))))
    return tuple(rules)


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of a registry. `asks` is whether it wants to know who comes; `rules` gives those of the moment."""

    asks: bool = False
    rules: Callable[[], tuple[Rule, ...]] | None = None

    def may(self, who: Identity, repository: str, action: str) -> bool:
        """Whether everything that bears on it allows it."""
        return self.grants(who, repository, action) and (
            who.claims is None or any(grant.allows(repository, action) for grant in who.claims.repositories)
        )

    def grants(self, who: Identity, repository: str, action: str) -> bool:
        """Whether rules and scope allow it: what a bearer token for it would be given for."""
        if not self.asks:
            return True
        if who.scope is not None and not any(grant.allows(repository, action) for grant in who.scope):
            return False
        if self.rules is None:
            return who.user != ANYBODY
        return any(rule.allows(who.user, repository, action) for rule in self.rules())

    def require(self, who: Identity, repository: str, action: str) -> None:
        """Unauthorized where a name could help, InsufficientScope where another token does, Forbidden where neither."""
        if self.may(who, repository, action):
            return
        if self.grants(who, repository, action):
            raise InsufficientScope(f"authentication required: the token is not for {action} on {repository}")
        if who.user == ANYBODY:
            raise Unauthorized("authentication required")
        raise Forbidden(f"{who.user} may not {action} {repository}")

    def require_name(self, who: Identity) -> None:
        """For pages that belong to no repository: Unauthorized where nobody in particular asks, and that is known."""
        if self.asks and who.user == ANYBODY:
            raise Unauthorized("authentication required")

    def require_catalogue(self, who: Identity) -> None:
        self.require_name(who)
        if who.claims is not None and not who.claims.catalogue:
            raise InsufficientScope("authentication required: the token is not for the catalogue")


def parse_scope(words: Sequence[str]) -> tuple[Grant, ...]:
    """`team/*:pull,push` words; InvalidArgument."""
    grants = []
    for word in words:
        repositories, colon, actions = word.rpartition(":")
        if not colon or not repositories or any(char.isspace() for char in repositories):
            raise InvalidArgument(f"a scope is REPOSITORIES:ACTIONS, for example team/*:pull,push, not {word!r}")
        grants.append(Grant(repositories, parse_actions(actions)))
    return tuple(grants)
