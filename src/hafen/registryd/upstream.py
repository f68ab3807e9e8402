"""Another registry, asked for a client of ours: `distribution` with its errors in our words.

What goes wrong between that registry and us is never the client's: a refusal of our credentials there is no challenge
here. Only that we ask too often is passed on, with the time to wait; a short one is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Final, Self

from hafen.distribution import referrers
from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Endpoint, Rules, insecure
from hafen.distribution.repository import ManifestData, Repository
from hafen.distribution.transport import Response, Target, Transport, Unreachable
from hafen.distribution.upload import Uploader
from hafen.errors import Corrupt, HafenError, NotFound, Unavailable
from hafen.registryd.errors import BlobUnknown, ManifestUnknown, TooManyRequests
from hafen.registryd.proxies import Proxy
from hafen.spec.digest import Digest
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor

PATIENCE: Final = 15.0  # seconds for a small answer, with all attempts at it
HASTE: Final = 5.0  # seconds, where there is something to give in its place


class Away(Unavailable):
    """It does not answer, or with a status of its own trouble: whatever else is asked of it now will fare no better."""


class _Busy(Unreachable):
    """429, which is not worth repeating before `after` seconds; None where it does not say."""

    def __init__(self, message: str, after: int | None) -> None:
        super().__init__(message)
        self.after = after


class _Line(Transport):
    """Where it is asked too often, that is the answer: the client knows better than we whether to wait for long."""

    @asynccontextmanager
    async def request(self, endpoint: Endpoint, target: Target) -> AsyncIterator[Response]:
        async with super().request(endpoint, target) as response:
            if response.status == 429:
                said = response.headers.get("Retry-After", "")
                after = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else None
                if after is None or after > HASTE:
                    raise _Busy(f'{target.method.title()} "{target.url}": too many requests', after)
            yield response


class Upstream:
    """`async with`: connections and tokens are kept that long."""

    def __init__(self, proxy: Proxy, certificates: tuple[str, ...], agent: str) -> None:
        self._proxy = proxy
        rules = Rules(certificates=certificates)
        scheme, _, rest = proxy.url.partition("://")
        host = rest.partition("/")[0]
        self._endpoint = Endpoint(f"{scheme}://{host}/v2", not insecure(host, rules))
        self._transport = _Line(rules, Credentials(proxy.username, proxy.password), agent)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    def _repository(self, name: str) -> Repository:
        wanted = Reference(self._endpoint.host, self._proxy.path(name))
        return Repository(self._transport, wanted, [self._endpoint], "pull")

    async def digest(self, name: str, tag: str) -> Digest | None:
        """What a tag means there; None where the registry does not say. ManifestUnknown, Unavailable; Away and
        TooManyRequests, here as below, are kinds of that which concern the whole registry."""
        with self._worded():
            async with asyncio.timeout(HASTE):
                return await self._repository(name).digest(tag)

    async def manifest(self, name: str, reference: str) -> ManifestData:
        """ManifestUnknown, Unavailable."""
        with self._worded():
            async with asyncio.timeout(PATIENCE):
                return await self._repository(name).manifest(reference)

    async def tags(self, name: str) -> list[str]:
        with self._worded():
            async with asyncio.timeout(PATIENCE):
                return await self._repository(name).tags()

    async def referrers(self, name: str, subject: Digest) -> list[Descriptor]:
        """Of what is about a manifest; also of a registry that knows them only by their tags."""
        with self._worded(away=Unreachable):  # a refusal is no more than Unavailable there
            async with asyncio.timeout(HASTE):
                return await referrers.listed(self._repository(name), subject)

    async def size(self, name: str, digest: Digest) -> int | None:
        """Of a blob; None where it is not there."""
        with self._worded():
            async with asyncio.timeout(PATIENCE):
                return await Uploader(self._repository(name)).size(digest)

    async def blob(self, name: str, digest: Digest, size: int, offset: int) -> AsyncGenerator[bytes, None]:
        """From `offset`; broken connections are resumed. Not verified. BlobUnknown, Unavailable."""
        with self._worded(BlobUnknown):
            descriptor = Descriptor("application/octet-stream", digest, size)
            async with aclosing(self._repository(name).blob(descriptor, offset)) as pieces:
                async for piece in pieces:
                    yield piece

    @contextmanager
    def _worded(
        self, unknown: type[HafenError] = ManifestUnknown, away: type[Unavailable] = Unavailable
    ) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            raise unknown(f"{self._proxy.url}: {error.message}") from error
        except TimeoutError as error:
            raise Away(f"{self._proxy.url} does not answer") from error
        except _Busy as error:
            raise TooManyRequests(f"{self._proxy.url}: {error.message}", error.after) from error
        except away as error:
            raise Away(f"{self._proxy.url}: {error.message}") from error
        except Corrupt as error:
            raise Unavailable(f"{self._proxy.url} answered something else: {error.message}") from error
        except HafenError as error:
            raise Unavailable(f"{self._proxy.url}: {error.message}") from error
