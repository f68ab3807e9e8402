"""Users and passwords out of an htpasswd file."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hafen.errors import InvalidArgument

_REMEMBERED: Final = 300.0  # seconds that a password, once verified, need not be hashed again
_PREFIXES: Final = ("$2y$", "$2b$", "$2a$")

Check = Callable[[bytes, bytes], bool]
InThread = Callable[[Check, bytes, bytes], Awaitable[bool]]


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


class Passwords:
    """Loop thread; hashing is done in another. `users` gives the hashes of the moment."""

    def __init__(self, users: Callable[[], Mapping[str, bytes]]) -> None:
        try:
            import bcrypt
        except ImportError:
            raise InvalidArgument("--htpasswd needs the library bcrypt: pip install 'hafen[crypto]'") from None
        self._verify: Check = bcrypt.checkpw
        self._users = users
        self._nobody = bcrypt.hashpw(b"", bcrypt.gensalt(10))  # so that unknown names take as long
        self._secret = os.urandom(32)
        self._verified: dict[bytes, float] = {}

    async def right(self, user: str, password: bytes, in_thread: InThread) -> bool:
        """Whether this is the user's password."""
        known = self._users().get(user)
        key = hashlib.blake2b(user.encode() + b"\0" + password + b"\0" + (known or b""), key=self._secret).digest()
        if known is not None and self._verified.get(key, 0.0) > time.monotonic():
            return True
        # bcrypt looks at 72 bytes, and the library refuses more
        if not await in_thread(self._verify, password[:72], known or self._nobody) or known is None:
            return False
        now = time.monotonic()
        self._verified = {other: until for other, until in self._verified.items() if until > now}
        self._verified[key] = now + _REMEMBERED
        return True

    def fingerprint(self, user: str, key: bytes) -> str:
        """Changes with the password; empty for who is no user (any more)."""
        hashed = self._users().get(user)
        return "" if hashed is None else hmac.new(key, hashed, hashlib.sha256).hexdigest()[:32]
