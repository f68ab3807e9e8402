"""Where blobs are: the narrow protocol that the registry needs of a content store, and its form over files.

Durability is a blob's own fsync, its directory's, and the row's commit after both: what was answered with 201 survives
a power cut, and what was not is at worst a file that no row names, which collection removes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from hafen.errors import NotFound, OutOfSpace
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage.content import LocalContent


class Blobs(Protocol):
    """Immutable bytes by digest. Any thread."""

    def open(self, digest: Digest) -> BinaryIO:
        """For reading, unbuffered; NotFound where it is not there. Stays readable when the blob is removed."""

    def size(self, digest: Digest) -> int | None:
        """Of what is there, in bytes; None where it is not."""

    def read(self, digest: Digest) -> bytes:
        """A small blob, verified; Corrupt where it is damaged."""

    def put(self, data: bytes, digest: Digest) -> None:
        """A small blob, whose digest has been computed from it. Durable."""

    def adopt(self, path: str, digest: Digest) -> None:
        """A file on the same device, of which the same holds, becomes the blob. Durable."""

    def sync(self, digest: Digest) -> None:
        """A blob that somebody else has put there survives a power cut when this returns; NotFound."""

    def all(self) -> Iterator[Digest]:
        """Every blob, in no order."""

    def bury(self, digest: Digest) -> None:
        """Take its name away, at once; harmless where it is not there."""

    def empty_grave(self) -> None:
        """Give back the space of what was buried, which may take a while."""


class LocalBlobs:
    """Over a `LocalContent`, whose blobs may be somebody else's too; what is being made is below `root`, on the same
    device."""

    def __init__(self, root: str, content: str) -> None:
        self._content = LocalContent(content)
        self._making = f"{root}/making"
        self._grave = f"{root}/grave"
        os.makedirs(self._making, mode=0o700, exist_ok=True)
        os.makedirs(self._grave, mode=0o700, exist_ok=True)
        for algorithm in ("sha256", "sha512"):
            os.makedirs(f"{content}/blobs/{algorithm}", mode=0o700, exist_ok=True)
        for name in os.listdir(self._making):
            os.unlink(f"{self._making}/{name}")
        self.empty_grave()

    def open(self, digest: Digest) -> BinaryIO:
        try:
            return open(self._content.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is lost") from None

    def size(self, digest: Digest) -> int | None:
        try:
            return os.stat(self._content.path(digest)).st_size
        except FileNotFoundError:
            return None

    def read(self, digest: Digest) -> bytes:
        return self._content.read(digest)

    def put(self, data: bytes, digest: Digest) -> None:
        path = f"{self._making}/{os.urandom(8).hex()}"
        try:
            with open(path, "xb") as file:
                file.write(data)
            self.adopt(path, digest)
        except OSError as error:
            raise full_or(error) from error
        finally:
            _remove(path)  # where it did not become the blob

    def adopt(self, path: str, digest: Digest) -> None:
        final = self._content.path(digest)
        try:
            _fsync(path, os.O_RDWR)
            os.rename(path, final)
            _fsync(os.path.dirname(final), os.O_DIRECTORY)
        except OSError as error:
            raise full_or(error) from error

    def sync(self, digest: Digest) -> None:
        path = self._content.path(digest)
        try:
            _fsync(path, os.O_RDWR)
            _fsync(os.path.dirname(path), os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not there") from None
        except OSError as error:
            raise full_or(error) from error

    def all(self) -> Iterator[Digest]:
        return self._content.all()

    def bury(self, digest: Digest) -> None:
        try:
            os.rename(self._content.path(digest), f"{self._grave}/{digests.hex_of(digest)}")
        except FileNotFoundError:
            pass

    def empty_grave(self) -> None:
        for name in os.listdir(self._grave):
            os.unlink(f"{self._grave}/{name}")


def full_or(error: OSError) -> Exception:
    """OutOfSpace where the device is full; else the error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace("no space left on device: while storing a blob")
    return error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _fsync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
