"""Make images here: import a root file system's tar, commit a container's changes, record the host image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hafen.engine.feed import consume
from hafen.engine.imagestore import BASE_LABEL, HOST, Image, ImageStore, NewLayer
from hafen.engine.targets import without_targets
from hafen.errors import InvalidArgument, NotImplemented
from hafen.spec import changes as instructions
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import platform as platforms
from hafen.spec import reference, units
from hafen.spec.digest import Digest
from hafen.spec.image import History, RootFs
from hafen.spec.image import Image as Document
from hafen.spec.reference import Reference
from hafen.spec.wire.image import ImageConfig, Progress
from hafen.storage import compression, hostroot, layers
from hafen.storage.collect import Lease
from hafen.storage.layers import Applied


@dataclass(frozen=True, slots=True)
class Staged:
    """A layer unpacked into a directory that nobody sees yet."""

    directory: str
    applied: Applied


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What `docker commit` makes an image of: the changes of the snapshot `key`, on top of `parent`.

    `config` is the container's configuration already merged with what the client sent; `created_by` the command that
    the container ran; `repo` empty leaves the image without a name.
    """

    key: str
    parent: Image
    config: ImageConfig
    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    created_by: str = ""
    changes: tuple[str, ...] = ()


def stage_layer(
    store: ImageStore, chunks: Iterator[bytes], *, verified: bool = False, whiteouts: bool = True
) -> Staged:
    """Unpack a layer; in a thread. Nothing is left where it fails. `verified`: the caller compares the diff id, as all
    do who know it (see `layers.apply`)."""
    directory = store.snapshots.stage()
    try:
        applied = layers.apply(chunks, directory, limits=store.limits, verified=verified, whiteouts=whiteouts)
    except BaseException:
        store.snapshots.unstage(directory)
        raise
    return Staged(directory, applied)


async def adopt(
    store: ImageStore, staged: Staged, parent: str | None, lease: Lease, below: Sequence[str] | None = None
) -> NewLayer:
    """A staged layer on its parent, with its recipe stored: ready to be recorded, durable after the next sync.

    `below` are the parent's directories, top first, where it is not recorded yet.
    """
    diff_id = staged.applied.diff_id
    chain = digests.of(f"{parent} {diff_id}".encode()) if parent else diff_id
    if below is None:
        below = [] if parent is None else store.snapshots.layer_directories(parent)

    def heavy() -> tuple[str, Digest]:
        lease.hold(digests.of(staged.applied.recipe))
        recipe = store.content.put(staged.applied.recipe)
        return store.snapshots.adopt(staged.directory, below, staged.applied.implicit), recipe

    lease.hold(chain)
    directory, recipe = await asyncio.to_thread(heavy)
    return NewLayer(chain, diff_id, parent, directory, staged.applied.size, recipe=recipe)


async def record(
    store: ImageStore,
    new_layers: Sequence[NewLayer],
    document: Document,
    lease: Lease,
    *,
    parent: str | None = None,
    name: Reference | None = None,
) -> Digest:
    """Store the configuration, make all of it durable, and record it in one transaction; the image's id."""
    data = documents.encode(document)
    identity = digests.of(data)
    lease.hold(identity)

    def heavy() -> None:
        store.content.put(data)
        store.content.sync()

    await asyncio.to_thread(heavy)
    with store.database.transaction():
        for layer in new_layers:
            store.add_layer(layer)
        store.add_image(identity, document, parent)
        if name is not None:
            store.set_tag(name, identity)
    return identity


def now() -> str:
    """The time as Docker writes it into configurations."""
    return units.format_timestamp(time.time_ns())


async def import_tar(
    store: ImageStore,
    stream: AsyncIterator[bytes],
    repo: str | None,
    tag: str | None,
    message: str | None,
    changes: Sequence[str],
    platform: str | None,
) -> AsyncIterator[Progress]:
    """A root file system's tar, plain or compressed, as an image of one layer; the last message is its id."""
    name = reference.parse_repository(repo, tag or "") if repo else None
    config = instructions.apply(ImageConfig(), changes)
    target = platforms.parse(platform) if platform else store.platform
    if target.os != "linux":
        raise InvalidArgument("operating system is not supported")
    with store.leases.operation() as lease, ExitStack() as undo:

        def work(chunks: Iterator[bytes]) -> Staged:
            return stage_layer(store, compression.decompressed(chunks), whiteouts=False)

        staged = await consume(stream, work)
        undo.callback(store.snapshots.unstage, staged.directory)
        layer = await adopt(store, staged, None, lease)
        created = now()
        document = Document(
            architecture=target.architecture,
            variant=target.variant,
            comment=message or "Imported from -",
            config=config,
            created=created,
            history=[History(created=created, comment=message or "Imported from -")],
            os=target.os,
            rootfs=RootFs(diff_ids=[layer.diff_id]),
        )
        identity = await record(store, [layer], document, lease, name=name)
        undo.pop_all()
    if name is not None:
        store.publish("tag", identity, name.familiar)
    store.publish("import", identity, identity)
    yield Progress(status=identity)


async def commit(store: ImageStore, request: CommitRequest) -> str:
    """A container's changes as one more layer; the new image's id. The caller pauses the container."""
    name = reference.parse_repository(request.repo, request.tag) if request.repo else None
    config = instructions.apply(request.config, request.changes)
    parent = request.parent
    tree = store.snapshots.tree(request.key)
    if parent.of_this_machine:
        config = documents.with_label(config, BASE_LABEL, "host")
    with store.leases.operation() as lease, ExitStack() as undo:
        if parent.snapshot is not None:
            lease.hold(parent.snapshot)
        lease.hold(parent.id)
        staged = await asyncio.to_thread(lambda: stage_layer(store, layers.diff(tree, without_targets)))
        undo.callback(store.snapshots.unstage, staged.directory)
        empty = staged.applied.diff_id == layers.EMPTY
        added = [] if empty else [await adopt(store, staged, parent.snapshot, lease)]
        created = now()
        step = History(
            created=created,
            created_by=request.created_by,
            author=request.author,
            comment=request.comment,
            empty_layer=empty,
        )
        document = Document(
            architecture=parent.document.architecture,
            variant=parent.document.variant,
            author=request.author,
            comment=request.comment,
            config=config,
            created=created,
            history=[*parent.document.history, step],
            os=parent.document.os,
            os_version=parent.document.os_version,
            rootfs=RootFs(diff_ids=[*parent.document.rootfs.diff_ids, *(layer.diff_id for layer in added)]),
        )
        identity = await record(store, added, document, lease, parent=parent.id, name=name)
        if not empty:
            undo.pop_all()
    if name is not None:
        store.publish("tag", identity, name.familiar)
    return identity


def ensure_host(store: ImageStore, data_root: str, run_root: str, machine_id: str | None = None) -> Image:
    """On start: the `host` image is there and its mask is up to date. NotImplemented where the snapshotter cannot."""
    hostroot.remove_stale_masks()
    machine = hostroot.machine_id() if machine_id is None else machine_id
    data = hostroot.document(machine, store.platform.architecture)
    document = documents.read_image(data)
    key = document.rootfs.diff_ids[0]
    mask = hostroot.mask_place(data_root, run_root)
    try:
        store.snapshots.register_root(key, (mask, "/"))
    except NotImplemented:
        hostroot.remove_mask(mask)
        raise
    identity = store.content.put(data)
    hostroot.update_mask(mask, hostroot.hidden_paths((data_root, run_root)))
    store.content.sync()
    store.builtin = identity
    with store.database.transaction():
        store.add_host_layer(key)
        store.add_image(identity, document)
        # the document has no date, or its digest would change with it: the image is as old as it is known here
        store.database.execute(
            "UPDATE images SET created_at = ? WHERE id = ? AND created_at = 0", (time.time(), identity)
        )
        store.set_tag(reference.parse(HOST), identity)
    return store.find(identity)


def close_host(store: ImageStore, key: str) -> None:
    """Take the mask off the tmpfs where no container is based on it; the next start makes it again."""
    mask = store.snapshots.directory(key)
    containers = [info.key for info in store.snapshots.all() if not info.committed]
    if not any(mask in store.snapshots.layer_directories(container) for container in containers):
        hostroot.remove_mask(mask)
