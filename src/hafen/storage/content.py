"""`ContentStore`: immutable blobs by their digest; the one write path of engine, builder and registry.

    with store.ingest() as ingest:          # a temporary file that nobody else sees
        ingest.write(chunk)                 # hashed while it arrives
        digest = ingest.commit(expected)    # Corrupt, and nothing is kept, where it is something else
    store.sync()                            # once per image operation, before the database names the blob

A blob has its name only when it is whole. A power cut before `sync` may damage blobs that no row names yet: they are
swept on start before anybody can use them (see `collect`). What is left in `ingest/` is removed by `recover`, but for
blobs that were half fetched (see `partial`).
"""

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from hafen.errors import Corrupt, NotFound, OutOfSpace
from hafen.kernel import fs
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage import partial as partials
from hafen.storage.partial import Partial

_CHUNK = 1 << 20


class ContentStore(Protocol):
    """Blobs by digest. Any thread may use it."""

    def has(self, digest: Digest) -> bool: ...

    def size(self, digest: Digest) -> int:
        """Bytes; NotFound where the blob is not there."""

    def ingest(self, algorithm: str = "sha256") -> "Ingest":
        """Begin a new blob, whose digest is to be of this algorithm."""

    def partial(self, digest: Digest, size: int) -> Partial:
        """Begin, or go on with, a blob of this digest and size in bytes; one caller at a time."""

    def drop_partial(self, digest: Digest) -> None:
        """Keep nothing of what has arrived of a blob; harmless where nothing has."""

    def put(self, data: bytes, expected: Digest | None = None) -> Digest:
        """A whole small blob at once."""

    def read(self, digest: Digest) -> bytes:
        """A small blob, verified: Corrupt where it is not what its name says."""

    def chunks(self, digest: Digest, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """A blob, or a range of it, in pieces of a megabyte. NotFound is raised by the call, not by iterating."""

    def remove(self, digest: Digest) -> None:
        """Harmless where it is not there."""

    def all(self) -> Iterator[Digest]:
        """Every blob, in no order."""

    def strays(self) -> list[str]:
        """Paths, relative to the store, of what is neither a blob nor a partial one. Below `ingest/` it may be on its
        way in just now."""

    def remove_stray(self, path: str) -> None:
        """Remove one of `strays`."""

    def expire(self, held: Collection[str]) -> None:
        """Drop partial blobs that are too old or too many, and not held."""

    def sync(self) -> None:
        """All blobs committed so far survive a power cut when this returns."""

    def recover(self) -> None:
        """On start: drop what was being written, but for recent partial blobs."""


class Ingest(Protocol):
    """One blob on its way in. Leaving the `with` without `commit` drops it."""

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes; OutOfSpace where the device is full."""

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""

    def commit(self, expected: Digest | None = None) -> Digest:
        """Give it its name; Corrupt where that is not `expected`."""

    def __enter__(self) -> "Ingest": ...

    def __exit__(self, *_: object) -> None: ...


class LocalContent:
    """Blobs in `<root>/blobs/<algorithm>/<hex>`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._blobs = f"{root}/blobs"
        self._ingest = f"{root}/ingest"
        os.makedirs(f"{self._blobs}/sha256", mode=0o700, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)

    def path(self, digest: Digest) -> str:
        """Where the blob is or would be."""
        return f"{self._blobs}/{digests.algorithm_of(digest)}/{digests.hex_of(digest)}"

    def has(self, digest: Digest) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: Digest) -> int:
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest} not found") from None

    def ingest(self, algorithm: str = "sha256") -> Ingest:
        return _LocalIngest(self, self._ingest, algorithm)

    def partial(self, digest: Digest, size: int) -> Partial:
        return Partial(self._partial(digest), digest, size, lambda path: self.name(path, digest))

    def name(self, path: str, digest: Digest) -> None:
        """A whole file becomes the blob of this digest."""
        place = self.path(digest)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.rename(path, place)

    def _partial(self, digest: Digest) -> str:
        return f"{self._ingest}/{digest.replace(':', '-')}"

    def drop_partial(self, digest: Digest) -> None:
        try:
            os.unlink(self._partial(digest))
        except FileNotFoundError:
            pass

    def put(self, data: bytes, expected: Digest | None = None) -> Digest:
        with self.ingest(digests.algorithm_of(expected) if expected else "sha256") as ingest:
            ingest.write(data)
            return ingest.commit(expected)

    def read(self, digest: Digest) -> bytes:
        data = b"".join(self.chunks(digest))
        if digests.of(data, digests.algorithm_of(digest)) != digest:
            raise Corrupt(f"blob {digest} is damaged")
        return data

    def chunks(self, digest: Digest, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} not found") from None
        return _range(descriptor, offset, length)

    def remove(self, digest: Digest) -> None:
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def all(self) -> Iterator[Digest]:
        for algorithm in os.listdir(self._blobs):
            for name in os.listdir(f"{self._blobs}/{algorithm}"):
                if digests.known(f"{algorithm}:{name}"):
                    yield Digest(f"{algorithm}:{name}")

    def expire(self, held: Collection[str]) -> None:
        partials.expire(self._ingest, held)

    def sync(self) -> None:
        sync(self._blobs)

    def strays(self) -> list[str]:
        found = [f"ingest/{name}" for name in os.listdir(self._ingest) if partials.digest_of(name) is None]
        for algorithm in os.listdir(self._blobs):
            names = os.listdir(f"{self._blobs}/{algorithm}")
            found += [f"blobs/{algorithm}/{name}" for name in names if not digests.known(f"{algorithm}:{name}")]
        return found

    def remove_stray(self, path: str) -> None:
        whole = f"{self._root}/{path}"
        if os.path.isdir(whole):
            shutil.rmtree(whole)
        else:
            os.unlink(whole)

    def recover(self) -> None:
        for path in self.strays():
            if path.startswith("ingest/"):
                self.remove_stray(path)


def sync(directory: str) -> None:
    """Write out the file system of a directory. One call for thousands of files costs what the disk needs for their
    bytes; an fsync for each would cost a journal commit per file."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.syncfs(descriptor)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutOfSpace("no space left on device") from error
        raise
    finally:
        os.close(descriptor)


def _range(descriptor: int, offset: int, length: int | None) -> Iterator[bytes]:
    left = length if length is not None else 1 << 62
    try:
        while left > 0:
            data = os.pread(descriptor, min(left, _CHUNK), offset)
            if not data:
                return
            offset += len(data)
            left -= len(data)
            yield data
    finally:
        os.close(descriptor)


class _LocalIngest:
    def __init__(self, store: LocalContent, directory: str, algorithm: str) -> None:
        self._store = store
        self._algorithm = algorithm
        self._hasher = digests.new(algorithm)
        self._path = f"{directory}/{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._done = False

    def __enter__(self) -> "_LocalIngest":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if not self._done:
            os.unlink(self._path)

    def write(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutOfSpace("no space left on device: while storing a blob") from error
            raise

    @property
    def digest(self) -> Digest:
        return digests.finish(self._hasher, self._algorithm)

    def commit(self, expected: Digest | None = None) -> Digest:
        found = self.digest
        if expected is not None and expected != found:
            raise Corrupt(f"digest mismatch: expected {expected}, the data is {found}")
        self._store.name(self._path, found)
        self._done = True
        return found


def hashed(chunks: Iterable[bytes], hasher: digests.Hasher) -> Iterator[bytes]:
    """The same chunks, fed to the hasher as they pass."""
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
