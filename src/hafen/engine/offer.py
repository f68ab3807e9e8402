"""Local images for other machines to pull: a repository for each name, read-only, nothing copied.

An image whose compressed layers are blobs here goes with the manifest that it came with, and so under the same digest.
Any other goes as an OCI manifest of its plain layers, whose tars are put together from files and recipes as they are
sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from hafen.engine import imageplatforms
from hafen.engine.feed import produce
from hafen.engine.imagestore import Image, ImageStore, Layer
from hafen.engine.layertar import layer_tar
from hafen.errors import InvalidArgument
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.spec.image import Manifest
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor
from hafen.storage import recipe


@dataclass(frozen=True, slots=True)
class OfferedManifest:
    media_type: str
    digest: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class OfferedLayer:
    """A layer that is no blob; size in bytes of its tar."""

    size: int
    layer: Layer


class Offer:
    """Loop thread. Names of repositories begin with the prefix; what follows it, a path here, is an image's name:
    `library/debian` is Docker Hub's, `quay.io/a/b` has its registry in it."""

    def __init__(self, store: ImageStore, prefix: str) -> None:
        self.prefix = prefix
        self._store = store
        self._sizes: dict[str, int] = {}  # of plain layers, by diff id

    def covers(self, name: str) -> bool:
        """Whether a whole name is that of an image, whether there is one or not."""
        return name.startswith(f"{self.prefix}/")

    def tags(self, path: str) -> list[str]:
        """Of images that can leave this machine; none where nothing has that name."""
        name = _name(path)
        return [] if name is None else [tag for tag in self._store.repository_tags(name) if self._image(name, tag)]

    def _image(self, name: Reference, tag: str) -> Image | None:
        identity = self._store.tagged(Reference(name.domain, name.path, tag))
        image = None if identity is None else self._store.get(identity)
        return None if image is None or image.of_this_machine else image

    def _images(self, path: str) -> list[Image]:
        name = _name(path)
        return [] if name is None else [image for tag in self.tags(path) if (image := self._image(name, tag))]

    async def manifest(self, path: str, wanted: str) -> OfferedManifest | None:
        """By tag or digest."""
        name = _name(path)
        if name is None:
            return None
        if ":" not in wanted:
            image = self._image(name, wanted)
            return None if image is None else await self._manifest(image)
        for image in self._images(path):
            found = await self._manifest(image)
            if found.digest == wanted:
                return found
        return None

    async def _manifest(self, image: Image) -> OfferedManifest:
        kept = self._as_it_came(image)
        if kept is not None:
            data, manifest = kept
            return OfferedManifest(manifest.media_type, digests.of(data), data)
        layers = [
            Descriptor(documents.OCI_LAYER, layer.diff_id, await self._size(layer))
            for layer in self._store.chain(image.snapshot)
        ]
        config = Descriptor(documents.OCI_CONFIG, image.id, self._store.content.size(image.id))
        data = documents.encode(Manifest(config=config, layers=layers))
        return OfferedManifest(documents.OCI_MANIFEST, digests.of(data), data)

    def _as_it_came(self, image: Image) -> tuple[bytes, Manifest] | None:
        kept = imageplatforms.kept_manifest(self._store, image)
        if kept is None or not all(self._store.content.has(Digest(one.digest)) for one in kept[1].layers):
            return None
        return kept

    async def _size(self, layer: Layer) -> int:
        known = self._sizes.get(layer.diff_id)
        if known is None and layer.recipe is not None:
            data = await asyncio.to_thread(self._store.content.read, digests.parse(layer.recipe))
            known = self._sizes[layer.diff_id] = await asyncio.to_thread(recipe.size, data)
        return known or 0

    async def blob(self, path: str, digest: Digest) -> int | OfferedLayer | None:
        """What a manifest of this path names: the size of a blob of the content store, or a layer that is none."""
        for image in self._images(path):
            kept = self._as_it_came(image)
            blobs = {one.digest for one in kept[1].layers} if kept else set()
            if digest == image.id or digest in blobs:
                return self._store.content.size(digest)
            for layer in self._store.chain(image.snapshot) if kept is None else ():
                if layer.diff_id == digest:
                    return OfferedLayer(await self._size(layer), layer)
        return None

    async def chunks(self, offered: OfferedLayer, first: int, count: int) -> AsyncGenerator[bytes, None]:
        """A part of the layer's tar, which is made from its beginning. Whether files were changed behind our back, the
        client sees, who knows the digest."""
        with self._store.leases.operation() as lease:
            lease.hold(offered.layer.chain_id)
            tar = layer_tar(self._store, offered.layer)
            async with aclosing(produce(lambda: _part(tar, first, count))) as pieces:
                async for piece in pieces:
                    yield piece


def _part(chunks: Iterator[bytes], first: int, count: int) -> Iterator[bytes]:
    for chunk in chunks:
        piece = chunk[first : first + count]
        first = max(first - len(chunk), 0)
        count -= len(piece)
        if piece:
            yield piece
        if not count:
            return


def _name(path: str) -> Reference | None:
    try:
        return reference.parse(path)
    except InvalidArgument:
        return None
