"""`docker load`: the images of a docker-archive or an OCI layout, read in one pass.

The archive's own order is no help: layers come first and what they are for (manifest.json, index.json) last. So every
member that looks like a layer is unpacked where it passes, each in a directory of its own, and small JSON is kept;
what turns out not to be needed is thrown away. An uncompressed layer is thereby written once, as files; a compressed
one is kept as a blob too, since its bytes cannot be made again. A driver whose layers need their parent does that part
when they are adopted.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from itertools import chain

from hafen.engine import imageplatforms
from hafen.engine.feed import Reporter, consume
from hafen.engine.imageimport import Staged, stage_layer
from hafen.engine.imagelayout import Contents, Wanted, declared, digest_of
from hafen.engine.imagestore import BASE_LABEL, ImageStore, Layer, NewLayer
from hafen.engine.layertar import layer_tar
from hafen.errors import Corrupt, HafenError, InvalidArgument, NotFound
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import platform as platforms
from hafen.spec.digest import Digest
from hafen.spec.image import Image as Document
from hafen.spec.platform import Platform
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Progress, ProgressDetail
from hafen.storage import compression, tarformat
from hafen.storage.archive import Reader, Source
from hafen.storage.collect import Lease
from hafen.storage.extract import normalise
from hafen.storage.recipe import reassemble

_DOCUMENT = 8 << 20  # a manifest, index or configuration larger than this is none
_ALL = 64 << 20  # of all documents of one archive, and the names of its members: they are in memory to the end
_TICK = 4 << 20


Report = Callable[[Progress], None]


def load(
    store: ImageStore, stream: AsyncIterator[bytes], quiet: bool, platform: Platform | None = None
) -> AsyncIterator[Progress]:
    """All images or none. Messages: progress of layers unless `quiet`, then `Loaded image: name`."""

    async def operation(report: Reporter[Progress]) -> None:
        await _load(store, stream, platform, (lambda _: None) if quiet else report, report)

    return Reporter[Progress]().messages(operation)


async def _load(
    store: ImageStore, stream: AsyncIterator[bytes], platform: Platform | None, progress: Report, say: Report
) -> None:
    with store.leases.operation() as lease, ExitStack() as undo:
        contents = Contents()

        def discard() -> None:
            for staged in contents.staged.values():
                store.snapshots.unstage(staged.directory)

        undo.callback(discard)
        known = set[str]()
        for diff_id, chain_id in store.database.query("SELECT diff_id, chain_id FROM layers WHERE recipe IS NOT NULL"):
            known.add(str(diff_id))
            lease.hold(str(chain_id))  # what the archive need not bring must still be there in the end

        def work(chunks: Iterator[bytes]) -> None:
            _Pass(store, contents, known, lease, progress).run(compression.decompressed(chunks))

        await consume(stream, work)
        wanted = declared(contents, store.platform, platform)
        loader = _Loader(store, contents, lease)
        images = [(await loader.image(item), item.names) for item in wanted if loader.fits(item, platform)]
        if not images:
            raise NotFound(
                f"image archive: no image in it is for {platform}" if platform else "image archive: it is empty"
            )
        indexes = [await loader.index(item) for item in wanted if item.index]
        await asyncio.to_thread(store.content.sync)
        moved: list[tuple[Reference, str]] = []
        with store.database.transaction():
            for layer in loader.fresh.values():
                store.add_layer(layer)
                contents.staged = {
                    name: staged for name, staged in contents.staged.items() if staged.directory != layer.directory
                }
            for (identity, document), names in images:
                store.add_image(identity, document)
                for name in names:
                    before = store.set_tag(name, identity)
                    if before is not None:
                        moved.append((name, before))
            for digest, identity in indexes:
                store.add_manifest(digest, identity)
    for name, before in moved:
        say(
            Progress(
                stream=f"The image {name.familiar} already exists, "
                f"renaming the old one with ID {before} to empty string\n"
            )
        )
    for (identity, _), names in images:
        for name in names:
            say(Progress(stream=f"Loaded image: {name.familiar}\n"))
        if not names and not any(identity == part for _, part in indexes):
            say(Progress(stream=f"Loaded image ID: {identity}\n"))
        store.publish("load", identity, identity)
    store.sweep()


class _Pass:
    """The one pass over the archive; in a thread."""

    def __init__(
        self,
        store: ImageStore,
        contents: Contents,
        known: set[str],
        lease: Lease,
        progress: Report,
    ) -> None:
        self._store = store
        self._contents = contents
        self._known = known
        self._lease = lease
        self._progress = progress
        self._room = _ALL

    def run(self, chunks: Iterator[bytes]) -> None:
        reader = Reader(Source(chunks, self._store.limits.bytes), limits=self._store.limits)
        for entry in reader:
            name = normalise(entry.name, "image archive member")
            self._remember(len(name) + len(entry.linkname))
            if entry.type in (tarformat.SYMLINK, tarformat.LINK):
                hard = entry.type == tarformat.LINK  # its target is named from the archive's root
                self._contents.links[name] = f"/{entry.linkname}" if hard else entry.linkname
            elif entry.type == tarformat.FILE:
                if entry.segments is not None:
                    raise Corrupt(f"image archive member {entry.name!r} is sparse")
                self._file(name, entry.size, reader)

    def _remember(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise Corrupt(f"image archive: its documents have more than {_ALL} bytes")

    def _file(self, name: str, size: int, reader: Reader) -> None:
        content = (bytes(piece) for piece in reader.content())
        start = b""
        for piece in content:
            start += piece
            if len(start) >= tarformat.BLOCK:
                break
        expected = digest_of(name)
        whole = self._ticking(chain((start,), content), name, size)
        if _is_tar(start, size) or compression.detect(start):
            self._layer(name, whole, start, expected)
        elif size <= _DOCUMENT and start[:1] in b"{[ \t\r\n":
            self._remember(size)
            data = b"".join(whole)
            if expected is not None and digests.of(data, digests.algorithm_of(expected)) != expected:
                raise Corrupt(f"image archive: blob {expected} is something else")
            self._contents.documents[name] = data
        # Anything else is nothing we need: the reader skips it.

    def _ticking(self, chunks: Iterator[bytes], name: str, size: int) -> Iterator[bytes]:
        """The chunks, telling every few megabytes how far they are."""
        expected = digest_of(name)
        label = (digests.hex_of(expected) if expected else posixpath.dirname(name) or name)[:12]
        done = told = 0
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            if size > _DOCUMENT and (done - told >= _TICK or done == size):
                told = done
                detail = ProgressDetail(current=done, total=size)
                self._progress(Progress(status="Loading layer", progress_detail=detail, id=label))

    def _layer(self, name: str, chunks: Iterator[bytes], start: bytes, expected: Digest | None) -> None:
        hasher = digests.new(digests.algorithm_of(expected) if expected else "sha256")
        if expected is not None and expected in self._known:
            for chunk in chunks:
                hasher.update(chunk)
            _check(digests.finish(hasher, digests.algorithm_of(expected)), expected)
            self._contents.known[name] = expected
            return
        if compression.detect(start) is None:
            staged = stage_layer(self._store, chunks, verified=True)
            self._contents.staged[name] = staged
            if expected is not None and digests.algorithm_of(expected) == "sha256":
                _check(staged.applied.diff_id, expected)
            return
        with self._store.content.ingest(digests.algorithm_of(expected) if expected else "sha256") as ingest:

            def stored() -> Iterator[bytes]:
                for chunk in chunks:
                    ingest.write(chunk)
                    yield chunk

            stream = stored()
            self._contents.staged[name] = stage_layer(self._store, compression.decompressed(stream), verified=True)
            for _ in stream:
                pass
            self._lease.hold(ingest.digest)
            digest = ingest.commit(expected)
            self._contents.blobs[name] = digest


def _check(found: Digest, expected: Digest) -> None:
    if found != expected:
        raise Corrupt(f"image archive: digest mismatch: expected {expected}, the data is {found}")


def _is_tar(start: bytes, size: int) -> bool:
    if size < tarformat.BLOCK or size % tarformat.BLOCK:
        return False
    block = start[: tarformat.BLOCK]
    if block == tarformat.ZERO_BLOCK:
        return True
    if block[257:262] == b"ustar":
        return True
    try:
        tarformat.decode(block)
    except HafenError:
        return False
    return True


class _Loader:
    """Turns declared images into recorded ones; layers that several share are adopted once."""

    def __init__(self, store: ImageStore, contents: Contents, lease: Lease) -> None:
        self._store = store
        self._contents = contents
        self._lease = lease
        self.fresh: dict[str, NewLayer] = {}
        self._used: set[str] = set()

    async def image(self, item: Wanted) -> tuple[Digest, Document]:
        """The image's id and configuration, with all its layers adopted or already there."""
        data = self._contents.document(item.config)
        document = documents.read_image(data)
        if document.config.labels.get(BASE_LABEL) == "host":
            raise InvalidArgument("image archive: an image on another machine's root has no files of its own")
        diff_ids = document.rootfs.diff_ids
        paths = item.layers or ()
        if len(paths) != len(diff_ids):
            raise Corrupt(f"image archive: {len(paths)} layers, but the configuration names {len(diff_ids)}")
        identity = digests.of(data)
        self._lease.hold(identity)
        parent: str | None = None
        for path, diff_id, key in zip(paths, diff_ids, digests.chain_ids(diff_ids), strict=True):
            self._lease.hold(key)
            if self._contents.is_empty(path):
                await self._staged(self._contents.member(path), iter(()))
            if self._store.layer(key) is None and key not in self.fresh:
                self.fresh[key] = await self._layer(path, diff_id, parent)
            else:
                self._verify(path, diff_id)
            parent = key
        await asyncio.to_thread(self._store.content.put, data, identity)
        return identity, document

    def fits(self, item: Wanted, platform: Platform | None) -> bool:
        """Whether an image is for the platform that is wanted."""
        if platform is None:
            return True
        document = documents.read_image(self._contents.document(item.config))
        return platforms.satisfies(imageplatforms.of_document(document), platform)

    async def index(self, item: Wanted) -> tuple[Digest, Digest]:
        """Keep the index that an image is one platform of: its digest and the image's id."""
        data = self._contents.document(item.index or "")
        digest = digests.of(data)
        self._lease.hold(digest)
        await asyncio.to_thread(self._store.content.put, data)
        return digest, digests.of(self._contents.document(item.config))

    def _verify(self, path: str, diff_id: str) -> None:
        """An archive that lies is refused even where the truth is known."""
        found = self._contents.layer(path)
        if found is None:
            raise Corrupt(f"image archive: layer {path} is missing")
        actual = found.applied.diff_id if isinstance(found, Staged) else found
        if actual != diff_id:
            raise Corrupt(f"image archive: layer {path} is {actual}, but the configuration says {diff_id}")

    async def _layer(self, path: str, diff_id: str, parent: str | None) -> NewLayer:
        self._verify(path, diff_id)
        found = self._contents.layer(path)
        place = self._contents.member(path)
        if not isinstance(found, Staged) or place in self._used:
            found = await self._again(diff_id, found)
        self._used.add(place)
        below = [] if parent is None else self._below(parent)
        staged, recipe, blob = found, found.applied.recipe, self._contents.blobs.get(place)

        def heavy() -> tuple[str, Digest]:
            self._lease.hold(digests.of(recipe))
            return (
                self._store.snapshots.adopt(staged.directory, below, staged.applied.implicit),
                self._store.content.put(recipe),
            )

        directory, kept = await asyncio.to_thread(heavy)
        key = digests.of(f"{parent} {diff_id}".encode()) if parent else Digest(diff_id)
        return NewLayer(key, diff_id, parent, directory, staged.applied.size, recipe=kept, blob=blob)

    def _below(self, parent: str) -> list[str]:
        """Layer directories of a parent that may not be recorded yet, top first."""
        found = []
        key: str | None = parent
        while key is not None and key in self.fresh:
            found.append(self.fresh[key].directory)
            key = self.fresh[key].parent
        return found if key is None else found + self._store.snapshots.layer_directories(key)

    async def _again(self, diff_id: str, found: Staged | Digest | None) -> Staged:
        """The same contents on another parent: unpacked once more, from the files that are there."""
        source: Layer | None = self._store.layer_of_diff(diff_id)
        if source is not None:
            chunks = layer_tar(self._store, source)
        elif isinstance(found, Staged):
            chunks = reassemble(found.applied.recipe, found.directory)
        else:
            raise Corrupt(f"image archive: layer {diff_id} is missing")
        return await self._staged(f"again/{len(self._contents.staged)}", chunks)

    async def _staged(self, place: str, chunks: Iterator[bytes]) -> Staged:
        staged = await asyncio.to_thread(lambda: stage_layer(self._store, chunks, verified=True))
        self._contents.staged[place] = staged
        return staged
