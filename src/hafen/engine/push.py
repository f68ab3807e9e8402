"""`docker push`: layers the registry lacks, the configuration, then the manifest under its tag.

A layer goes as it came, where its compressed blob was kept or another repository of that registry can lend it; else
its exact tar is made from files and recipe and compressed, always to the same bytes. An image whose layers all go as
its own manifest says is pushed with that manifest, so that it has the same digest everywhere; for others a Docker
schema 2 manifest is made, as Docker does. Messages and their order are Docker's (moby `distribution/push_v2.go`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from hafen.engine import artifacts, imageplatforms
from hafen.engine.artifacts import Artifact
from hafen.engine.feed import produce
from hafen.engine.imagestore import Image, ImageStore, Layer
from hafen.engine.layertar import layer_tar
from hafen.engine.transfers import Transfers, Uploader, first_error
from hafen.errors import Conflict, NotFound
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec.digest import Digest
from hafen.spec.image import Index
from hafen.spec.platform import Platform
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor, Progress, ProgressDetail
from hafen.storage import compression
from hafen.storage.collect import Lease

_TICK = 0.1  # seconds between two messages of one layer
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

Report = Callable[[Progress], None]
Announce = Callable[[Digest, Descriptor], Awaitable[None]]
"""Subject and artifact: `distribution.referrers.announce`."""


class Pusher:
    """One push to one repository."""

    def __init__(
        self, store: ImageStore, transfers: Transfers, repository: Reference, uploader: Uploader, report: Report
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._repository = repository
        self._uploader = uploader
        self._report = report
        self._sent: dict[str, Descriptor] = {}  # by diff id: several tags share their layers

    async def push(self, tag: str, platform: Platform | None = None, announce: Announce | None = None) -> None:
        """One tag: all platforms of its image, where all are here, or the one that is asked for. With `announce` also
        the artifacts that are about what is pushed, each of which the registry is told of by it."""
        name = Reference(self._repository.domain, self._repository.path, tag)
        image = self._find(name, platform)
        whole = self._whole_index(image) if platform is None else None
        with self._store.leases.operation() as lease:
            if whole is None:
                data, media_type = await self._image(image, lease)
            else:
                data, media_type = await self._index(*whole, lease) or await self._image(image, lease)
            digest = digests.of(data)
            await self._uploader.manifest(tag, media_type, data)
            await self._record(name, image, digest, data, lease)
            if announce is not None:
                await self._artifacts(image, digest, announce)
        self._report(Progress(status=f"{tag}: digest: {digest} size: {len(data)}"))
        aux: dict[str, object] = {"Tag": tag, "Digest": digest, "Size": len(data)}
        self._report(Progress(progress_detail=ProgressDetail(), aux=aux))

    async def _artifacts(self, image: Image, pushed: Digest, announce: Announce) -> None:
        members = [image, *imageplatforms.others(self._store, image.id)]
        there = {pushed}
        if (index := imageplatforms.index_of(self._store, image)) is not None and index[0] == pushed:
            there |= {Digest(entry.digest) for entry in index[2].manifests}
        about = {one.digest: one for member in members for one in artifacts.of_image(self._store, member)}
        while ready := [one for one in about.values() if one.subject in there]:  # after what it refers to
            for one in ready:
                await artifacts.push(self._store, self._uploader, one)
                await announce(one.subject, one.descriptor)
                self._report(Progress(status=f"{one.descriptor.artifact_type}: digest: {one.digest}"))
                there.add(one.digest)
                del about[one.digest]

    def _whole_index(self, image: Image) -> tuple[bytes, Index, list[tuple[Descriptor, Image | Artifact]]] | None:
        """The index that an image came by, where there are several manifests in it and all of them are here."""
        found = imageplatforms.index_of(self._store, image)
        if found is None or len(found[2].manifests) < 2:
            return None
        members = {member.id: member for member in (image, *imageplatforms.others(self._store, image.id))}
        owners = {digest: member for member in members.values() for digest in self._store.manifests(member.id)}
        kept = {one.digest: one for member in members.values() for one in artifacts.of_image(self._store, member)}
        entries = [
            (entry, owners.get(Digest(entry.digest)) or kept.get(Digest(entry.digest))) for entry in found[2].manifests
        ]
        there = [(entry, member) for entry, member in entries if member is not None]
        return (found[1], found[2], there) if len(there) == len(entries) else None

    async def _index(
        self, data: bytes, index: Index, members: Sequence[tuple[Descriptor, Image | Artifact]], lease: Lease
    ) -> tuple[bytes, str] | None:
        """All images and attestations of an index, each under its digest; the index itself. None where one cannot be
        sent as it came, because another form of one of its layers is here."""
        for entry, member in members:
            if isinstance(member, Artifact):
                await artifacts.push(self._store, self._uploader, member)
                continue
            manifest, media_type = await self._image(member, lease, entry.digest)
            if digests.of(manifest) != entry.digest:
                return None
            await self._uploader.manifest(entry.digest, media_type, manifest)
        return data, index.media_type

    async def _image(self, image: Image, lease: Lease, wanted: str | None = None) -> tuple[bytes, str]:
        """All that an image needs; its manifest with its type: the kept one (of the digest `wanted`) where it fits."""
        chain = self._store.chain(image.snapshot)
        lease.hold(image.id)
        if image.snapshot is not None:
            lease.hold(image.snapshot)
        for layer in reversed(chain):
            self._say("Preparing", layer)
        kept = imageplatforms.kept_manifest(self._store, image, wanted)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._layer(layer, form, lease))
                    for layer, form in zip(chain, kept[1].layers if kept else [None] * len(chain), strict=True)
                ]
        except BaseExceptionGroup as failed:
            raise first_error(failed) from None
        layers = [task.result() for task in tasks]
        await self._configuration(image)
        if kept and [one.digest for one in kept[1].layers] == [one.digest for one in layers]:
            return kept[0], kept[1].media_type
        return _manifest(self._store.content.size(image.id), image, layers)

    def _find(self, name: Reference, platform: Platform | None) -> Image:
        if self._store.tagged(name) is None:
            raise NotFound(f"tag does not exist: {name.familiar}")
        image = imageplatforms.choose(self._store, str(name), platform)
        if image.of_this_machine:
            raise Conflict(
                f"cannot push {name.familiar}: it consists of this machine's own root file system ('host'); make a "
                "container of it and use `export`"
            )
        return image

    async def _layer(self, layer: Layer, wanted: Descriptor | None, lease: Lease) -> Descriptor:
        """The layer as the registry has it now."""
        done = self._sent.get(layer.diff_id)
        if done is not None and (wanted is None or done.digest == wanted.digest):
            self._say("Layer already exists", layer)
            return done
        if self._transfers.uploads.locked():
            self._say("Waiting", layer)
        async with self._transfers.uploads:
            found = None if wanted is None else await self._as_wanted(layer, wanted)
            if found is None:
                found = await self._there(layer)
            if found is None:
                found = await self._lent(layer, self._sources(layer))
            if found is None:
                found = await self._uploaded(layer, wanted, lease)
        self._sent[layer.diff_id] = found
        return found

    async def _as_wanted(self, layer: Layer, wanted: Descriptor) -> Descriptor | None:
        """The layer in the form that the image's own manifest names, where the registry has it."""
        if await self._uploader.size(Digest(wanted.digest)) is not None:
            self._say("Layer already exists", layer)
            return wanted
        lent = await self._lent(layer, [(Digest(wanted.digest), place) for _, place in self._sources(layer)])
        return wanted if lent else None

    async def _there(self, layer: Layer) -> Descriptor | None:
        """One of the forms that the layer is known to have, where the repository has it."""
        forms = [Digest(layer.blob)] if layer.blob else []
        forms += [digest for digest, path in self._sources(layer) if path == self._repository.repository]
        for digest in dict.fromkeys(forms):
            size = await self._uploader.size(digest)
            if size is not None:
                self._say("Layer already exists", layer)
                return Descriptor(self._media_type(layer, digest), digest, size)
        return None

    async def _lent(self, layer: Layer, known: Sequence[tuple[Digest, str]]) -> Descriptor | None:
        """The layer mounted from another repository of the same registry: of `known` forms in repositories."""
        domain = f"{self._repository.domain}/"
        for digest, repository in known:
            path = repository.removeprefix(domain)
            if repository == path or path == self._repository.path:
                continue
            if await self._uploader.mount(digest, path):
                size = await self._uploader.size(digest)
                if size is not None:
                    self._say(f"Mounted from {path}", layer)
                    return Descriptor(self._media_type(layer, digest), digest, size)
        return None

    def _sources(self, layer: Layer) -> list[tuple[Digest, str]]:
        rows = self._store.database.query(
            "SELECT digest, repository FROM blob_sources WHERE diff_id = ?", (layer.diff_id,)
        )
        return [(Digest(str(digest)), str(repository)) for digest, repository in rows]

    def _media_type(self, layer: Layer, digest: Digest) -> str:
        if digest == layer.diff_id:
            return _DOCKER_LAYER
        if digest == layer.blob and layer.media_type and layer.media_type.endswith("zstd"):
            return f"{documents.OCI_LAYER}+zstd"
        return f"{_DOCKER_LAYER}.gzip"

    async def _uploaded(self, layer: Layer, wanted: Descriptor | None, lease: Lease) -> Descriptor:
        content = self._store.content
        if layer.blob is not None and content.has(Digest(layer.blob)):
            digest = Digest(layer.blob)
        elif wanted is not None and wanted.digest == layer.diff_id:  # it came without compression, and so it goes
            digest = await self._stored(layer_tar(self._store, layer), lease)
        else:
            digest = await self._stored(compression.gzipped(layer_tar(self._store, layer)), lease)
            if await self._uploader.size(digest) is not None:
                self._say("Layer already exists", layer)
                return Descriptor(self._media_type(layer, digest), digest, content.size(digest))
        size = content.size(digest)
        told = 0.0

        def sent(count: int) -> None:
            nonlocal told
            if time.monotonic() - told > _TICK or count == size:
                told = time.monotonic()
                self._say("Pushing", layer, ProgressDetail(current=count, total=size))

        def open_blob(offset: int) -> AsyncIterator[bytes]:
            return produce(lambda: content.chunks(digest, offset))

        await self._uploader.upload(digest, size, open_blob, sent)
        self._say("Pushed", layer)
        return Descriptor(self._media_type(layer, digest), digest, size)

    async def _stored(self, chunks: Iterator[bytes], lease: Lease) -> Digest:
        """A blob of these bytes for the time of the lease: an upload may have to begin again."""

        def heavy() -> Digest:
            with self._store.content.ingest() as ingest:
                for chunk in chunks:
                    ingest.write(chunk)
                lease.hold(ingest.digest)
                return ingest.commit()

        return await asyncio.to_thread(heavy)

    async def _configuration(self, image: Image) -> None:
        if await self._uploader.size(image.id) is None:
            content = self._store.content

            def open_blob(offset: int) -> AsyncIterator[bytes]:
                return produce(lambda: content.chunks(image.id, offset))

            await self._uploader.upload(image.id, content.size(image.id), open_blob, lambda _: None)

    async def _record(self, name: Reference, image: Image, digest: Digest, data: bytes, lease: Lease) -> None:
        """What the registry has from now on."""
        lease.hold(digest)

        def heavy() -> None:
            self._store.content.put(data, digest)
            self._store.content.sync()

        await asyncio.to_thread(heavy)
        with self._store.database.transaction():
            self._store.add_manifest(digest, image.id)
            self._store.add_digest(Reference(name.domain, name.path, digest=digest), image.id)
            for diff_id, descriptor in self._sent.items():
                self._store.add_source(diff_id, descriptor.digest, name.repository)

    def _say(self, status: str, layer: Layer, detail: ProgressDetail | None = None) -> None:
        label = digests.hex_of(Digest(layer.diff_id))[:12]
        self._report(Progress(status=status, progress_detail=detail or ProgressDetail(), id=label))


def _manifest(size: int, image: Image, layers: Sequence[Descriptor]) -> tuple[bytes, str]:
    """A new manifest, laid out as Docker lays it out, and its type. Docker's own knows no zstd."""
    plain = all(layer.media_type.startswith(_DOCKER_LAYER) for layer in layers)
    media_type = documents.DOCKER_MANIFEST if plain else documents.OCI_MANIFEST

    def described(kind: str, size: int, digest: str) -> dict[str, object]:
        return {"mediaType": kind, "size": size, "digest": digest}

    def layer_type(kind: str) -> str:
        oci = {_DOCKER_LAYER: documents.OCI_LAYER, f"{_DOCKER_LAYER}.gzip": f"{documents.OCI_LAYER}+gzip"}
        return kind if plain else oci.get(kind, kind)

    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": described(documents.DOCKER_CONFIG if plain else documents.OCI_CONFIG, size, image.id),
        "layers": [described(layer_type(one.media_type), one.size, one.digest) for one in layers],
    }
    return json.dumps(document, indent=3).encode(), media_type
