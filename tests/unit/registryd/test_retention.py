"""Retention: what rules say, which plans come of them, and that a registry carries out what it has shown."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.registryd.manifest import Manifest as Document
from hafen.registryd.retention import Inventory, Manifest, RemoveManifest, RemoveTag, Tag, parse, plan
from hafen.registryd.rows import Rows
from hafen.registryd.schema import MIGRATIONS
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage.database import Database
from tests.harness.registry import EMPTY, OCI_IMAGE, Client, RegistryProcess, descriptor, image, index, sha256
from tests.unit.registryd.test_webhooks import Receiver

DAY = 86400.0
NOW = 1000 * DAY


def digest(word: str) -> Digest:
    return digests.of(word.encode())


def manifest(word: str, days: float = 100, subject: str = "", members: str = "", fresh: bool = False) -> Manifest:
    return Manifest(
        digest(word), digest(subject) if subject else None, NOW - days * DAY,
        frozenset(digest(one) for one in members.split()), fresh,
    )  # fmt: skip


def tag(name: str, word: str, days: float = 100) -> Tag:
    return Tag(name, digest(word), NOW - days * DAY)


def removed(rules: str, tags: list[Tag], manifests: list[Manifest], repository: str = "team/app") -> list[str]:
    """Tags by name, manifests by their word."""
    words = {digest(word): word for word in "abcdefgh"}
    steps = plan(Inventory(repository, tuple(tags), tuple(manifests)), parse(rules), NOW)
    return [step.tag if isinstance(step, RemoveTag) else words[step.digest] for step in steps]


VERSIONS = [tag("v1", "a", 40), tag("v2", "b", 30), tag("v3", "c", 20), tag("dev", "d", 10)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("remove tags older than 25d", ["v1", "v2"]),
        ("remove tags older than 25d\nkeep tags matching v1", ["v2"]),
        ("keep 2 newest tags\nremove tags", ["v1", "v2"]),
        ("keep 2 newest tags matching v*\nremove tags", ["v1", "dev"]),
        ("keep 2 newest tags matching 'v*'\nremove tags matching 'v*'", ["v1"]),
        ("keep 1 newest tags\nkeep tags matching v1\nremove tags", ["v2", "v3"]),
        ("keep 9 newest tags\nremove tags", []),
        ("remove tags of other/*", []),
        ("remove tags of team/*  # a comment\n\n# another", ["v1", "v2", "v3", "dev"]),
        ("keep tags of other/*\nremove tags matching dev of *app", ["dev"]),
    ],
)
def test_tags(rules: str, expected: list[str]) -> None:
    assert removed(rules, VERSIONS, [manifest(word) for word in "abcd"]) == expected


def test_the_first_line_that_names_it_is_the_reason() -> None:
    found = plan(Inventory("r", (tag("v1", "a"),), ()), parse("remove tags older than 1w\nremove tags"), NOW)
    assert [step.describe() for step in found] == ["remove tag r:v1 (remove tags older than 1w)"]


UNTAGGED = "remove untagged older than 30d"


def test_what_is_untagged_has_its_own_age() -> None:
    found = [manifest("a", 31), manifest("b", 29), manifest("c", 31), manifest("d", 31, fresh=True)]
    assert removed(UNTAGGED, [tag("v1", "c")], found) == ["a"]


def test_what_loses_its_tag_now_is_untagged_from_now_on() -> None:
    both = f"remove tags\n{UNTAGGED}"
    assert removed(both, [tag("v1", "a")], [manifest("a")]) == ["v1"]
    assert removed("remove tags\nremove untagged", [tag("v1", "a")], [manifest("a")]) == ["v1", "a"]


def test_members_stay_and_go_with_their_index() -> None:
    found = [manifest("a", members="b c"), manifest("b"), manifest("c", 5), manifest("d", members="b")]
    assert removed(UNTAGGED, [tag("all", "a")], found) == ["d"]
    assert removed(UNTAGGED, [tag("all", "d")], found) == ["a"]  # c is too young
    assert removed(UNTAGGED, [], found) == ["a", "d", "b"]
    assert removed(UNTAGGED, [tag("one", "b")], found) == ["a", "d"]


def test_referrers_stay_and_go_with_their_subject() -> None:
    """A signature, and what is about that; one whose subject is elsewhere counts for itself."""
    found = [manifest("a"), manifest("b", 1, "a"), manifest("c", 1, "b"), manifest("d", 40, "h")]
    assert removed(UNTAGGED, [tag("v1", "a")], found) == ["d"]
    assert removed(UNTAGGED, [], found) == ["a", "d", "b", "c"]
    assert removed(UNTAGGED, [tag("named", "c")], found) == ["a", "d", "b"]


def test_referrers_by_tag_are_neither_counted_nor_removed_by_themselves() -> None:
    named = digest("a").replace(":", "-") + ".sig"
    found = [manifest("a"), manifest("b")]
    rules = "keep 1 newest tags\nremove tags\nremove untagged"
    assert removed(rules, [tag("v1", "a", 50), tag(named, "b", 10)], found) == []
    assert removed(rules, [tag("v2", "c", 1), tag("v1", "a", 50), tag(named, "b", 10)], [*found, manifest("c")]) == [
        "v1", "a", "b",
    ]  # fmt: skip
    assert removed("remove tags", [tag(named, "b", 10)], [manifest("b")]) == [named]  # about nothing here


def test_no_plan_takes_what_stays_needs() -> None:
    """Whatever there is: what the plan leaves is whole, and what it takes can be taken in that order."""
    chance = random.Random(11)
    for _ in range(500):
        words = "abcdefgh"[: chance.randrange(1, 9)]
        manifests = [
            manifest(word, chance.randrange(60), chance.choice(words[:place] or " ").strip() if chance.random() < 0.4
                     else "", " ".join(one for one in words[:place] if chance.random() < 0.2))
            for place, word in enumerate(words)
        ]  # fmt: skip
        tags = [tag(f"t{n}", chance.choice(words), chance.randrange(60)) for n in range(chance.randrange(5))]
        rules = parse(chance.choice((UNTAGGED, "remove tags older than 20d\nremove untagged", "keep 1 newest tags\n"
                                     "remove tags\nremove untagged older than 10d")))  # fmt: skip
        steps = plan(Inventory("r", tuple(tags), tuple(manifests)), rules, NOW)
        staying = {one.digest: one for one in manifests}
        left = {one.name: one for one in tags}
        for step in steps:
            if isinstance(step, RemoveTag):
                del left[step.tag]
                continue
            del staying[step.digest]
            assert not any(step.digest in one.members for one in staying.values())
            assert step.digest not in {one.manifest for one in left.values()}
        gone = {step.digest for step in steps if isinstance(step, RemoveManifest)}
        kept = {one.manifest for one in left.values()} | {member for one in staying.values() for member in one.members}
        assert not [one for one in staying.values() if one.subject in gone and one.digest not in kept]


@pytest.mark.parametrize(
    "text",
    ["", "keep 3 newest tags", "remove", "remove 3 newest tags", "keep untagged", "remove untagged matching v*",
     "keep tags older than 3d\nremove tags", "remove tags older than soon", "remove tags older 3d", "drop tags",
     "remove tags of a of b", "remove tags matching 'v*", "remove tags older than -1h"],
)  # fmt: skip
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_a_manifest_is_untagged_since_its_tag_went_elsewhere(tmp_path: Path) -> None:
    database = Database(tmp_path / "registry.db", MIGRATIONS)
    rows = Rows(database)
    document = Document(OCI_IMAGE, "", None, {}, ())
    for word in "ab":
        rows.put("r", digest(word), 1, document, ["moved"])
    rows.put("r", digest("c"), 1, document, ["removed"])
    database.execute("UPDATE manifests SET pushed_at = 5")
    rows.remove_tag("r", "removed")
    found = {one.digest: one.unused_since for one in rows.inventory("r", lambda *_: False).manifests}
    assert found[digest("b")] == 5
    assert all(abs(found[digest(word)] - time.time()) < 60 for word in "ac")
    database.close()


# From outside

RULES = "keep 2 newest tags of team/*\nremove tags of team/*\nremove untagged of team/*\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    (tmp_path / "rules").write_text(RULES)
    flags = ("--retention", str(tmp_path / "rules"), "--gc-grace", "0", "--gc-interval", "3600")
    with RegistryProcess(tmp_path / "root", *flags) as process:
        yield process


def retention(registry: RegistryProcess, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`hafen registry retention ...`"""
    command = [sys.executable, "-m", "hafen.cli.main", "registry", "retention", *words, "--root", str(registry.root)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def fill(client: Client, name: str) -> list[bytes]:
    """Tags v1 to v4; v1 is an index over an image, with a signature about it. All manifests, in that order."""
    one = client.push(name, "v0", b"layer one")
    both = index(one)
    client.push_manifest(name, "v1", both)
    client("DELETE", f"/v2/{name}/manifests/v0")
    signature = image(subject=descriptor(both, json.loads(both)["mediaType"]), artifactType="application/x.signature")
    client.push_manifest(name, sha256(signature), signature)
    others = [client.push(name, f"v{number}", f"layer {number}".encode()) for number in (2, 3, 4)]
    return [both, one, signature, *others]


def there(client: Client, name: str, data: bytes) -> bool:
    return client("GET", f"/v2/{name}/manifests/{sha256(data)}").status == 200


def test_the_preview_is_what_is_done(registry: RegistryProcess) -> None:
    with closing(registry.client()) as client:
        made = fill(client, "team/app")
        other = fill(client, "elsewhere")
        shown = retention(registry, "--dry-run")
        assert shown.stderr == "2 tags and 4 manifests would be removed\n"
        assert "remove tag team/app:v1 (remove tags of team/*)" in shown.stdout.splitlines()
        assert f"is about {sha256(made[0])}" in shown.stdout
        assert client("GET", "/v2/team/app/tags/list").json()["tags"] == ["v1", "v2", "v3", "v4"]
        done = retention(registry)
        assert (done.stdout, done.stderr) == (shown.stdout, "2 tags and 4 manifests removed\n")
        assert client("GET", "/v2/team/app/tags/list").json()["tags"] == ["v3", "v4"]
        assert [there(client, "team/app", data) for data in made] == [False] * 4 + [True] * 2
        assert all(there(client, "elsewhere", data) for data in other)
        assert retention(registry).stderr == "0 tags and 0 manifests removed\n"


def test_other_rules_can_be_tried_but_not_applied(registry: RegistryProcess, tmp_path: Path) -> None:
    (tmp_path / "others").write_text("remove tags matching v4")
    with closing(registry.client()) as client:
        fill(client, "elsewhere")
        tried = retention(registry, "--dry-run", "--rules", str(tmp_path / "others"))
        assert tried.stdout == "remove tag elsewhere:v4 (remove tags matching v4)\n"
        assert "can only be previewed" in retention(registry, "--rules", str(tmp_path / "others"), check=False).stderr
        (tmp_path / "others").write_text("nonsense")
        assert "line 1" in retention(registry, "--dry-run", "--rules", str(tmp_path / "others"), check=False).stderr


def test_it_is_done_with_the_collections_and_bytes_go_too(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("keep 1 newest tags\nremove tags\nremove untagged")
    flags = (
        "--retention",
        str(tmp_path / "rules"),
        "--retention-interval",
        "0",
        "--gc-grace",
        "0",
        "--gc-interval",
        "0.05",
    )
    with RegistryProcess(tmp_path / "root", *flags) as process, closing(process.client()) as client:
        wanted: set[str] = set()
        for number in range(1, 4):
            kept = image()
            layer = f"layer {number}".encode()
            while True:  # its blobs may be collected before it is there: they have no time of grace here
                for blob in (EMPTY, layer):
                    client.push_blob("app", blob)
                kept = image(layer)
                if client.push_manifest("app", f"v{number}", kept).status == 201:
                    break
            wanted = {sha256(data)[7:] for data in (EMPTY, layer, kept)}
        end = time.monotonic() + 20
        while {path.name for path in (tmp_path / "root/content/blobs").rglob("*") if path.is_file()} != wanted:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert client("GET", "/v2/app/tags/list").json()["tags"] == ["v3"]


def test_webhooks_are_told(tmp_path: Path) -> None:
    """Of what a client removes by hand they are told the same."""
    with closing(Receiver()) as receiver:
        (tmp_path / "rules").write_text("remove tags\nremove untagged\n")
        flags = (
            "--retention",
            str(tmp_path / "rules"),
            "--gc-grace",
            "0",
            "--webhook",
            f"{receiver.url},events=delete",
        )
        with RegistryProcess(tmp_path / "root", *flags) as process, closing(process.client()) as client:
            manifest = client.push("app", "v1", b"layer")
            retention(process)
            targets = [receiver.next().event["target"] for _ in range(2)]
        assert {target.get("tag") for target in targets} == {"v1", None}
        assert {target.get("digest") for target in targets} == {None, sha256(manifest)}


def test_without_rules_there_is_nothing_to_apply(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path) as process:
        assert "has no retention rules" in retention(process, check=False).stderr


def test_what_was_just_pushed_may_wait_for_its_index(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("remove untagged")
    with (
        RegistryProcess(tmp_path / "root", "--retention", str(tmp_path / "rules")) as process,
        closing(process.client()) as client,
    ):
        one = client.push("app", "v1", b"one")
        client("DELETE", "/v2/app/manifests/v1")
        assert retention(process).stderr == "0 tags and 0 manifests removed\n"
        assert client.push_manifest("app", "all", index(one)).status == 201
