"""A blob on its way from a registry, kept over broken connections and dead engines until it is whole.

    with content.partial(digest, size) as partial:
        for chunk in partial.arrived(): ...      # what is here already, from an earlier attempt
        partial.write(chunk)                     # the next bytes
        whole = partial.commit()                 # False, and nothing is kept, where it is something else

The file is named by the digest it is to have, so what it holds is worth keeping, and is verified from its first byte in
the end. One writer at a time: the operation that fetches the blob.
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterator

from hafen.errors import OutOfSpace
from hafen.spec import digest as digests
from hafen.spec.digest import Digest

KEPT_SECONDS = 24 * 3600.0
KEPT_BYTES = 20 << 30
_CHUNK = 1 << 20


class Partial:
    """One blob; leaving the `with` keeps what has arrived."""

    def __init__(self, path: str, digest: Digest, size: int, committed: Callable[[str], None]) -> None:
        self.path = path
        self.digest = digest
        self.size = size
        self._committed = committed
        self._hasher = digests.new(digests.algorithm_of(digest))
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.offset = os.fstat(self._descriptor).st_size  # bytes that have arrived
        if self.offset > size:
            os.ftruncate(self._descriptor, 0)
            self.offset = 0

    def __enter__(self) -> "Partial":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if not self.offset:
            self.drop()  # nothing to go on with

    def arrived(self) -> Iterator[bytes]:
        """Everything from an earlier attempt; to be read before the first `write`."""
        position = 0
        while position < self.offset:
            data = os.pread(self._descriptor, min(_CHUNK, self.offset - position), position)
            if not data:
                raise OSError(errno.EIO, "shorter than it was", self.path)
            position += len(data)
            self._hasher.update(data)
            yield data

    def write(self, data: bytes) -> None:
        """The next bytes; OutOfSpace where the device is full, which keeps nothing."""
        self._hasher.update(data)
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, self.offset)
                self.offset += written
                view = view[written:]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.drop()
                raise OutOfSpace("no space left on device: while storing a blob") from error
            raise

    def commit(self) -> bool:
        """Make it a blob, where it is what its name says; else drop it."""
        if digests.finish(self._hasher, digests.algorithm_of(self.digest)) != self.digest or self.offset != self.size:
            self.drop()
            return False
        self._committed(self.path)
        return True

    def drop(self) -> None:
        """Keep nothing."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def digest_of(name: str) -> Digest | None:
    """The digest that a file in `ingest/` is to have, where it is a partial blob."""
    algorithm, dash, value = name.partition("-")
    if dash and digests.is_hex(value, {"sha256": 64, "sha512": 128}.get(algorithm, -1)):
        return Digest(f"{algorithm}:{value}")
    return None


def expire(directory: str, held: Collection[str] = (), seconds: float = KEPT_SECONDS, limit: int = KEPT_BYTES) -> None:
    """Remove partial blobs that nobody has added to for so long, and the oldest of more than `limit` bytes; not those
    whose digest is `held`."""
    found = []
    for entry in os.scandir(directory):
        digest = digest_of(entry.name)
        if digest is not None and digest not in held:
            status = entry.stat(follow_symlinks=False)
            found.append((status.st_mtime, status.st_size, entry.path))
    kept = 0
    for modified, size, path in sorted(found, reverse=True):
        kept += size
        if modified < time.time() - seconds or kept > limit:
            os.unlink(path)
