"""Rows: what each repository has. Loop thread only; each method that changes something is one durable transaction.

A blob of a repository is a *link*: the bytes are in the content store once, whatever repositories link to them. What a
manifest *needs* is linked (or a manifest there) when the manifest comes, but for members of an index and layers that
may be elsewhere, and nothing but a client's own deletion takes it away.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from hafen.registryd.errors import ManifestBlobUnknown, ManifestInvalid
from hafen.registryd.manifest import Manifest
from hafen.registryd.retention import Inventory
from hafen.registryd.retention import Manifest as RetainedManifest
from hafen.registryd.retention import Tag as RetainedTag
from hafen.spec.digest import Digest
from hafen.storage.database import Database, Value

_MANIFEST = "manifests.digest, media_type, size, artifact_type, annotations"
_NEEDLESS = (
    "linked_at < ? AND NOT EXISTS "
    "(SELECT 1 FROM needs WHERE needs.repository = links.repository AND needs.digest = links.digest)"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest of a repository; size in bytes."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str
    annotations: str  # JSON


@dataclass(frozen=True, slots=True)
class Notification:
    """An event that waits for its webhook; times are Unix seconds."""

    number: int
    event: str  # JSON
    created_at: float
    attempts: int
    next_at: float


@dataclass(frozen=True, slots=True)
class Totals:
    """How many there are of each, but `blob_bytes`. A blob counts once, however many repositories have it."""

    repositories: int
    manifests: int
    tags: int
    blobs: int
    blob_bytes: int
    uploads: int
    notifications: int


class Rows:
    """Questions and changes by repository name. What a repository is asked that does not exist is not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _id(self, name: str) -> int | None:
        row = self._database.row("SELECT id FROM repositories WHERE name = ?", (name,))
        return None if row is None else int(row[0] or 0)

    def _made(self, name: str) -> int:
        found = self._id(name)
        if found is None:
            found = self._database.execute("INSERT INTO repositories (name) VALUES (?)", (name,)).lastrowid
        assert found is not None
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """The changes inside happen all or not at all."""
        with self._database.transaction():
            yield

    def totals(self) -> Totals:
        row = self._database.row(
            "SELECT (SELECT COUNT(*) FROM repositories WHERE EXISTS (SELECT 1 FROM manifests WHERE repository = id)), "
            "(SELECT COUNT(*) FROM manifests), (SELECT COUNT(*) FROM tags), blobs, blob_bytes, "
            "(SELECT COUNT(*) FROM uploads), (SELECT COUNT(*) FROM notifications) FROM totals"
        )
        assert row is not None
        return Totals(*(int(value or 0) for value in row))

    # Repositories

    def exists(self, name: str) -> bool:
        return self._id(name) is not None

    def is_cache(self, name: str) -> bool:
        """Whether it holds what came from another registry, and may be incomplete."""
        return (
            self._database.row("SELECT 1 FROM repositories WHERE name = ? AND upstream IS NOT NULL", (name,))
            is not None
        )

    def repositories(self, last: str, limit: int) -> list[str]:
        """Names after `last`, in order, of those that hold a manifest."""
        rows = self._database.query(
            "SELECT name FROM repositories WHERE name > ? "
            "AND EXISTS (SELECT 1 FROM manifests WHERE repository = id) ORDER BY name LIMIT ?",
            (last, limit),
        )
        return [str(name) for (name,) in rows]

    def named_like(self, term: str) -> list[str]:
        """Names with `term` in them, in order, of those that hold a manifest."""
        rows = self._database.query(
            "SELECT name FROM repositories WHERE instr(name, ?) "
            "AND EXISTS (SELECT 1 FROM manifests WHERE repository = id) ORDER BY name",
            (term,),
        )
        return [str(name) for (name,) in rows]

    # Blobs

    def linked(self, name: str, digest: Digest) -> int | None:
        """The blob's size, where this repository has it."""
        row = self._database.row(
            "SELECT size FROM links JOIN repositories ON id = repository WHERE name = ? AND digest = ?", (name, digest)
        )
        return None if row is None else int(row[0] or 0)

    def holders(self, digest: Digest) -> list[str]:
        """Names of all repositories that have the blob."""
        rows = self._database.query(
            "SELECT name FROM links JOIN repositories ON id = repository WHERE digest = ?", (digest,)
        )
        return [str(name) for (name,) in rows]

    def link(self, name: str, digest: Digest, size: int) -> None:
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO links (repository, digest, size, linked_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET linked_at = excluded.linked_at",
                (self._made(name), digest, size, time.time()),
            )

    def unlink(self, name: str, digest: Digest) -> bool:
        """Whether it was there."""
        with self._database.transaction():
            return bool(
                self._database.execute(
                    "DELETE FROM links WHERE repository = ? AND digest = ?", (self._id(name), digest)
                ).rowcount
            )

    def needing(self, name: str, digest: Digest) -> list[Digest]:
        """The manifests that need this blob or manifest."""
        rows = self._database.query(
            "SELECT manifest FROM needs WHERE repository = ? AND digest = ?", (self._id(name), digest)
        )
        return [Digest(str(manifest)) for (manifest,) in rows]

    # Manifests

    def manifest(self, name: str, reference: str) -> Stored | None:
        """By digest or tag; they cannot be confused, as a tag has no colon."""
        if ":" in reference:
            query = (
                f"SELECT {_MANIFEST} FROM manifests JOIN repositories ON id = repository WHERE name = ? AND digest = ?"
            )
        else:
            query = (
                f"SELECT {_MANIFEST} FROM repositories JOIN tags ON tags.repository = id "
                "JOIN manifests ON manifests.repository = id AND digest = tags.manifest WHERE name = ? AND tag = ?"
            )
        row = self._database.row(query, (name, reference))
        return None if row is None else _stored(row)

    def knows_manifest(self, digest: Digest) -> bool:
        """Whether any repository has it."""
        return self._database.row("SELECT 1 FROM manifests WHERE digest = ?", (digest,)) is not None

    def put(self, name: str, digest: Digest, size: int, manifest: Manifest, tags: Sequence[str]) -> None:
        """Record a manifest whose bytes are in the store, and point tags at it.

        ManifestBlobUnknown where it needs what is not in the repository, ManifestInvalid where a size is wrong.
        """
        now = time.time()
        with self._database.transaction():
            repository = self._made(name)
            self.check(name, manifest)
            self._database.execute(
                "INSERT INTO manifests (repository, digest, media_type, size, artifact_type, subject, annotations, "
                "pushed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET pushed_at = excluded.pushed_at",
                (
                    repository, digest, manifest.media_type, size, manifest.artifact_type, manifest.subject,
                    json.dumps(dict(manifest.annotations)), now,
                ),
            )  # fmt: skip
            for need in manifest.needs:
                self._database.execute(
                    "INSERT INTO needs VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (repository, digest, need.digest)
                )
            for tag in tags:
                self._database.execute(
                    "INSERT INTO tags (repository, tag, manifest, pushed_at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET manifest = excluded.manifest, pushed_at = excluded.pushed_at",
                    (repository, tag, digest, now),
                )

    def check(self, name: str, manifest: Manifest) -> None:
        """The errors of `put`."""
        repository = self._id(name)
        for need in manifest.needs:
            table = "manifests" if need.is_manifest else "links"
            row = self._database.row(
                f"SELECT size FROM {table} WHERE repository = ? AND digest = ?", (repository, need.digest)
            )
            if row is None and need.required:
                raise ManifestBlobUnknown(f"blob unknown: {need.digest}")
            if row is not None and row[0] != need.size:
                raise ManifestInvalid(f"{need.digest} has {row[0]!s} bytes, the manifest says {need.size}")

    def remove_manifest(self, name: str, digest: Digest) -> bool:
        """With its tags. Whether it was there."""
        with self._database.transaction():
            return bool(
                self._database.execute(
                    "DELETE FROM manifests WHERE repository = ? AND digest = ?", (self._id(name), digest)
                ).rowcount
            )

    def referrers(
        self, name: str, subject: Digest, artifact_type: str, last: str, limit: int, size: int
    ) -> tuple[list[Stored], bool]:
        """Manifests about `subject`, by digest, after `last`, of one type only where one is given; and whether more
        follow. At least one, at most `limit`, with at most `size` bytes of annotations and type."""
        found: list[Stored] = []
        rows = self._database.execute(
            f"SELECT {_MANIFEST} FROM manifests JOIN repositories ON id = repository "
            "WHERE name = ? AND subject = ? AND (? = '' OR artifact_type = ?) AND digest > ? ORDER BY digest",
            (name, subject, artifact_type, artifact_type, last),
        )
        with closing(rows):  # they are read one by one: all may be more than there is memory
            for row in rows:
                stored = _stored(row)
                size -= len(stored.annotations.encode()) + len(stored.artifact_type.encode())
                if found and (size < 0 or len(found) == limit):
                    return found, True
                found.append(stored)
        return found, False

    # Tags

    def tags(self, name: str, last: str, limit: int) -> list[str]:
        """Tags after `last`, in the specification's order: letters count alike in both cases."""
        rows = self._database.query(
            "SELECT tag FROM tags JOIN repositories ON id = repository WHERE name = ?1 AND (?2 = '' OR "
            "tag COLLATE NOCASE > ?2 OR (tag = ?2 COLLATE NOCASE AND tag > ?2)) "
            "ORDER BY tag COLLATE NOCASE, tag LIMIT ?3",
            (name, last, limit),
        )
        return [str(tag) for (tag,) in rows]

    def remove_tag(self, name: str, tag: str) -> bool:
        with self._database.transaction():
            return bool(
                self._database.execute(
                    "DELETE FROM tags WHERE repository = ? AND tag = ?", (self._id(name), tag)
                ).rowcount
            )

    # Uploads: after a power cut the newest may be gone, and their clients begin again

    def begin_upload(self, identifier: str, name: str) -> None:
        self._database.execute("INSERT INTO uploads VALUES (?, ?)", (identifier, name))

    def upload_repository(self, identifier: str) -> str | None:
        row = self._database.row("SELECT repository FROM uploads WHERE id = ?", (identifier,))
        return None if row is None else str(row[0])

    def end_upload(self, identifier: str) -> None:
        self._database.execute("DELETE FROM uploads WHERE id = ?", (identifier,))

    def uploads(self) -> set[str]:
        return {str(identifier) for (identifier,) in self._database.query("SELECT id FROM uploads")}

    # Notifications

    def notify(self, hook: str, event: str, limit: int, done: Callable[[], None]) -> int:
        """Queue an event, a part of the transaction that is open; `done` is called after its commit. The oldest over
        the limit go: how many."""
        now = time.time()
        self._database.execute(
            "INSERT INTO notifications (hook, event, created_at, attempts, next_at) VALUES (?, ?, ?, 0, ?)",
            (hook, event, now, now),
        )
        self._database.when_done(done)
        return self._database.execute(
            "DELETE FROM notifications WHERE hook = ?1 AND number <= (SELECT number FROM notifications "
            "WHERE hook = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (hook, limit),
        ).rowcount

    def next_notification(self, hook: str) -> Notification | None:
        """The one whose time comes first."""
        row = self._database.row(
            "SELECT number, event, created_at, attempts, next_at FROM notifications WHERE hook = ? "
            "ORDER BY next_at, number LIMIT 1",
            (hook,),
        )
        if row is None:
            return None
        number, event, created_at, attempts, next_at = row
        return Notification(
            int(number or 0), str(event), float(created_at or 0), int(attempts or 0), float(next_at or 0)
        )

    def postpone_notification(self, number: int, next_at: float) -> None:
        """After a failed attempt."""
        self._database.execute(
            "UPDATE notifications SET attempts = attempts + 1, next_at = ? WHERE number = ?", (next_at, number)
        )

    def end_notification(self, number: int) -> None:
        self._database.execute("DELETE FROM notifications WHERE number = ?", (number,))

    def keep_notifications(self, hooks: Sequence[str]) -> None:
        """Drop those of all other hooks."""
        self._database.execute(
            "DELETE FROM notifications WHERE hook NOT IN (SELECT value FROM json_each(?))", (json.dumps(hooks),)
        )

    # Retention

    def inventory(self, name: str, fresh: Callable[[str, Digest, float], bool]) -> Inventory:
        """What the repository has; `fresh` is asked with name, digest and time of each manifest's last push."""
        repository = self._id(name)
        tags = self._database.query("SELECT tag, manifest, pushed_at FROM tags WHERE repository = ?", (repository,))
        manifests = self._database.query(
            "SELECT digest, subject, pushed_at, untagged_at FROM manifests WHERE repository = ?", (repository,)
        )
        members: dict[str, set[Digest]] = {}
        for index, member in self._database.query(
            "SELECT manifest, needs.digest FROM needs JOIN manifests "
            "ON manifests.repository = needs.repository AND manifests.digest = needs.digest WHERE needs.repository = ?",
            (repository,),
        ):
            members.setdefault(str(index), set()).add(Digest(str(member)))
        return Inventory(
            name,
            tuple(RetainedTag(str(tag), Digest(str(digest)), float(at or 0)) for tag, digest, at in tags),
            tuple(
                RetainedManifest(
                    Digest(str(digest)),
                    None if subject is None else Digest(str(subject)),
                    max(float(pushed_at or 0), float(untagged_at or 0)),
                    frozenset(members.get(str(digest), ())),
                    fresh(name, Digest(str(digest)), float(pushed_at or 0)),
                )
                for digest, subject, pushed_at, untagged_at in manifests
            ),
        )

    # Collection

    def pushed_to(self) -> list[str]:
        """Names of all repositories but those of caches."""
        rows = self._database.query("SELECT name FROM repositories WHERE upstream IS NULL")
        return [str(name) for (name,) in rows]

    def needless(self, name: str, before: float) -> list[Digest]:
        """Blobs of the repository, linked before that time, that no manifest of it needs."""
        rows = self._database.query(
            f"SELECT digest FROM links WHERE repository = ? AND {_NEEDLESS}", (self._id(name), before)
        )
        return [Digest(str(digest)) for (digest,) in rows]

    def drop(self, links: Iterable[tuple[str, Digest]], before: float) -> None:
        """Remove those of these links that are needless, and repositories that hold nothing any more."""
        with self._database.transaction():
            for name, digest in links:
                self._database.execute(
                    f"DELETE FROM links WHERE repository = ? AND digest = ? AND {_NEEDLESS}",
                    (self._id(name), digest, before),
                )
            self._database.execute(
                "DELETE FROM repositories WHERE NOT EXISTS (SELECT 1 FROM links WHERE repository = id) "
                "AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = id)"
            )

    def digests(self) -> list[str]:
        """Of every blob and manifest that any repository has."""
        return [
            str(digest)
            for (digest,) in self._database.query("SELECT digest FROM links UNION SELECT digest FROM manifests")
        ]

    def known(self, digest: Digest) -> bool:
        """Whether any repository has this blob or manifest."""
        return (
            self._database.row(
                "SELECT 1 FROM links WHERE digest = ?1 UNION ALL SELECT 1 FROM manifests WHERE digest = ?1 LIMIT 1",
                (digest,),
            )
            is not None
        )


def _stored(row: tuple[Value, ...]) -> Stored:
    digest, media_type, size, artifact_type, annotations = row
    return Stored(Digest(str(digest)), str(media_type), int(size or 0), str(artifact_type), str(annotations))
