"""Rows of what is cached of other registries. Loop thread only.

A cached repository has its manifests, tags and links in the same tables as others have, but no `needs`: any part of it
may be missing, and is fetched when it is asked for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Final

from hafen.errors import InvalidArgument
from hafen.registryd.manifest import Manifest
from hafen.spec.digest import Digest
from hafen.storage.database import Database

_NOTED: Final = 60.0  # seconds; the last use of a thing is not written more often

_UNDER: Final = "upstream IS NOT NULL AND name > ?1 || '/' AND name < ?1 || '0'"


class CacheRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, upstreams: Mapping[str, str], offered: str = "") -> None:
        """On start, with URL by prefix: drop what is a cache of anything else. InvalidArgument where a prefix covers
        what was pushed here, also that of the engine's images: neither may pass for the other."""
        for prefix in upstreams:
            if offered and (f"{prefix}/".startswith(f"{offered}/") or f"{offered}/".startswith(f"{prefix}/")):
                raise InvalidArgument(f"the prefixes {prefix} and {offered} overlap")
        taken = {**upstreams, offered: "the engine's images"} if offered else upstreams
        found = self._database.query("SELECT id, name, upstream FROM repositories")
        stale = []
        for identity, name, upstream in found:
            url = next((url for prefix, url in taken.items() if str(name).startswith(f"{prefix}/")), None)
            if upstream is None and url is not None:
                raise InvalidArgument(
                    f"{name!s} was pushed here and would be taken for a part of {url}: choose another prefix, or "
                    "delete it"
                )
            if upstream is not None and upstream != url:
                stale.append(identity)
        with self._database.transaction():
            for identity in stale:
                for table in ("tags", "manifests", "links"):
                    self._database.execute(f"DELETE FROM {table} WHERE repository = ?", (identity,))
                self._database.execute("DELETE FROM repositories WHERE id = ?", (identity,))

    def _made(self, name: str, upstream: str) -> int:
        self._database.execute(
            "INSERT INTO repositories (name, upstream) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, upstream)
        )
        row = self._database.row("SELECT id FROM repositories WHERE name = ?", (name,))
        assert row is not None
        return int(row[0] or 0)

    def put(self, name: str, upstream: str, digest: Digest, size: int, manifest: Manifest, tag: str) -> None:
        """A manifest whose bytes are in the store, and what a tag, if one is given, means from now on."""
        now = time.time()
        with self._database.transaction():
            repository = self._made(name, upstream)
            self._database.execute(
                "INSERT INTO manifests (repository, digest, media_type, size, artifact_type, subject, annotations, "
                "pushed_at, used_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
                (
                    repository, digest, manifest.media_type, size, manifest.artifact_type, manifest.subject,
                    json.dumps(dict(manifest.annotations)), now, now,
                ),
            )  # fmt: skip
            for need in manifest.needs:
                if need.required:  # the other registry may not have the others
                    self._database.execute(
                        "INSERT INTO expected VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        (repository, digest, need.digest, need.size),
                    )
            if tag:
                self._database.execute(
                    "INSERT INTO tags (repository, tag, manifest, pushed_at, checked_at) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET manifest = excluded.manifest, pushed_at = excluded.pushed_at, "
                    "checked_at = excluded.checked_at",
                    (repository, tag, digest, now, now),
                )

    def checked_at(self, name: str, tag: str) -> float:
        """When a tag was last known to be right; Unix seconds, 0 for never."""
        row = self._database.row(
            "SELECT checked_at FROM tags JOIN repositories ON id = repository WHERE name = ? AND tag = ?", (name, tag)
        )
        return 0.0 if row is None else float(row[0] or 0)

    def check(self, name: str, tag: str) -> None:
        """A tag is right now. Not synced: after a power cut it is asked again."""
        self._database.execute(
            "UPDATE tags SET checked_at = ? WHERE tag = ? "
            "AND repository = (SELECT id FROM repositories WHERE name = ?)",
            (time.time(), tag, name),
        )

    def link(self, name: str, upstream: str, digest: Digest, size: int) -> None:
        """A blob that is in the store."""
        now = time.time()
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO links (repository, digest, size, linked_at, used_at) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
                (self._made(name, upstream), digest, size, now, now),
            )

    def expected(self, name: str, digest: Digest) -> int | None:
        """Bytes of a blob, where a cached manifest of this repository names it."""
        row = self._database.row(
            "SELECT size FROM expected JOIN repositories ON id = repository WHERE name = ? AND digest = ?",
            (name, digest),
        )
        return None if row is None else int(row[0] or 0)

    def touch(self, name: str, digest: Digest) -> None:
        """It has been used. Not synced."""
        now = time.time()
        for table in ("links", "manifests"):
            self._database.execute(
                f"UPDATE {table} SET used_at = ?1 WHERE digest = ?2 AND used_at < ?3 "
                "AND repository = (SELECT id FROM repositories WHERE name = ?4)",
                (now, digest, now - _NOTED, name),
            )

    def used(self, prefix: str) -> int:
        """Bytes of what is cached under a prefix; each blob counts once."""
        row = self._database.row(
            f"SELECT SUM(size) FROM (SELECT digest, size FROM links JOIN repositories ON id = repository "
            f"WHERE {_UNDER} UNION "
            f"SELECT digest, size FROM manifests JOIN repositories ON id = repository WHERE {_UNDER})",
            (prefix,),
        )
        return 0 if row is None else int(row[0] or 0)

    def expire(self, prefix: str, before: float, limit: int | None) -> None:
        """Drop what nobody has used since, then the blobs that were used longest ago, until `limit` bytes hold the
        rest."""
        repositories = f"(SELECT id FROM repositories WHERE {_UNDER})"
        with self._database.transaction():
            for table in ("manifests", "links"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE used_at < ?2 AND repository IN {repositories}", (prefix, before)
                )
            over = 0 if limit is None else self.used(prefix) - limit
            for digest, size in self._oldest(prefix) if over > 0 else ():
                if over <= 0:
                    break
                over -= size
                self._database.execute(
                    f"DELETE FROM links WHERE digest = ?2 AND repository IN {repositories}", (prefix, digest)
                )

    def _oldest(self, prefix: str) -> list[tuple[str, int]]:
        """Blobs under a prefix with their sizes, those first that were used longest ago."""
        rows = self._database.query(
            f"SELECT digest, MAX(size) FROM links JOIN repositories ON id = repository WHERE {_UNDER} "
            "GROUP BY digest ORDER BY MAX(used_at)",
            (prefix,),
        )
        return [(str(digest), int(size or 0)) for digest, size in rows]
