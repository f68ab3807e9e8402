"""What is to be done about each problem of the store: a tuple of frozen steps; pure.

What a registry can give again is fetched, what nobody needs is removed, a row is made to say what is on disk. Data that
exists once is never thrown away: where nothing can be done, the plan says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hafen.engine.fsckrows import Inventory, Kind, Problem, chain_id, facts
from hafen.spec.image import Image as Document


@dataclass(frozen=True, slots=True)
class Remove:
    """Of nobody's use: `place` is what holds it."""

    place: Kind
    subject: str

    def describe(self) -> str:
        return f"remove {self.subject}"


@dataclass(frozen=True, slots=True)
class FetchManifest:
    """From the repositories that are known to have it."""

    digest: str
    repositories: tuple[str, ...]

    def describe(self) -> str:
        return f"fetch the manifest {self.digest} from {self.repositories[0]}"


@dataclass(frozen=True, slots=True)
class FetchBlob:
    """`layer` is the chain id of the layer that it is, compressed: one whose files are whole can do without."""

    digest: str
    repositories: tuple[str, ...]
    layer: str | None = None

    def describe(self) -> str:
        source = self.repositories[0] if self.repositories else "nowhere, and forget it"
        return f"fetch the blob {self.digest} from {source}"


@dataclass(frozen=True, slots=True)
class RestoreLayer:
    """Unpack a layer anew: from its blob where that is whole, else from (digest, repository) of `sources`."""

    chain_id: str
    diff_id: str
    parent: str | None
    blob: str | None
    sources: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        source = f"its blob {self.blob}" if self.blob else f"{self.sources[0][1]}@{self.sources[0][0]}"
        return f"unpack layer {self.chain_id} from {source}"


@dataclass(frozen=True, slots=True)
class CorrectLayer:
    """`keep_blob` False: its blob is another layer's."""

    chain_id: str
    size: int
    keep_blob: bool

    def describe(self) -> str:
        forget = "" if self.keep_blob else ", and no blob,"
        return f"write the size {self.size}{forget} into the row of layer {self.chain_id}"


@dataclass(frozen=True, slots=True)
class CorrectImage:
    """Also the sizes of images are made to add up."""

    id: str
    chain_id: str | None
    size: int
    orphaned: bool

    def describe(self) -> str:
        return f"write layer {self.chain_id} and size {self.size} into the row of image {self.id}"


@dataclass(frozen=True, slots=True)
class PullImage:
    """By its repository digest, for the platform that its configuration names."""

    name: str
    platform: str

    def describe(self) -> str:
        return f"pull {self.name}"


@dataclass(frozen=True, slots=True)
class Remake:
    """Make the missing directories of a container's snapshot or of a volume."""

    kind: Kind
    subject: str

    def describe(self) -> str:
        what = "volume" if self.kind is Kind.VOLUME_MISSING else "container's snapshot"
        return f"make the directories of {what} {self.subject} anew: what was in them is lost"


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing can be done, and why."""

    reason: str

    def describe(self) -> str:
        return self.reason


Step = Remove | FetchManifest | FetchBlob | RestoreLayer | CorrectLayer | CorrectImage | PullImage | Remake | Leave
Planned = tuple[Problem, Step]


@dataclass(frozen=True, slots=True)
class Known:
    """What planning needs beside the problems. The inventory's layers have the sizes that their files have."""

    inventory: Inventory
    documents: Mapping[str, Document]
    damaged: frozenset[str]  # blobs that are not whole, or not what a row says

    def whole(self, digest: str | None) -> bool:
        """Whether a blob can be read from."""
        return digest is not None and digest in self.inventory.blobs and digest not in self.damaged

    def repositories_of_layer(self, diff_id: str) -> tuple[tuple[str, str], ...]:
        return tuple((digest, where) for digest, diff, where in self.inventory.sources if diff == diff_id)

    def repositories_of_image(self, identity: str) -> tuple[str, ...]:
        found = [where for where, _, image in self.inventory.repository_digests if image == identity]
        return tuple(dict.fromkeys(found))


_ORDER = (
    # Documents before layers, layers before what is on them; orphans last, when nothing can need them any more.
    Kind.DATABASE, Kind.BLOB_MISSING, Kind.BLOB_DAMAGED, Kind.LAYER_ROW, Kind.LAYER_MISSING, Kind.LAYER_DAMAGED,
    Kind.IMAGE_ROW, Kind.NAME_ROW, Kind.SNAPSHOT_MISSING, Kind.SNAPSHOT_ROW, Kind.VOLUME_MISSING, Kind.VOLUME_ORPHAN,
    Kind.CONTAINER_ORPHAN, Kind.BLOB_ORPHAN, Kind.FILE_ORPHAN, Kind.SNAPSHOT_ORPHAN,
)  # fmt: skip


def plan(problems: Sequence[Problem], known: Known) -> tuple[Planned, ...]:
    """A step for each problem, in the order in which they are to be done."""
    ordered = sorted(problems, key=lambda one: (_ORDER.index(one.kind), _depth(known.inventory, one.subject)))
    return tuple((problem, _PLANNERS.get(problem.kind, _remove)(problem, known)) for problem in ordered)


def _depth(inventory: Inventory, key: str) -> int:
    """Layers below a layer: they are mended first."""
    count = 0
    layer = inventory.layers.get(key)
    while layer is not None and layer.parent is not None and count <= len(inventory.layers):
        count += 1
        layer = inventory.layers.get(layer.parent)
    return count


def _remove(problem: Problem, known: Known) -> Step:
    return Remove(problem.kind, problem.subject)


def _database(problem: Problem, known: Known) -> Step:
    return Leave("the database is damaged: restore a backup")


def _blob(problem: Problem, known: Known) -> Step:
    """By what the blob is: the least that brings it back."""
    inventory, digest = known.inventory, problem.subject
    for layer in inventory.layers.values():
        if layer.recipe == digest:
            return _restore(layer.chain_id, known)
        if layer.blob == digest:
            where = tuple(place for one, place in known.repositories_of_layer(layer.diff_id) if one == digest)
            return FetchBlob(digest, where, layer.chain_id)
    images = [image for one, image in inventory.manifests if one == digest]
    images += [image for _, one, image in inventory.repository_digests if one == digest]
    places = [place for place, one, _ in inventory.repository_digests if one == digest]
    places += [place for image in images for place in known.repositories_of_image(image)]
    if images and places:
        return FetchManifest(digest, tuple(dict.fromkeys(places)))
    if images:
        return Leave("no registry is known to have this manifest; `hafen rmi` removes its image")
    owners = {artifact for artifact, blob in inventory.artifact_blobs if blob == digest}
    of_artifacts = {one: place for one, place, _ in inventory.artifacts}
    if digest in of_artifacts:
        return FetchManifest(digest, (of_artifacts[digest],))
    places = [*known.repositories_of_image(digest), *(of_artifacts[one] for one in owners if one in of_artifacts)]
    if places:
        return FetchBlob(digest, tuple(places))
    if digest in inventory.registry:
        return Leave("it is the registry's alone: push its image there again")
    return Leave("no registry is known to have this image; `hafen rmi` removes it")


def _layer(problem: Problem, known: Known) -> Step:
    return _restore(problem.subject, known)


def _restore(key: str, known: Known) -> Step:
    layer = known.inventory.layers[key]
    if layer.recipe is None:
        return Leave("it is this machine's own root: the next start of the engine makes it anew")
    blob = layer.blob if known.whole(layer.blob) else None
    sources = known.repositories_of_layer(layer.diff_id)
    if blob is None and not sources:
        return Leave("no registry is known to have this layer; load its image again, or remove it")
    return RestoreLayer(key, layer.diff_id, layer.parent, blob, sources)


def _layer_row(problem: Problem, known: Known) -> Step:
    key = problem.subject
    layer = known.inventory.layers[key]
    if layer.recipe is not None and key != chain_id(layer.parent, layer.diff_id):
        return Leave("the row contradicts itself; load or pull its image again, or remove it")
    return CorrectLayer(key, layer.size, layer.blob not in known.damaged)


def _image_row(problem: Problem, known: Known) -> Step:
    document, row = known.documents[problem.subject], known.inventory.images[problem.subject]
    top, size = facts(known.inventory, document)
    if top is not None and top not in known.inventory.layers:
        names = [f"{place}@{digest}" for place, digest, image in known.inventory.repository_digests if image == row.id]
        if names:
            return PullImage(names[0], "/".join(filter(None, (document.os, document.architecture, document.variant))))
        return Leave("its layers are gone, and no registry is known to have them: remove the image and load it again")
    orphaned = row.parent is not None and row.parent not in known.inventory.images
    return CorrectImage(problem.subject, top, size, orphaned)


def _volume_orphan(problem: Problem, known: Known) -> Step:
    return Leave("it may hold somebody's data: make a volume of that name to have it, or delete the directory")


def _snapshot_missing(problem: Problem, known: Known) -> Step:
    if problem.subject not in known.inventory.snapshots:
        return Leave("the container has no snapshot any more: remove it")
    return Remake(problem.kind, problem.subject)


def _remake(problem: Problem, known: Known) -> Step:
    return Remake(problem.kind, problem.subject)


def _snapshot_row(problem: Problem, known: Known) -> Step:
    if any(state.parent == problem.subject for state in known.inventory.snapshots.values()):
        return Leave("other snapshots lie on it")
    if any(problem.subject in keys for keys in known.inventory.containers.values()):
        return Leave("the container's image is gone: remove the container")
    return Remove(problem.kind, problem.subject)


_PLANNERS: dict[Kind, Callable[[Problem, Known], Step]] = {
    Kind.DATABASE: _database,
    Kind.BLOB_MISSING: _blob,
    Kind.BLOB_DAMAGED: _blob,
    Kind.LAYER_MISSING: _layer,
    Kind.LAYER_DAMAGED: _layer,
    Kind.LAYER_ROW: _layer_row,
    Kind.IMAGE_ROW: _image_row,
    Kind.SNAPSHOT_MISSING: _snapshot_missing,
    Kind.SNAPSHOT_ROW: _snapshot_row,
    Kind.VOLUME_MISSING: _remake,
    Kind.VOLUME_ORPHAN: _volume_orphan,
}
