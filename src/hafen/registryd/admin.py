"""What only the owner of the registry's root may do, over a unix socket in it: access tokens.

    GET    /tokens              what there is, without secrets
    POST   /tokens              {"user": ..., "scope": ["team/*:pull"], "lifetime": seconds or null}: number and secret
    DELETE /tokens/<number>     revoke
    POST   /retention           {"perform": ..., "rules": text or null}: what is, or would be, removed

`control` is the other end. The file's mode is what protects it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Final, TypeVar

import msgspec

from hafen.errors import Conflict, HafenError, InvalidArgument, NotFound, System
from hafen.http.message import Answer, Body, Head, Reply
from hafen.http.response import Heads
from hafen.registryd import errors, retention
from hafen.registryd.access import parse_scope
from hafen.registryd.accesstokens import AccessToken
from hafen.registryd.request import Parts
from hafen.registryd.retention import RemoveTag

SOCKET: Final = "admin.sock"
_MAX_BODY: Final = 1 << 20  # bytes

T = TypeVar("T")

log = logging.getLogger(__name__)


class TokenRequest(msgspec.Struct, frozen=True):
    """`lifetime` in seconds; None is without end."""

    user: str
    scope: list[str] = []
    lifetime: float | None = None


class TokenAnswer(msgspec.Struct, frozen=True):
    """Times are Unix seconds; `secret` only where it was just made."""

    number: int
    user: str
    scope: list[str] | None
    created_at: float
    expires_at: float | None
    used_at: float | None
    secret: str = ""


class RetentionRequest(msgspec.Struct, frozen=True):
    """`rules` are other ones than the registry's, for a preview."""

    perform: bool
    rules: str | None = None


class RetentionAnswer(msgspec.Struct, frozen=True):
    """A line for each step, and how many there are of each kind."""

    steps: list[str]
    tags: int
    manifests: int


class Admin:
    """Serves the socket."""

    heads = Heads()

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def refusal(self, status: int, message: str) -> Reply:
        return errors.failure(status, "UNKNOWN", message)

    async def __call__(self, head: Head, body: Body, own: object) -> Answer:
        """The boundary of a request."""
        try:
            return await self._answer(head, await body.read(_MAX_BODY))
        except HafenError as error:
            return errors.reply(error)
        except Exception:
            log.exception("%s %s failed", head.method, head.target)
            return errors.failure(500, "UNKNOWN", "internal error: the registry's log has it")

    async def _answer(self, head: Head, body: bytes) -> Answer:
        kind, _, rest = head.target.lstrip("/").partition("/")
        if (head.method, kind, rest) == ("GET", "tokens", ""):
            return _json([_told(token) for token in self._parts.access_tokens.all()])
        if (head.method, kind, rest) == ("POST", "tokens", ""):
            return self._create(_decoded(body, TokenRequest))
        if (head.method, kind) == ("DELETE", "tokens") and rest.isdecimal():
            if not self._parts.access_tokens.revoke(int(rest)):
                raise NotFound(f"there is no access token {rest}")
            return Reply(204)
        if (head.method, kind, rest) == ("POST", "retention", ""):
            return await self._retention(_decoded(body, RetentionRequest))
        raise NotFound(f"no such page: {head.method} {head.target}")

    async def _retention(self, request: RetentionRequest) -> Reply:
        if request.perform and request.rules is not None:
            raise InvalidArgument("other rules than the registry's own can only be previewed")
        rules = None if request.rules is None else retention.parse(request.rules)
        expiry = self._parts.expiry
        steps = await expiry.perform() if request.perform else await expiry.preview(rules)
        tags = sum(isinstance(step, RemoveTag) for step in steps)
        return _json(RetentionAnswer([step.describe() for step in steps], tags, len(steps) - tags))

    def _create(self, request: TokenRequest) -> Reply:
        if not self._parts.access.asks:
            raise Conflict("this registry asks nobody for a name: it was started with neither --htpasswd nor --rules")
        if not request.user or ":" in request.user or not request.user.isprintable():
            raise InvalidArgument(f"not a user's name: {request.user!r}")
        expires_at = None if request.lifetime is None else time.time() + request.lifetime
        token, secret = self._parts.access_tokens.create(request.user, parse_scope(request.scope), expires_at)
        return _json(_told(token, secret), 201)


def _told(token: AccessToken, secret: str = "") -> TokenAnswer:
    scope = None if token.scope is None else [str(grant) for grant in token.scope]
    return TokenAnswer(
        token.number, token.user, scope, token.created_at, token.expires_at, token.used_at, secret
    )  # fmt: skip


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid request: {error}") from error


def _json(value: object, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value) + b"\n", "application/json")


def listening(root: str) -> socket.socket:
    """The socket in the root, mode 0600. The root is this process's, so what is in the way is an earlier one's."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = f"/proc/self/fd/{directory}/{SOCKET}"  # a socket's path has 107 bytes at most; unix(7)
    try:
        if os.path.lexists(place):
            os.unlink(place)
        sock.bind(place)
        os.chmod(place, 0o600)
    except OSError as error:
        sock.close()
        raise System(f"cannot listen on {root}/{SOCKET}: {error.strerror}") from error
    finally:
        os.close(directory)
    return sock
