"""Images of several platforms: which of them belong together, which one is meant, and what is known of each.

A name stands for one image, the one that was last pulled or loaded under it. Images that came by the same index belong
together: the others are its platforms, found by `--platform`, kept, listed and removed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hafen.engine.imagestore import Image, ImageStore
from hafen.errors import Corrupt, NotFound
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import platform as platforms
from hafen.spec.digest import Digest
from hafen.spec.image import Image as Document
from hafen.spec.platform import Platform
from hafen.spec.wire import image as wire
from hafen.spec.wire.image import Descriptor

ATTESTATION = "attestation-manifest"  # of annotation vnd.docker.reference.type, as BuildKit writes it
_TYPE, _SUBJECT = "vnd.docker.reference.type", "vnd.docker.reference.digest"

ContainersOf = Callable[[str], Sequence[str]]
"""Ids of the containers made from an image id."""


def of_document(document: Document) -> Platform:
    """What a configuration says that the image is for."""
    return platforms.normal(Platform(document.os or "linux", document.architecture, document.variant))


def others(store: ImageStore, identity: str) -> list[Image]:
    """The images that came by the same index as this one."""
    rows = store.database.query(
        "SELECT DISTINCT other.image FROM manifests AS own JOIN manifests AS other ON own.digest = other.digest "
        "WHERE own.image = ? AND other.image != own.image ORDER BY 1",
        (identity,),
    )
    found = (store.readable(str(row[0])) for row in rows)
    return [image for image in found if image is not None]


def is_part(store: ImageStore, identity: str) -> bool:
    """Whether an image without a name of its own is a platform of one that has one."""
    return any(store.tags(other.id) or store.digests(other.id) for other in others(store, identity))


def choose(store: ImageStore, ref: str, platform: Platform | None) -> Image:
    """The image of a name for a platform; NotFound, with Docker's text, where it has none."""
    image = store.find(ref)
    if platform is None:
        return image
    for candidate in (image, *others(store, image.id)):
        if platforms.satisfies(of_document(candidate.document), platform):
            return candidate
    raise NotFound(f"image with reference {ref} was found but does not provide the specified platform ({platform})")


def index_of(store: ImageStore, image: Image) -> tuple[Digest, bytes, documents.Index] | None:
    """The index that an image came by, if it did."""
    for digest in store.manifests(image.id):
        data = store.content.read(digest)
        try:
            index = documents.read_index(data)
        except Corrupt:
            continue
        if index.manifests:
            return digest, data, index
    return None


def kept_manifest(
    store: ImageStore, image: Image, digest: str | None = None
) -> tuple[bytes, documents.Manifest] | None:
    """The manifest that an image came or went with, if any; of this digest, where it must be that one."""
    for found in store.manifests(image.id):
        if digest is not None and found != digest:
            continue
        data = store.content.read(found)
        try:
            manifest = documents.read_manifest(data)
        except Corrupt:
            continue  # the index that it came by
        if manifest.config.digest == image.id and len(manifest.layers) == len(image.document.rootfs.diff_ids):
            return data, manifest
    return None


def attests(entry: Descriptor) -> str | None:
    """The digest of the manifest that an entry of an index is about, where it is no image itself."""
    return entry.annotations.get(_SUBJECT) if entry.annotations.get(_TYPE) == ATTESTATION else None


def summaries(store: ImageStore, image: Image, containers: ContainersOf) -> list[wire.ManifestSummary]:
    """What `manifests=1` tells: one for each manifest of the index, or the one that the image has."""
    index = index_of(store, image)
    members = {member.id: member for member in (image, *others(store, image.id))}
    by_manifest = {digest: member for member in members.values() for digest in store.manifests(member.id)}
    if index is not None:
        return [
            _summary(store, entry, by_manifest.get(Digest(entry.digest)), containers) for entry in index[2].manifests
        ]
    kept = kept_manifest(store, image)
    if kept is None:
        return []
    data, manifest = kept
    entry = Descriptor(media_type=manifest.media_type, digest=digests.of(data), size=len(data))
    return [_summary(store, entry, image, containers)]


def _summary(
    store: ImageStore, entry: Descriptor, image: Image | None, containers: ContainersOf
) -> wire.ManifestSummary:
    subject = attests(entry)
    digest = Digest(entry.digest)
    content = store.content.size(digest) if store.content.has(digest) else 0
    if subject is not None:
        return wire.ManifestSummary(
            id=digest, descriptor=entry, available=content > 0, kind="attestation",
            size=wire.ManifestSize(content, content), attestation_data=wire.AttestationData(subject),
        )  # fmt: skip
    if image is not None:
        content += store.content.size(image.id)
        content += sum(store.content.size(Digest(one.blob)) for one in store.chain(image.snapshot) if one.blob)
    unpacked = 0 if image is None else image.size
    place = entry.platform
    if place is None and image is not None:
        document = image.document
        place = wire.Platform(architecture=document.architecture, os=document.os, variant=document.variant)
    data = wire.ManifestImageData(
        platform=place or wire.Platform(),
        containers=[] if image is None else list(containers(image.id)),
        size=wire.UnpackedSize(unpacked),
    )
    return wire.ManifestSummary(
        id=digest, descriptor=entry, available=image is not None, kind="image",
        size=wire.ManifestSize(content, content + unpacked), image_data=data,
    )  # fmt: skip
