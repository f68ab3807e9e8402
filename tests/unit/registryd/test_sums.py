"""Sums that triggers keep: whatever is pushed and removed, they are what counting anew gives, and cost no counting."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hafen.registryd import fsck
from hafen.registryd.cacherows import CacheRows
from hafen.registryd.manifest import OCI_IMAGE, Manifest
from hafen.registryd.quotarows import QuotaRows
from hafen.registryd.rows import Rows
from hafen.registryd.schema import MIGRATIONS
from hafen.spec import digest as digests
from hafen.storage.database import Database
from tests.harness.registry import RegistryProcess

PREFIXES = ("", "team", "team/a")
NAMES = ("team", "team/a", "team/a/b", "team/b", "teams", "team-x", "other")
POOL = [(digests.of(b"%d" % number), 100 + number) for number in range(12)]
PLAIN = Manifest(OCI_IMAGE, "", None, {}, ())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "registry.db", MIGRATIONS)) as found:
        yield found


def under(prefix: str, name: str) -> bool:
    return prefix in ("", name) or name.startswith(f"{prefix}/")


def counted(database: Database) -> dict[str, int]:
    """Bytes under each prefix, by looking at everything."""
    found: dict[str, dict[object, int]] = {prefix: {} for prefix in PREFIXES}
    for table in ("links", "manifests"):
        for name, digest, size in database.query(
            f"SELECT name, digest, size FROM {table} JOIN repositories ON id = repository WHERE upstream IS NULL"
        ):
            for prefix in PREFIXES:
                if under(prefix, str(name)):
                    found[prefix][digest] = int(size or 0)
    return {prefix: sum(sizes.values()) for prefix, sizes in found.items()}


def check(database: Database) -> None:
    rows, quotas = Rows(database), QuotaRows(database)
    assert {prefix: quotas.used(prefix) for prefix in PREFIXES} == counted(database)
    links = {digest: int(size or 0) for digest, size in database.query("SELECT digest, size FROM links")}
    totals = rows.totals()
    assert (totals.blobs, totals.blob_bytes) == (len(links), sum(links.values()))
    for digest, _ in POOL:
        names = {name for name in NAMES if rows.linked(name, digest) or rows.manifest(name, digest)}
        for prefix in PREFIXES:
            assert quotas.held(prefix, digest) == any(under(prefix, name) for name in names)


def test_they_are_what_counting_gives(database: Database) -> None:
    rows, cached, chance = Rows(database), CacheRows(database), random.Random(5)
    QuotaRows(database).settle(PREFIXES)
    deeds: list[Callable[[str], object]] = [
        lambda name: rows.link(name, *chance.choice(POOL)),
        lambda name: rows.link(name, *chance.choice(POOL)),
        lambda name: rows.unlink(name, chance.choice(POOL)[0]),
        lambda name: rows.put(name, *chance.choice(POOL), PLAIN, [chance.choice("xyz")]),
        lambda name: rows.remove_manifest(name, chance.choice(POOL)[0]),
        lambda name: rows.drop([(name, digest) for digest, _ in chance.sample(POOL, 3)], 1e12),
        lambda name: cached.link(f"far/{name}", "http://far", *chance.choice(POOL)),
        lambda name: cached.put(f"far/{name}", "http://far", *chance.choice(POOL), PLAIN, "x"),
    ]
    for _ in range(400):
        chance.choice(deeds)(chance.choice(NAMES))
        check(database)
    QuotaRows(database).settle(["team"])
    assert QuotaRows(database).used("") == 0
    rows.link("team/a", *POOL[0])
    QuotaRows(database).settle(PREFIXES)  # counted once, of what is there
    check(database)
    cached.settle({})
    rows.drop([(name, digest) for name in NAMES for digest, _ in POOL], 1e12)
    for name in NAMES:
        for digest, _ in POOL:
            rows.remove_manifest(name, digest)
    check(database)
    assert counted(database) == dict.fromkeys(PREFIXES, 0)


def test_what_is_undone_is_not_counted(database: Database) -> None:
    rows = Rows(database)
    QuotaRows(database).settle(PREFIXES)

    def fail() -> None:
        with rows.together():
            rows.link("team/a", *POOL[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    check(database)


def test_a_question_costs_the_same_however_much_there_is(database: Database) -> None:
    rows, quotas = Rows(database), QuotaRows(database)
    quotas.settle(PREFIXES)

    def steps(question: Callable[[], object]) -> int:
        """Instructions of SQLite's machine."""
        done: list[int] = []
        database._connection.set_progress_handler(lambda: done.append(1), 1)
        question()
        database._connection.set_progress_handler(None, 1)
        return len(done)

    def questions() -> list[int]:
        asked = [lambda: quotas.used("team"), lambda: quotas.held("", POOL[0][0]), rows.totals]
        return [steps(question) for question in asked]

    rows.link("team/a", *POOL[0])
    before = questions()
    with rows.together():
        for number in range(500):
            rows.link("team/a", digests.of(b"n%d" % number), 10)
    assert max(now - then for now, then in zip(questions(), before, strict=True)) < 10


def test_a_database_of_before_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "registry.db", MIGRATIONS[:6])) as database:
        for name in NAMES[:3]:
            for digest, size in POOL[:4]:
                database.execute("INSERT INTO repositories (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
                database.execute(
                    "INSERT INTO links SELECT id, ?, ?, 0, NULL FROM repositories WHERE name = ?", (digest, size, name)
                )
    with closing(Database(tmp_path / "registry.db", MIGRATIONS)) as database:
        QuotaRows(database).settle(PREFIXES)
        check(database)
        assert QuotaRows(database).used("team/a") == sum(size for _, size in POOL[:4])


def test_fsck_counts(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--quota", "team=1m") as process, closing(process.client()) as client:
        client.push("team/a", "v1", b"layer")
    assert fsck.check(str(tmp_path)).problems == ()
    with closing(sqlite3.connect(tmp_path / "registry.db")) as database, database:
        database.execute("UPDATE quotas SET used = used + 1")
    assert [problem.subject for problem in fsck.check(str(tmp_path)).problems] == ["quota team"]
