"""Blobs that arrive in pieces, over several lives of the engine."""

import hashlib
import os
from pathlib import Path

from hafen.spec.digest import Digest
from hafen.storage.content import LocalContent
from hafen.storage.partial import expire

DATA = os.urandom(3000)
DIGEST = Digest("sha256:" + hashlib.sha256(DATA).hexdigest())


def test_a_blob_goes_on_where_it_was_left(tmp_path: Path) -> None:
    with LocalContent(str(tmp_path)).partial(DIGEST, 3000) as partial:
        assert (partial.offset, list(partial.arrived())) == (0, [])
        partial.write(DATA[:1000])
    content = LocalContent(str(tmp_path))
    content.recover()
    with content.partial(DIGEST, 3000) as partial:
        assert partial.offset == 1000
        assert b"".join(partial.arrived()) == DATA[:1000]
        partial.write(DATA[1000:])
        assert partial.commit()
    assert content.read(DIGEST) == DATA
    assert not os.listdir(tmp_path / "ingest")


def test_what_is_something_else_is_dropped(tmp_path: Path) -> None:
    content = LocalContent(str(tmp_path))
    for data in (DATA[:2999], DATA[:2999] + b"x"):
        with content.partial(DIGEST, 3000) as partial:
            partial.write(data)
            assert not partial.commit()
        assert not content.has(DIGEST)
        assert not os.listdir(tmp_path / "ingest")


def test_old_and_too_many_are_dropped(tmp_path: Path) -> None:
    paths = [tmp_path / f"sha256-{number:064x}" for number in range(4)]
    for age, path in enumerate(paths):
        path.write_bytes(b"x" * 100)
        os.utime(path, (10**9 + 100 - age, 10**9 + 100 - age))
    (tmp_path / "not-a-partial").touch()
    expire(str(tmp_path), held=(f"sha256:{3:064x}",), seconds=1e12, limit=200)
    assert sorted(os.listdir(tmp_path)) == sorted(["not-a-partial", *(paths[number].name for number in (0, 1, 3))])
    expire(str(tmp_path), limit=1 << 40)
    assert os.listdir(tmp_path) == ["not-a-partial"]
