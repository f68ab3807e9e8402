"""The registry that this engine serves over its own content store: a push to it moves no blob."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hafen.engine.transfers import Open, Uploader
from hafen.spec.digest import Digest


class LocalRegistry(Protocol):
    """What the engine has of the registry in its own process."""

    def serves(self, domain: str) -> bool:
        """Whether `host[:port]` of an image's name means this registry."""

    async def link(self, path: str, digest: Digest, size: int) -> None:
        """A blob of the content store is from now on the repository's too. Forbidden where it may have none."""


class Linking:
    """An `Uploader` whose blobs stay where they are; whatever else is asked goes to the registry as any client's
    requests do, so that its rights hold."""

    def __init__(self, registry: LocalRegistry, path: str, uploader: Uploader) -> None:
        self._registry = registry
        self._path = path
        self._uploader = uploader
        self.size = uploader.size
        self.mount = uploader.mount
        self.manifest = uploader.manifest

    async def upload(self, digest: Digest, size: int, open: Open, sent: Callable[[int], None]) -> None:
        await self._registry.link(self._path, digest, size)
        sent(size)
