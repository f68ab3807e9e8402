"""`hafen system fsck`: the whole store against its own digests, rows and directories, while the engine works.

    inventory ──► rows against rows and disk ──► every blob read ──► every layer read ──► a second look
    problems  ──► plan ──► steps, one after the other (`--repair`)

What is needed is held by a lease, so that no removal takes it away under the check; what looks like nobody's at first
and not any more in the end was on its way in or out. Pulls, builds and containers go on meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from hafen.engine import fsckplan, fsckrows
from hafen.engine.feed import Reporter, in_thread
from hafen.engine.fsckplan import Known, Leave, Planned, Remove, Step
from hafen.engine.fsckrepair import Repairer
from hafen.engine.fsckrows import ImageRow, Inventory, Kind, LayerRow, Problem, SnapshotState
from hafen.engine.imagestore import ImageStore
from hafen.engine.paths import Paths
from hafen.engine.records import Containers
from hafen.engine.registry import Registries
from hafen.engine.volumes import Volumes
from hafen.errors import HafenError
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import names
from hafen.spec.digest import Digest
from hafen.spec.image import Image as Document
from hafen.spec.wire.fsck import FsckMessage, FsckProblem, FsckProgress, FsckRepair, FsckReport
from hafen.spec.wire.system import AuthConfig
from hafen.storage import verify

_TICK = 0.2  # seconds between two messages of progress


@dataclass(frozen=True, slots=True)
class Fsck:
    """`Services.fsck`; loop thread only."""

    store: ImageStore
    containers: Containers
    volumes: Volumes
    paths: Paths
    registries: Registries

    def check(self, *, repair: bool, dry_run: bool, auths: Mapping[str, AuthConfig]) -> AsyncIterator[FsckMessage]:
        """Progress, problems as they are found, what is done about each, and a report in the end. `dry_run`: with
        `repair`, tell the steps and do none. `auths` by registry, for what is fetched."""

        async def operation(report: Reporter[FsckMessage]) -> None:
            with self.store.leases.operation() as lease:
                inventory = self.inventory()
                for key in (*inventory.needed_blobs(), *inventory.layers):
                    lease.hold(key)
                check = _Check(self, inventory, report)
                problems = await check.run()
                planned: tuple[Planned, ...] = ()
                if repair:
                    planned = fsckplan.plan(problems, check.known)
                repairer = Repairer(
                    self.store, self.containers, self.volumes, self.paths, self.registries, auths, lease
                )
                repairs = []
                for problem, step in planned:
                    told = _told(problem, step)
                    if not dry_run and not isinstance(step, Leave):
                        told = await self._done(repairer, problem, step, told)
                    report(FsckMessage(repair=told))
                    repairs.append(told)
            if any(one.done for one in repairs):
                self.store.sweep()  # what was replaced
            report(FsckMessage(report=check.report(problems, repairs)))

        return Reporter[FsckMessage]().messages(operation)

    async def _done(self, repairer: Repairer, problem: Problem, step: Step, told: FsckRepair) -> FsckRepair:
        try:
            if isinstance(step, Remove):
                self._remove(repairer, problem, step)
            else:
                await repairer.perform(step)
        except (HafenError, OSError) as error:
            return msgspec.structs.replace(told, error=str(error))
        return msgspec.structs.replace(told, done=True)

    def _remove(self, repairer: Repairer, problem: Problem, step: Remove) -> None:
        """Unless somebody has come to need it: looked at and removed in one step, in which nobody can begin to."""
        with self.store.leases.lock:
            if problem in fsckrows.structure(self.inventory()):
                repairer.remove(step)

    def inventory(self) -> Inventory:
        """Everything there is, in one step on the loop's thread."""
        store, query = self.store, self.store.database.query
        blobs = frozenset(store.content.all())  # before the leases: what comes in meanwhile is held
        strays = store.content.strays()
        if store.leases.operations > 1:  # beside this one
            strays = [path for path in strays if not path.startswith("ingest/")]
        with store.leases.lock:
            held = frozenset(store.leases.held)
        layers = [
            LayerRow(str(key), str(diff_id), _text(parent), int(str(size)), _text(recipe), _text(blob))
            for key, diff_id, parent, size, recipe, blob in query(
                "SELECT chain_id, diff_id, parent, size, recipe, blob FROM layers"
            )
        ]
        images = [
            ImageRow(str(identity), _text(parent), _text(top), int(str(size)))
            for identity, parent, top, size in query("SELECT id, parent, chain_id, size FROM images")
        ]
        snapshots = {
            info.key: SnapshotState(info.parent, info.committed, tuple(store.snapshots.absent(info.key)))
            for info in store.snapshots.all()
        }
        return Inventory(
            blobs=blobs,
            stray_files=tuple(strays),
            held=held,
            registry=frozenset(store.kept_elsewhere()),
            layers={layer.chain_id: layer for layer in layers},
            images={image.id: image for image in images},
            tags=_triples(query("SELECT repository, tag, image FROM tags")),
            manifests=tuple(
                (str(digest), str(image)) for digest, image in query("SELECT digest, image FROM manifests")
            ),
            repository_digests=_triples(query("SELECT repository, digest, image FROM repository_digests")),
            artifacts=_triples(query("SELECT digest, repository, image FROM artifacts")),
            artifact_blobs=tuple(
                (str(artifact), str(blob)) for artifact, blob in query("SELECT artifact, blob FROM artifact_blobs")
            ),
            sources=_triples(query("SELECT digest, diff_id, repository FROM blob_sources")),
            snapshots=snapshots,
            stray_directories=tuple(store.snapshots.strays()),
            containers={one.id: tuple(one.record.snapshots) for one in self.containers},
            container_directories=frozenset(name for name in os.listdir(self.paths.containers) if names.is_id(name)),
            volumes=self.volumes.names(),
            volume_directories=self.volumes.directories(),
            volumes_without_files=self.volumes.without_files(),
        )


def _told(problem: Problem, step: Step) -> FsckRepair:
    if isinstance(step, Leave):
        return FsckRepair(kind=problem.kind.value, subject=problem.subject, error=step.reason)
    return FsckRepair(kind=problem.kind.value, subject=problem.subject, step=step.describe())


class _Check:
    """One run over one inventory."""

    def __init__(self, fsck: Fsck, inventory: Inventory, report: Reporter[FsckMessage]) -> None:
        self._fsck = fsck
        self._store = fsck.store
        self._inventory = inventory
        self._report = report
        self._bytes = 0
        self._damaged: set[str] = set()
        self._documents: dict[str, Document] = {}

    async def run(self) -> list[Problem]:
        """All problems, each told as soon as it is certain."""
        first = fsckrows.structure(self._inventory)
        certain = [*self._database(), *(one for one in first if one.kind not in fsckrows.ORPHANS)]
        for problem in certain:
            self._tell(problem)
        certain += await self._blobs()
        certain += await self._layers()
        images = fsckrows.image_rows(self._inventory, self._documents)
        orphans = [one for one in first if one.kind in fsckrows.ORPHANS]
        settled = fsckrows.settled(orphans, fsckrows.structure(self._fsck.inventory())) if orphans else []
        for problem in (*images, *settled):
            self._tell(problem)
        return [*certain, *images, *settled]

    @property
    def known(self) -> Known:
        """What a plan needs of it."""
        return Known(self._inventory, self._documents, frozenset(self._damaged))

    def report(self, problems: list[Problem], repairs: list[FsckRepair]) -> FsckReport:
        """The sum of it."""
        found = self._inventory
        return FsckReport(
            blobs=len(found.blobs),
            layers=len(found.layers),
            images=len(found.images),
            containers=len(found.containers),
            volumes=len(found.volumes),
            bytes=self._bytes,
            problems=[_shown(problem) for problem in problems],
            repairs=repairs,
            clean=not problems or (bool(repairs) and all(one.done for one in repairs)),
        )

    def _tell(self, problem: Problem) -> None:
        self._report(FsckMessage(problem=_shown(problem)))

    def _database(self) -> list[Problem]:
        verdict = [str(row[0]) for row in self._store.database.query("PRAGMA integrity_check(20)")]
        return [] if verdict == ["ok"] else [Problem(Kind.DATABASE, "hafen.db", text) for text in verdict]

    async def _blobs(self) -> list[Problem]:
        """Every blob that somebody needs, read to its end."""
        found: list[Problem] = []
        there = [Digest(one) for one in self._inventory.needed_blobs() if one in self._inventory.blobs]
        total = sum(self._store.content.size(digest) for digest in there)
        with _Progress("blobs", total, self._report) as progress:
            for digest in there:
                wrong = await in_thread(verify.blob, self._store.content, digest, progress)
                if wrong is not None:
                    self._damaged.add(digest)
                    found.append(Problem(Kind.BLOB_DAMAGED, digest, wrong))
                    self._tell(found[-1])
                elif digest in self._inventory.images:
                    self._documents[digest] = documents.read_image(self._store.content.read(digest))
        self._bytes += progress.current
        return found

    async def _layers(self) -> list[Problem]:
        """Every layer's files, as far as its recipe can be read."""
        found: list[Problem] = []
        readable = [
            (layer, digests.parse(layer.recipe))
            for layer in self._inventory.layers.values()
            if layer.recipe in self._inventory.blobs and layer.recipe not in self._damaged and layer.recipe is not None
        ]
        sizes: dict[str, LayerRow] = {}
        with _Progress("layers", sum(layer.size for layer, _ in readable), self._report) as progress:
            for layer, recipe in readable:
                snapshot = self._inventory.snapshots.get(layer.chain_id)
                if snapshot is None or snapshot.absent:
                    continue  # known already
                for problem, size in await self._layer(layer, recipe, progress):
                    sizes[layer.chain_id] = replace(layer, size=size)
                    if problem is not None:
                        found.append(problem)
                        self._tell(problem)
        self._bytes += progress.current
        self._inventory = replace(self._inventory, layers={**self._inventory.layers, **sizes})
        return found

    async def _layer(self, layer: LayerRow, recipe: Digest, read: _Progress) -> list[tuple[Problem | None, int]]:
        """What is wrong with it, each with the size that the layer has."""
        store, key = self._store, layer.chain_id
        directory = store.snapshots.directory(key)
        data = store.content.read(recipe)
        whole = store.snapshots.separate
        wrong, size = await in_thread(lambda: verify.layer(data, directory, layer.diff_id, whole=whole, read=read))
        if wrong is not None:
            return [(Problem(Kind.LAYER_DAMAGED, key, wrong), layer.size)]
        found: list[tuple[Problem | None, int]] = []
        if size != layer.size:
            found.append((Problem(Kind.LAYER_ROW, key, f"its row has the size {layer.size}, not {size}"), size))
        if layer.blob is not None and layer.blob in self._inventory.blobs and layer.blob not in self._damaged:
            blob = Digest(layer.blob)
            other = await in_thread(lambda: verify.compressed(store.content, blob, layer.diff_id, read))
            if other is not None:
                self._damaged.add(blob)
                found.append((Problem(Kind.LAYER_ROW, key, f"its blob {blob} is none of it: {other}"), size))
        return found or [(None, size)]


class _Progress:
    """Bytes read by threads, told now and then."""

    def __init__(self, part: str, total: int, report: Reporter[FsckMessage]) -> None:
        self._part = part
        self._total = total
        self._report = report
        self._told = time.monotonic()
        self.current = 0

    def __call__(self, count: int) -> None:
        self.current += count
        if time.monotonic() - self._told > _TICK:
            self._told = time.monotonic()
            self._tell()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell()

    def _tell(self) -> None:
        self._report(FsckMessage(progress=FsckProgress(self._part, self.current, max(self._total, self.current))))


def _shown(problem: Problem) -> FsckProblem:
    return FsckProblem(problem.kind.value, problem.subject, problem.detail)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _triples(rows: Iterable[Sequence[object]]) -> tuple[tuple[str, str, str], ...]:
    return tuple((str(one), str(two), str(three)) for one, two, three in rows)
