"""Who asks, and what they may: htpasswd for the first, a file of rules for the second.

Rules are lines `WHO REPOSITORIES ACTIONS`, for example `anna team/* pull,push`; `*` as WHO is everybody, also without a
name, and `@` everybody with one; REPOSITORIES is a shell pattern whose `*` crosses slashes; actions are pull, push and
delete. What no rule allows is forbidden. Without rules, users may do everything, and others nothing; without htpasswd
everybody may do everything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from hafen.errors import Forbidden, InvalidArgument, Unauthorized

ACTIONS: Final = frozenset(("pull", "push", "delete"))
ANYBODY: Final = ""  # who gives no name
_REMEMBERED: Final = 300.0  # seconds that a password, once verified, need not be hashed again
_PREFIXES: Final = ("$2y$", "$2b$", "$2a$")

Check = Callable[[bytes, bytes], bool]
InThread = Callable[[Check, bytes, bytes], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: who may do what where."""

    who: str
    repositories: str
    actions: frozenset[str]

    def allows(self, user: str, repository: str, action: str) -> bool:
        return (
            action in self.actions
            and (self.who == "*" or (user != ANYBODY and self.who in ("@", user)))
            and fnmatchcase(repository, self.repositories)
        )


def parse_rules(text: str) -> tuple[Rule, ...]:
    """InvalidArgument, with the line, for what is no rule."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or not ACTIONS.issuperset(words[2].split(",")):
            raise InvalidArgument(f"line {number} of the rules is not WHO REPOSITORIES pull,push,delete: {line!r}")
        rules.append(Rule(words[0], words[1], frozenset(words[2].split(","))))
    return tuple(rules)


def parse_htpasswd(text: str) -> dict[str, bytes]:
    """Hash by user; InvalidArgument for other hashes than bcrypt (`htpasswd -B`), which are too weak to keep."""
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not colon or not user or not hashed.startswith(_PREFIXES):
            raise InvalidArgument(f"line {number} of the htpasswd file is not NAME:bcrypt hash (htpasswd -B)")
        users[user] = hashed.encode()
    return users


class Access:
    """Everybody may do everything."""

    realm = "Hafen registry"
    asks = False  # whether clients have to say who they are

    async def user(self, headers: Mapping[str, str], in_thread: InThread) -> str:
        """Who asks; Unauthorized where that is claimed and not so."""
        return ANYBODY

    def may(self, user: str, repository: str, action: str) -> bool:
        return True

    def require(self, user: str, repository: str, action: str) -> None:
        """Unauthorized where a name could help, Forbidden where it did not."""
        if not self.may(user, repository, action):
            if user == ANYBODY:
                raise Unauthorized("authentication required")
            raise Forbidden(f"{user} may not {action} {repository}")


class Htpasswd(Access):
    asks = True

    def __init__(self, users: Mapping[str, bytes], rules: tuple[Rule, ...] | None) -> None:
        try:
            import bcrypt
        except ImportError:
            raise InvalidArgument("--htpasswd needs the library bcrypt: pip install 'hafen[crypto]'") from None
        self._verify: Check = bcrypt.checkpw
        self._users = users
        self._nobody = bcrypt.hashpw(b"", bcrypt.gensalt(10))  # so that unknown names take as long
        self._rules = rules
        self._secret = os.urandom(32)
        self._verified: dict[bytes, float] = {}

    async def user(self, headers: Mapping[str, str], in_thread: InThread) -> str:
        header = headers.get("authorization")
        if header is None:
            return ANYBODY
        user, password = _basic(header)
        key = hashlib.blake2b(user.encode() + b"\0" + password, key=self._secret).digest()
        if self._verified.get(key, 0.0) > time.monotonic():
            return user
        known = self._users.get(user)
        # bcrypt looks at 72 bytes, and the library refuses more
        if not await in_thread(self._verify, password[:72], known or self._nobody) or known is None:
            raise Unauthorized("authentication required: unknown user or wrong password")
        now = time.monotonic()
        self._verified = {other: until for other, until in self._verified.items() if until > now}
        self._verified[key] = now + _REMEMBERED
        return user

    def may(self, user: str, repository: str, action: str) -> bool:
        if self._rules is None:
            return user != ANYBODY
        return any(rule.allows(user, repository, action) for rule in self._rules)


def _basic(header: str) -> tuple[str, bytes]:
    """Name and password of a Basic credential; RFC 7617."""
    scheme, _, value = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(value, validate=True).partition(b":")
        if scheme.lower() == "basic" and colon and user and b"\0" not in password:
            return user.decode(), password
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise Unauthorized("authentication required: only Basic credentials are known here")
