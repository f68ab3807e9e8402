"""Access tokens: passwords for machines, each for a user and some repositories, until it ends or is revoked.

Only a digest of the secret is kept. The secret has 240 random bits, so a plain digest is as good as a slow one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hafen.registryd.access import Grant, parse_scope
from hafen.storage.database import Database, Value

PREFIX: Final = "hafen_"  # by which people and secret scanners know one
_NOTED: Final = 3600.0  # seconds; the last use is not written more often

_LISTED: Final = 30 * 24 * 3600.0  # seconds that one stays in the list after its end

_COLUMNS: Final = "number, user, scope, created_at, expires_at, used_at"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """One that was made. Times are Unix seconds; `expires_at` None is never, `used_at` None not yet. `scope` None is
    all that its user may."""

    number: int
    user: str
    scope: tuple[Grant, ...] | None
    created_at: float
    expires_at: float | None
    used_at: float | None

    def good(self) -> bool:
        return self.expires_at is None or time.time() < self.expires_at


class AccessTokens:
    """Loop thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, user: str, scope: Sequence[Grant], expires_at: float | None) -> tuple[AccessToken, str]:
        """The token and its secret, which nobody can ask for later."""
        secret = PREFIX + secrets.token_urlsafe(30)
        kept = json.dumps([str(grant) for grant in scope]) if scope else None
        now = time.time()
        with self._database.transaction():
            number = self._database.execute(
                "INSERT INTO access_tokens (user, digest, scope, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
                (user, _digest(secret), kept, now, expires_at),
            ).lastrowid
        return AccessToken(number or 0, user, tuple(scope) or None, now, expires_at, None), secret

    def find(self, user: str, secret: str) -> AccessToken | None:
        """The one with this secret, where it is this user's and still good. Its use is noted."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM access_tokens WHERE digest = ?", (_digest(secret),))
        token = None if row is None else _token(row)
        if token is None or token.user != user or not token.good():
            return None
        now = time.time()
        if now - (token.used_at or 0.0) > _NOTED:
            self._database.execute("UPDATE access_tokens SET used_at = ? WHERE number = ?", (now, token.number))
        return token

    def get(self, number: int) -> AccessToken | None:
        """One that has not been revoked; whether it is still good is another question."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM access_tokens WHERE number = ?", (number,))
        return None if row is None else _token(row)

    def all(self) -> list[AccessToken]:
        return [_token(row) for row in self._database.query(f"SELECT {_COLUMNS} FROM access_tokens ORDER BY number")]

    def revoke(self, number: int) -> bool:
        """Whether it was there."""
        with self._database.transaction():
            return bool(self._database.execute("DELETE FROM access_tokens WHERE number = ?", (number,)).rowcount)

    def forget_ended(self) -> None:
        """Those that ended a month ago are of no more interest in the list."""
        self._database.execute("DELETE FROM access_tokens WHERE expires_at < ?", (time.time() - _LISTED,))


def signing_key(database: Database) -> bytes:
    """What bearer tokens are signed with: made once, so that they outlive a restart."""
    with database.transaction():
        database.execute("INSERT INTO secrets VALUES ('signing', ?) ON CONFLICT DO NOTHING", (secrets.token_bytes(32),))
        row = database.row("SELECT value FROM secrets WHERE name = 'signing'")
    assert row is not None
    assert isinstance(row[0], bytes)
    return row[0]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _token(row: tuple[Value, ...]) -> AccessToken:
    number, user, scope, created_at, expires_at, used_at = row
    grants = None if scope is None else parse_scope(json.loads(str(scope)))
    return AccessToken(
        int(number or 0), str(user), grants, float(created_at or 0),
        None if expires_at is None else float(expires_at), None if used_at is None else float(used_at),
    )  # fmt: skip
