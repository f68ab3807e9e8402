"""`docker save`: images as an OCI layout that is a docker-archive as well, as Docker 25 and later write it.

    blobs/sha256/<hex>   configurations, manifests, uncompressed layers
    index.json           one manifest per name, with the name as annotations, or an index over an image's platforms
    manifest.json        for `docker load` of every age
    oci-layout, repositories

Reproducible: members sorted, owner root, times 0, so the same images give the same bytes. Each layer is read back
from its files and verified on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from hafen.engine import imageplatforms
from hafen.engine.feed import produce
from hafen.engine.imagestore import Image, ImageStore, Layer
from hafen.engine.layertar import layer_tar
from hafen.errors import Conflict, InvalidArgument, NotFound, System
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import reference
from hafen.spec.image import Index, Manifest
from hafen.spec.platform import Platform
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor
from hafen.spec.wire.image import Platform as Place
from hafen.storage import archive, pack, tarformat
from hafen.storage.collect import Lease
from hafen.storage.tarformat import Entry

_PIECE = 1 << 20
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class _Item(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of manifest.json."""

    config: str
    repo_tags: list[str] | None
    layers: list[str]
    layer_sources: dict[str, Descriptor]


@dataclass(slots=True)
class _Selection:
    """One image to save, under these names; `others` are its further platforms."""

    image: Image
    others: list[Image] = field(default_factory=list)
    names: list[Reference] = field(default_factory=list)


async def save(store: ImageStore, refs: Sequence[str], platform: Platform | None = None) -> AsyncIterator[bytes]:
    """The archive, in pieces of about a megabyte. NotFound and Conflict come before the first."""
    selected = _select(store, refs, platform)
    with store.leases.operation() as lease:
        layers: dict[str, Layer] = {}
        for selection in selected:
            for image in (selection.image, *selection.others):
                _hold(store, image, lease, layers)
        sizes = {diff_id: await asyncio.to_thread(_size, layer_tar(store, layer)) for diff_id, layer in layers.items()}
        members = _Layout(store, selected, layers, sizes).members()
        stream = produce(lambda: pack.joined(_archive(members), _PIECE))
        async for piece in stream:
            yield piece
    for selection in selected:
        store.publish("save", selection.image.id, selection.image.id)


def _select(store: ImageStore, refs: Sequence[str], platform: Platform | None) -> list[_Selection]:
    """Images with their names, as `docker save` takes them: a bare repository stands for all its tags."""
    found: dict[str, _Selection] = {}
    for ref in _expanded(store, refs):
        try:
            named = store.find(ref)
        except NotFound:
            raise NotFound(f"No such image: {ref}") from None  # without the default tag, as Docker here
        except InvalidArgument as error:
            raise System(error.message) from error  # 500, as Docker
        image = imageplatforms.choose(store, ref, platform)
        if image.of_this_machine:
            raise Conflict(
                f"cannot save {ref}: it consists of this machine's own root file system ('host'); make a container "
                "of it and use `export`"
            )
        others = imageplatforms.others(store, image.id) if platform is None else []
        selection = found.setdefault(image.id, _Selection(image, others))
        for name in _names(store, named, ref):
            if name not in selection.names:
                selection.names.append(name)
    return list(found.values())


def _expanded(store: ImageStore, refs: Sequence[str]) -> Iterator[str]:
    """A repository without tag or digest means all its tags, where it has any."""
    for ref in refs:
        try:
            name = reference.parse(ref)
        except InvalidArgument:
            yield ref
            continue
        tags = [] if name.tag or name.digest else store.repository_tags(name)
        yield from [f"{name.familiar_name}:{tag}" for tag in tags] or [ref]


def _names(store: ImageStore, image: Image, ref: str) -> list[Reference]:
    try:
        name = reference.parse(ref)
    except InvalidArgument:
        return []
    if name.digest or store.tagged(name) != image.id:
        return []  # named by its id
    return [name.with_default_tag()]


def _hold(store: ImageStore, image: Image, lease: Lease, layers: dict[str, Layer]) -> None:
    lease.hold(image.id)
    if image.snapshot is not None:
        lease.hold(image.snapshot)
    for layer in store.chain(image.snapshot):
        layers.setdefault(layer.diff_id, layer)


def _size(chunks: Iterator[bytes]) -> int:
    return sum(map(len, chunks))


_Content = Callable[[], Iterator[bytes]]


class _Layout:
    """Names, sizes and contents of the archive's members."""

    def __init__(
        self, store: ImageStore, selected: Sequence[_Selection], layers: dict[str, Layer], sizes: dict[str, int]
    ) -> None:
        self._members: dict[str, tuple[int, _Content]] = {}
        index: list[Descriptor] = []
        items: list[_Item] = []
        repositories: dict[str, dict[str, str]] = {}
        for diff_id, layer in layers.items():
            self._members[_path(diff_id)] = (sizes[diff_id], _layer_content(store, layer))
        for selection in selected:
            image = selection.image
            sources, target = self._manifest(store, image, sizes)
            if selection.others:
                target = self._platforms([target, *(self._manifest(store, one, sizes)[1] for one in selection.others)])
            else:
                target = msgspec.structs.replace(target, platform=None)
            index += [_named(target, name) for name in selection.names] or [target]
            tags = [name.familiar for name in selection.names]
            paths = [_path(diff_id) for diff_id in image.document.rootfs.diff_ids]
            items.append(_Item(_path(image.id), tags or None, paths, sources))
            for name in selection.names:
                top = image.document.rootfs.diff_ids[-1:] or [""]
                repositories.setdefault(name.familiar_name, {})[name.tag or ""] = top[0].partition(":")[2]
        self._add("index.json", documents.encode(Index(media_type=documents.OCI_INDEX, manifests=index)))
        self._add("manifest.json", msgspec.json.encode(items))
        self._add("oci-layout", _LAYOUT)
        if repositories:
            self._add("repositories", msgspec.json.encode(repositories, order="sorted"))

    def _manifest(
        self, store: ImageStore, image: Image, sizes: dict[str, int]
    ) -> tuple[dict[str, Descriptor], Descriptor]:
        """Adds configuration and manifest of an image: its layers by diff id, and what describes the manifest."""
        document = image.document
        sources = {
            diff_id: Descriptor(media_type=documents.OCI_LAYER, digest=diff_id, size=sizes[diff_id])
            for diff_id in document.rootfs.diff_ids
        }
        data = store.content.read(image.id)
        self._add(_path(image.id), data)
        manifest = documents.encode(
            Manifest(
                config=Descriptor(media_type=documents.OCI_CONFIG, digest=image.id, size=len(data)),
                layers=[sources[diff_id] for diff_id in document.rootfs.diff_ids],
            )
        )
        digest = digests.of(manifest)
        self._add(_path(digest), manifest)
        place = Place(
            architecture=document.architecture, os=document.os, os_version=document.os_version, variant=document.variant
        )
        return sources, Descriptor(documents.OCI_MANIFEST, digest, len(manifest), platform=place)

    def _platforms(self, members: list[Descriptor]) -> Descriptor:
        """Adds an index over manifests: what describes it."""
        data = documents.encode(Index(media_type=documents.OCI_INDEX, manifests=members))
        self._add(_path(digests.of(data)), data)
        return Descriptor(documents.OCI_INDEX, digests.of(data), len(data))

    def _add(self, name: str, data: bytes) -> None:
        self._members[name] = (len(data), lambda: iter((data,)))

    def members(self) -> list[tuple[str, int, _Content]]:
        """All members, sorted by name."""
        return [(name, *self._members[name]) for name in sorted(self._members)]


def _layer_content(store: ImageStore, layer: Layer) -> _Content:
    chunks = layer_tar(store, layer)
    return lambda: chunks


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _named(target: Descriptor, name: Reference) -> Descriptor:
    annotations = {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag or ""}
    return msgspec.structs.replace(target, annotations=annotations)


def _archive(members: Sequence[tuple[str, int, _Content]]) -> Iterator[bytes]:
    for directory in ("blobs/", "blobs/sha256/"):
        yield from archive.member(Entry(directory, tarformat.DIRECTORY, 0o755))
    for name, size, content in members:
        yield from archive.member(Entry(name, tarformat.FILE, 0o644, size=size), content())
    yield archive.end()
