"""`docker pull`: manifest, configuration, then layers, each unpacked while it arrives, recorded in one transaction.

    index ──platform──► manifest ──► configuration ──► layers: what is here already is not fetched
    layer: network ──► partial file, hashed ──► decompressed ──► files in a directory that nobody sees
    all:   adopted bottom first ──► one sync ──► rows, tag, repository digest, manifests

Two pulls of one image, or of one layer, do the work once: the second waits and finds it done. What a broken pull has
received stays as a partial blob, from which the next one goes on. Messages and their order are Docker's
(moby `distribution/pull_v2.go`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hafen.engine import artifacts, imagelayout
from hafen.engine.artifacts import Artifact, Collector
from hafen.engine.feed import consume
from hafen.engine.imageimport import Staged, adopt, stage_layer
from hafen.engine.imagestore import BASE_LABEL, ImageStore, NewLayer
from hafen.engine.layertar import layer_tar
from hafen.engine.transfers import Transfers, first_error
from hafen.errors import Corrupt, InvalidArgument, NotFound, NotImplemented, OutOfSpace
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec.digest import Digest
from hafen.spec.image import Image as Document
from hafen.spec.image import Manifest
from hafen.spec.platform import Platform
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor, Progress, ProgressDetail
from hafen.storage import compression
from hafen.storage.collect import Lease
from hafen.storage.partial import Partial

if TYPE_CHECKING:  # its HTTP library is imported when it is used
    from hafen.distribution.repository import ManifestData, Repository

_TICK = 0.1  # seconds between two messages of one layer
_TRIES = 3  # of a layer that arrives damaged

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str | None

    @property
    def digest(self) -> Digest:
        return Digest(self.descriptor.digest)

    @property
    def label(self) -> str:
        return digests.hex_of(self.digest)[:12]


@dataclass(frozen=True, slots=True)
class _Image:
    """`identity` is of sha256, also where the manifest names the configuration by another digest, as in Docker."""

    identity: Digest
    document: Document


class Puller:
    """One pull from one repository."""

    def __init__(
        self, store: ImageStore, transfers: Transfers, source: Repository, platform: Platform | None, report: Report
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._source = source
        self._platform = platform
        self._report = report

    async def pull(self, name: Reference) -> bool:
        """One tag or digest; whether anything is new here."""
        try:
            return await self._pull(name)
        finally:
            self._store.sweep()

    async def _pull(self, name: Reference) -> bool:
        wanted = name.digest or name.tag or ""
        found = await self._source.manifest(wanted)
        self._report(Progress(status=f"Pulling from {name.path}", id=name.tag or str(name)))
        with self._store.leases.operation() as lease:
            chosen = await self._for_platform(found)
            manifest = documents.read_manifest(chosen.data)
            _check_kind(manifest)
            async with self._transfers.alone(f"image {manifest.config.digest}"):
                with _ImagePull(self._store, self._transfers, self._source, self._report, lease) as work:
                    image, about = await self._all_of(work, manifest, found, chosen)
                    fresh = await self._record(work, name, image, manifest, (found, chosen), about)
        self._report(Progress(status=f"Digest: {found.digest}"))
        return fresh

    async def _all_of(
        self, work: _ImagePull, manifest: Manifest, found: ManifestData, chosen: ManifestData
    ) -> tuple[_Image, list[Artifact]]:
        """The image, and meanwhile what refers to it."""
        index = found.data if found is not chosen else None
        collector = Collector(self._store, self._source, work.lease)
        subjects = list(dict.fromkeys((found.digest, chosen.digest)))
        try:
            async with asyncio.TaskGroup() as group:
                about = group.create_task(collector.collect(index, subjects))
                image = await work.image(manifest)
        except BaseExceptionGroup as failed:
            raise first_error(failed) from None
        return image, about.result()

    def check_platform(self, name: Reference) -> None:
        """NotFound where what the name stands for is not of the platform that was asked for."""
        if self._platform is None:
            return
        document = self._store.find(str(name)).document
        actual = Platform(document.os, document.architecture, document.variant)
        wanted = self._platform
        if (actual.os, actual.architecture) != (wanted.os, wanted.architecture):
            raise NotFound(
                f"image with reference {name.familiar} was found but does not match the specified platform: wanted "
                f"{wanted}, actual: {actual}"
            )

    async def _for_platform(self, found: ManifestData) -> ManifestData:
        if found.media_type not in documents.INDEXES:
            return found
        machine = self._platform or self._store.platform
        entry = imagelayout.best_for(documents.read_index(found.data).manifests, machine)
        if entry is None:
            raise NotFound(f"no matching manifest for {machine} in the manifest list entries")
        chosen = await self._source.manifest(entry.digest)
        if chosen.media_type in documents.INDEXES or len(chosen.data) != entry.size:
            raise Corrupt(f"manifest {entry.digest} is not what the manifest list says")
        return chosen

    async def _record(
        self,
        work: _ImagePull,
        name: Reference,
        image: _Image,
        manifest: Manifest,
        kept: tuple[ManifestData, ...],
        about: Sequence[Artifact],
    ) -> bool:
        """Everything at once. `kept`: what the name stands for, and the manifest chosen of it; `about`: what refers to
        either."""
        store, identity, document = self._store, image.identity, image.document

        def heavy() -> None:
            for one in kept:
                store.content.put(one.data, one.digest)
            store.content.sync()

        for one in kept:
            work.lease.hold(one.digest)
        await asyncio.to_thread(heavy)
        with store.database.transaction():
            for layer in work.new_layers:
                store.add_layer(layer)
            store.add_image(identity, document)
            for one in kept:
                store.add_manifest(one.digest, identity)
            artifacts.record(store, identity, about)
            for diff_id, descriptor in zip(document.rootfs.diff_ids, manifest.layers, strict=True):
                store.add_source(diff_id, descriptor.digest, name.repository)
            fresh = store.add_digest(Reference(name.domain, name.path, digest=kept[0].digest), identity)
            if name.digest is None:
                fresh = store.tagged(name) != identity
                if fresh:
                    store.set_tag(name, identity)
        work.recorded()
        attributes = {**document.config.labels, "name": name.familiar_name}
        store.tell("pull", name.familiar, attributes)
        return fresh


def _check_kind(manifest: Manifest) -> None:
    """Registries hold other things than images."""
    kind = manifest.config.media_type
    if kind not in (documents.OCI_CONFIG, documents.DOCKER_CONFIG) or manifest.artifact_type:
        raise InvalidArgument(f'Encountered remote "{manifest.artifact_type or kind}"(unknown) when fetching')
    for layer in manifest.layers:
        if not documents.is_layer(layer.media_type):
            raise InvalidArgument(f'Encountered remote "{layer.media_type}"(unknown) when fetching')
        if layer.size < 0:
            raise Corrupt(f"layer {layer.digest} has the size {layer.size}")


class _ImagePull:
    """Configuration and layers of one image; until `recorded`, what it made is thrown away at its end."""

    def __init__(
        self, store: ImageStore, transfers: Transfers, source: Repository, report: Report, lease: Lease
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._source = source
        self._report = report
        self.lease = lease
        self.new_layers: list[NewLayer] = []
        self._directories: set[str] = set()

    def __enter__(self) -> _ImagePull:
        return self

    def __exit__(self, *_: object) -> None:
        for directory in self._directories:
            self._store.snapshots.unstage(directory)

    def recorded(self) -> None:
        """The database has it now."""
        self._directories.clear()

    async def image(self, manifest: Manifest) -> _Image:
        """Its configuration, with all layers adopted or already there."""
        named = Digest(manifest.config.digest)
        self.lease.hold(named)
        known = self._store.readable(named)
        if known is not None and self._store.whole(known):
            _check_document(known.document, manifest)
            for chain_id in digests.chain_ids(known.document.rootfs.diff_ids):
                self.lease.hold(chain_id)  # the image may be removed before it is recorded anew
            return _Image(named, known.document)
        data = await self._source.small(manifest.config)
        identity = digests.of(data)
        self.lease.hold(identity)
        document = documents.read_image(data)
        _check_document(document, manifest)
        await asyncio.to_thread(self._store.content.put, data, identity)
        parent: str | None = None
        layers: list[_Layer] = []
        chain_ids = digests.chain_ids(document.rootfs.diff_ids)
        for descriptor, diff_id, chain_id in zip(manifest.layers, document.rootfs.diff_ids, chain_ids, strict=True):
            self.lease.hold(chain_id)
            layers.append(_Layer(descriptor, diff_id, chain_id, parent))
            parent = chain_id
        await self._layers(layers)
        return _Image(identity, document)

    async def _layers(self, layers: list[_Layer]) -> None:
        missing = list(layers)
        while missing and self._store.layer(missing[0].chain_id) is not None:
            self._say("Already exists", missing.pop(0))
        for layer in missing:
            self._say("Pulling fs layer", layer)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._staged(layer)) for layer in missing]
                below: list[str] | None = None
                for layer, task in zip(missing, tasks, strict=True):
                    below = await self._adopt(layer, await task, below)
        except BaseExceptionGroup as failed:
            error = first_error(failed)
            if isinstance(error, OutOfSpace):  # a full disk is not to stay full of what did not fit
                for layer in missing:
                    self._store.content.drop_partial(layer.digest)
            raise error from None

    def _say(self, status: str, layer: _Layer, current: int | None = None) -> None:
        size = layer.descriptor.size
        detail = ProgressDetail() if current is None else ProgressDetail(current=current, total=size)
        self._report(Progress(status=status, progress_detail=detail, id=layer.label))

    async def _adopt(self, layer: _Layer, staged: Staged, below: list[str] | None) -> list[str]:
        """The directories, top first, that the next layer lies on."""
        if below is None:
            below = [] if layer.parent is None else self._store.snapshots.layer_directories(layer.parent)
        if staged.applied.diff_id != layer.diff_id:
            raise Corrupt("layers from manifest don't match image configuration")
        size = layer.descriptor.size
        self._say("Extracting", layer, size)
        adopted = await adopt(self._store, staged, layer.parent, self.lease, below)
        self._directories.discard(staged.directory)
        self._directories.add(adopted.directory)
        blob = layer.digest if layer.digest != layer.diff_id and self._store.content.has(layer.digest) else None
        self.new_layers.append(
            NewLayer(
                adopted.chain_id, adopted.diff_id, adopted.parent, adopted.directory, adopted.size, adopted.recipe,
                blob, layer.descriptor.media_type if blob else None,
            )
        )  # fmt: skip
        self._say("Pull complete", layer)
        return [adopted.directory, *below]

    async def _staged(self, layer: _Layer) -> Staged:
        """The layer's files: from the network, unless they or the blob are here."""
        self.lease.hold(layer.digest)
        async with self._transfers.alone(f"blob {layer.digest}"):
            source = self._local(layer)
            if source is not None:
                staged = await consume(_nothing(), lambda _: self._staged_now(source))
                self._say("Download complete", layer)
                return staged
            if self._transfers.downloads.locked():
                self._say("Waiting", layer)
            async with self._transfers.downloads:
                return await self._downloaded(layer)

    def _staged_now(self, chunks: Iterator[bytes]) -> Staged:
        staged = stage_layer(self._store, chunks, verified=True)
        self._directories.add(staged.directory)  # here, in the thread: its caller may be cancelled meanwhile
        return staged

    def _local(self, layer: _Layer) -> Iterator[bytes] | None:
        """The layer's tar, out of what is here."""
        if self._store.content.has(layer.digest):
            return compression.decompressed(self._store.content.chunks(layer.digest))
        known = self._store.layer_of_diff(layer.diff_id)
        if known is None or known.recipe is None:
            return None
        self.lease.hold(known.chain_id)
        return layer_tar(self._store, known)

    async def _downloaded(self, layer: _Layer) -> Staged:
        if layer.descriptor.size > self._store.limits.bytes:
            raise OutOfSpace(f"layer {layer.digest} has {layer.descriptor.size} bytes, more than the limit")
        for _ in range(_TRIES):
            with self._store.content.partial(layer.digest, layer.descriptor.size) as partial:
                try:
                    async with aclosing(self._arriving(layer, partial.offset)) as stream:
                        staged = await consume(stream, _Unpack(self._staged_now, partial, self._report, layer.label))
                except Corrupt:
                    partial.drop()
                    raise
            if staged is not None:
                return staged
            self._source.distrust(layer.digest)
            await asyncio.sleep(0.1)
        raise Corrupt(f"filesystem layer verification failed for digest {layer.digest}")

    async def _arriving(self, layer: _Layer, offset: int) -> AsyncGenerator[bytes, None]:
        told = time.monotonic()
        async with aclosing(self._source.blob(layer.descriptor, offset)) as pieces:
            async for piece in pieces:
                yield piece
                offset += len(piece)
                if time.monotonic() - told > _TICK:
                    told = time.monotonic()
                    self._say("Downloading", layer, offset)


class _Unpack:
    """One layer in its thread: store, hash, decompress, unpack."""

    def __init__(
        self, stage: Callable[[Iterator[bytes]], Staged], partial: Partial, report: Report, label: str
    ) -> None:
        self._stage = stage
        self._partial = partial
        self._report = report
        self._label = label

    def __call__(self, chunks: Iterator[bytes]) -> Staged | None:
        """None where what arrived is not what the digest says. Corrupt where it is, and cannot be unpacked."""
        stream = self._stored(chunks)
        staged: Staged | None = None
        wrong: Corrupt | None = None
        try:
            staged = self._stage(compression.decompressed(stream))
        except Corrupt as error:
            wrong = error
        for _ in stream:
            pass
        self._tell("Verifying Checksum")
        if not self._partial.commit():
            return None
        if wrong is not None:
            raise wrong
        self._tell("Download complete")
        return staged

    def _stored(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from self._partial.arrived()
        for chunk in chunks:
            self._partial.write(chunk)
            yield chunk

    def _tell(self, status: str) -> None:
        self._report(Progress(status=status, progress_detail=ProgressDetail(), id=self._label))


def _check_document(document: Document, manifest: Manifest) -> None:
    if len(document.rootfs.diff_ids) != len(manifest.layers):
        raise Corrupt("layers from manifest don't match image configuration")
    if document.os and document.os != "linux":
        raise NotImplemented(
            f'image operating system "{document.os}" cannot be used on this platform: operating system is not supported'
        )
    if document.config.labels.get(BASE_LABEL) == "host":
        raise InvalidArgument("an image on another machine's root has no files of its own")


async def _nothing() -> AsyncGenerator[bytes, None]:
    for piece in tuple[bytes, ...]():
        yield piece
