"""Uploads and collection below HTTP: a restart, a full disk, two writers, and what is held while it is committed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hafen.errors import OutOfSpace
from hafen.registryd import uploads as module
from hafen.registryd.collect import BlobSweep, Collector, Limits
from hafen.registryd.errors import DigestInvalid, RangeInvalid, UploadBusy, UploadUnknown
from hafen.registryd.manifest import OCI_IMAGE, Manifest, Need
from hafen.registryd.rows import Rows
from hafen.registryd.schema import MIGRATIONS
from hafen.registryd.store import LocalBlobs
from hafen.registryd.uploads import Uploads
from hafen.spec import digest as digests
from hafen.storage.collect import Leases
from hafen.storage.database import Database


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    database = Database(tmp_path / "registry.db", MIGRATIONS)
    yield Rows(database)
    database.close()


def own(root: Path) -> LocalBlobs:
    return LocalBlobs(str(root), f"{root}/content")


def test_an_upload_goes_on_after_a_restart(tmp_path: Path, rows: Rows) -> None:
    upload = Uploads(str(tmp_path), rows).begin("a")
    upload.write(upload.begin(0), [b"one ", b"two "])
    again = Uploads(str(tmp_path), rows).find("a", upload.identifier)
    with pytest.raises(RangeInvalid):
        again.begin(0)
    again.write(again.begin(8), [b"three"])
    blobs, digest = own(tmp_path), digests.of(b"one two three", "sha512")
    again.finish(digest, blobs)
    assert blobs.read(digest) == b"one two three"


def test_what_has_only_a_row_or_only_a_file_is_forgotten(tmp_path: Path, rows: Rows) -> None:
    uploads = Uploads(str(tmp_path), rows)
    first, second = uploads.begin("a"), uploads.begin("a")
    os.unlink(tmp_path / "uploads" / first.identifier)
    rows.end_upload(second.identifier)
    after = Uploads(str(tmp_path), rows)
    assert (rows.uploads(), os.listdir(tmp_path / "uploads")) == (set(), [])
    with pytest.raises(UploadUnknown):
        after.find("a", first.identifier)


def test_who_begins_to_write_takes_over(tmp_path: Path, rows: Rows) -> None:
    upload = Uploads(str(tmp_path), rows).begin("a")
    old, new = upload.begin(None), upload.begin(None)
    with pytest.raises(UploadBusy):
        upload.write(old, [b"late"])
    upload.write(new, [b"now"])
    assert upload.size == 3


def test_a_wrong_digest_ends_it(tmp_path: Path, rows: Rows) -> None:
    upload = Uploads(str(tmp_path), rows).begin("a")
    with pytest.raises(DigestInvalid):
        upload.finish(digests.of(b"other"), own(tmp_path))
    with pytest.raises(UploadUnknown):
        upload.begin(None)
    assert os.listdir(tmp_path / "uploads") == []


class _FullOs:
    """`os`, on a device that takes three bytes of a write and then no more."""

    def __init__(self) -> None:
        self._written = False

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self._written:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._written = True
        return os.write(descriptor, data[:3])


def test_a_full_disk_keeps_what_is_there(tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Uploads(str(tmp_path), rows).begin("a")
    with monkeypatch.context() as patch:
        patch.setattr(module, "os", _FullOs())
        with pytest.raises(OutOfSpace):
            upload.write(upload.begin(0), [b"abcdef"])
    assert upload.size == 3
    upload.write(upload.begin(3), [b"def"])
    digest, blobs = digests.of(b"abcdef"), own(tmp_path)
    upload.finish(digest, blobs)
    assert blobs.read(digest) == b"abcdef"


async def at_once(function: Callable[[], object]) -> object:
    return function()


def collector(root: Path, rows: Rows, leases: Leases, grace: float) -> tuple[Collector, LocalBlobs]:
    blobs = own(root)
    return Collector(rows, Uploads(str(root), rows), BlobSweep(rows, blobs, leases), Limits(grace=grace)), blobs


async def removed_by(collecting: Collector) -> int:
    """Blobs that one collection removes."""
    before = collecting.removed
    await collecting.collect(at_once)
    return collecting.removed - before


async def test_what_is_held_has_no_row_and_stays(tmp_path: Path, rows: Rows) -> None:
    leases = Leases()
    collecting, blobs = collector(tmp_path, rows, leases, 3600)
    digest = digests.of(b"x")
    with leases.operation() as lease:
        lease.hold(digest)
        blobs.put(b"x", digest)
        assert await removed_by(collecting) == 0
        rows.link("a", digest, 1)
    assert await removed_by(collecting) == 0
    rows.unlink("a", digest)
    assert await removed_by(collecting) == 1
    assert list(blobs.all()) == []


async def test_a_link_that_a_client_was_told_of_stays(tmp_path: Path, rows: Rows) -> None:
    collecting, blobs = collector(tmp_path, rows, Leases(), -1.0)  # whatever is linked has been waiting too long
    told, other = digests.of(b"told"), digests.of(b"other")
    for data, digest in ((b"told", told), (b"other", other)):
        blobs.put(data, digest)
        rows.link("a", digest, len(data))
    collecting._renewed["a", told] = 1e12
    assert await removed_by(collecting) == 1
    assert list(blobs.all()) == [told]


async def test_what_is_needed_or_pushed_again_while_others_are_looked_at_stays(tmp_path: Path, rows: Rows) -> None:
    collecting, _ = collector(tmp_path, rows, Leases(), 0.0)
    needed, again, renewed, gone = (digests.of(data) for data in (b"needed", b"again", b"renewed", b"gone"))
    for name in ("a", "b"):  # whatever else there is comes between the question and the deed
        for digest in (needed, again, renewed, gone):
            rows.link(name, digest, 1)
    rows._database.execute("UPDATE links SET linked_at = 0")
    collecting._started = 0.0
    collection = asyncio.ensure_future(collecting.collect(at_once))
    await asyncio.sleep(0)  # it has looked at one of them
    for name in ("a", "b"):
        need = Need(needed, 1, is_manifest=False, required=True)
        rows.put(name, digests.of(b"m"), 1, Manifest(OCI_IMAGE, "", None, {}, (need,)), ["v1"])
        rows.link(name, again, 1)
        collecting.renew(name, renewed)
    await collection
    for name in ("a", "b"):
        assert rows.linked(name, gone) is None
        assert None not in (rows.linked(name, needed), rows.linked(name, again), rows.linked(name, renewed))


async def test_nothing_is_needless_in_the_time_of_grace_after_a_start(tmp_path: Path, rows: Rows) -> None:
    collecting, blobs = collector(tmp_path, rows, Leases(), 60)
    digest = digests.of(b"x")
    blobs.put(b"x", digest)
    rows.link("a", digest, 1)
    rows._database.execute("UPDATE links SET linked_at = 0")
    assert await removed_by(collecting) == 0
