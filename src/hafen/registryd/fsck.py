"""`hafen registry fsck`: a registry that does not run, checked against its own digests and rows.

Every blob that a row names is read to its end, every image has what it needs. A blob that no row names is no problem:
collection takes it. What a registry has lost its clients push again, as it tells them that it is not there; of a blob
that is damaged within its size, or of which the row says another one, they are told so once `--repair` has removed it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hafen.errors import HafenError, NotFound
from hafen.registryd import manifest
from hafen.registryd.config import DEFAULT_ROOT
from hafen.registryd.quotarows import COUNTED
from hafen.registryd.schema import MIGRATIONS
from hafen.spec.digest import Digest
from hafen.storage import verify
from hafen.storage.content import LocalContent
from hafen.storage.database import Database


@dataclass(frozen=True, slots=True)
class Problem:
    """`subject` is a digest, or a repository with one; `kind` database, blob-missing, blob-damaged, blob-row (its size)
    or manifest (something that it needs)."""

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """`bytes` that were read; `unused` blobs wait for the next collection."""

    repositories: int
    manifests: int
    blobs: int
    bytes: int
    unused: int
    problems: tuple[Problem, ...]


class _Check:
    def __init__(self, database: Database, content: LocalContent, repair: bool) -> None:
        self._query, self._run = database.query, database.execute
        self._content = content
        self._repair = repair
        self._bytes = 0

    def run(self) -> Report:
        problems = [*self._database(), *self._blobs(), *self._manifests()]
        named = self._sizes()
        return Report(
            repositories=len(self._query("SELECT id FROM repositories")),
            manifests=len(self._query("SELECT digest FROM manifests")),
            blobs=len(named),
            bytes=self._bytes,
            unused=sum(digest not in named for digest in self._content.all()),
            problems=tuple(problems),
        )

    def _sizes(self) -> dict[str, int]:
        rows = self._query("SELECT digest, size FROM links UNION SELECT digest, size FROM manifests")
        return {str(digest): int(str(size)) for digest, size in rows}

    def _database(self) -> Iterator[Problem]:
        for (text,) in self._query("PRAGMA integrity_check(20)"):
            if text != "ok":
                yield Problem("database", "registry.db", str(text))
        for table, *_ in self._query("PRAGMA foreign_key_check"):
            yield Problem("database", str(table), "a row names what is not there")
        for prefix, used in self._query("SELECT prefix, used FROM quotas"):
            ((held,),) = self._query(f"SELECT COALESCE(SUM(size), 0) FROM ({COUNTED})", (prefix,))
            if held != used:
                yield Problem("database", f"quota {prefix!s}", f"it has {held!s} bytes, its row says {used!s}")

    def _blobs(self) -> Iterator[Problem]:
        def read(count: int) -> None:
            self._bytes += count

        for name, size in sorted(self._sizes().items()):
            digest = Digest(name)
            if not self._content.has(digest):
                yield Problem("blob-missing", digest, "its bytes are not there")
                continue
            wrong = verify.blob(self._content, digest, read)
            if wrong is not None:
                if self._repair:
                    self._content.remove(digest)
                    wrong += "; removed, for a client to push it again"
                yield Problem("blob-damaged", digest, wrong)
            elif (found := self._content.size(digest)) != size:
                if self._repair:
                    self._run("DELETE FROM links WHERE digest = ? AND size <> ?", (digest, found))
                yield Problem("blob-row", digest, f"its row has the size {size}, not {found}")

    def _manifests(self) -> Iterator[Problem]:
        """What images need and their repositories have not; members of an index, and what a cache fetches when it is
        asked for it, may be missing."""
        there = {(row[0], str(row[1])) for row in self._query("SELECT repository, digest FROM links")}
        there |= {(row[0], str(row[1])) for row in self._query("SELECT repository, digest FROM expected")}
        rows = self._query(
            "SELECT repository, name, digest, media_type FROM manifests "
            "JOIN repositories ON id = repository ORDER BY 2, 3"
        )
        for repository, name, digest, media_type in rows:
            try:
                parsed = manifest.parse(self._content.read(Digest(str(digest))), str(media_type))
            except HafenError:
                continue  # told of as a blob
            for need in parsed.needs:
                if need.required and (repository, str(need.digest)) not in there:
                    yield Problem(
                        "manifest", f"{name!s}@{digest!s}", f"it needs {need.digest}, which its repository lacks"
                    )


def check(root: str, repair: bool = False) -> Report:
    """Conflict where the registry runs; NotFound where there is none."""
    if not Path(root, "registry.db").is_file():
        raise NotFound(f"{root} is no registry's root: there is no registry.db in it")
    database = Database(f"{root}/registry.db", MIGRATIONS)
    try:
        return _Check(database, LocalContent(f"{root}/content"), repair).run()
    finally:
        database.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 where nothing is wrong, else 1, also where it has been removed."""
    parser = argparse.ArgumentParser(prog="hafen registry fsck", description="Check a registry that does not run.")
    parser.add_argument("--root", default=DEFAULT_ROOT, metavar="DIR", help=f"the registry's (default {DEFAULT_ROOT})")
    parser.add_argument("--repair", action="store_true", help="remove damaged blobs, so that they are pushed again")
    parser.add_argument("--format", choices=["json"], help="the report as JSON")
    flags = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        report = check(flags.root, flags.repair)
    except HafenError as error:
        print(f"hafen registry fsck: {error.message}", file=sys.stderr)
        return 1
    if flags.format:
        print(json.dumps({**asdict(report), "clean": not report.problems}, indent=4))
        return 1 if report.problems else 0
    for problem in report.problems:
        print(f"{problem.kind} {problem.subject}: {problem.detail}")
    found = f"{len(report.problems)} problems" if report.problems else "nothing is wrong"
    print(
        f"Checked {report.repositories} repositories, {report.manifests} manifests, {report.blobs} blobs, "
        f"{report.bytes} bytes: {found}; {report.unused} blobs wait for collection"
    )
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
