"""Who asks: passwords, access tokens in place of passwords, bearer tokens, and the `/token` service that gives these.

https://distribution.github.io/distribution/spec/auth/token/ (GET) and .../oauth/ (POST). A client that is refused is
told where the service is and which scope it should ask for. Basic credentials are taken with every request as well.

A bearer token lives five minutes and is worth no more than the rights its user has when it is used. A refresh token is
good as long as the password it was given for is, at most half a year; one that was given for an access token ends
with that.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs, urlencode

from hafen.errors import InvalidArgument, Unauthorized
from hafen.http.message import Body, Headers, Reply
from hafen.registryd import tokens
from hafen.registryd.access import ANYBODY, Access, Identity
from hafen.registryd.accesstokens import PREFIX, AccessTokens
from hafen.registryd.address import Address
from hafen.registryd.passwords import Passwords
from hafen.registryd.tokens import Payload, Resource

SERVICE: Final = "hafen-registry"
PATH: Final = "/token"
LIFETIME: Final = 300  # seconds of a bearer token
REFRESH_LIFETIME: Final = 180 * 24 * 3600  # seconds
_MAX_FORM: Final = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class _Proof:
    """Who somebody is, and how they have shown it: what a refresh token has to be checked against."""

    identity: Identity
    token: int = 0
    password: str = ""


class Authentication:
    """Loop thread."""

    def __init__(
        self, access: Access, passwords: Passwords | None, issued: AccessTokens, key: bytes, address: Address
    ) -> None:
        self._access = access
        self._passwords = passwords
        self._issued = issued
        self._key = key
        self._address = address

    async def identify(self, headers: Headers) -> Identity:
        """Who asks; Unauthorized where that is claimed and not so, TooManyRequests where it cannot be verified now."""
        if not self._access.asks:
            return Identity()
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(value.strip())
        return (await self._basic(headers)).identity

    def challenge(self, headers: Headers, scope: str, error: str, space: str = "") -> tuple[str, str]:
        """The header of a refusal: where to get a token, and what for; RFC 6750, section 3. `space` is the registry
        that the names are of, which the token service has to know too."""
        query = f"?{urlencode({'ns': space})}" if space else ""
        words = [f'realm="{self._address.base(headers)}{PATH}{query}"', f'service="{SERVICE}"']
        words += [f'scope="{scope}"'] if scope else []
        words += [f'error="{error}"'] if error else []
        return "WWW-Authenticate", f"Bearer {','.join(words)}"

    def _bearer(self, token: str) -> Identity:
        payload = tokens.verified(token, self._key, tokens.ACCESS, SERVICE, time.time())
        if payload is None:
            raise Unauthorized("authentication required: the token is not good, or not any more")
        proof = self._of_payload(payload)
        return Identity(proof.identity.user, proof.identity.scope, tokens.claims(payload))

    def _of_payload(self, payload: Payload) -> _Proof:
        """Who a token was made for; Unauthorized where what it was made with is not good any more."""
        if payload.token:
            issued = self._issued.get(payload.token)
            if issued is None or not issued.good():
                raise Unauthorized("authentication required: the access token has been revoked, or has ended")
            return _Proof(Identity(payload.sub, issued.scope), payload.token)
        if payload.sub != ANYBODY and payload.password != self._fingerprint(payload.sub):
            raise Unauthorized("authentication required: the password has been changed")
        return _Proof(Identity(payload.sub), password=payload.password)

    def _fingerprint(self, user: str) -> str:
        return self._passwords.fingerprint(user, self._key) if self._passwords else ""

    async def _basic(self, headers: Headers) -> _Proof:
        header = headers.get("authorization")
        return _Proof(Identity()) if header is None else await self._named(*_credentials(header))

    async def _named(self, user: str, password: bytes) -> _Proof:
        if password.startswith(PREFIX.encode()):
            issued = self._issued.find(user, password.decode("utf-8", "replace"))
            if issued is not None:
                return _Proof(Identity(user, issued.scope), issued.number)
        if self._passwords is None or not await self._passwords.right(user, password):
            raise Unauthorized("authentication required: unknown user or wrong password")
        return _Proof(Identity(user), password=self._fingerprint(user))

    # The token service

    async def token(
        self, method: str, query: Mapping[str, list[str]], headers: Headers, body: Body, prefix: str
    ) -> Reply:
        """Answer a request for a token: InvalidArgument for what is none, Unauthorized for wrong credentials. `prefix`
        is what the names in it lack."""
        if not self._access.asks:
            raise InvalidArgument("this registry asks nobody for a name")
        if method == "GET":
            proof = await self._basic(headers)
            refresh = self._refresh(proof) if query.get("offline_token") == ["true"] else ""
            return self._given(proof, query, refresh, prefix)
        form = _form(await body.read(_MAX_FORM))

        def first(name: str) -> str:
            return form.get(name, [""])[0]

        if first("grant_type") == "refresh_token":
            refresh = first("refresh_token")
            payload = tokens.verified(refresh, self._key, tokens.REFRESH, SERVICE, time.time())
            if payload is None:
                raise Unauthorized("authentication required: the refresh token is not good, or not any more")
            proof = self._of_payload(payload)
        elif first("grant_type") == "password":
            proof = await self._named(first("username"), first("password").encode())
            refresh = self._refresh(proof) if first("access_type") == "offline" else ""
        else:
            raise InvalidArgument("unsupported grant_type: password and refresh_token are known")
        return self._given(proof, form, refresh, prefix)

    def _given(self, proof: _Proof, asked: Mapping[str, list[str]], refresh: str, prefix: str) -> Reply:
        service = asked.get("service", [])
        if service not in ([], [""], [SERVICE]):
            raise InvalidArgument(f"the service here is {SERVICE}, not {service[0]!r}")
        now = int(time.time())
        wanted = tokens.parse_scopes(asked.get("scope", []), prefix)
        granted = [found for one in wanted if (found := self._granted(proof.identity, one)) is not None]
        token = tokens.sign(self._payload(proof, tokens.ACCESS, now, LIFETIME, granted), self._key)
        answer = {
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
            "scope": " ".join(f"{one.type}:{one.name}:{','.join(one.actions)}" for one in granted),
        }
        body = json.dumps({**answer, "refresh_token": refresh} if refresh else answer).encode() + b"\n"
        return Reply(200, body, "application/json", (("Cache-Control", "no-store"),))

    def _granted(self, who: Identity, wanted: Resource) -> Resource | None:
        """As much of what was asked for as there is a right to."""
        if wanted.type == "repository":
            actions = [one for one in tokens.wanted_actions(wanted) if self._access.grants(who, wanted.name, one)]
            return Resource(wanted.type, wanted.name, actions) if actions else None
        if (wanted.type, wanted.name) == ("registry", "catalog") and who.user != ANYBODY:
            return Resource(wanted.type, wanted.name, wanted.actions)
        return None

    def _refresh(self, proof: _Proof) -> str:
        if proof.identity.user == ANYBODY:
            return ""
        now = int(time.time())
        return tokens.sign(self._payload(proof, tokens.REFRESH, now, REFRESH_LIFETIME, []), self._key)

    def _payload(self, proof: _Proof, use: str, now: int, lifetime: int, access: list[Resource]) -> Payload:
        return Payload(
            SERVICE, proof.identity.user, SERVICE, now + lifetime, now, now, secrets.token_hex(8), use, access,
            proof.token, proof.password,
        )  # fmt: skip


def _form(data: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(data.decode(), keep_blank_values=True, max_num_fields=100)
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid form: {error}") from error


def _credentials(header: str) -> tuple[str, bytes]:
    """Name and password of a Basic credential; RFC 7617."""
    scheme, _, value = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(value, validate=True).partition(b":")
        if scheme.lower() == "basic" and colon and user and b"\0" not in password:
            return user.decode(), password
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise Unauthorized("authentication required: credentials are Basic or Bearer")
