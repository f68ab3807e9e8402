"""What a manifest says that a registry must know: its kind, what it needs, what it is about; pure.

OCI image-spec 1.1 (manifest.md, image-index.md) and Docker's schema 2 (manifest-v2-2.md). Only the parts named here are
looked at: a manifest is kept byte for byte as it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from hafen.errors import InvalidArgument
from hafen.registryd.errors import ManifestInvalid
from hafen.spec import digest as digests
from hafen.spec.digest import Digest

MAX_SIZE: Final = 4 << 20  # bytes; what the specification asks registries to accept at least

OCI_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_IMAGES: Final = frozenset((OCI_IMAGE, DOCKER_IMAGE))
_INDEXES: Final = frozenset((OCI_INDEX, DOCKER_LIST))
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1"

# Layers that a registry need not have: image-spec, layer.md, "Non-Distributable Layers"; Docker's foreign layers.
_ELSEWHERE: Final = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str | None = None
    urls: list[str] | None = None


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int
    media_type: str | None = None
    artifact_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Something that the manifest refers to; size in bytes. What is `required` has to be in its repository first; what
    is not stays there all the same, where it is."""

    digest: Digest
    size: int
    is_manifest: bool
    required: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """`artifact_type` as the referrers API tells it: an image without one has its configuration's media type."""

    media_type: str
    artifact_type: str
    subject: Digest | None
    annotations: Mapping[str, str]
    needs: tuple[Need, ...]


def parse(data: bytes, content_type: str) -> Manifest:
    """The manifest in `data`; ManifestInvalid, with the reason, where it is none that can be kept."""
    announced = content_type.partition(";")[0].strip().lower()
    if announced.startswith(_SCHEMA_1):
        raise ManifestInvalid("manifests of Docker's schema 1 are not supported: push the image with a newer client")
    try:
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(f"not a manifest: {error}") from error
    if document.schema_version != 2:
        raise ManifestInvalid(f"unsupported schema version {document.schema_version}, expected 2")
    media_type = document.media_type or announced
    if announced and media_type != announced:
        raise ManifestInvalid(f"the Content-Type is {announced!r}, the manifest says mediaType {media_type!r}")
    if media_type not in _IMAGES | _INDEXES:
        raise ManifestInvalid(f"unsupported manifest media type {media_type!r}")
    index = media_type in _INDEXES
    # One document must not be two things to two readers (CVE-2021-41190).
    foreign = (document.layers, document.config) if index else (document.manifests,)
    if any(part is not None for part in foreign):
        raise ManifestInvalid(f"a document of {media_type} has layers as well as manifests")
    if not index and document.config is None:
        raise ManifestInvalid("an image manifest needs a config")
    artifact_type = document.artifact_type or (document.config.media_type if document.config else None) or ""
    subject = None if document.subject is None else _digest(document.subject)
    needs = tuple(_index_needs(document) if index else _image_needs(document))
    return Manifest(media_type, artifact_type, subject, document.annotations or {}, needs)


def _image_needs(document: _Document) -> Iterator[Need]:
    if document.config is not None:
        yield Need(_digest(document.config), document.config.size, is_manifest=False, required=True)
    for layer in document.layers or ():
        elsewhere = bool(layer.urls) or (layer.media_type or "").startswith(_ELSEWHERE)
        yield Need(_digest(layer), layer.size, is_manifest=False, required=not elsewhere)


def _index_needs(document: _Document) -> Iterator[Need]:
    """An index may be sparse: clients copy the platforms that they want, and the index as it is, for its digest."""
    for entry in document.manifests or ():
        yield Need(_digest(entry), entry.size, is_manifest=entry.media_type in _IMAGES | _INDEXES, required=False)


def _digest(descriptor: _Descriptor) -> Digest:
    if descriptor.size < 0:
        raise ManifestInvalid(f"a descriptor has the size {descriptor.size}")
    try:
        return digests.parse(descriptor.digest)
    except InvalidArgument as error:
        raise ManifestInvalid(error.message) from error
