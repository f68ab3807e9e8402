"""Registries as the faces ask for them: pull, push, log in, inspect, search; opens the connections these need.

The HTTP library is imported, in a thread, when a registry is first spoken to: it would cost a resting engine its memory
and a starting one its time.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Rules, domain_of
from hafen.engine.feed import Reporter, consume
from hafen.engine.imagestore import ImageStore
from hafen.engine.localregistry import Linking, LocalRegistry
from hafen.engine.pull import Puller
from hafen.engine.push import Announce, Pusher
from hafen.engine.transfers import Transfers, Uploader
from hafen.errors import Corrupt, InvalidArgument, NotFound, System, Unauthorized, Unavailable
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import platform as platforms
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.spec.filters import Filters
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor, Platform, Progress, SearchResult
from hafen.spec.wire.system import AuthConfig, AuthResponse, DistributionInspect, IndexInfo, RegistryConfig

if TYPE_CHECKING:
    from hafen.distribution.repository import Repository

_RESULTS, _MOST_RESULTS = 25, 100
_SEARCH_FILTERS = frozenset(("is-automated", "is-official", "stars"))

Operation = Callable[[Reporter[Progress]], Awaitable[None]]


class Registries:
    """`Services.registry`; loop thread only. `agent` is the User-Agent."""

    def __init__(self, store: ImageStore, rules: Rules, agent: str) -> None:
        self._store = store
        self._rules = rules
        self._agent = agent
        self._transfers = Transfers()
        self.local: LocalRegistry | None = None  # where this engine serves one

    def info(self) -> RegistryConfig:
        """What `docker info` tells of mirrors and insecure registries."""
        hub = IndexInfo(name="docker.io", mirrors=list(self._rules.mirrors), secure=True, official=True)
        names = [one for one in self._rules.insecure if "/" not in one]
        return RegistryConfig(
            insecure_registry_cidrs=[*(one for one in self._rules.insecure if "/" in one), "127.0.0.0/8"],
            index_configs={"docker.io": hub, **{name: IndexInfo(name=name) for name in names}},
            mirrors=list(self._rules.mirrors) or None,
        )

    @asynccontextmanager
    async def _open(self, name: Reference, auth: AuthConfig, *, push: bool = False) -> AsyncIterator[Repository]:
        module = await asyncio.to_thread(import_module, "hafen.distribution.repository")
        async with module.open_repository(name, credentials(auth), self._rules, self._agent, push=push) as repository:
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

    def push(
        self,
        name: str,
        tag: str,
        auth: AuthConfig,
        platform: platforms.Platform | None = None,
        referrers: bool = False,
    ) -> AsyncIterator[Progress]:
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
                uploader: Uploader = module.Uploader(target)
                if self.local is not None and self.local.serves(wanted.domain):
                    uploader = Linking(self.local, wanted.path, uploader)
                announce: Announce | None = None
                if referrers:
                    listing = await asyncio.to_thread(import_module, "hafen.distribution.referrers")
                    announce = functools.partial(listing.announce, target)
                pusher = Pusher(self._store, self._transfers, wanted, uploader, report)
                try:
                    for one in tags:
                        await pusher.push(one, platform, announce)
                finally:
                    self._store.sweep()  # what was compressed for it
            self._store.tell("push", wanted.familiar, {"name": wanted.familiar_name})

        return _messages(operation)

    async def login(self, auth: AuthConfig) -> AuthResponse:
        module = await asyncio.to_thread(import_module, "hafen.distribution.login")
        try:
            token = await module.login(auth.server_address, credentials(auth), self._rules, self._agent)
        except Unavailable as error:
            raise System(error.message) from error
        return AuthResponse(token, "Login Succeeded")

    async def fetch_manifest(self, repository: Reference, digest: str, auths: Mapping[str, AuthConfig]) -> bytes:
        """A manifest or index by its digest, as the registry has it."""
        async with self._open(repository, auth_of(repository, auths)) as source:
            return (await source.manifest(digest)).data

    async def fetch_blob(self, repository: Reference, digest: Digest, auths: Mapping[str, AuthConfig]) -> None:
        """Bring a blob from where it is known to be; Corrupt where something else comes."""
        alone = self._transfers.alone(f"blob {digest}")
        async with self._open(repository, auth_of(repository, auths)) as source, alone:
            module = await asyncio.to_thread(import_module, "hafen.distribution.upload")
            size = await module.Uploader(source).size(digest)
            if size is None:
                raise NotFound(f"{repository.familiar_name} has no blob {digest}")
            with self._store.content.partial(digest, size) as partial:

                def store(chunks: Iterator[bytes]) -> bool:
                    for _ in partial.arrived():
                        pass
                    for chunk in chunks:
                        partial.write(chunk)
                    return partial.commit()

                async with aclosing(source.blob(Descriptor(digest=digest, size=size), partial.offset)) as stream:
                    whole = await consume(stream, store)
            if not whole:
                raise Corrupt(f"{repository.familiar_name} gave something else for {digest}")

    async def inspect(self, name: str, auth: AuthConfig) -> DistributionInspect:
        """What a name stands for in its registry, and the platforms it is for."""
        if digests.is_hex(name, 64):
            raise System("no manifest found for full image ID")
        wanted = reference.parse(name).with_default_tag()
        with worded():
            async with self._open(wanted, auth) as source:
                found = await source.manifest(wanted.digest or wanted.tag or "")
                descriptor = Descriptor(found.media_type, found.digest, len(found.data))
                if found.media_type in documents.INDEXES:
                    entries = documents.read_index(found.data).manifests
                    return DistributionInspect(descriptor, [one.platform for one in entries if one.platform])
                document = documents.read_image(await source.small(documents.read_manifest(found.data).config))
        place = Platform(
            architecture=document.architecture, os=document.os, os_version=document.os_version, variant=document.variant
        )
        return DistributionInspect(descriptor, [place])

    async def search(self, term: str, limit: int | None, filters: Filters, auth: AuthConfig) -> list[SearchResult]:
        """Repositories whose names have the term in them: Docker Hub's, or with `host/term` those of a registry."""
        count = limit or _RESULTS
        if not 1 <= count <= _MOST_RESULTS:
            raise InvalidArgument(f"limit {count} is outside the range of [1, {_MOST_RESULTS}]")
        filters.check(_SEARCH_FILTERS)
        for flag in ("is-automated", "is-official"):
            filters.flag(flag, False)
        stars = max((_stars(text) for text in filters.get("stars")), default=0)
        domain, path = _searched(term)
        module = await asyncio.to_thread(import_module, "hafen.distribution.search")
        with worded():
            found: list[SearchResult] = await module.search(domain, path, count, credentials(auth), self._rules)
        return [one for one in found if one.star_count >= stars and _matches(one, filters)]


def auth_of(repository: Reference, auths: Mapping[str, AuthConfig]) -> AuthConfig:
    """The credentials for a repository's registry, which clients name as `docker login` does."""
    return next((auth for server, auth in auths.items() if domain_of(server) == repository.domain), AuthConfig())


def _searched(term: str) -> tuple[str, str]:
    """Registry and what to look for there; a first part without dot, colon or `localhost` is no registry."""
    host, slash, rest = term.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        if host in ("docker.io", "index.docker.io"):
            host = reference.DEFAULT_DOMAIN
        return host, rest
    return reference.DEFAULT_DOMAIN, term


def _matches(found: SearchResult, filters: Filters) -> bool:
    return (
        filters.flag("is-official", found.is_official) == found.is_official
        and filters.flag("is-automated", found.is_automated) == found.is_automated
    )


def _stars(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise InvalidArgument(f"invalid filter 'stars={text}': strconv.Atoi: parsing \"{text}\": invalid syntax")
    if len(text) > 19:
        raise InvalidArgument(f"invalid filter 'stars={text}': strconv.Atoi: parsing \"{text}\": value out of range")
    return int(text)


async def _messages(operation: Operation) -> AsyncIterator[Progress]:
    with worded():
        async for message in Reporter[Progress]().messages(operation):
            yield message


@contextmanager
def worded() -> Iterator[None]:
    """Docker answers 500 where a registry cannot be reached or refuses us: 503 and 401 would be about this engine, and
    the docker command would ask for a password."""
    try:
        yield
    except (Unavailable, Unauthorized) as error:
        raise System(error.message) from error


def _wanted(name: str, tag: str) -> Reference:
    """What `fromImage` and `tag` mean together; without either tag or digest the whole repository."""
    parsed = reference.parse(name)
    if not tag:
        return parsed
    if digests.known(tag):
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
