"""Engine API JSON shapes for images and for the messages of long work on them (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import StrSlice, UInt64, Wire, named, null, shown, unless_empty


class HealthConfig(Wire, frozen=True):
    """Durations in nanoseconds. `test` begins with NONE, CMD or CMD-SHELL; empty inherits the image's."""

    test: list[str] = unless_empty(list[str])
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Platform(Wire, frozen=True, rename=None):
    architecture: str = shown(str)
    os: str = shown(str)
    os_version: str = named("os.version", "")
    os_features: list[str] = unless_empty(list[str], "os.features")
    variant: str = ""


class Descriptor(Wire, frozen=True, rename="camel"):
    """An OCI content descriptor."""

    media_type: str = shown(str)
    digest: str = shown(str)
    size: int = shown(int)
    urls: list[str] = unless_empty(list[str])
    annotations: dict[str, str] = unless_empty(dict[str, str])
    data: str = ""
    platform: Platform | None = None
    artifact_type: str = ""


class GraphDriver(Wire, frozen=True):
    data: dict[str, str] | None = shown(null)
    name: str = shown(str)


class RootFs(Wire, frozen=True):
    type: str = shown(lambda: "layers")
    layers: list[str] = unless_empty(list[str])


class ImageMetadata(Wire, frozen=True):
    last_tag_time: str = shown(lambda: "0001-01-01T00:00:00Z")


class EmptyObject(Wire, frozen=True):
    """Go's `struct{}`."""


class ImageConfig(Wire, frozen=True):
    """What an image says of the containers made from it; `versions` adds the older container-only fields."""

    user: str = ""
    exposed_ports: dict[str, EmptyObject] = unless_empty(dict[str, EmptyObject])
    env: list[str] = unless_empty(list[str])
    entrypoint: StrSlice = unless_empty(list[str])
    cmd: StrSlice = unless_empty(list[str])
    volumes: dict[str, EmptyObject] = unless_empty(dict[str, EmptyObject])
    working_dir: str = ""
    labels: dict[str, str] = unless_empty(dict[str, str])
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: HealthConfig | None = None
    on_build: list[str] = unless_empty(list[str])
    shell: StrSlice = unless_empty(list[str])


class ManifestSize(Wire, frozen=True):
    """Bytes: of blobs, and of all."""

    content: int = shown(int)
    total: int = shown(int)


class UnpackedSize(Wire, frozen=True):
    unpacked: int = shown(int)


class ManifestImageData(Wire, frozen=True):
    platform: Platform = shown(Platform)
    containers: list[str] = shown(list[str])
    size: UnpackedSize = shown(UnpackedSize)


class AttestationData(Wire, frozen=True):
    """`for_` is the digest of the manifest that it is about."""

    for_: str = shown(str, "For")


class ManifestSummary(Wire, frozen=True):
    """One manifest of an index; `kind` is image, attestation or unknown."""

    id: str = shown(str, "ID")
    descriptor: Descriptor = shown(Descriptor)
    available: bool = shown(bool)
    size: ManifestSize = shown(ManifestSize)
    kind: str = shown(lambda: "unknown")
    image_data: ManifestImageData | None = None
    attestation_data: AttestationData | None = None


class AttestationStatement(Wire, frozen=True):
    """One line of GET /images/{name}/attestations."""

    descriptor: Descriptor = shown(Descriptor)
    predicate_type: str = shown(str)
    statement: object | None = None


class ImageReferrer(Wire, frozen=True):
    """One line of GET /images/{name}/referrers, which is ours: an artifact about one of the image's manifests."""

    digest: str = shown(str)
    artifact_type: str = shown(str)
    subject: str = shown(str)
    repository: str = shown(str)
    size: int = shown(int)
    annotations: dict[str, str] = unless_empty(dict[str, str])


class ImageInspect(Wire, frozen=True):
    """GET /images/{name}/json. `size` is bytes of all layers; `created` RFC 3339."""

    id: str = shown(str)
    repo_tags: list[str] = shown(list[str])
    repo_digests: list[str] = shown(list[str])
    parent: str = ""
    comment: str = ""
    created: str = ""
    docker_version: str = ""
    author: str = ""
    config: ImageConfig | None = shown(null)
    architecture: str = shown(str)
    variant: str = ""
    os: str = shown(str)
    os_version: str = ""
    size: int = shown(int)
    graph_driver: GraphDriver | None = None
    root_fs: RootFs = shown(RootFs, "RootFS")
    metadata: ImageMetadata = shown(ImageMetadata)
    descriptor: Descriptor | None = None
    manifests: list[ManifestSummary] | None = None


class ImageSummary(Wire, frozen=True):
    """One line of GET /images/json. -1 in `containers` and `shared_size`: not counted. `created` is seconds."""

    containers: int = shown(lambda: -1)
    created: int = shown(int)
    id: str = shown(str)
    labels: dict[str, str] | None = shown(null)
    parent_id: str = shown(str)
    descriptor: Descriptor | None = None
    manifests: list[ManifestSummary] | None = None
    repo_digests: list[str] = shown(list[str])
    repo_tags: list[str] = shown(list[str])
    shared_size: int = shown(lambda: -1)
    size: int = shown(int)


class HistoryItem(Wire, frozen=True):
    comment: str = shown(str)
    created: int = shown(int)
    created_by: str = shown(str)
    id: str = shown(lambda: "<missing>")
    size: int = shown(int)
    tags: list[str] | None = shown(null)


class DeleteResponseItem(Wire, frozen=True):
    """Exactly one of the two is set."""

    deleted: str = ""
    untagged: str = ""


class ImagePruneResponse(Wire, frozen=True):
    images_deleted: list[DeleteResponseItem] | None = shown(null)
    space_reclaimed: UInt64 = shown(int)


class IdResponse(Wire, frozen=True):
    id: str = shown(str)


class ProgressDetail(Wire, frozen=True, rename="camel"):
    """`start` and `hide_counts` as Docker's JSON messages have them; bytes unless `units` says otherwise."""

    current: int = 0
    total: int = 0
    start: int = 0
    hide_counts: bool = named("hidecounts", False)
    units: str = ""


class ErrorDetail(Wire, frozen=True, rename="camel"):
    code: int = 0
    message: str = ""


class Progress(Wire, frozen=True, rename="camel"):
    """One line of a progress stream (load, import, pull, push, build). `error` repeats `error_detail`'s message."""

    stream: str = ""
    status: str = ""
    progress_detail: ProgressDetail | None = None
    progress: str = ""  # the bar as text, for old clients
    id: str = ""
    time: int = 0
    time_nano: int = 0
    error_detail: ErrorDetail | None = None
    error: str = ""
    aux: dict[str, object] | None = None


class SearchResult(Wire, frozen=True, rename=None):
    star_count: int = shown(int)
    is_official: bool = shown(bool)
    name: str = shown(str)
    is_automated: bool = shown(bool)
    description: str = shown(str)
