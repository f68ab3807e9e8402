"""Rows of quotas: what each prefix holds, kept by triggers in the transaction of each change (`schema`).

Loop thread only. Only prefixes that have a quota are counted. A blob or manifest of several repositories under one is
one holding.
"""

from __future__ import annotations

from collections.abc import Collection

from hafen.registryd.schema import COVERED
from hafen.spec.digest import Digest
from hafen.storage.database import Database

# What a prefix (?1) holds, counted anew; the caches of other registries have limits of their own and no members.
COUNTED = (
    "SELECT ?1, digest, MAX(size) AS size, COUNT(*) FROM "
    "(SELECT repository, digest, size FROM links UNION ALL SELECT repository, digest, size FROM manifests) "
    "WHERE repository IN (SELECT repository FROM quota_members WHERE prefix = ?1) GROUP BY digest"
)


class QuotaRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, prefixes: Collection[str]) -> None:
        """On start: count under these prefixes from now on, and under no others. One that is new costs a look at every
        row, once."""
        known = {str(prefix) for (prefix,) in self._database.query("SELECT prefix FROM quotas")}
        run = self._database.execute
        with self._database.transaction():
            for prefix in known.difference(prefixes):
                for table in ("holdings", "quota_members", "quotas"):
                    run(f"DELETE FROM {table} WHERE prefix = ?", (prefix,))
            for prefix in set(prefixes).difference(known):
                run("INSERT INTO quotas VALUES (?, 0)", (prefix,))
                run(
                    "INSERT INTO quota_members SELECT id, prefix FROM repositories JOIN quotas "
                    f"ON {COVERED.format(name='name')} WHERE prefix = ? AND upstream IS NULL",
                    (prefix,),
                )
                run(f"INSERT INTO holdings {COUNTED}", (prefix,))

    def used(self, prefix: str) -> int:
        """Bytes of the blobs and manifests of the repositories under a prefix; each counts once."""
        row = self._database.row("SELECT used FROM quotas WHERE prefix = ?", (prefix,))
        return 0 if row is None else int(row[0] or 0)

    def held(self, prefix: str, digest: Digest) -> bool:
        """Whether a repository under the prefix has this blob or manifest."""
        found = self._database.row("SELECT 1 FROM holdings WHERE prefix = ? AND digest = ?", (prefix, digest))
        return found is not None
