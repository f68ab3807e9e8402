"""A stored layer as its uncompressed tar, byte for byte, verified."""

from __future__ import annotations

from collections.abc import Iterator

from hafen.engine.imagestore import ImageStore, Layer
from hafen.errors import Conflict, Corrupt
from hafen.spec import digest as digests
from hafen.storage import pack
from hafen.storage.content import hashed
from hafen.storage.recipe import reassemble


def layer_tar(store: ImageStore, layer: Layer) -> Iterator[bytes]:
    """The layer's tar in pieces of about a megabyte; loop thread, the iterator in any. Corrupt at its end where files
    were changed behind our back. Conflict for the machine's own root, which has no tar."""
    if layer.recipe is None:
        raise Conflict("this machine's own root has no archive; use `export` of a container made from it")
    recipe = store.content.read(digests.parse(layer.recipe))
    directory = store.snapshots.directory(layer.chain_id)
    return pack.joined(_verified(reassemble(recipe, directory), layer.diff_id), 1 << 20)


def _verified(chunks: Iterator[bytes], diff_id: str) -> Iterator[bytes]:
    hasher = digests.new()
    yield from hashed(chunks, hasher)
    if digests.finish(hasher) != diff_id:
        raise Corrupt(f"layer {diff_id} is damaged: its files have been changed")
