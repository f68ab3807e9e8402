"""Users and passwords out of an htpasswd file."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final

from hafen.errors import InvalidArgument
from hafen.registryd.errors import TooManyRequests

MAX_WAITING: Final = 200  # passwords that are hashed, or wait for it; those over it are refused
_REMEMBERED: Final = 300.0  # seconds that a password, once verified, need not be hashed again
# Cost, salt, digest. Of the salt's last character two bits count, and the library refuses any other.
_HASH: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)


def parse_htpasswd(text: str) -> dict[str, bytes]:
    """Hash by user; InvalidArgument for other hashes than bcrypt (`htpasswd -B`), which are too weak to keep."""
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not colon or not user or not _HASH.fullmatch(hashed):
            raise InvalidArgument(f"line {number} of the htpasswd file is not NAME:bcrypt hash (htpasswd -B)")
        users[user] = hashed.encode()
    return users


class Passwords:
    """Loop thread; `executor` hashes. It is nobody else's: who guesses passwords keeps waiting who else does, and no
    blob. `users` gives the hashes of the moment."""

    def __init__(self, users: Callable[[], Mapping[str, bytes]], executor: Executor) -> None:
        try:
            import bcrypt
        except ImportError:
            raise InvalidArgument("--htpasswd needs the library bcrypt: pip install 'hafen[crypto]'") from None
        self._verify = bcrypt.checkpw
        self._users = users
        self._executor = executor
        self._secret = os.urandom(32)
        self._verified: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Future[bool]] = {}

    async def right(self, user: str, password: bytes) -> bool:
        """Whether this is the user's password. TooManyRequests where too many are being verified."""
        users = self._users()
        known = users.get(user)
        key = self._keyed(user.encode() + b"\0" + password + b"\0" + (known or b""))
        if known is not None and self._verified.get(key, 0.0) > time.monotonic():
            return True
        if not await self._matches(key, password, known or self._somebody(user, users)) or known is None:
            return False
        now = time.monotonic()
        self._verified = {other: until for other, until in self._verified.items() if until > now}
        self._verified[key] = now + _REMEMBERED
        return True

    def _keyed(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._secret).digest()

    def _somebody(self, user: str, users: Mapping[str, bytes]) -> bytes | None:
        """The hash that an unknown name is checked against, always the same one: so it takes as long as a user's."""
        hashes = tuple(users.values())
        return hashes[int.from_bytes(self._keyed(user.encode())[:8], "big") % len(hashes)] if hashes else None

    async def _matches(self, key: bytes, password: bytes, hashed: bytes | None) -> bool:
        """Hashed once for all requests that bring it at the same time."""
        if hashed is None:
            return False  # there is no user at all, and nothing to find out
        found = self._running.get(key)
        if found is None:
            if len(self._running) >= MAX_WAITING:
                raise TooManyRequests("too many passwords are being verified", 1)
            # bcrypt looks at 72 bytes, and the library refuses more
            loop = asyncio.get_running_loop()
            found = loop.run_in_executor(self._executor, self._verify, password[:72], hashed)
            self._running[key] = found
            found.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(found)

    def fingerprint(self, user: str, key: bytes) -> str:
        """Changes with the password; empty for who is no user (any more)."""
        hashed = self._users().get(user)
        return "" if hashed is None else hmac.new(key, hashed, hashlib.sha256).hexdigest()[:32]
