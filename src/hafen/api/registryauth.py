"""The X-Registry-Auth header: base64url of JSON (moby `registry.DecodeAuthConfig`)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from hafen.api.message import Request
from hafen.errors import InvalidArgument
from hafen.spec.wire import gojson
from hafen.spec.wire.system import AuthConfig

_NAME = "x-registry-auth"
_ALL = "x-registry-config"


def read(headers: Mapping[str, str]) -> AuthConfig:
    """The credentials; anonymous where there are none. InvalidArgument where they cannot be read."""
    text = headers.get(_NAME, "")
    if not text:
        return AuthConfig()
    try:
        return gojson.decode(_decoded(text), AuthConfig)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from error


async def of_push(request: Request) -> AuthConfig:
    """The header, of which nobody's credentials are made where it cannot be read; without one the body, as before there
    was one."""
    if _NAME in request.headers:
        return lenient(request.headers)
    body = await request.body.read(1 << 20)
    try:
        if not body.strip():
            raise InvalidArgument("invalid X-Registry-Auth header: EOF")
        return gojson.decode(body, AuthConfig)
    except InvalidArgument as error:
        raise InvalidArgument(f"bad parameters and missing X-Registry-Auth: {error}") from error


def by_registry(headers: Mapping[str, str]) -> dict[str, AuthConfig]:
    """X-Registry-Config: the credentials of several registries, by their names; as of `lenient`."""
    text = headers.get(_ALL, "")
    try:
        return gojson.decode(_decoded(text), dict[str, AuthConfig]) if text else {}
    except (InvalidArgument, binascii.Error, ValueError):
        return {}


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def lenient(headers: Mapping[str, str]) -> AuthConfig:
    """As `read`, but what cannot be read is anonymous: Docker's pull ignores it."""
    try:
        return read(headers)
    except InvalidArgument:
        return AuthConfig()
