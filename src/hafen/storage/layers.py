"""Layers: apply a layer tar to a directory, diff a snapshot to a layer tar, list what changed.

OCI image-spec, layer.md. A diff is reproducible: sorted, whole seconds, numeric owners, so the same change gives the
same digest wherever it is made.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hafen.kernel import fs
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage import archive, pack
from hafen.storage.archive import DEFAULT_LIMITS, Limits, Reader, Source
from hafen.storage.content import hashed
from hafen.storage.extract import WHITEOUT_PREFIX, Extractor, Policy
from hafen.storage.recipe import Recorder
from hafen.storage.snapshot import Change, ChangeKind, Tree
from hafen.storage.tarformat import FILE, Entry

EMPTY = Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
"""Diff id of the layer that changes nothing: an archive of nothing but its end mark."""

_LAYER = Policy(owners=True, whiteouts=True, devices=True)
_ROOT_TAR = Policy(owners=True, whiteouts=False, devices=True)


@dataclass(frozen=True, slots=True)
class Applied:
    """A layer that was unpacked: digest of the uncompressed tar, bytes of its files, members, directories it needed
    but did not describe, and the recipe that gives the tar back."""

    diff_id: Digest
    size: int
    entries: int
    implicit: tuple[str, ...]
    recipe: bytes


def apply(
    chunks: Iterable[bytes],
    directory: str,
    *,
    verified: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    whiteouts: bool = True,
) -> Applied:
    """Unpack an uncompressed layer into an empty layer directory (`<n>/fs`; `<n>/kept` may appear beside it).

    `verified`: the caller compares the diff id with the one that it must have. Else nothing but its end mark shows that
    the archive is whole, and one that lacks it counts as truncated.
    `whiteouts` False: a root file system (`import`), where `.wh.` names mean nothing. Errors: Corrupt, OutOfSpace,
    System; the caller throws the directory away.
    """
    hasher = digests.new()
    recorder = Recorder()
    source = Source(hashed(chunks, hasher), limits.bytes)
    reader = Reader(source, limits=limits, literal=recorder.literal, require_end=not verified)
    policy = _LAYER if whiteouts else _ROOT_TAR
    kept = f"{os.path.dirname(directory)}/kept"
    with Extractor(directory, policy, recorder=recorder, kept=kept) as extractor:
        made = extractor.run(reader)
    return Applied(digests.finish(hasher), made.bytes, made.entries, made.implicit, recorder.finish())


def describe(directory: str) -> Applied:
    """A layer directory that was filled by another program, as if it had been unpacked from its reproducible tar."""
    hasher = digests.new()
    recorder = Recorder()
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader = Reader(Source(hashed(pack.tree(root), hasher)), literal=recorder.literal)
        size = entries = 0
        for item in reader:
            entries += 1
            size += item.size
            for piece in reader.content():
                del piece  # the recipe names the file instead
            if item.size:
                recorder.content(item.name, 0, item.size)
    finally:
        os.close(root)
    return Applied(digests.finish(hasher), size, entries, (), recorder.finish())


def diff(tree: Tree, select: Callable[[Iterable[Change]], Iterable[Change]] = iter) -> Iterator[bytes]:
    """What a snapshot changed, as a layer tar in pieces of some 100 KiB; `select` may leave changes out."""
    return pack.joined(_diff(tree, select))


def _diff(tree: Tree, select: Callable[[Iterable[Change]], Iterable[Change]]) -> Iterator[bytes]:
    changed = tree.open_changed()
    try:
        packer = pack.Packer()
        with _Parents(changed) as parents:
            for change in select(tree.changes()):
                path = change.path[1:]
                head, slash, base = path.rpartition("/")
                if change.kind is ChangeKind.DELETED:
                    yield from archive.member(Entry(f"{head}{slash}{WHITEOUT_PREFIX}{base}", FILE, 0o644))
                    continue
                try:
                    yield from packer.member(parents.open(head), base, path)
                except FileNotFoundError:
                    continue  # removed by the container meanwhile
        yield archive.end()
    finally:
        os.close(changed)


class _Parents:
    """Directories below `root`, opened one after the other, of which none is a link by now."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path = ""
        self._opened = -1

    def open(self, path: str) -> int:
        """Its descriptor, until the next is asked for. FileNotFoundError where it is gone, or no directory now."""
        if not path:
            return self._root
        if path != self._path or self._opened < 0:
            self.close()
            opened = fs.open_directory_beneath(self._root, path)
            if opened is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._opened, self._path = opened, path
        return self._opened

    def close(self) -> None:
        if self._opened >= 0:
            os.close(self._opened)
            self._opened = -1

    def __enter__(self) -> "_Parents":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
