"""Perform the steps that mend the store (`fsckplan`): fetch, unpack, write rows, remove."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from hafen.engine.feed import in_thread
from hafen.engine.fsckplan import (
    CorrectImage,
    CorrectLayer,
    FetchBlob,
    FetchManifest,
    PullImage,
    Remake,
    Remove,
    RestoreLayer,
    Step,
)
from hafen.engine.fsckrows import Kind
from hafen.engine.imageimport import Staged, adopt, stage_layer
from hafen.engine.imagestore import ImageStore, NewLayer
from hafen.engine.paths import Paths
from hafen.engine.records import Containers
from hafen.engine.registry import Registries, auth_of
from hafen.engine.volumes import Volumes
from hafen.errors import Conflict, Corrupt, HafenError
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.spec.wire.system import AuthConfig
from hafen.storage import compression
from hafen.storage.collect import Lease


class Repairer:
    """One repair; loop thread only. `lease` holds what it brings; `auths` are credentials by registry."""

    def __init__(
        self,
        store: ImageStore,
        containers: Containers,
        volumes: Volumes,
        paths: Paths,
        registries: Registries,
        auths: Mapping[str, AuthConfig],
        lease: Lease,
    ) -> None:
        self._store = store
        self._containers = containers
        self._volumes = volumes
        self._paths = paths
        self._registries = registries
        self._auths = auths
        self._lease = lease

    async def perform(self, step: Step) -> None:
        """One step that is not `Remove`. HafenError where it cannot be done."""
        if isinstance(step, FetchManifest):
            await self._manifest(step)
        elif isinstance(step, FetchBlob):
            await self._blob(step)
        elif isinstance(step, RestoreLayer):
            await self._layer(step)
        elif isinstance(step, CorrectLayer):
            self._correct_layer(step)
        elif isinstance(step, CorrectImage):
            self._correct_image(step)
        elif isinstance(step, PullImage):
            await self._pull(step)
        elif isinstance(step, Remake):
            self._remake(step)

    def remove(self, step: Remove) -> None:
        """What nobody needs; the caller sees to it that nobody comes to need it meanwhile."""
        store, subject = self._store, step.subject
        if step.place is Kind.BLOB_ORPHAN:
            store.content.remove(Digest(subject))
        elif step.place is Kind.FILE_ORPHAN:
            store.content.remove_stray(subject)
        elif step.place is Kind.SNAPSHOT_ORPHAN:
            store.snapshots.remove_stray(subject)
        elif step.place is Kind.SNAPSHOT_ROW:
            with store.database.transaction():
                store.snapshots.remove(subject)
        elif step.place is Kind.CONTAINER_ORPHAN:
            shutil.rmtree(self._paths.container(subject))
        elif step.place is Kind.NAME_ROW:
            with store.database.transaction():
                store.remove_row_of(subject)

    async def _manifest(self, step: FetchManifest) -> None:
        data = await self._from_any(step.repositories, step.digest)
        await asyncio.to_thread(self._store.content.put, data, Digest(step.digest))

    async def _from_any(self, repositories: tuple[str, ...], digest: str) -> bytes:
        failed: HafenError = Corrupt(f"no registry is known to have {digest}")
        for repository in repositories:
            try:
                return await self._registries.fetch_manifest(reference.parse(repository), digest, self._auths)
            except HafenError as error:
                failed = error
        raise failed

    async def _blob(self, step: FetchBlob) -> None:
        try:
            await self._fetched(tuple((step.digest, place) for place in step.repositories))
        except HafenError:
            if step.layer is None:
                raise
            # The layer's files are what counts: its compressed form is made again when it is pushed.
            with self._store.database.transaction():
                self._store.forget_blob(step.layer)

    async def _fetched(self, sources: tuple[tuple[str, str], ...]) -> Digest:
        """The first of these (digest, repository) that can be had, stored."""
        failed: HafenError = Corrupt("no registry is known to have it")
        for digest, repository in sources:
            self._lease.hold(digest)
            try:
                await self._registries.fetch_blob(reference.parse(repository), Digest(digest), self._auths)
                return Digest(digest)
            except HafenError as error:
                failed = error
        raise failed

    async def _layer(self, step: RestoreLayer) -> None:
        store = self._store
        self._check_unused(step.chain_id)
        blob = Digest(step.blob) if step.blob else await self._fetched(step.sources)
        with ExitStack() as undo:

            def unpack() -> Staged:
                return stage_layer(store, compression.decompressed(store.content.chunks(blob)), verified=True)

            staged = await in_thread(unpack)
            undo.callback(store.snapshots.unstage, staged.directory)
            if staged.applied.diff_id != step.diff_id:
                raise Corrupt(f"blob {blob} is the layer {staged.applied.diff_id}, not {step.diff_id}")
            layer = await adopt(store, staged, step.parent, self._lease)
            await asyncio.to_thread(store.content.sync)
            self._check_unused(step.chain_id)
            self._record(layer)
            undo.pop_all()

    def _record(self, layer: NewLayer) -> None:
        store = self._store
        with store.database.transaction():
            if store.snapshots.has(layer.chain_id):
                store.snapshots.replace(layer.chain_id, layer.directory)
            else:
                store.snapshots.register(layer.directory, layer.chain_id, layer.parent)
            store.database.execute(
                "UPDATE layers SET recipe = ?, size = ? WHERE chain_id = ?", (layer.recipe, layer.size, layer.chain_id)
            )

    def _check_unused(self, chain_id: str) -> None:
        """A mounted layer's directory cannot be exchanged."""
        users = [
            one.name for one in self._containers
            if one.alive and any(chain_id in self._below(key) for key in one.record.snapshots)
        ]  # fmt: skip
        if users:
            raise Conflict(f"it is in use: stop {', '.join(sorted(users))} and repair again")

    def _below(self, key: str) -> Iterator[str]:
        below: str | None = key
        while below is not None and self._store.snapshots.has(below):
            below = self._store.snapshots.info(below).parent
            if below is not None:
                yield below

    def _correct_layer(self, step: CorrectLayer) -> None:
        with self._store.database.transaction():
            self._store.database.execute("UPDATE layers SET size = ? WHERE chain_id = ?", (step.size, step.chain_id))
            if not step.keep_blob:
                self._store.forget_blob(step.chain_id)

    def _correct_image(self, step: CorrectImage) -> None:
        with self._store.database.transaction():
            self._store.database.execute(
                "UPDATE images SET chain_id = ?, size = ? WHERE id = ?", (step.chain_id, step.size, step.id)
            )
            if step.orphaned:
                self._store.database.execute("UPDATE images SET parent = NULL WHERE id = ?", (step.id,))

    async def _pull(self, step: PullImage) -> None:
        name = reference.parse(step.name)
        auth = auth_of(name, self._auths)
        async for _ in self._registries.pull(name.repository, name.digest or "", step.platform, auth):
            pass

    def _remake(self, step: Remake) -> None:
        if step.kind is Kind.VOLUME_MISSING:
            self._volumes.remake(step.subject)
        else:
            self._store.snapshots.remake(step.subject)
