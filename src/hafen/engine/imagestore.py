"""Images as they are kept: rows, configuration blobs, tags and layers, with the look-ups that all verbs share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hafen.errors import Conflict, Corrupt, InvalidArgument, NotFound
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.spec.image import Image as Document
from hafen.spec.platform import Platform
from hafen.spec.reference import Reference
from hafen.spec.wire.image import ImageConfig
from hafen.storage import collect
from hafen.storage.archive import DEFAULT_LIMITS, Limits
from hafen.storage.collect import Leases
from hafen.storage.content import ContentStore
from hafen.storage.database import Database
from hafen.storage.snapshot import Snapshotter

log = logging.getLogger(__name__)

Publish = Callable[[str, str, str, Mapping[str, str]], None]
"""`Events.publish`: kind, action, actor, attributes."""

HOST = "host:latest"
_ALGORITHMS = ("sha256", "sha384", "sha512")
BASE_LABEL = "hafen.base"
SOURCE_LABEL = "hafen.source"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the local store. `snapshot` is the key of its top layer's snapshot, None for an image without
    layers; `size` bytes of all its layers; times are seconds since the epoch, 0 where unknown."""

    id: Digest
    document: Document
    snapshot: str | None
    size: int
    parent: str | None
    created_at: float
    tagged_at: float

    @property
    def config(self) -> ImageConfig:
        """What it says of containers made from it."""
        return self.document.config

    @property
    def config_architecture(self) -> str:
        """GOARCH."""
        return self.document.architecture

    @property
    def hex(self) -> str:
        return digests.hex_of(self.id)

    @property
    def of_this_machine(self) -> bool:
        """Whether this machine's own root is its lowest layer: then it means nothing elsewhere."""
        return self.config.labels.get(BASE_LABEL) == "host" or self.config.labels.get(SOURCE_LABEL) == "host"


@dataclass(frozen=True, slots=True)
class NewLayer:
    """An unpacked layer in its adopted directory, not recorded yet. `recipe` and `blob` are digests in the store."""

    chain_id: str
    diff_id: str
    parent: str | None
    directory: str
    size: int
    recipe: str | None = None
    blob: str | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as recorded."""

    chain_id: str
    diff_id: str
    parent: str | None
    size: int
    recipe: str | None
    blob: str | None
    media_type: str | None


def timestamp(text: str) -> float:
    """Seconds of an RFC 3339 time; 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


class ImageStore:
    """Rows and blobs behind all image verbs; loop thread only."""

    def __init__(
        self,
        database: Database,
        content: ContentStore,
        snapshots: Snapshotter,
        publish: Publish,
        platform: Platform,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.database = database
        self.content = content
        self.snapshots = snapshots
        self.platform = platform
        self.limits = limits
        self.leases = Leases()
        self.leases.released = self.sweep
        self.keepers: list[collect.Keeper] = []  # who else has blobs in the content store
        self._publish = publish
        self._documents: dict[str, Document] = {}
        self.builtin: Digest | None = None  # the host image

    def recover(self) -> None:
        """On start: what no row names goes away (see `collect`)."""
        self.content.recover()
        self.snapshots.recover()
        self.sweep()

    def sweep(self) -> list[str]:
        """Remove layers and blobs that nothing needs; chain ids of the removed layers."""
        return collect.sweep(self.database, self.snapshots, self.content, self.leases, self.keepers)

    def sweep_blobs(self) -> int:
        """Remove blobs that nothing needs; how many."""
        return collect.sweep_blobs(self.database, self.content, self.leases, self.keepers)

    def kept_elsewhere(self) -> set[str]:
        """Digests of the blobs that others need who have some in the content store."""
        return {digest for needed in self.keepers for digest in needed()}

    def publish(self, action: str, identity: str, name: str, image: Image | None = None) -> None:
        """Tell of something that happened to an image."""
        found = image or self.get(identity)
        labels = found.config.labels if found else {}
        self.tell(action, identity, {**labels, "name": name})

    def tell(self, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Publish an event of the kind `image`, once nothing can undo what it tells of."""
        self.database.when_done(lambda: self._publish("image", action, actor, attributes))

    # -- look-ups

    def _document(self, identity: str) -> Document:
        found = self._documents.get(identity)
        if found is None:
            try:
                found = documents.read_image(self.content.read(digests.parse(identity)))
            except (Corrupt, NotFound) as error:
                raise Corrupt(f"image {identity} is damaged: {error}; `hafen system fsck` tells more") from error
            self._documents[identity] = found
        return found

    def get(self, identity: str) -> Image | None:
        """The image of a full id. Corrupt where its configuration cannot be read."""
        row = self.database.row(
            "SELECT id, chain_id, size, parent, created_at, tagged_at FROM images WHERE id = ?", (identity,)
        )
        return None if row is None else self._image(row)

    def readable(self, identity: str) -> Image | None:
        """As `get`, None where it is damaged as well."""
        try:
            return self.get(identity)
        except Corrupt:
            return None

    def damaged(self, identity: str) -> Image:
        """What is left of an image whose configuration cannot be read: enough to remove it."""
        row = self.database.row(
            "SELECT id, chain_id, size, parent, created_at, tagged_at FROM images WHERE id = ?", (identity,)
        )
        if row is None:
            raise NotFound(f"No such image: {identity}")
        return self._image(row, Document(os="linux"))

    def _image(self, row: tuple[object, ...], document: Document | None = None) -> Image:
        identity, chain, size, parent, created_at, tagged_at = row
        assert isinstance(identity, str)
        assert isinstance(size, int)
        return Image(
            Digest(identity), document or self._document(identity), None if chain is None else str(chain), size,
            None if parent is None else str(parent), float(str(created_at)), float(str(tagged_at or 0)),
        )  # fmt: skip

    def all(self) -> list[Image]:
        """Every image, newest first, but for those whose configuration cannot be read: these are logged."""
        found = []
        for row in self.database.query(
            "SELECT id, chain_id, size, parent, created_at, tagged_at FROM images ORDER BY created_at DESC, id"
        ):
            try:
                found.append(self._image(row))
            except Corrupt as error:
                log.warning("%s", error)
        return found

    def children(self, identity: str) -> list[str]:
        """Ids of images that were committed or built on this one here."""
        return [str(row[0]) for row in self.database.query("SELECT id FROM images WHERE parent = ?", (identity,))]

    def tags(self, identity: str) -> list[Reference]:
        """The tags on an image, sorted."""
        rows = self.database.query(
            "SELECT repository, tag FROM tags WHERE image = ? ORDER BY repository || ':' || tag", (identity,)
        )
        return [reference.parse(f"{repository!s}:{tag!s}") for repository, tag in rows]

    def repository_tags(self, name: Reference) -> list[str]:
        """All tags of a repository, sorted."""
        rows = self.database.query("SELECT tag FROM tags WHERE repository = ? ORDER BY 1", (name.repository,))
        return [str(row[0]) for row in rows]

    def digests(self, identity: str) -> list[Reference]:
        """The repository digests of an image, sorted."""
        rows = self.database.query(
            "SELECT repository, digest FROM repository_digests WHERE image = ? ORDER BY 1, 2", (identity,)
        )
        return [reference.parse(f"{repository!s}@{digest!s}") for repository, digest in rows]

    def tagged(self, name: Reference) -> str | None:
        """The id that a tag or repository digest names."""
        if name.digest:
            row = self.database.row(
                "SELECT image FROM repository_digests WHERE repository = ? AND digest = ?",
                (name.repository, name.digest),
            )
        else:
            row = self.database.row(
                "SELECT image FROM tags WHERE repository = ? AND tag = ?",
                (name.repository, name.tag or reference.DEFAULT_TAG),
            )
        return None if row is None else str(row[0])

    def find(self, ref: str) -> Image:
        """By id, name, tag, digest or unambiguous prefix of an id, in Docker's order; NotFound where there is none."""
        identity = self.identify(ref)
        image = self.get(identity)
        if image is None:
            raise NotFound(f"No such image: {ref}")
        return image

    def identify(self, ref: str) -> str:
        """The id of the image that `find` finds."""
        bare = ref.removeprefix("sha256:")
        if digests.is_hex(bare, 64):
            found = self.database.row("SELECT id FROM images WHERE id = ?", (f"sha256:{bare}",))
            if found is None:
                raise NotFound(f"No such image: sha256:{bare}")
            return str(found[0])
        if not ref:
            raise InvalidArgument("invalid reference format")
        name, refused = None, InvalidArgument("invalid reference format")
        try:
            name = reference.parse(ref)
        except InvalidArgument as error:
            refused = error
        identity = None if name is None else self.tagged(name)
        if identity is None:
            identity = self._by_prefix(bare)
        if identity is None:
            if name is None:
                raise refused
            raise NotFound(f"No such image: {name.with_default_tag().familiar}")
        return identity

    def _by_prefix(self, prefix: str) -> str | None:
        if not prefix or not digests.is_hex(prefix, len(prefix)):
            return None
        rows = self.database.query("SELECT id FROM images WHERE id GLOB ? LIMIT 2", (f"sha256:{prefix}*",))
        if len(rows) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {prefix}")
        return str(rows[0][0]) if rows else None

    def layer(self, chain_id: str) -> Layer | None:
        """The layer of a chain id."""
        row = self.database.row(
            "SELECT chain_id, diff_id, parent, size, recipe, blob, media_type FROM layers WHERE chain_id = ?",
            (chain_id,),
        )
        return None if row is None else _layer(row)

    def layer_of_diff(self, diff_id: str) -> Layer | None:
        """Any layer with these contents."""
        row = self.database.row(
            "SELECT chain_id, diff_id, parent, size, recipe, blob, media_type FROM layers WHERE diff_id = ? LIMIT 1",
            (diff_id,),
        )
        return None if row is None else _layer(row)

    def chain(self, top: str | None) -> list[Layer]:
        """All layers down from a chain id, bottom first."""
        found: list[Layer] = []
        while top is not None:
            layer = self.layer(top)
            if layer is None:
                raise NotFound(f"layer {top} does not exist")
            found.append(layer)
            top = layer.parent
        found.reverse()
        return found

    def whole(self, image: Image) -> bool:
        """Whether its layers are those that its configuration names, and there."""
        chain = digests.chain_ids(image.document.rootfs.diff_ids)
        return image.snapshot == (chain[-1] if chain else None) and all(self.layer(key) for key in chain)

    # -- changes; call them inside `database.transaction()`

    def add_layer(self, layer: NewLayer) -> None:
        """Record a layer and its snapshot; one that another operation was faster with is thrown away."""
        if self.layer(layer.chain_id) is not None:
            self.snapshots.unstage(layer.directory)
            return
        self.snapshots.register(layer.directory, layer.chain_id, layer.parent)
        self.database.execute(
            "INSERT INTO layers (chain_id, diff_id, parent, size, recipe, blob, media_type, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                layer.chain_id, layer.diff_id, layer.parent, layer.size, layer.recipe, layer.blob, layer.media_type,
                time.time(),
            ),
        )  # fmt: skip

    def add_host_layer(self, key: str) -> None:
        """Record this machine's root as a layer: of no size, with neither recipe nor blob."""
        self.database.execute(
            "INSERT OR IGNORE INTO layers (chain_id, diff_id, parent, size, created_at) VALUES (?, ?, NULL, 0, ?)",
            (key, key, time.time()),
        )

    def add_image(self, identity: str, document: Document, parent: str | None = None) -> bool:
        """Record an image whose configuration blob and layers are there; False where it was there already."""
        fresh = self.get(identity) is None
        chain = digests.chain_ids(document.rootfs.diff_ids)
        top = chain[-1] if chain else None
        size = sum(layer.size for layer in self.chain(top))
        self.database.execute(
            "INSERT INTO images (id, parent, chain_id, size, created_at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET chain_id = excluded.chain_id, size = excluded.size",  # `fsck` mends so
            (identity, parent, top, size, timestamp(document.created)),
        )
        return fresh

    def set_tag(self, name: Reference, identity: str) -> str | None:
        """Put a tag on an image; the id of another one that it is taken from. Conflict for `host:latest`, which
        always is the machine's own root."""
        if name.familiar_name in _ALGORITHMS:
            raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
        before = self.tagged(name)
        if before is not None and before == self.builtin != identity and name.familiar == HOST:
            raise Conflict(f"{HOST} always is this machine's own root; choose another name")
        self.database.execute(
            "INSERT INTO tags (repository, tag, image) VALUES (?, ?, ?) "
            "ON CONFLICT (repository, tag) DO UPDATE SET image = excluded.image",
            (name.repository, name.tag or reference.DEFAULT_TAG, identity),
        )
        self.database.execute("UPDATE images SET tagged_at = ? WHERE id = ?", (time.time(), identity))
        return before if before != identity else None

    def add_digest(self, name: Reference, identity: str) -> bool:
        """Record a repository digest, whose manifest is a blob; False where it was there already."""
        if self.tagged(name) == identity:
            return False
        self.database.execute(
            "INSERT INTO repository_digests (repository, digest, image) VALUES (?, ?, ?) "
            "ON CONFLICT (repository, digest) DO UPDATE SET image = excluded.image",
            (name.repository, name.digest, identity),
        )
        return True

    def add_manifest(self, digest: str, identity: str) -> None:
        """Keep a manifest's blob as long as its image."""
        self.database.execute("INSERT OR IGNORE INTO manifests (digest, image) VALUES (?, ?)", (digest, identity))

    def add_source(self, diff_id: str, digest: str, repository: str) -> None:
        """A repository is known to have a layer as the blob `digest`."""
        self.database.execute(
            "INSERT INTO blob_sources (digest, diff_id, repository) VALUES (?, ?, ?) "
            "ON CONFLICT (diff_id, repository) DO UPDATE SET digest = excluded.digest",
            (digest, diff_id, repository),
        )

    def manifests(self, identity: str) -> list[Digest]:
        """Manifests of an image that are kept, in no order."""
        rows = self.database.query("SELECT digest FROM manifests WHERE image = ?", (identity,))
        return [Digest(str(row[0])) for row in rows]

    def remove_reference(self, name: Reference) -> None:
        """Take a tag or a repository digest away."""
        if name.digest:
            self.database.execute(
                "DELETE FROM repository_digests WHERE repository = ? AND digest = ?", (name.repository, name.digest)
            )
        else:
            self.database.execute(
                "DELETE FROM tags WHERE repository = ? AND tag = ?",
                (name.repository, name.tag or reference.DEFAULT_TAG),
            )

    def move_names(self, before: str, after: str) -> None:
        """All that names one image names another from now on."""
        for table in ("tags", "repository_digests"):
            self.database.execute(f"UPDATE {table} SET image = ? WHERE image = ?", (after, before))

    def remove_row_of(self, name: str) -> None:
        """Take a tag, a repository digest or a kept manifest away whose image is unknown, by how it is written."""
        repository, at, digest = name.rpartition("@")
        values: tuple[str, ...]
        if at:
            condition, values = "repository_digests WHERE repository = ? AND digest = ?", (repository, digest)
        elif digests.known(name):
            condition, values = "manifests WHERE digest = ? AND image NOT IN (SELECT id FROM images)", (name,)
        else:
            repository, _, tag = name.rpartition(":")
            condition, values = "tags WHERE repository = ? AND tag = ?", (repository, tag)
        self.database.execute(f"DELETE FROM {condition}", values)

    def forget_blob(self, chain_id: str) -> None:
        """A layer has no compressed form here any more."""
        self.database.execute("UPDATE layers SET blob = NULL, media_type = NULL WHERE chain_id = ?", (chain_id,))

    def remove_image(self, identity: str) -> None:
        """Forget an image; its layers and blobs go with the next `sweep`."""
        for table in ("tags", "repository_digests", "manifests", "artifacts"):
            self.database.execute(f"DELETE FROM {table} WHERE image = ?", (identity,))
        self.database.execute("DELETE FROM artifact_blobs WHERE artifact NOT IN (SELECT digest FROM artifacts)")
        self.database.execute("UPDATE images SET parent = NULL WHERE parent = ?", (identity,))
        self.database.execute("DELETE FROM images WHERE id = ?", (identity,))
        self._documents.pop(identity, None)


def _layer(row: Sequence[object]) -> Layer:
    chain, diff_id, parent, size, recipe, blob, media_type = row
    assert isinstance(size, int)

    def optional(value: object) -> str | None:
        return None if value is None else str(value)

    return Layer(
        str(chain), str(diff_id), optional(parent), size, optional(recipe), optional(blob), optional(media_type)
    )
