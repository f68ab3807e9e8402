"""Mark and sweep of blobs and snapshots: what no image, container or operation in progress needs goes away.

Roots are the images (their configuration, manifests, layers, and those layers' recipes), the snapshots of containers,
the leases of running operations, and what those say who keep blobs in the same store (*keepers*: a registry).
Operations hold what they made before it has a row, so that a sweep which runs meanwhile leaves it alone. Leases live in
memory: after a restart no operation is in progress.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from hafen.storage.content import ContentStore
from hafen.storage.database import Database
from hafen.storage.snapshot import Snapshotter

Keeper = Callable[[], Iterable[str]]
"""Digests of the blobs that somebody else needs just now."""


class Lease(Protocol):
    """An operation's hold; ends with its `with` block."""

    def hold(self, key: str) -> None:
        """Keep the blob of this digest, or the layer of this chain id with all below it."""


class _Lease:
    def __init__(self, leases: "Leases") -> None:
        self._leases = leases
        self.keys: list[str] = []

    def hold(self, key: str) -> None:
        with self._leases.lock:
            self._leases.held[key] += 1
            self.keys.append(key)


class Leases:
    """What operations in progress hold. Any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held: Counter[str] = Counter()
        self.operations = 0  # in progress
        self.withheld = False  # a sweep has left something to a lease alone
        self.released: Callable[[], object] = lambda: None  # is told when such leases have ended: to sweep again

    @contextmanager
    def operation(self) -> Iterator[Lease]:
        """A lease for the time of the block."""
        lease = _Lease(self)
        with self.lock:
            self.operations += 1
        try:
            yield lease
        finally:
            with self.lock:
                self.operations -= 1
                self.held.subtract(lease.keys)
                for key in lease.keys:
                    if self.held[key] <= 0:
                        del self.held[key]
                owed, self.withheld = self.withheld and not self.operations, self.withheld and self.operations > 0
            if owed:
                self.released()


def _closure(chains: Iterable[str], parents: dict[str, str | None]) -> set[str]:
    marked: set[str] = set()
    for start in chains:
        chain: str | None = start
        while chain is not None and chain not in marked and chain in parents:
            marked.add(chain)
            chain = parents[chain]
    return marked


def sweep(
    database: Database, snapshots: Snapshotter, content: ContentStore, leases: Leases, keepers: Sequence[Keeper] = ()
) -> list[str]:
    """Remove every layer and blob that nothing needs; the removed layers' chain ids, top-most first. Loop thread.

    Inside of a transaction this is a part of it, and files go once it is done.
    """
    layers = database.query("SELECT chain_id, parent, recipe, blob FROM layers")
    parents = {str(chain): None if parent is None else str(parent) for chain, parent, _, _ in layers}
    roots = [str(row[0]) for row in database.query("SELECT chain_id FROM images WHERE chain_id IS NOT NULL")]
    roots += [info.parent for info in snapshots.all() if not info.committed and info.parent is not None]
    with leases.lock:
        needed = _closure(roots, parents)
        marked = needed | _closure(leases.held, parents)
        leases.withheld |= len(marked) > len(needed)
        doomed = _children_first([chain for chain in parents if chain not in marked], parents)
        with database.transaction():
            for chain in doomed:
                database.execute("DELETE FROM layers WHERE chain_id = ?", (chain,))
            if doomed:
                database.execute("DELETE FROM blob_sources WHERE diff_id NOT IN (SELECT diff_id FROM layers)")
            known = {info.key for info in snapshots.all()}
            for chain in doomed:
                if chain in known:
                    snapshots.remove(chain)
    database.when_done(lambda: sweep_blobs(database, content, leases, keepers))
    return doomed


def _children_first(chains: list[str], parents: dict[str, str | None]) -> list[str]:
    def depth(chain: str) -> int:
        count = 0
        above: str | None = chain
        while above is not None:
            count += 1
            above = parents.get(above)
        return count

    return sorted(chains, key=depth, reverse=True)


def sweep_blobs(database: Database, content: ContentStore, leases: Leases, keepers: Sequence[Keeper] = ()) -> int:
    """Remove every blob that nothing needs, and no layer: how many went away. Loop thread; in no transaction."""
    with leases.lock:
        return _sweep_blobs(database, content, leases, keepers)


def _sweep_blobs(database: Database, content: ContentStore, leases: Leases, keepers: Sequence[Keeper]) -> int:
    """As above. The leases' lock is held; what they alone keep is noted as withheld."""
    held = set(leases.held)
    content.expire(held)
    used = {digest for needed in keepers for digest in needed()}
    for query in (
        "SELECT id FROM images",
        "SELECT digest FROM repository_digests",
        "SELECT digest FROM manifests",
        "SELECT digest FROM artifacts",
        "SELECT blob FROM artifact_blobs",
        "SELECT recipe FROM layers WHERE recipe IS NOT NULL",
        "SELECT blob FROM layers WHERE blob IS NOT NULL",
    ):
        used.update(str(row[0]) for row in database.query(query))
    unused = [digest for digest in content.all() if digest not in used]
    for digest in unused:
        if digest not in held:
            content.remove(digest)
    kept = sum(digest in held for digest in unused)
    leases.withheld |= kept > 0
    return len(unused) - kept
