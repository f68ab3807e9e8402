"""Another registry, asked for a client of ours: `distribution` with its errors in our words.

What goes wrong between that registry and us is never the client's: a refusal of our credentials there is no challenge
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Final, Self

from hafen.distribution import referrers
from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Endpoint, Rules, insecure
from hafen.distribution.repository import ManifestData, Repository
from hafen.distribution.transport import Transport
from hafen.distribution.upload import Uploader
from hafen.errors import Corrupt, HafenError, NotFound, Unavailable
from hafen.registryd.errors import BlobUnknown, ManifestUnknown
from hafen.registryd.proxies import Proxy
from hafen.spec.digest import Digest
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor

PATIENCE: Final = 15.0  # seconds for a small answer, with all attempts at it
HASTE: Final = 5.0  # seconds, where there is something to give in its place


class Upstream:
    """`async with`: connections and tokens are kept that long."""

    def __init__(self, proxy: Proxy, certificates: tuple[str, ...], agent: str) -> None:
        self._proxy = proxy
        rules = Rules(certificates=certificates)
        scheme, _, rest = proxy.url.partition("://")
        host = rest.partition("/")[0]
        self._endpoint = Endpoint(f"{scheme}://{host}/v2", not insecure(host, rules))
        self._transport = Transport(rules, Credentials(proxy.username, proxy.password), agent)

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
        """What a tag means there; None where the registry does not say. ManifestUnknown, Unavailable."""
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
        with self._worded():
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
    def _worded(self, unknown: type[HafenError] = ManifestUnknown) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            raise unknown(f"{self._proxy.url}: {error.message}") from error
        except TimeoutError as error:
            raise Unavailable(f"{self._proxy.url} does not answer") from error
        except Corrupt as error:
            raise Unavailable(f"{self._proxy.url} answered something else: {error.message}") from error
        except HafenError as error:
            raise Unavailable(f"{self._proxy.url}: {error.message}") from error
