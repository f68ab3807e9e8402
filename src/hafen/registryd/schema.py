"""The tables of a registry's database, as the steps by which they came about (see `storage.database`)."""

from __future__ import annotations

from typing import Final

_REGISTRY_1 = """
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE links (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL,                      -- of a blob that this repository has
    size INTEGER NOT NULL,                     -- bytes
    linked_at REAL NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX links_digest ON links (digest);
CREATE TABLE manifests (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL,                      -- the bytes are in the content store
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,                     -- bytes
    artifact_type TEXT NOT NULL,
    subject TEXT,                              -- digest of the manifest it is about, which may be missing
    annotations TEXT NOT NULL,                 -- JSON
    depth INTEGER NOT NULL,                    -- 0 for an image, one more than its deepest member for an index
    pushed_at REAL NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX manifests_digest ON manifests (digest);
CREATE INDEX manifests_subject ON manifests (repository, subject) WHERE subject IS NOT NULL;
CREATE TABLE needs (
    repository INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,                      -- of the blob or manifest it refers to
    PRIMARY KEY (repository, manifest, digest),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX needs_digest ON needs (repository, digest);
CREATE TABLE tags (
    repository INTEGER NOT NULL,
    tag TEXT NOT NULL,
    manifest TEXT NOT NULL,
    pushed_at REAL NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX tags_manifest ON tags (repository, manifest);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL                   -- name: it need not exist yet
) WITHOUT ROWID;
"""

_REGISTRY_2 = """
CREATE TABLE notifications (
    number INTEGER PRIMARY KEY,
    hook TEXT NOT NULL,                        -- URL
    event TEXT NOT NULL,                       -- JSON
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL,                 -- that failed
    next_at REAL NOT NULL                      -- when to try again
);
CREATE INDEX notifications_next ON notifications (hook, next_at, number);
"""

# Members may come after their index, so nothing can be said of its depth.
_NO_DEPTH = "ALTER TABLE manifests DROP COLUMN depth;"

_TOKENS = """
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE access_tokens (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- not used twice: bearer tokens name it
    user TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,               -- of the secret
    scope TEXT,                                -- JSON; NULL is all that the user may
    created_at REAL NOT NULL,
    expires_at REAL,
    used_at REAL
);
"""

_UNTAGGED = """
ALTER TABLE manifests ADD COLUMN untagged_at REAL;  -- Unix seconds when a tag was last taken from it
CREATE TRIGGER tag_moved AFTER UPDATE OF manifest ON tags WHEN OLD.manifest <> NEW.manifest BEGIN
    UPDATE manifests SET untagged_at = (julianday('now') - 2440587.5) * 86400.0
        WHERE repository = OLD.repository AND digest = OLD.manifest;
END;
CREATE TRIGGER tag_removed AFTER DELETE ON tags BEGIN
    UPDATE manifests SET untagged_at = (julianday('now') - 2440587.5) * 86400.0
        WHERE repository = OLD.repository AND digest = OLD.manifest;
END;
"""

_CACHED = """
ALTER TABLE repositories ADD COLUMN upstream TEXT;  -- URL of the registry that it is a cache of; NULL: pushed here
ALTER TABLE links ADD COLUMN used_at REAL;          -- these three only in caches
ALTER TABLE manifests ADD COLUMN used_at REAL;
ALTER TABLE tags ADD COLUMN checked_at REAL;        -- when the other registry last said so
CREATE TABLE expected (
    repository INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,                      -- of a blob that a cached manifest needs, fetched when it is asked for
    size INTEGER NOT NULL,                     -- bytes
    PRIMARY KEY (repository, digest, manifest),
    FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX expected_manifest ON expected (repository, manifest);
"""

# A prefix covers the name itself and what is below it; `0` is the character after `/`. Empty covers everything.
COVERED: Final = "(prefix = '' OR {name} = prefix OR ({name} > prefix || '/' AND {name} < prefix || '0'))"

# The same for links and manifests: `table` is either.
_HELD = """
CREATE TRIGGER {table}_held AFTER INSERT ON {table} BEGIN
    INSERT INTO holdings SELECT prefix, NEW.digest, NEW.size, 1 FROM quota_members WHERE repository = NEW.repository
        ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER {table}_let_go AFTER DELETE ON {table} BEGIN
    UPDATE holdings SET count = count - 1 WHERE digest = OLD.digest
        AND prefix IN (SELECT prefix FROM quota_members WHERE repository = OLD.repository);
    DELETE FROM holdings WHERE digest = OLD.digest AND count = 0
        AND prefix IN (SELECT prefix FROM quota_members WHERE repository = OLD.repository);
END;
"""

_QUOTAS = f"""
CREATE TABLE quotas (
    prefix TEXT PRIMARY KEY,
    used INTEGER NOT NULL                      -- bytes of its holdings
) WITHOUT ROWID;
CREATE TABLE quota_members (
    repository INTEGER NOT NULL,
    prefix TEXT NOT NULL,                      -- that covers it
    PRIMARY KEY (repository, prefix)
) WITHOUT ROWID;
CREATE TABLE holdings (
    prefix TEXT NOT NULL,
    digest TEXT NOT NULL,                      -- of a blob or manifest of a repository under it
    size INTEGER NOT NULL,                     -- bytes
    count INTEGER NOT NULL,                    -- of its links and manifests
    PRIMARY KEY (prefix, digest)
) WITHOUT ROWID;
CREATE TRIGGER repository_covered AFTER INSERT ON repositories WHEN NEW.upstream IS NULL BEGIN
    INSERT INTO quota_members SELECT NEW.id, prefix FROM quotas WHERE {COVERED.format(name="NEW.name")};
END;
CREATE TRIGGER repository_gone AFTER DELETE ON repositories BEGIN
    DELETE FROM quota_members WHERE repository = OLD.id;
END;
CREATE TRIGGER holding_added AFTER INSERT ON holdings BEGIN
    UPDATE quotas SET used = used + NEW.size WHERE prefix = NEW.prefix;
END;
CREATE TRIGGER holding_gone AFTER DELETE ON holdings BEGIN
    UPDATE quotas SET used = used - OLD.size WHERE prefix = OLD.prefix;
END;
{_HELD.format(table="links")}
{_HELD.format(table="manifests")}
"""

_TOTALS = """
CREATE TABLE totals (
    blobs INTEGER NOT NULL,                    -- with links, each once
    blob_bytes INTEGER NOT NULL                -- of these
);
INSERT INTO totals SELECT COUNT(*), COALESCE(SUM(size), 0) FROM (SELECT MAX(size) AS size FROM links GROUP BY digest);
CREATE TRIGGER blob_added AFTER INSERT ON links
WHEN NOT EXISTS (SELECT 1 FROM links WHERE digest = NEW.digest AND repository <> NEW.repository) BEGIN
    UPDATE totals SET blobs = blobs + 1, blob_bytes = blob_bytes + NEW.size;
END;
CREATE TRIGGER blob_gone AFTER DELETE ON links WHEN NOT EXISTS (SELECT 1 FROM links WHERE digest = OLD.digest) BEGIN
    UPDATE totals SET blobs = blobs - 1, blob_bytes = blob_bytes - OLD.size;
END;
"""

MIGRATIONS: Final = (_REGISTRY_1, _REGISTRY_2, _NO_DEPTH, _TOKENS, _UNTAGGED, _CACHED, _QUOTAS, _TOTALS)
