"""The database: transactions, migrations, refusals, and files cut at any write."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import Conflict, Corrupt
from hafen.storage.database import MIGRATIONS, Database, statements

TABLE = ("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT);",)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "hafen.db", TABLE)
    yield made
    made.close()


def numbers(database: Database) -> list[object]:
    return [row[0] for row in database.query("SELECT n FROM t ORDER BY n")]


def add(database: Database, number: int, text: str = "") -> None:
    database.execute("INSERT INTO t VALUES (?, ?)", (number, text))


def test_a_transaction_happens_whole_or_not_at_all(database: Database) -> None:
    with database.transaction():
        add(database, 1)
    with contextlib.suppress(KeyError), database.transaction(durable=False):
        add(database, 2)
        raise KeyError
    assert numbers(database) == [1]
    assert not database.in_transaction()


def test_a_part_is_undone_alone(database: Database) -> None:
    with database.transaction():
        add(database, 1)
        with contextlib.suppress(KeyError), database.transaction():
            add(database, 2)
            raise KeyError
        with database.transaction():
            add(database, 3)
    assert numbers(database) == [1, 3]


def test_what_mirrors_rows_hears_of_the_end(database: Database) -> None:
    heard: list[str] = []
    with contextlib.suppress(KeyError), database.transaction():
        database.if_undone(lambda: heard.append("undone"))
        database.when_done(lambda: heard.append("never"))
        raise KeyError
    with database.transaction():
        database.if_undone(lambda: heard.append("never"))
        database.when_done(lambda: heard.append("done"))
        assert heard == ["undone"]
    database.when_done(lambda: heard.append("at once"))
    assert heard == ["undone", "done", "at once"]


def test_an_undone_part_takes_its_actions_with_it(database: Database) -> None:
    heard: list[str] = []
    with database.transaction():
        database.if_undone(lambda: heard.append("outer"))
        with contextlib.suppress(KeyError), database.transaction():
            database.if_undone(lambda: heard.append("inner"))
            database.when_done(lambda: heard.append("never"))
            raise KeyError
    assert heard == ["inner"]


def test_a_second_engine_is_refused(database: Database) -> None:
    with pytest.raises(Conflict, match="in use by another engine"):
        Database(database.path, TABLE)


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    Database(path, TABLE).close()
    grown = Database(path, (*TABLE, "INSERT INTO t VALUES (1, 'a');\nINSERT INTO t VALUES (2, 'b');"))
    assert numbers(grown) == [1, 2]
    grown.close()
    again = Database(path, (*TABLE, "INSERT INTO t VALUES (1, 'a');\nINSERT INTO t VALUES (2, 'b');"))
    assert numbers(again) == [1, 2]
    again.close()


def test_a_migration_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    Database(path, TABLE).close()
    with pytest.raises(Exception, match="no such table"):
        Database(path, (*TABLE, "INSERT INTO t VALUES (1, '');\nINSERT INTO nowhere VALUES (1);"))
    kept = Database(path, TABLE)
    assert numbers(kept) == []
    kept.close()


def test_a_newer_schema_is_refused_clearly(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    Database(path, (*TABLE, "CREATE TABLE future (n);")).close()
    with pytest.raises(Conflict, match=r"newer Hafen \(schema 2, this one knows 1\)"):
        Database(path, TABLE)


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (n)")
    other.close()
    with pytest.raises(Corrupt, match="not one of Hafen's"):
        Database(path, TABLE)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    path.write_bytes(b"this is no database at all, but it is long enough to look at" * 40)
    with pytest.raises(Corrupt, match="damaged"):
        Database(path, TABLE)


def test_damage_is_found_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    database = Database(path, TABLE)
    with database.transaction():
        for number in range(2000):
            add(database, number, "x" * 50)
    database.close()
    reopened = Database(path, TABLE)
    crashed = tmp_path / "crashed.db"
    shutil.copy(path, crashed)
    shutil.copy(f"{path}-wal", f"{crashed}-wal")  # it holds the mark that an engine has it open
    reopened.close()
    data = bytearray(crashed.read_bytes())
    data[4096 * 5 : 4096 * 6] = b"\xa5" * 4096
    crashed.write_bytes(data)
    with pytest.raises(Corrupt, match="damaged"):
        Database(crashed, TABLE)


def test_a_log_cut_at_any_offset_opens_to_a_state_that_was_committed(tmp_path: Path) -> None:
    """The power went: the file is as the last checkpoint left it, the log ends anywhere."""
    path = tmp_path / "hafen.db"
    database = Database(path, TABLE)
    for number in range(12):
        with database.transaction():
            add(database, number, "x" * (number * 701))
            add(database, number + 1000)
    log = Path(f"{path}-wal").read_bytes()
    whole = path.read_bytes()
    assert log
    seen = set()
    cuts = sorted({*range(0, len(log), len(log) // 50), *range(len(log) - 8, len(log) + 1)})
    for cut in cuts:
        torn = tmp_path / "torn.db"
        torn.write_bytes(whole)
        Path(f"{torn}-wal").write_bytes(log[:cut])
        found = numbers_of(torn)
        if found is None:
            continue  # cut within the creation of the schema itself
        low = [number for number in found if number < 1000]
        assert low == list(range(len(low)))
        assert [number - 1000 for number in found if number >= 1000] == low
        seen.add(len(low))
    assert 12 in seen
    assert len(seen) > 5
    database.close()


def test_a_log_with_a_flipped_bit_opens_to_a_state_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    database = Database(path, TABLE)
    for number in range(6):
        with database.transaction():
            add(database, number, "x" * 600)
    log = bytearray(Path(f"{path}-wal").read_bytes())
    whole = path.read_bytes()
    for place in range(40, len(log), len(log) // 25):
        torn = tmp_path / "torn.db"
        torn.write_bytes(whole)
        flipped = bytearray(log)
        flipped[place] ^= 0x10
        Path(f"{torn}-wal").write_bytes(flipped)
        found = numbers_of(torn)
        assert found is None or found == list(range(len(found)))
    database.close()


def numbers_of(path: Path) -> list[int] | None:
    database = Database(path, TABLE)
    try:
        return [int(str(number)) for number in numbers(database)]
    finally:
        database.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


def test_the_shipped_schema_opens_and_says_when_the_last_engine_crashed(tmp_path: Path) -> None:
    path = tmp_path / "hafen.db"
    first = Database(path)
    assert not first.unclean
    shutil.copy(path, tmp_path / "copy.db")
    shutil.copy(f"{path}-wal", tmp_path / "copy.db-wal")
    first.close()
    second = Database(path)
    assert not second.unclean
    second.close()
    crashed = Database(tmp_path / "copy.db")
    assert crashed.unclean
    crashed.close()
    assert (path.stat().st_mode & 0o777) == 0o600


def test_scripts_are_split_at_statements() -> None:
    assert list(statements("CREATE TABLE a (t TEXT DEFAULT ';');\nSELECT 1; -- end;\n")) != []
    assert all(sqlite3.complete_statement(part) for script in MIGRATIONS for part in statements(script))
