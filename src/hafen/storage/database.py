"""The one SQLite database: schema, ordered migrations, and the transaction helper.

One process, one connection, used on the event loop's thread only (sqlite3 checks the thread; SQLite before 3.51.3 can
corrupt a WAL that two connections write). The file is locked exclusively while it is open, so a second engine on the
same data root is refused rather than trusted.

Durability: `transaction(durable=True)` syncs the log before it returns (`synchronous=FULL`): what a client was told
exists survives a power cut. `durable=False` (`NORMAL`) may lose the newest transactions to a power cut, never to a
crash of the process, and never tears one.

A migration is a script of SQL statements; its place in `MIGRATIONS` is its version. Shipped scripts never change:
append. `PRAGMA user_version` holds how many have been applied.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hafen.errors import Conflict, Corrupt, OutOfSpace, System

APPLICATION_ID = 0x48414645  # "HAFE", https://www.sqlite.org/fileformat2.html#application_id

_STORAGE_1 = """
CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- the directory's name: short, so that many fit a mount's options
    key TEXT NOT NULL UNIQUE,                  -- a container's id, a layer's chain id, or a name of the operation
    parent TEXT,                               -- key of the committed snapshot below
    kind TEXT NOT NULL,                        -- active | committed
    lower TEXT,                                -- directories of the machine in place of its own (the host image)
    created_at REAL NOT NULL
);
CREATE INDEX snapshots_parent ON snapshots (parent);
CREATE TABLE layers (
    chain_id TEXT PRIMARY KEY,                 -- also the key of its snapshot
    diff_id TEXT NOT NULL,
    parent TEXT REFERENCES layers (chain_id),
    size INTEGER NOT NULL,                     -- bytes of the files it brings
    recipe TEXT,                               -- blob that turns the unpacked files back into the layer's tar
    blob TEXT,                                 -- the layer as it came, when that was compressed
    media_type TEXT,                           -- of `blob`
    created_at REAL NOT NULL
);
CREATE INDEX layers_parent ON layers (parent);
CREATE INDEX layers_diff_id ON layers (diff_id);
CREATE TABLE images (
    id TEXT PRIMARY KEY,                       -- digest of the configuration, which is a blob
    parent TEXT,                               -- image it was committed or built from on this machine
    chain_id TEXT REFERENCES layers (chain_id),
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,                  -- as the configuration says, for sorting
    tagged_at REAL                             -- when a tag was last put on it here
);
CREATE TABLE tags (
    repository TEXT NOT NULL,                  -- normalised: docker.io/library/debian
    tag TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (repository, tag)
);
CREATE INDEX tags_image ON tags (image);
CREATE TABLE repository_digests (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,                      -- of a manifest, which is a blob
    image TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (repository, digest)
);
CREATE INDEX repository_digests_image ON repository_digests (image);
"""

_ENGINE_1 = """
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    record BLOB NOT NULL,                      -- what it is: engine.records.Record as JSON
    status BLOB NOT NULL                       -- how it is: engine.records.Status as JSON
);
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    record BLOB NOT NULL,                      -- engine.volumes.VolumeRecord as JSON
    removing INTEGER NOT NULL DEFAULT 0        -- its files may be gone already
);
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    event BLOB NOT NULL
);
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""

_NETWORK_1 = """
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL                       -- engine.netrecords.NetworkRecord as JSON
);
CREATE TABLE endpoints (
    container TEXT NOT NULL,                   -- id; only what the kernel has at this moment is here
    network TEXT NOT NULL,                     -- id
    endpoint BLOB NOT NULL,                    -- network.driver.Endpoint as JSON
    PRIMARY KEY (container, network)
);
"""

_ENGINE_2 = """
CREATE TABLE execs (
    id TEXT PRIMARY KEY,
    container TEXT NOT NULL,                   -- id
    config BLOB NOT NULL,                      -- spec.wire.exec.ExecConfig as JSON
    pid INTEGER,                               -- when it has ended: what it was
    exit_code INTEGER                          -- when it has ended
);
CREATE INDEX execs_container ON execs (container);
"""

_STORAGE_2 = """
CREATE TABLE manifests (
    digest TEXT NOT NULL,                      -- of a manifest that is a blob: the image as it came or went
    image TEXT NOT NULL REFERENCES images (id),
    PRIMARY KEY (digest, image)
);
CREATE INDEX manifests_image ON manifests (image);
CREATE TABLE blob_sources (
    digest TEXT NOT NULL,                      -- of a compressed layer as a registry has it
    diff_id TEXT NOT NULL,                     -- of its contents
    repository TEXT NOT NULL,                  -- normalised: where it is known to be
    PRIMARY KEY (diff_id, repository)
);
"""

_VOLUMES_1 = """
ALTER TABLE volumes ADD COLUMN mountpoint TEXT;  -- not NULL: its driver was asked to mount it; the path once it did
CREATE TABLE volume_snapshots (
    volume TEXT NOT NULL REFERENCES volumes (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (volume, name)
);
CREATE TABLE volume_work (
    id TEXT PRIMARY KEY,                       -- also the name of the directory that is being filled
    record BLOB NOT NULL                       -- engine.volumework.Work as JSON
);
"""

_STORAGE_3 = """
CREATE TABLE artifacts (
    digest TEXT NOT NULL,                      -- of a manifest that refers to another one: a signature, an SBOM
    image TEXT NOT NULL REFERENCES images (id),
    subject TEXT NOT NULL,                     -- digest of the manifest that it is about
    repository TEXT NOT NULL,                  -- normalised: where it came from
    descriptor BLOB NOT NULL,                  -- spec.wire.image.Descriptor as JSON: how it was listed
    PRIMARY KEY (digest, image)
);
CREATE INDEX artifacts_image ON artifacts (image);
CREATE TABLE artifact_blobs (
    artifact TEXT NOT NULL,                    -- digest of its manifest
    blob TEXT NOT NULL,
    descriptor BLOB NOT NULL,                  -- spec.wire.image.Descriptor as JSON
    PRIMARY KEY (artifact, blob)
);
"""

MIGRATIONS: tuple[str, ...] = (
    _STORAGE_1, _ENGINE_1, _NETWORK_1, _ENGINE_2, _STORAGE_2, _VOLUMES_1, _STORAGE_3,
)  # fmt: skip

Value = str | bytes | int | float | None
Parameters = Sequence[Value] | dict[str, Value]


def statements(script: str) -> Iterator[str]:
    """The single statements of a script; `executescript` would commit the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            if pending.strip():
                yield pending.strip()
            pending = ""
    if pending.strip():
        yield pending.strip()


class Database:
    """The database of one data root, open until `close`.

    Errors: `Conflict` where another engine has it open or a newer Hafen wrote it; `Corrupt` where the file is not
    ours or fails its integrity check, which runs when the last engine did not close it.
    """

    def __init__(self, path: str | os.PathLike[str], migrations: Sequence[str] = MIGRATIONS) -> None:
        self.path = os.fspath(path)
        # 0600 from the start: container records hold environment variables, and those hold passwords.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._undo: list[Callable[[], object]] = []
        self._done: list[Callable[[], object]] = []
        self._connection = sqlite3.connect(self.path, timeout=0.3, isolation_level=None, cached_statements=512)
        try:
            self._open(migrations)
        except sqlite3.OperationalError as error:
            self._connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Conflict(f"database {self.path} is in use by another engine") from error
            raise self._translate(error) from error
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise Corrupt(f"database {self.path} is damaged: {error}; restore a backup or move it away") from error
        except BaseException:
            self._connection.close()
            raise

    def _open(self, migrations: Sequence[str]) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: then there is no shared-memory file to go stale either
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA temp_store = MEMORY")
        run("PRAGMA synchronous = NORMAL")
        self._durable = False
        version = int(run("PRAGMA user_version").fetchone()[0])
        owner = int(run("PRAGMA application_id").fetchone()[0])
        if owner not in (0, APPLICATION_ID) or (owner == 0 and run("SELECT 1 FROM sqlite_master").fetchone()):
            raise Corrupt(f"{self.path} is an SQLite database, but not one of Hafen's")
        if version > len(migrations):
            raise Conflict(
                f"database {self.path} was written by a newer Hafen (schema {version}, this one knows "
                f"{len(migrations)}); start that version, or use another data root"
            )
        if version:
            self._check_after_crash()
        for number, script in enumerate(migrations[version:], version + 1):
            with self.transaction(durable=True):
                for statement in statements(script):
                    run(statement)
                if number == 1:
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                run(f"PRAGMA user_version = {number}")
        with self.transaction(durable=True):
            run("CREATE TABLE IF NOT EXISTS open_since (at REAL)")
            run("INSERT INTO open_since VALUES (unixepoch('subsec'))")

    def _check_after_crash(self) -> None:
        run = self._connection.execute
        if run("SELECT 1 FROM sqlite_master WHERE name = 'open_since'").fetchone() is None:
            return
        self.unclean = run("SELECT 1 FROM open_since").fetchone() is not None
        if not self.unclean:
            return
        verdict = [str(row[0]) for row in run("PRAGMA integrity_check(5)")]
        if verdict != ["ok"]:
            raise Corrupt(f"database {self.path} is damaged: {'; '.join(verdict)}; restore a backup or move it away")
        run("DELETE FROM open_since")

    unclean: bool = False
    """Whether the engine before this one did not close the database: a crash or a power cut."""

    def close(self) -> None:
        """Write the log back into the file and let go of it. Closing twice is harmless."""
        try:
            with self.transaction(durable=True):
                self._connection.execute("DELETE FROM open_since")
        except sqlite3.ProgrammingError:
            return  # closed already
        self._connection.close()

    def in_transaction(self) -> bool:
        """Whether a transaction is open just now."""
        return self._connection.in_transaction

    def if_undone(self, action: Callable[[], object]) -> None:
        """Call `action` when the transaction that is open now (or the part of it) is undone: for what mirrors rows in
        memory. Outside of a transaction nothing can be undone any more."""
        if self.in_transaction():
            self._undo.append(action)

    def when_done(self, action: Callable[[], object]) -> None:
        """Call `action` once nothing can undo what was done so far: after the outermost commit; now, outside of one."""
        if self.in_transaction():
            self._done.append(action)
        else:
            action()

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[None]:
        """Everything inside happens or nothing. Inside another transaction it is a part of that one, undone alone
        when it raises; whether the whole is synced was then decided by the outermost."""
        run = self._connection.execute
        if self.in_transaction():
            begin, commit, undo = "SAVEPOINT part", "RELEASE part", ["ROLLBACK TO part", "RELEASE part"]
        else:
            if durable != self._durable:
                run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            begin, commit, undo = "BEGIN IMMEDIATE", "COMMIT", ["ROLLBACK"]
        actions, later = len(self._undo), len(self._done)
        try:
            run(begin)
            yield
            run(commit)
        except BaseException as error:
            if self.in_transaction():  # SQLite itself rolls back after some errors, a full disk for one
                for statement in undo:
                    run(statement)
            del self._done[later:]
            while len(self._undo) > actions:
                self._undo.pop()()
            if isinstance(error, sqlite3.OperationalError):
                raise self._translate(error) from error
            raise
        if not self.in_transaction():
            self._undo.clear()
            done, self._done = self._done, []
            for action in done:
                action()

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement. Outside of a transaction it is one of its own, not synced."""
        try:
            if self._durable and not self.in_transaction():
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._durable = False
            return self._connection.execute(sql, parameters)
        except sqlite3.OperationalError as error:
            raise self._translate(error) from error

    def query(self, sql: str, parameters: Parameters = ()) -> list[tuple[Value, ...]]:
        """All rows of a SELECT."""
        return self._connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> tuple[Value, ...] | None:
        """The first row of a SELECT, or None."""
        found: tuple[Value, ...] | None = self._connection.execute(sql, parameters).fetchone()
        return found

    def _translate(self, error: sqlite3.OperationalError) -> Exception:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            return OutOfSpace(f"no space left on device: {self.path}")
        return System(f"database {self.path}: {error}")
