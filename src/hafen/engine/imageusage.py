"""What images take on disk: the files of their layers, and the blobs that are kept beside these; each counted once.

A part is the files of one layer (its chain id) or one blob (its digest). Images share parts: layers, recipes of layers
with the same contents, the index that several platforms came by.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hafen.engine.imagestore import ImageStore


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Bytes of each part, and the parts of each image by its id; `others` are the blobs that no image has, but a
    registry over the same store."""

    sizes: dict[str, int]
    parts: dict[str, frozenset[str]]
    others: dict[str, int]

    @property
    def total(self) -> int:
        """All that images take; what an operation in progress has brought is a part of it."""
        return sum(self.sizes.values())

    def of(self, image: str) -> int:
        """What an image takes, shared parts and all."""
        return sum(self.sizes.get(part, 0) for part in self.parts.get(image, ()))

    def grouped(self, groups: Mapping[str, Sequence[str]]) -> DiskUsage:
        """With several images counted as one, under the id that stands for them."""
        nothing = frozenset[str]()
        parts = {head: nothing.union(*(self.parts.get(one, nothing) for one in ids)) for head, ids in groups.items()}
        return DiskUsage(self.sizes, parts, self.others)

    def shared(self) -> dict[str, int]:
        """By image, what it has in common with others."""
        counts = Counter(part for parts in self.parts.values() for part in parts)
        return {
            image: sum(self.sizes.get(part, 0) for part in parts if counts[part] > 1)
            for image, parts in self.parts.items()
        }


def measure(store: ImageStore) -> DiskUsage:
    """Loop thread; one look at each blob's size."""
    query = store.database.query
    sizes = {str(digest): store.content.size(digest) for digest in store.content.all()}
    of_layer: dict[str, list[str]] = {}
    parents: dict[str, str] = {}
    for key, parent, size, recipe, blob in query("SELECT chain_id, parent, size, recipe, blob FROM layers"):
        sizes[str(key)] = sizes.get(str(key), 0) + int(str(size))
        of_layer[str(key)] = [str(part) for part in (key, recipe, blob) if part is not None]
        if parent is not None:
            parents[str(key)] = str(parent)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for image, top in query("SELECT id, chain_id FROM images"):
        found[str(image)].add(str(image))
        layer = None if top is None else str(top)
        while layer in of_layer:
            found[str(image)].update(of_layer[layer])
            layer = parents.get(layer)
    for digest, image in query(
        "SELECT digest, image FROM manifests UNION SELECT digest, image FROM repository_digests "
        "UNION SELECT digest, image FROM artifacts "
        "UNION SELECT blob, image FROM artifacts JOIN artifact_blobs ON artifact = digest"
    ):
        found[str(image)].add(str(digest))
    ours = frozenset[str]().union(*found.values())
    theirs = {part: sizes.pop(part) for part in store.kept_elsewhere() - ours if part in sizes}
    return DiskUsage(sizes, {image: frozenset(parts) for image, parts in found.items()}, theirs)
