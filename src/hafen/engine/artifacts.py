"""Signatures, SBOMs and attestations: what refers to an image's manifest is fetched with it, kept, told and pushed.

An artifact is a manifest whose `subject` is an image's manifest, or another artifact's (OCI image-spec 1.1), or an
entry of an index that BuildKit marks as an attestation of another one. It is kept as long as its image. Nothing here is
worth failing a pull for: what cannot be had is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from hafen.engine import imageplatforms
from hafen.engine.feed import produce
from hafen.engine.imagestore import Image, ImageStore
from hafen.engine.transfers import Uploader
from hafen.errors import Corrupt, HafenError
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec.digest import Digest
from hafen.spec.wire.image import AttestationStatement, Descriptor, ImageReferrer
from hafen.storage.collect import Lease

if TYPE_CHECKING:  # its HTTP library is imported when it is used
    from hafen.distribution.repository import Repository

log = logging.getLogger(__name__)

MOST = 64  # artifacts of one image, those of its artifacts included
LARGEST = 32 << 20  # bytes of one blob of an artifact
_IN_TOTO = "application/vnd.in-toto+json"
_PREDICATE = "in-toto.io/predicate-type"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One manifest that refers to `subject`; `blobs` are its configuration and layers."""

    descriptor: Descriptor
    subject: Digest
    repository: str
    blobs: tuple[Descriptor, ...]

    @property
    def digest(self) -> Digest:
        return Digest(self.descriptor.digest)


class Collector:
    """Fetches the artifacts of one image from one repository while the image is pulled; `lease` holds them."""

    def __init__(self, store: ImageStore, source: Repository, lease: Lease) -> None:
        self._store = store
        self._source = source
        self._lease = lease

    async def collect(self, index: bytes | None, manifests: Sequence[Digest]) -> list[Artifact]:
        """Of the index that the image came by, and of the manifests that its name may mean."""
        entries = [] if index is None else documents.read_index(index).manifests
        wanted = [(one, about) for one in entries for about in manifests if imageplatforms.attests(one) == about]
        found: list[Artifact] = []
        try:
            module = await asyncio.to_thread(import_module, "hafen.distribution.referrers")
            for subject in manifests:
                wanted += [(one, subject) for one in await module.listed(self._source, subject)]
            while wanted:  # what refers to the image, then what refers to that, as a signature to an SBOM
                level: list[Artifact] = []
                for descriptor, subject in wanted:
                    if len(found) < MOST and descriptor.digest not in {one.digest for one in found}:
                        level.append(await self._artifact(descriptor, subject))
                        found.append(level[-1])
                wanted = []
                for about in level:
                    wanted += [(one, about.digest) for one in await module.listed(self._source, about.digest)]
        except HafenError as error:
            log.info("not all that refers to an image of %s could be had: %s", self._source.name.repository, error)
        return found

    async def _artifact(self, descriptor: Descriptor, subject: Digest) -> Artifact:
        digest = Digest(descriptor.digest)
        data = (await self._source.manifest(digest)).data
        manifest = documents.read_manifest(data)
        blobs = (manifest.config, *manifest.layers)
        for blob in blobs:
            await self._blob(blob)
        self._lease.hold(digest)
        await asyncio.to_thread(self._store.content.put, data, digest)
        if not descriptor.artifact_type:
            kind = manifest.artifact_type or manifest.config.media_type
            descriptor = msgspec.structs.replace(descriptor, artifact_type=kind)
        return Artifact(descriptor, subject, self._source.name.repository, blobs)

    async def _blob(self, descriptor: Descriptor) -> None:
        digest = Digest(descriptor.digest)
        self._lease.hold(digest)
        if self._store.content.has(digest):
            return
        if descriptor.size > LARGEST:
            raise Corrupt(f"blob {digest} has {descriptor.size} bytes, too many for a part of an artifact")
        data = b""
        async for piece in self._source.blob(descriptor):
            data += piece
        await asyncio.to_thread(self._store.content.put, data, digest)


def record(store: ImageStore, image: Digest, found: Sequence[Artifact]) -> None:
    """In the transaction that records the image."""
    for one in found:
        store.database.execute(
            "INSERT OR REPLACE INTO artifacts (digest, image, subject, repository, descriptor) VALUES (?, ?, ?, ?, ?)",
            (one.digest, image, one.subject, one.repository, msgspec.json.encode(one.descriptor)),
        )
        for blob in one.blobs:
            store.database.execute(
                "INSERT OR IGNORE INTO artifact_blobs (artifact, blob, descriptor) VALUES (?, ?, ?)",
                (one.digest, blob.digest, msgspec.json.encode(blob)),
            )


def of_image(store: ImageStore, image: Image) -> list[Artifact]:
    """All that are kept, in the order of their digests."""
    rows = store.database.query(
        "SELECT digest, subject, repository, descriptor FROM artifacts WHERE image = ? ORDER BY 1", (image.id,)
    )
    return [
        Artifact(_descriptor(descriptor), Digest(str(subject)), str(repository), _blobs(store, str(digest)))
        for digest, subject, repository, descriptor in rows
    ]


def _blobs(store: ImageStore, artifact: str) -> tuple[Descriptor, ...]:
    rows = store.database.query("SELECT descriptor FROM artifact_blobs WHERE artifact = ? ORDER BY rowid", (artifact,))
    return tuple(_descriptor(row[0]) for row in rows)


def _descriptor(value: object) -> Descriptor:
    assert isinstance(value, bytes)
    return msgspec.json.decode(value, type=Descriptor)


def shown(store: ImageStore, image: Image) -> list[ImageReferrer]:
    """What `hafen image referrers` tells."""
    return [
        ImageReferrer(
            digest=one.digest,
            artifact_type=one.descriptor.artifact_type,
            subject=one.subject,
            repository=one.repository,
            size=one.descriptor.size + sum(blob.size for blob in one.blobs),
            annotations=one.descriptor.annotations,
        )
        for one in of_image(store, image)
    ]


def statements(store: ImageStore, image: Image, kinds: Sequence[str], verbatim: bool) -> list[AttestationStatement]:
    """The in-toto statements about an image, all or those of some predicate types; with their text if `verbatim`."""
    found = []
    for one in of_image(store, image):
        for blob in one.blobs:
            kind = blob.annotations.get(_PREDICATE, "")
            if blob.media_type != _IN_TOTO or (kinds and kind not in kinds):
                continue
            text = msgspec.json.decode(store.content.read(digests.parse(blob.digest))) if verbatim else None
            found.append(AttestationStatement(descriptor=blob, predicate_type=kind, statement=text))
    return found


async def push(store: ImageStore, uploader: Uploader, artifact: Artifact) -> None:
    """Bring an artifact to where its subject is; the registry lists it then."""
    for blob in artifact.blobs:
        digest = Digest(blob.digest)
        if await uploader.size(digest) is None:

            def open_blob(offset: int, digest: Digest = digest) -> AsyncIterator[bytes]:
                return produce(lambda: store.content.chunks(digest, offset))

            await uploader.upload(digest, blob.size, open_blob, lambda _: None)
    await uploader.manifest(artifact.digest, artifact.descriptor.media_type, store.content.read(artifact.digest))
