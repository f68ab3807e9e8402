"""Uploads: blobs on their way in, files that survive a restart.

Bytes are hashed as they arrive. What an earlier process wrote is hashed when the upload ends, by reading it once.
Requests take turns: one that begins to write takes the upload over from one whose client has silently gone.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterable

from hafen.registryd.errors import DigestInvalid, RangeInvalid, UploadBusy, UploadUnknown
from hafen.registryd.rows import Rows
from hafen.registryd.store import Blobs, full_or
from hafen.spec import digest as digests
from hafen.spec.digest import Digest

_CHUNK = 1 << 20


class Upload:
    """One upload. Any thread; `size` is what has been written, in bytes."""

    def __init__(self, identifier: str, path: str, algorithm: str, size: int) -> None:
        self.identifier = identifier
        self.size = size
        self._path = path
        self._algorithm = algorithm
        self._hasher: digests.Hasher | None = digests.new(algorithm) if size == 0 else None
        self._lock = threading.Lock()
        self._turn = 0
        self._ended = False

    def begin(self, start: int | None) -> int:
        """Take a turn at writing: its number. RangeInvalid where the next byte is not `start`."""
        with self._lock:
            self._check_alive()
            if start is not None and start != self.size:
                raise RangeInvalid(f"the chunk begins at byte {start}, the upload has {self.size} bytes")
            self._turn += 1
            return self._turn

    def write(self, turn: int, pieces: Iterable[bytes]) -> None:
        """The next bytes. UploadBusy where another request has taken its turn meanwhile."""
        with self._lock:
            self._check_alive()
            if turn != self._turn:
                raise UploadBusy("another request continues this upload")
            try:
                with open(self._path, "r+b", buffering=0) as file:
                    file.seek(self.size)
                    for piece in pieces:
                        self._append(file.fileno(), piece)
            except OSError as error:
                self._hasher = None  # how much of the piece is in the file is only known by reading it
                self.size = os.stat(self._path).st_size
                raise full_or(error) from error

    def _append(self, descriptor: int, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
        if self._hasher:
            self._hasher.update(piece)
        self.size += len(piece)

    def finish(self, digest: Digest, blobs: Blobs) -> None:
        """Make it a blob; DigestInvalid, and the upload is over too, where it is something else."""
        algorithm = digests.algorithm_of(digest)
        with self._lock:
            self._check_alive()
            hasher = self._hasher if algorithm == self._algorithm else None
            found = digests.finish(hasher or self._read(algorithm), algorithm)
            if found != digest:
                self._ended = True
                os.unlink(self._path)
                raise DigestInvalid(f"provided digest did not match uploaded content: {digest}, the data is {found}")
            blobs.adopt(self._path, digest)  # where the disk is full the upload stays, for another try
            self._ended = True

    def _read(self, algorithm: str) -> digests.Hasher:
        hasher = digests.new(algorithm)
        with open(self._path, "rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                hasher.update(data)
        return hasher

    def drop(self) -> None:
        """End it without a blob."""
        with self._lock:
            if not self._ended:
                self._ended = True
                os.unlink(self._path)

    def expire(self, before: float) -> bool:
        """Drop it where nothing was written since; whether it has ended. One that is being written is left alone."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._ended and os.stat(self._path).st_mtime < before:
                self._ended = True
                os.unlink(self._path)
            return self._ended
        finally:
            self._lock.release()

    def _check_alive(self) -> None:
        if self._ended:
            raise UploadUnknown("the upload has ended")


class Uploads:
    """Uploads by id. Loop thread."""

    def __init__(self, root: str, rows: Rows) -> None:
        self._folder = f"{root}/uploads"
        self._rows = rows
        self._known: dict[str, Upload] = {}
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        recorded, found = rows.uploads(), set(os.listdir(self._folder))
        for identifier in recorded - found:
            rows.end_upload(identifier)
        for identifier in found - recorded:
            os.unlink(f"{self._folder}/{identifier}")

    def begin(self, repository: str, algorithm: str = "sha256") -> Upload:
        identifier = str(uuid.uuid4())
        path = f"{self._folder}/{identifier}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise full_or(error) from error
        self._rows.begin_upload(identifier, repository)
        upload = self._known[identifier] = Upload(identifier, path, algorithm, 0)
        return upload

    def find(self, repository: str, identifier: str) -> Upload:
        """UploadUnknown where this repository has no such upload."""
        if self._rows.upload_repository(identifier) != repository:
            raise UploadUnknown("blob upload unknown to registry")
        upload = self._known.get(identifier)
        if upload is None:
            path = f"{self._folder}/{identifier}"
            upload = self._known[identifier] = Upload(identifier, path, "sha256", os.stat(path).st_size)
        return upload

    def forget(self, upload: Upload) -> None:
        """After it was finished or dropped."""
        self._known.pop(upload.identifier, None)
        self._rows.end_upload(upload.identifier)

    def expire(self, seconds: float) -> int:
        """Drop what nobody has added to for so long; how many."""
        gone = 0
        for identifier in self._rows.uploads():
            upload = self.find(self._rows.upload_repository(identifier) or "", identifier)
            if upload.expire(time.time() - seconds):
                self.forget(upload)
                gone += 1
        return gone
