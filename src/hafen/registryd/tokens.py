"""Bearer tokens: signed claims, and the scopes that clients ask for; pure.

A token is a JSON Web Token (RFC 7519) signed with HMAC-SHA256, laid out as
https://distribution.github.io/distribution/spec/auth/jwt/ says. To clients it is opaque. The algorithm is ours alone
and never read from the token, so nobody can choose a weaker one (RFC 8725, section 3.1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import msgspec

from hafen.registryd.access import ACTIONS, Claims, Grant
from hafen.registryd.proxies import whole_name
from hafen.spec import reference

ACCESS, REFRESH = "access", "refresh"
CATALOGUE: Final = "registry:catalog:*"

_HEADER: Final = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()


class Resource(msgspec.Struct, frozen=True):
    """An entry of a token's `access`, and a scope that was asked for."""

    type: str
    name: str
    actions: list[str]


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """The claims; times are Unix seconds. `use` is what it is good for, `token` the number of the access token that was
    the password, `password` a fingerprint of the password where there was one."""

    iss: str
    sub: str
    aud: str
    exp: int
    nbf: int
    iat: int
    jti: str
    use: str
    access: list[Resource] = []
    token: int = 0
    password: str = ""


def sign(payload: Payload, key: bytes) -> str:
    body = f"{_HEADER}.{_text(msgspec.json.encode(payload))}"
    return f"{body}.{_text(_mac(body, key))}"


def verified(token: str, key: bytes, use: str, audience: str, now: float) -> Payload | None:
    """The claims of a token that we signed for this use and that is good now; None for any other."""
    body, _, signature = token.rpartition(".")
    header, _, claims = body.partition(".")
    if header != _HEADER or not hmac.compare_digest(_text(_mac(body, key)).encode(), signature.encode()):
        return None
    try:
        payload = msgspec.json.decode(_bytes(claims), type=Payload)
    except (msgspec.MsgspecError, binascii.Error):
        return None
    good = payload.use == use and payload.aud == audience and payload.nbf <= now < payload.exp
    return payload if good else None


def parse_scopes(words: list[str], prefix: str = "") -> list[Resource]:
    """Of `repository:team/app:pull,push registry:catalog:*` words; what cannot be read is left out, and so not granted.
    `prefix` is what the names of repositories lack.

    https://distribution.github.io/distribution/spec/auth/scope/
    """
    found = []
    for word in " ".join(words).split():
        kind, _, rest = word.partition(":")
        name, colon, actions = rest.rpartition(":")
        if colon and (kind == "registry" or (kind == "repository" and reference.is_path(name))):
            whole = whole_name(prefix, name) if kind == "repository" else name
            found.append(Resource(kind, whole, actions.split(",")))
    return found


def wanted_actions(resource: Resource) -> list[str]:
    """In a fixed order; `*` is all of them."""
    return sorted(ACTIONS if "*" in resource.actions else ACTIONS.intersection(resource.actions))


def claims(payload: Payload) -> Claims:
    """What an access token of this payload is for."""
    repositories = tuple(Grant(one.name, frozenset(one.actions)) for one in payload.access if one.type == "repository")
    return Claims(repositories, any(one.type == "registry" and one.name == "catalog" for one in payload.access))


def _mac(body: str, key: bytes) -> bytes:
    return hmac.new(key, body.encode(), hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
