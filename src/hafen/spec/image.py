"""OCI and Docker image documents: configuration, manifest, index, descriptor as frozen structs, to and from JSON.

OCI image-spec 1.1 (config.md, manifest.md, image-index.md); Docker's own media types mean the same shapes. A document
that came from outside is kept byte for byte, its digest is its name; these structs are how we read it.
"""

import msgspec

from hafen.errors import Corrupt, InvalidArgument
from hafen.spec import digest as digests
from hafen.spec.wire import gojson
from hafen.spec.wire.gojson import Wire
from hafen.spec.wire.image import Descriptor, ImageConfig

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEXES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
_LAYERS = (OCI_LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.docker.image.rootfs.")


class RootFs(Wire, frozen=True, rename=None):
    """`diff_ids`: digests of the uncompressed layers, bottom first."""

    type: str = gojson.shown(lambda: "layers")
    diff_ids: list[str] = gojson.shown(list[str])


class History(Wire, frozen=True, rename=None):
    """How one layer came to be. `empty_layer`: it changed only the configuration."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Image(Wire, frozen=True, rename=None):
    """An image's configuration document; its digest is the image's id. `created` is RFC 3339."""

    architecture: str = gojson.shown(str)
    author: str = ""
    comment: str = ""
    config: ImageConfig = gojson.shown(ImageConfig)
    created: str = ""
    docker_version: str = ""
    history: list[History] = gojson.unless_empty(list[History])
    os: str = gojson.shown(str)
    os_version: str = gojson.named("os.version", "")
    parent: str = ""
    rootfs: RootFs = gojson.shown(RootFs)
    variant: str = ""


class Manifest(Wire, frozen=True, rename="camel"):
    """An image manifest: its configuration and its layers, bottom first."""

    schema_version: int = gojson.shown(lambda: 2)
    media_type: str = gojson.shown(lambda: OCI_MANIFEST)
    config: Descriptor = gojson.shown(Descriptor)
    layers: list[Descriptor] = gojson.shown(list[Descriptor])
    artifact_type: str = ""
    annotations: dict[str, str] = gojson.unless_empty(dict[str, str])


class Index(Wire, frozen=True, rename="camel"):
    """Manifests for several platforms, or of several images in a layout."""

    schema_version: int = gojson.shown(lambda: 2)
    media_type: str = ""
    manifests: list[Descriptor] = gojson.shown(list[Descriptor])
    annotations: dict[str, str] = gojson.unless_empty(dict[str, str])


def read_image(data: bytes) -> Image:
    """An image's configuration; Corrupt where it is none."""
    try:
        image = gojson.decode(data, Image)
        for diff_id in image.rootfs.diff_ids:
            digests.parse(diff_id)
    except InvalidArgument as error:
        raise Corrupt(f"invalid image configuration: {error}") from error
    if image.rootfs.type != "layers":
        raise Corrupt(f"invalid image configuration: root file system of unknown type {image.rootfs.type!r}")
    filled = sum(not item.empty_layer for item in image.history)
    if image.history and filled > len(image.rootfs.diff_ids):
        raise Corrupt("invalid image configuration: its history has more layers than it has")
    return image


def read_manifest(data: bytes) -> Manifest:
    """An image manifest; Corrupt where it is none."""
    try:
        manifest = gojson.decode(data, Manifest)
        for descriptor in (manifest.config, *manifest.layers):
            digests.parse(descriptor.digest)
    except InvalidArgument as error:
        raise Corrupt(f"invalid image manifest: {error}") from error
    return manifest


def read_index(data: bytes) -> Index:
    """An image index; Corrupt where it is none."""
    try:
        index = gojson.decode(data, Index)
        for descriptor in index.manifests:
            digests.parse(descriptor.digest)
    except InvalidArgument as error:
        raise Corrupt(f"invalid image index: {error}") from error
    return index


def encode(document: Image | Manifest | Index) -> bytes:
    """The canonical JSON of a document that we make: sorted where Docker sorts it (configurations)."""
    if isinstance(document, Image):
        return msgspec.json.encode(document, order="sorted")
    return msgspec.json.encode(document)


def is_layer(media_type: str) -> bool:
    """Whether a descriptor's media type is one of a layer that can be unpacked."""
    return media_type.startswith(_LAYERS)


def with_label(config: ImageConfig, name: str, value: str) -> ImageConfig:
    """The configuration with one more label."""
    return msgspec.structs.replace(config, labels={**config.labels, name: value})
