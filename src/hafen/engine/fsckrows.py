"""What the store says of itself, and where that contradicts itself: rows against rows and rows against disk; pure.

An `Inventory` is taken in one step on the loop's thread, so nothing changes while it is. What needs reading (whether a
blob is what its name says, whether a layer's files are its own) is `fsck`'s part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hafen.errors import HafenError
from hafen.spec import digest as digests
from hafen.spec.image import Image as Document


class Kind(StrEnum):
    """What can be wrong; what the subject is."""

    DATABASE = "database"  # a table: SQLite's own checks
    BLOB_DAMAGED = "blob-damaged"  # a digest
    BLOB_MISSING = "blob-missing"  # a digest
    BLOB_ORPHAN = "blob-orphan"  # a digest
    FILE_ORPHAN = "file-orphan"  # a path in the content store
    LAYER_DAMAGED = "layer-damaged"  # a chain id: its files are not what the recipe says
    LAYER_MISSING = "layer-missing"  # a chain id: its files, or all of it, are gone
    LAYER_ROW = "layer-row"  # a chain id: the row says what is not so
    SNAPSHOT_MISSING = "snapshot-missing"  # the key of a container's snapshot
    SNAPSHOT_ORPHAN = "snapshot-orphan"  # a directory
    SNAPSHOT_ROW = "snapshot-row"  # the key of a snapshot that is neither layer nor container's
    IMAGE_ROW = "image-row"  # an id
    NAME_ROW = "name-row"  # a tag, a repository digest, or the digest of a manifest
    CONTAINER_ORPHAN = "container-orphan"  # the id of no container, with a directory
    VOLUME_MISSING = "volume-missing"  # a name
    VOLUME_ORPHAN = "volume-orphan"  # the name of a directory that no row knows


ORPHANS = frozenset((
    Kind.BLOB_ORPHAN, Kind.FILE_ORPHAN, Kind.SNAPSHOT_ORPHAN, Kind.CONTAINER_ORPHAN, Kind.VOLUME_ORPHAN,
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be; `detail` is a sentence for people."""

    kind: Kind
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class LayerRow:
    chain_id: str
    diff_id: str
    parent: str | None
    size: int
    recipe: str | None
    blob: str | None


@dataclass(frozen=True, slots=True)
class ImageRow:
    id: str
    parent: str | None
    chain_id: str | None
    size: int


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A snapshot's row, and the directories that it lacks."""

    parent: str | None
    committed: bool
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """Rows, and the names of what is on disk. `held` are digests and chain ids of operations in progress."""

    blobs: frozenset[str] = frozenset()
    stray_files: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()
    registry: frozenset[str] = frozenset()  # blobs of a registry over the same store
    layers: Mapping[str, LayerRow] = field(default_factory=dict)
    images: Mapping[str, ImageRow] = field(default_factory=dict)
    tags: tuple[tuple[str, str, str], ...] = ()  # repository, tag, image
    manifests: tuple[tuple[str, str], ...] = ()  # digest, image
    repository_digests: tuple[tuple[str, str, str], ...] = ()  # repository, digest, image
    sources: tuple[tuple[str, str, str], ...] = ()  # digest, diff id, repository
    artifacts: tuple[tuple[str, str, str], ...] = ()  # digest, repository, image
    artifact_blobs: tuple[tuple[str, str], ...] = ()  # artifact, blob
    snapshots: Mapping[str, SnapshotState] = field(default_factory=dict)
    stray_directories: tuple[str, ...] = ()
    containers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # keys of their snapshots
    container_directories: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    volume_directories: frozenset[str] = frozenset()
    volumes_without_files: frozenset[str] = frozenset()

    def needed_blobs(self) -> dict[str, str]:
        """Blobs that rows name, and what each is for."""
        needed = dict.fromkeys(self.registry, "a blob of the registry over this store")
        for layer in self.layers.values():
            if layer.blob is not None:
                needed[layer.blob] = f"the layer {layer.diff_id} as it came"
            if layer.recipe is not None:
                needed[layer.recipe] = f"the recipe of layer {layer.diff_id}"
        for digest, image in self.manifests:
            needed[digest] = f"a manifest of image {image}"
        for repository, digest, image in self.repository_digests:
            needed[digest] = f"the manifest {repository}@{digest} of image {image}"
        for digest, _, image in self.artifacts:
            needed[digest] = f"an artifact about image {image}"
        for artifact, digest in self.artifact_blobs:
            needed[digest] = f"a part of artifact {artifact}"
        for image in self.images:
            needed[image] = "an image's configuration"
        return needed


def structure(found: Inventory) -> list[Problem]:
    """All that needs no reading."""
    return [*_blobs(found), *_layers(found), *_names(found), *_snapshots(found), *_directories(found)]


def _blobs(found: Inventory) -> Iterator[Problem]:
    needed = found.needed_blobs()
    for digest, what in needed.items():
        if digest not in found.blobs:
            yield Problem(Kind.BLOB_MISSING, digest, f"{what} is not there")
    for digest in sorted(found.blobs - needed.keys() - found.held):
        yield Problem(Kind.BLOB_ORPHAN, digest, "no row names this blob")
    for path in found.stray_files:
        yield Problem(Kind.FILE_ORPHAN, path, "it is no blob, and nobody is writing it")


def _layers(found: Inventory) -> Iterator[Problem]:
    for key, layer in found.layers.items():
        below = None if layer.parent is None else found.layers.get(layer.parent)
        if layer.parent is not None and below is None:
            yield Problem(Kind.LAYER_ROW, key, f"the layer below it, {layer.parent}, is unknown")
        elif layer.recipe is not None and key != chain_id(layer.parent, layer.diff_id):
            yield Problem(Kind.LAYER_ROW, key, f"its chain id is not that of {layer.diff_id} on {layer.parent}")
        snapshot = found.snapshots.get(key)
        if snapshot is None:
            yield Problem(Kind.LAYER_MISSING, key, "it has no snapshot")
        elif snapshot.absent:
            yield Problem(Kind.LAYER_MISSING, key, f"its directory {snapshot.absent[0]} is not there")


def chain_id(parent: str | None, diff_id: str) -> str:
    """Of a layer on that of the chain id `parent`."""
    return diff_id if parent is None else digests.of(f"{parent} {diff_id}".encode())


def _names(found: Inventory) -> Iterator[Problem]:
    for repository, tag, image in found.tags:
        if image not in found.images:
            yield Problem(Kind.NAME_ROW, f"{repository}:{tag}", f"it names the image {image}, which is unknown")
    for repository, digest, image in found.repository_digests:
        if image not in found.images:
            yield Problem(Kind.NAME_ROW, f"{repository}@{digest}", f"it names the image {image}, which is unknown")
    for digest, image in found.manifests:
        if image not in found.images:
            yield Problem(Kind.NAME_ROW, digest, f"it is kept for the image {image}, which is unknown")


def _snapshots(found: Inventory) -> Iterator[Problem]:
    owned = {key: owner for owner, keys in found.containers.items() for key in keys}
    for key, owner in owned.items():
        snapshot = found.snapshots.get(key)
        if snapshot is None:
            yield Problem(Kind.SNAPSHOT_MISSING, key, f"container {owner[:12]} has lost its files")
        elif snapshot.absent:
            yield Problem(
                Kind.SNAPSHOT_MISSING, key, f"container {owner[:12]} lacks its directory {snapshot.absent[0]}"
            )
    for key, snapshot in found.snapshots.items():
        if key not in owned and key not in found.layers and key not in found.held:
            yield Problem(Kind.SNAPSHOT_ROW, key, "neither a layer nor a container has this snapshot")
        elif key in owned and snapshot.parent not in (None, *found.snapshots, *found.layers):
            yield Problem(Kind.SNAPSHOT_ROW, key, f"the snapshot below it, {snapshot.parent}, is unknown")
    for directory in found.stray_directories:
        yield Problem(Kind.SNAPSHOT_ORPHAN, directory, "no snapshot has this directory")


def _directories(found: Inventory) -> Iterator[Problem]:
    for name in sorted(found.container_directories - found.containers.keys()):
        yield Problem(Kind.CONTAINER_ORPHAN, name, "there is no such container, but a directory of it")
    for name in sorted(found.volumes_without_files):
        yield Problem(Kind.VOLUME_MISSING, name, "its directory is not there")
    for name in sorted(found.volume_directories - found.volumes):
        yield Problem(Kind.VOLUME_ORPHAN, name, "no volume has this directory")


def image_rows(found: Inventory, documents: Mapping[str, Document]) -> list[Problem]:
    """Where the rows of images are not what their configurations say, as far as these can be read."""
    problems = []
    for identity, document in documents.items():
        row = found.images[identity]
        top, size = facts(found, document)
        if row.chain_id != top:
            problems.append(Problem(Kind.IMAGE_ROW, identity, f"its row has the layer {row.chain_id}, not {top}"))
        elif top is not None and top not in found.layers:
            problems.append(Problem(Kind.IMAGE_ROW, identity, f"its layer {top} is unknown"))
        elif row.size != size:
            problems.append(Problem(Kind.IMAGE_ROW, identity, f"its row has the size {row.size}, not {size}"))
        elif row.parent is not None and row.parent not in found.images:
            problems.append(Problem(Kind.IMAGE_ROW, identity, f"its parent {row.parent} is unknown"))
    return problems


def facts(found: Inventory, document: Document) -> tuple[str | None, int]:
    """The top layer and the size that a configuration stands for."""
    chain: list[str] = []
    try:
        chain = [str(one) for one in digests.chain_ids(document.rootfs.diff_ids)]
    except HafenError:
        return None, 0
    return (chain[-1] if chain else None), sum(found.layers[key].size for key in chain if key in found.layers)


def settled(before: list[Problem], after: list[Problem]) -> list[Problem]:
    """Problems of a first look without what was a moment's: orphans are what the second look has as well."""
    still = {(problem.kind, problem.subject) for problem in after}
    return [one for one in before if one.kind not in ORPHANS or (one.kind, one.subject) in still]
