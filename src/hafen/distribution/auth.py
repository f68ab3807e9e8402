"""Who we are to a registry: basic authentication, and bearer tokens with scopes, refresh and identity tokens.

https://distribution.github.io/distribution/spec/auth/ (token.md, oauth.md). A token is fetched for the scope of a
request when the registry has asked for one, and again when it has expired or was refused.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import msgspec

from hafen.distribution import challenge as challenges
from hafen.distribution.challenge import Challenge
from hafen.distribution.endpoint import Endpoint
from hafen.errors import System, Unauthorized, Unavailable

_CLIENT = "docker"  # token services know this client id
_SECONDS = 60  # of a token that does not say how long it lives
_EARLY = 5  # seconds before its end a token is not used any more

Send = Callable[[str, str, Mapping[str, str], bytes | None], Awaitable[tuple[int, bytes]]]
"""(method, url, headers, form) -> (status, body)"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client gave; all empty is anonymous. `identity` is a refresh token, `registry` a bearer token."""

    username: str = ""
    password: str = ""
    identity: str = ""
    registry: str = ""

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: int = 0
    refresh_token: str = ""


class Authorizer:
    """Challenges and tokens of one operation."""

    def __init__(self, credentials: Credentials, send: Send, offline: bool = False) -> None:
        self._credentials = credentials
        self._send = send
        self._offline = offline
        self._challenges: dict[str, Challenge] = {}  # by origin
        self._tokens: dict[tuple[str, tuple[str, ...]], tuple[str, float]] = {}  # value, end
        self.refresh_token = ""

    def remember(self, endpoint: Endpoint, headers: Sequence[str]) -> Challenge | None:
        """What an endpoint asks for from now on: bearer where it offers that, else basic."""
        offered = {one.scheme: one for one in challenges.parse(headers)}
        chosen = offered.get("bearer") or offered.get("basic")
        if chosen is not None:
            self._challenges[endpoint.origin] = chosen
        return chosen

    async def header(self, endpoint: Endpoint, scope: tuple[str, ...]) -> str | None:
        """The Authorization header for a request, if one is needed."""
        if self._credentials.registry and not endpoint.mirror:
            return f"Bearer {self._credentials.registry}"
        challenge = self._challenges.get(endpoint.origin)
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._credentials.basic if self._credentials.username and not endpoint.mirror else None
        token, end = self._tokens.get((endpoint.origin, scope), ("", 0.0))
        if time.monotonic() > end:
            token = await self._fetch(endpoint, challenge, scope)
        return f"Bearer {token}"

    async def challenged(
        self, endpoint: Endpoint, what: str, scope: tuple[str, ...], headers: Sequence[str], used: str | None
    ) -> bool:
        """After a 401: whether asking once more can help. System where credentials are needed and there are none."""
        chosen = self.remember(endpoint, headers)
        if chosen is None:
            return False
        if chosen.scheme == "basic":
            if used is None and (not self._credentials.username or endpoint.mirror):
                raise System(f"{what}: no basic auth credentials")
            return used is None
        self._tokens.pop((endpoint.origin, scope), None)
        return not self._credentials.registry

    async def _fetch(self, endpoint: Endpoint, challenge: Challenge, scope: tuple[str, ...]) -> str:
        realm = challenge.parameters.get("realm", "")
        try:
            parts = urlsplit(realm)
        except ValueError as error:
            raise System(f"{endpoint.host}: invalid token service {realm!r}") from error
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise System(f"{endpoint.host}: invalid token service {realm!r}")
        credentials = Credentials() if endpoint.mirror else self._credentials
        if parts.scheme == "http" and endpoint.origin.startswith("https:") and endpoint.verify:
            raise System(f"{endpoint.host}: refused to ask for a token over plain HTTP at {realm}")
        service = challenge.parameters.get("service", "")
        wanted = scope or tuple(challenge.parameters.get("scope", "").split())
        if credentials.identity:
            form = {
                "grant_type": "refresh_token", "refresh_token": credentials.identity, "service": service,
                "scope": " ".join(wanted), "client_id": _CLIENT,
            }  # fmt: skip
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            status, data = await self._send("POST", realm, headers, urlencode(form).encode())
        else:
            query = [("service", service)] if service else []
            query += [("scope", one) for one in wanted]
            headers = {}
            if credentials.username:
                query += [("account", credentials.username), ("client_id", _CLIENT)]
                query += [("offline_token", "true")] if self._offline else []
                headers = {"Authorization": credentials.basic}
            separator = "&" if parts.query else "?"
            status, data = await self._send("GET", f"{realm}{separator}{urlencode(query)}", headers, None)
        return self._kept(endpoint, scope, realm, status, data)

    def _kept(self, endpoint: Endpoint, scope: tuple[str, ...], realm: str, status: int, data: bytes) -> str:
        if status in (401, 403):
            words = "unauthorized: incorrect username or password" if status == 401 else "denied: access forbidden"
            raise Unauthorized(f'Get "{realm}": {words}')
        if status >= 500 or status == 429:
            raise Unavailable(f'Get "{realm}": received unexpected HTTP status: {status}')
        try:
            answer = msgspec.json.decode(data, type=_Token)
        except msgspec.DecodeError as error:
            raise System(f'Get "{realm}": status {status}, and no token in the answer') from error
        token = answer.token or answer.access_token
        if status != 200 or not token or any(char in token for char in "\r\n"):
            raise System(f'Get "{realm}": status {status}, and no token in the answer')
        self.refresh_token = answer.refresh_token or self.refresh_token
        end = time.monotonic() + max(answer.expires_in, _SECONDS) - _EARLY
        self._tokens[(endpoint.origin, scope)] = (token, end)
        return token
