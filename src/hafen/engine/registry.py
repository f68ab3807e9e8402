"""Registries as the faces ask for them: pull, push, log in, inspect, search; opens the connections these need.

The HTTP library is imported, in a thread, when a registry is first spoken to: it would cost a resting engine its memory
and a starting one its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Rules
from hafen.engine.feed import Reporter
from hafen.engine.imagestore import ImageStore
from hafen.engine.pull import Puller
from hafen.engine.push import Pusher
from hafen.engine.transfers import Transfers
from hafen.errors import InvalidArgument, NotFound, NotImplemented, System, Unavailable
from hafen.spec import platform as platforms
from hafen.spec import reference
from hafen.spec.filters import Filters
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Progress, SearchResult
from hafen.spec.wire.system import AuthConfig, AuthResponse, DistributionInspect

if TYPE_CHECKING:
    from hafen.distribution.repository import Repository

Operation = Callable[[Reporter[Progress]], Awaitable[None]]


class Registries:
    """`Services.registry`; loop thread only. `agent` is the User-Agent."""

    def __init__(self, store: ImageStore, rules: Rules, agent: str) -> None:
        self._store = store
        self.rules = rules
        self._agent = agent
        self._transfers = Transfers()

    @asynccontextmanager
    async def _open(self, name: Reference, auth: AuthConfig, *, push: bool = False) -> AsyncIterator[Repository]:
        module = await asyncio.to_thread(import_module, "hafen.distribution.repository")
        async with module.open_repository(name, credentials(auth), self.rules, self._agent, push=push) as repository:
            yield repository

    def pull(self, name: str, tag: str, platform: str, auth: AuthConfig) -> AsyncIterator[Progress]:
        wanted = _wanted(name, tag)
        target = platforms.parse(platform) if platform else None

        async def operation(report: Reporter[Progress]) -> None:
            async with self._open(wanted, auth) as source:
                puller = Puller(self._store, self._transfers, source, target, report)
                names = [wanted]
                if not (wanted.tag or wanted.digest):
                    names = [Reference(wanted.domain, wanted.path, one) for one in await source.tags()]
                fresh = [await puller.pull(one) for one in names]
                status = "Downloaded newer image" if any(fresh) else "Image is up to date"
                report(Progress(status=f"Status: {status} for {wanted.familiar}"))
                for one in names:
                    puller.check_platform(one)

        return _messages(operation)

    def push(self, name: str, tag: str, auth: AuthConfig) -> AsyncIterator[Progress]:
        wanted = reference.parse(name)
        if wanted.tag or wanted.digest:
            raise InvalidArgument("invalid reference format")
        if tag:
            wanted = reference.parse_repository(name, tag)

        async def operation(report: Reporter[Progress]) -> None:
            report(Progress(status=f"The push refers to repository [{wanted.repository}]"))
            present = self._store.repository_tags(wanted)
            if not present:
                raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}")
            tags = [wanted.tag] if wanted.tag else present
            async with self._open(wanted, auth, push=True) as target:
                module = await asyncio.to_thread(import_module, "hafen.distribution.upload")
                pusher = Pusher(self._store, self._transfers, wanted, module.Uploader(target), report)
                for one in tags:
                    await pusher.push(one)
            self._store.tell("push", wanted.familiar, {"name": wanted.familiar_name})
            self._store.sweep()

        return _messages(operation)

    async def login(self, auth: AuthConfig) -> AuthResponse:
        module = await asyncio.to_thread(import_module, "hafen.distribution.login")
        with worded():
            token = await module.login(auth.server_address, credentials(auth), self.rules, self._agent)
        return AuthResponse(token, "Login Succeeded")

    async def inspect(self, name: str, auth: AuthConfig) -> DistributionInspect:
        raise NotImplemented("asking a registry for a manifest is not implemented by this engine")

    async def search(self, term: str, limit: int | None, filters: Filters, auth: AuthConfig) -> list[SearchResult]:
        raise NotImplemented("searching a registry is not implemented by this engine")


async def _messages(operation: Operation) -> AsyncIterator[Progress]:
    with worded():
        async for message in Reporter[Progress]().messages(operation):
            yield message


@contextmanager
def worded() -> Iterator[None]:
    """Docker answers 500 where a registry cannot be reached; 503 means this engine's own state."""
    try:
        yield
    except Unavailable as error:
        raise System(error.message) from error


def _wanted(name: str, tag: str) -> Reference:
    """What `fromImage` and `tag` mean together; without either tag or digest the whole repository."""
    parsed = reference.parse(name)
    if not tag:
        return parsed
    if ":" in tag:
        return reference.parse(f"{parsed.repository}@{tag}")
    return reference.parse_repository(parsed.repository, tag)


def credentials(auth: AuthConfig) -> Credentials:
    """Also from the `auth` field, base64 of `user:password`."""
    username, password = auth.username, auth.password
    if auth.auth and not username:
        import base64
        import binascii

        try:
            username, _, password = base64.b64decode(auth.auth).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"invalid auth configuration: {error}") from error
    return Credentials(username, password.rstrip("\0"), auth.identity_token, auth.registry_token)
