"""The content store, and what is collected when nothing needs it."""

from pathlib import Path

import pytest

from hafen.errors import Corrupt, NotFound
from hafen.spec import digest as digests
from hafen.storage.content import LocalContent

DATA = bytes(range(256)) * 9000


@pytest.fixture
def store(tmp_path: Path) -> LocalContent:
    return LocalContent(str(tmp_path))


def files(store_root: Path) -> list[str]:
    return sorted(path.name for path in store_root.rglob("*") if path.is_file())


def test_a_blob_is_read_as_it_was_written(store: LocalContent) -> None:
    digest = store.put(DATA)
    assert digest == digests.of(DATA)
    assert store.read(digest) == DATA
    assert store.size(digest) == len(DATA)
    assert list(store.all()) == [digest]
    assert b"".join(store.chunks(digest, 1000, 1 << 20)) == DATA[1000 : 1000 + (1 << 20)]
    assert b"".join(store.chunks(digest, len(DATA) - 5, 100)) == DATA[-5:]
    assert store.put(DATA) == digest
    store.sync()


def test_a_blob_is_not_seen_before_it_is_whole(store: LocalContent, tmp_path: Path) -> None:
    with store.ingest() as ingest:
        ingest.write(DATA[:100])
        assert list(store.all()) == []
        ingest.write(DATA[100:])
        digest = ingest.commit(digests.of(DATA))
    assert store.has(digest)
    assert files(tmp_path) == [digests.hex_of(digest)]


def test_a_blob_may_be_named_by_sha512(store: LocalContent, tmp_path: Path) -> None:
    digest = digests.of(DATA, "sha512")
    assert store.put(DATA, digest) == digest
    assert store.read(digest) == DATA
    with store.ingest("sha512") as ingest:
        ingest.write(b"more")
        assert ingest.commit() == digests.of(b"more", "sha512")
    assert set(store.all()) == {digest, digests.of(b"more", "sha512")}
    with pytest.raises(Corrupt, match="digest mismatch: expected sha512:"):
        store.put(b"less", digest)


def test_a_blob_that_lies_leaves_nothing(store: LocalContent, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="digest mismatch"):
        store.put(DATA, digests.of(b"something else"))
    assert files(tmp_path) == []


def test_what_fails_half_way_leaves_nothing(store: LocalContent, tmp_path: Path) -> None:
    def fail() -> None:
        with store.ingest() as ingest:
            ingest.write(DATA)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files(tmp_path) == []


def test_what_a_crash_left_is_removed_on_start(store: LocalContent, tmp_path: Path) -> None:
    (tmp_path / "ingest" / "half").write_bytes(b"half")
    (tmp_path / "ingest" / "directory").mkdir()
    store.recover()
    assert list((tmp_path / "ingest").iterdir()) == []


def test_a_missing_blob_is_told_before_reading(store: LocalContent) -> None:
    missing = digests.of(b"missing")
    for ask in (store.size, store.chunks, store.read):
        with pytest.raises(NotFound, match="not found"):
            ask(missing)
    assert not store.has(missing)
    store.remove(missing)


def test_a_damaged_blob_is_noticed(store: LocalContent) -> None:
    digest = store.put(DATA)
    Path(store.path(digest)).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(Corrupt, match="is damaged"):
        store.read(digest)
