"""Images: imported, loaded, saved, committed, tagged and removed, as Docker does; nothing left behind."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from backports import zstd

from hafen.engine.imageimport import CommitRequest
from hafen.engine.images import ImageUser
from hafen.errors import Conflict, Corrupt, HafenError, InvalidArgument, NotFound, OutOfSpace
from hafen.spec import digest as digests
from hafen.spec import filters
from hafen.storage import archive as archives
from hafen.storage import layers, tarformat
from hafen.storage.archive import Limits
from hafen.storage.tarformat import Entry
from tests.root.engine.imagebench import Bench, bench, stream
from tests.suites.snapshotter_suite import tar

ROOT_TAR = tar(
    (Entry("bin/", tarformat.DIRECTORY, 0o755), b""),
    (Entry("bin/sh", mode=0o755, size=5), b"shell"),
    (Entry("etc/", tarformat.DIRECTORY, 0o755), b""),
    (Entry("etc/.wh.kept", size=1), b"w"),
)
SECOND = tar((Entry("bin/.wh.sh"), b""), (Entry("new", size=3), b"new"))


@pytest.fixture(params=["overlay", "vfs"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path / "store", str(request.param)) as made:
        yield made


def config(*layer_tars: bytes, **fields: object) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "created": "2024-01-02T03:04:05.678901234Z",
        "history": [{"created_by": str(number)} for number in range(len(layer_tars))],
        "rootfs": {"type": "layers", "diff_ids": [digests.of(data) for data in layer_tars]},
        **fields,
    }
    return json.dumps(document).encode()


def member(name: str, data: bytes) -> tuple[Entry, bytes]:
    return Entry(name, size=len(data)), data


def blob(data: bytes, algorithm: str = "sha256") -> tuple[Entry, bytes]:
    return member("blobs/" + digests.of(data, algorithm).replace(":", "/"), data)


def docker_archive(*layer_tars: bytes, tags: tuple[str, ...] = ("a:1",), **fields: object) -> bytes:
    """As `docker save` before version 25."""
    document = config(*layer_tars, **fields)
    paths = [f"{number}/layer.tar" for number in range(len(layer_tars))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": list(tags), "Layers": paths}]).encode()
    return tar(
        *(member(path, data) for path, data in zip(paths, layer_tars, strict=True)),
        member("config.json", document),
        member("manifest.json", manifest),
    )


def descriptor(data: bytes, media_type: str, algorithm: str = "sha256", **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digests.of(data, algorithm), "size": len(data), **more}


LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def oci_archive(
    layer_tars: tuple[bytes, ...],
    packed: tuple[bytes, ...],
    suffix: str = "",
    name: str = "docker.io/library/o:1",
    algorithm: str = "sha256",
) -> bytes:
    document = config(*layer_tars)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(document, "application/vnd.oci.image.config.v1+json", algorithm),
            "layers": [descriptor(data, LAYER + suffix, algorithm) for data in packed],
        }
    ).encode()
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [descriptor(manifest, MANIFEST, algorithm, annotations={"io.containerd.image.name": name})],
        }
    ).encode()
    return tar(
        member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        *(blob(data, algorithm) for data in packed),
        blob(document, algorithm),
        blob(manifest, algorithm),
        member("index.json", index),
    )


async def test_import_makes_an_image_of_one_layer(images: Bench) -> None:
    identity = await images.import_(ROOT_TAR, "imp:1", 'CMD ["sh"]', "ENV A=b", "LABEL x=y")
    image = images.images.resolve("imp:1")
    assert image.id == identity == digests.of(images.store.content.read(image.id))
    assert (image.config.cmd, image.config.env, image.config.labels) == (["sh"], ["A=b"], {"x": "y"})
    assert image.document.rootfs.diff_ids == [digests.of(ROOT_TAR)]
    assert images.content_of("imp:1") == {"bin/sh": b"shell", "etc/.wh.kept": b"w"}, "no whiteouts in a root"
    assert ("import", identity) in images.events
    shown = await images.images.inspect(identity[:20])
    assert (shown.repo_tags, shown.comment, shown.size) == (["imp:1"], "Imported from -", 6)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
async def test_import_takes_compressed_archives(images: Bench, pack: object) -> None:
    assert callable(pack)
    await images.import_(pack(ROOT_TAR), "imp:1")
    assert images.images.resolve("imp:1").document.rootfs.diff_ids == [digests.of(ROOT_TAR)]


async def test_load_of_a_docker_archive_keeps_the_id(images: Bench) -> None:
    said = await images.load(docker_archive(ROOT_TAR, SECOND, tags=("a:1", "b/c:2")))
    assert said == ["Loaded image: a:1\n", "Loaded image: b/c:2\n"]
    image = images.images.resolve("a:1")
    assert image.id == digests.of(config(ROOT_TAR, SECOND))
    assert images.images.resolve("b/c:2").id == image.id
    assert images.content_of("a:1") == {"new": b"new"}
    assert await images.load(docker_archive(ROOT_TAR, SECOND, tags=())) == [f"Loaded image ID: {image.id}\n"]


@pytest.mark.parametrize(
    ("pack", "suffix"), [(lambda data: data, ""), (gzip.compress, "+gzip"), (zstd.compress, "+zstd")]
)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_load_of_an_oci_layout(images: Bench, pack: object, suffix: str, algorithm: str) -> None:
    assert callable(pack)
    packed = (pack(ROOT_TAR), pack(SECOND))
    data = oci_archive((ROOT_TAR, SECOND), packed, suffix, algorithm=algorithm)
    assert await images.load(data) == ["Loaded image: o:1\n"]
    assert images.content_of("o:1") == {"new": b"new"}
    assert images.images.resolve("o:1").id == digests.of(config(ROOT_TAR, SECOND))
    kept = [images.store.content.has(digests.of(data, algorithm)) for data in packed]
    assert kept == [bool(suffix)] * 2, "compressed layers are kept as they came"


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
async def test_layers_without_an_end_mark_or_of_nothing(images: Bench, tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    tars = (ROOT_TAR[:-1024], b"", SECOND[:-1024], b"")
    await images.load(oci_archive(tars, tuple(pack(data) for data in tars)))
    await images.load(docker_archive(*tars))
    assert images.images.resolve("o:1").id == images.images.resolve("a:1").id
    assert images.content_of("o:1") == {"new": b"new"}
    saved = await images.save("o:1")
    with bench(tmp_path / "elsewhere") as elsewhere:
        assert await elsewhere.load(saved) == ["Loaded image: o:1\n"]
        assert elsewhere.content_of("o:1") == {"new": b"new"}


async def test_load_picks_this_machines_platform(images: Bench) -> None:
    ours, theirs = config(ROOT_TAR), config(ROOT_TAR, architecture="s390x")
    manifests = []
    members = [blob(ROOT_TAR)]
    for document, architecture in ((theirs, "s390x"), (ours, images.store.platform.architecture)):
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(document, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(ROOT_TAR, LAYER)],
            }
        ).encode()
        members += [blob(document), blob(manifest)]
        manifests.append(descriptor(manifest, MANIFEST, platform={"os": "linux", "architecture": architecture}))
    nested = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    kind = "application/vnd.oci.image.index.v1+json"
    entry = descriptor(nested, kind, annotations={"org.opencontainers.image.ref.name": "many:1"})
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    await images.load(tar(*members, blob(nested), member("index.json", index)))
    assert images.images.resolve("many:1").id == digests.of(ours)


@pytest.mark.parametrize("link", ["../0/layer.tar", "/0/layer.tar"])
async def test_old_archives_share_layers_by_symbolic_links(images: Bench, link: str) -> None:
    document = config(ROOT_TAR, SECOND, ROOT_TAR)
    paths = ["0/layer.tar", "1/layer.tar", "2/layer.tar"]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": paths}]).encode()
    data = tar(
        member("0/layer.tar", ROOT_TAR),
        member("1/layer.tar", SECOND),
        (Entry("2/layer.tar", tarformat.SYMLINK, linkname=link), b""),
        member("config.json", document),
        member("manifest.json", manifest),
    )
    await images.load(data)
    assert images.content_of(digests.of(document))["bin/sh"] == b"shell"


async def test_a_tag_that_another_image_had_is_moved_and_told(images: Bench) -> None:
    first = await images.import_(ROOT_TAR, "a:1")
    said = await images.load(docker_archive(ROOT_TAR, SECOND))
    assert said[0] == f"The image a:1 already exists, renaming the old one with ID {first} to empty string\n"
    assert (await images.images.inspect(first)).repo_tags == []


async def test_what_is_saved_is_loaded_with_the_same_id_elsewhere(images: Bench, tmp_path: Path) -> None:
    await images.load(docker_archive(ROOT_TAR, SECOND))
    await images.import_(ROOT_TAR, "imp:1")
    saved = await images.save("a:1", "imp:1")
    assert saved == await images.save("a:1", "imp:1"), "the same images give the same bytes"
    for driver in ("overlay", "vfs"):
        with bench(tmp_path / driver, driver) as other:
            assert await other.load(saved) == ["Loaded image: a:1\n", "Loaded image: imp:1\n"]
            for name in ("a:1", "imp:1"):
                assert other.images.resolve(name).id == images.images.resolve(name).id
                assert other.content_of(name) == images.content_of(name)
            assert await other.save("a:1", "imp:1") == saved


async def test_layers_that_images_share_are_kept_once(images: Bench) -> None:
    await images.load(docker_archive(ROOT_TAR))
    before = images.files()
    await images.load(docker_archive(ROOT_TAR, SECOND, tags=("b:1",)))
    assert len([name for name in images.files() - before if name.startswith("snapshots/")]) == 1


async def test_the_same_layer_on_another_parent_is_made_from_the_files_that_are_there(images: Bench) -> None:
    await images.load(oci_archive((ROOT_TAR, SECOND), (ROOT_TAR, SECOND)))
    await images.load(oci_archive((SECOND, ROOT_TAR), (SECOND, ROOT_TAR), name="docker.io/library/turned:1"))
    assert images.content_of("turned:1") == {"new": b"new", "bin/sh": b"shell"} | {
        name: data for name, data in images.content_of("turned:1").items() if name.startswith("etc")
    }


async def commit(images: Bench, parent: str, **fields: object) -> str:
    image = images.images.resolve(parent)
    images.snapshots.prepare("c1", image.snapshot)
    images.write("c1", "made", "by the container")
    request = CommitRequest("c1", image, image.config, "com", "1", "why", "who", "sh -c x", ("ENV A=b",))
    identity = await images.images.commit(request)
    images.snapshots.remove("c1")
    return identity


async def test_commit_adds_a_layer_and_a_step(images: Bench) -> None:
    parent = await images.import_(ROOT_TAR, "imp:1")
    identity = await commit(images, "imp:1")
    assert images.content_of("com:1")["made"] == b"by the container"
    shown = await images.images.inspect("com:1")
    assert (shown.parent, shown.comment, shown.author) == (parent, "why", "who")
    assert shown.config is not None
    assert shown.config.env == ["A=b"]
    steps = await images.images.history("com:1")
    assert [(step.id, step.created_by, step.tags) for step in steps] == [
        (identity, "sh -c x", ["com:1"]), (parent, "", ["imp:1"]),
    ]  # fmt: skip
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        await images.images.remove(parent, force=True)


async def test_a_commit_of_nothing_has_no_layer(images: Bench) -> None:
    await images.import_(ROOT_TAR, "imp:1")
    image = images.images.resolve("imp:1")
    before = images.files()
    images.snapshots.prepare("c1", image.snapshot)
    await images.images.commit(CommitRequest("c1", image, image.config, "com", "1"))
    images.snapshots.remove("c1")
    assert images.images.resolve("com:1").document.rootfs == image.document.rootfs
    assert images.images.resolve("com:1").document.history[-1].empty_layer
    assert len(images.files() - before) == 1, "the configuration"


async def test_names_are_looked_up_as_docker_does(images: Bench) -> None:
    identity = await images.import_(ROOT_TAR, "imp:1")
    for ref in (identity, identity[7:], identity[7:19], "imp:1", "docker.io/library/imp:1"):
        assert images.images.resolve(ref).id == identity
    for ref, text in (
        ("nosuch", "No such image: nosuch:latest"),
        ("imp", "No such image: imp:latest"),
        ("sha256:abcd", "No such image: sha256:abcd"),
        ("0" * 64, f"No such image: sha256:{'0' * 64}"),
    ):
        with pytest.raises(NotFound) as caught:
            images.images.resolve(ref)
        assert caught.value.message == text
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        images.images.resolve("UPPER case")


async def test_tag_and_untag(images: Bench) -> None:
    identity = await images.import_(ROOT_TAR, "imp:1")
    await images.images.tag("imp:1", "localhost:5000/x", "y")
    assert (await images.images.inspect(identity)).repo_tags == ["imp:1", "localhost:5000/x:y"]
    with pytest.raises(InvalidArgument, match="cannot import digest reference"):
        await images.images.tag("imp:1", f"a@{identity}")
    removed = await images.images.remove("imp:1")
    assert [(item.untagged, item.deleted) for item in removed] == [("imp:1", "")]
    removed = await images.images.remove("localhost:5000/x:y")
    assert [item.untagged for item in removed] == ["localhost:5000/x:y", "", ""]
    assert [item.deleted for item in removed] == ["", identity, digests.of(ROOT_TAR)]


async def test_an_image_in_use_is_kept_with_dockers_text(images: Bench) -> None:
    identity = await images.import_(ROOT_TAR, "imp:1")
    short = identity[7:19]
    images.users[identity] = [ImageUser("c" * 64, running=False)]
    with pytest.raises(Conflict) as caught:
        await images.images.remove("imp:1")
    assert caught.value.message == (
        f'conflict: unable to remove repository reference "imp:1" (must force) - container {"c" * 12} '
        f"is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as caught:
        await images.images.remove(short)
    stopped = f"image is being used by stopped container {'c' * 12}"
    assert caught.value.message == f"conflict: unable to delete {short} (must be forced) - {stopped}"
    images.users[identity] = [ImageUser("d" * 64, running=True)]
    with pytest.raises(Conflict) as caught:
        await images.images.remove(short, force=True)
    running = f"image is being used by running container {'d' * 12}"
    assert caught.value.message == f"conflict: unable to delete {short} (cannot be forced) - {running}"
    assert [item.untagged for item in await images.images.remove("imp:1", force=True)] == ["imp:1"]
    assert images.images.resolve(short).id == identity, "it lost its name; the container keeps it"
    images.users.clear()
    await images.images.tag(short, "x", "1")
    await images.images.tag(short, "y", "1")
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is referenced in multiple repositories"):
        await images.images.remove(short)
    assert len(await images.images.remove(short, force=True)) == 4


async def test_everything_goes_with_the_last_image(images: Bench) -> None:
    before = images.files()
    await images.load(oci_archive((ROOT_TAR, SECOND), (gzip.compress(ROOT_TAR), gzip.compress(SECOND)), "+gzip"))
    await images.import_(ROOT_TAR, "imp:1")
    await commit(images, "imp:1")
    for name in ("o:1", "imp:1", "com:1"):
        await images.images.remove(name)
    assert images.files() == before


async def test_a_container_keeps_its_layers_when_its_image_goes(images: Bench) -> None:
    identity = await images.import_(ROOT_TAR, "imp:1")
    images.snapshots.prepare("c1", images.images.resolve("imp:1").snapshot)
    images.users[identity] = [ImageUser("c1", running=False)]
    await images.images.remove("imp:1", force=True)
    with pytest.raises(NotFound):
        images.images.resolve(identity)
    assert images.read("c1", "bin/sh") == "shell"
    images.snapshots.remove("c1")
    images.store.sweep()
    assert [name for name in images.files() if name.startswith("snapshots/")] == []


async def test_the_list_and_its_filters(images: Bench) -> None:
    first = await images.import_(ROOT_TAR, "one:1", "LABEL kind=first")
    second = await images.import_(SECOND, "two:1")
    await images.import_(SECOND, "two:1")  # takes the name from the one before

    async def listed(**wanted: list[str]) -> list[str]:
        found = await images.images.list(filters=filters.parse(json.dumps(wanted)))
        return sorted(name for item in found for name in (item.repo_tags or ["<none>"]) if not name.startswith("host"))

    assert await listed() == ["<none>", "one:1", "two:1"]
    assert await listed(dangling=["true"]) == ["<none>"]
    assert await listed(dangling=["false"]) == ["one:1", "two:1"]
    assert await listed(label=["kind=first"]) == ["one:1"]
    assert await listed(reference=["o*:*"]) == ["one:1"]
    assert await listed(since=[first]) == ["<none>", "two:1"]
    assert await listed(before=[second]) == ["one:1"]
    with pytest.raises(InvalidArgument, match="invalid filter 'foo'"):
        await listed(foo=["bar"])
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        await listed(before=["nosuch"])


async def test_prune_removes_what_has_no_name_and_then_what_has_no_use(images: Bench) -> None:
    kept = await images.import_(ROOT_TAR, "kept:1")
    lost = await images.import_(SECOND, "moves:1")
    await images.import_(ROOT_TAR, "moves:1")
    pruned = await images.images.prune()
    assert next(item.deleted for item in pruned.images_deleted or ()) == lost
    assert pruned.space_reclaimed >= 3  # and the documents
    images.users[kept] = [ImageUser("c", running=False)]
    await images.images.prune(filters.parse('{"dangling": ["false"]}'))
    assert [item.id for item in await images.images.list() if item.repo_tags != ["host:latest"]] == [kept]


def lying(data: bytes) -> bytes:
    """A blob under the name of another."""
    document = config(ROOT_TAR)
    manifest = json.dumps(
        {
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [descriptor(ROOT_TAR, LAYER)],
            "config": descriptor(document, "application/vnd.oci.image.config.v1+json"),
        }
    ).encode()  # fmt: skip
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(manifest, MANIFEST)]}).encode()
    name = "blobs/" + digests.of(ROOT_TAR).replace(":", "/")
    return tar(member(name, data), blob(document), blob(manifest), member("index.json", index))


MANIFEST_JSON = member(
    "manifest.json", json.dumps([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["0/layer.tar"]}]).encode()
)
CONFIG = member("config.json", config(ROOT_TAR))
TWO = member("config.json", config(ROOT_TAR, SECOND))
LOOP = (Entry("0/layer.tar", tarformat.SYMLINK, linkname="layer.tar"), b"")
NO_DIFF_ID = {"type": "layers", "diff_ids": ["nonsense"]}
ELSEWHERE = {"Labels": {"hafen.base": "host"}}
GOOD = docker_archive(ROOT_TAR, SECOND)
EVIL = member("../evil", b"x")
BAD = {
    "nothing": (b"", Corrupt, "truncated"),
    "noise": (b"\x01" * 4000, Corrupt, "invalid tar header"),
    "something else": (tar(member("etc/passwd", b"x")), InvalidArgument, "neither manifest.json nor index"),
    "truncated": (GOOD[: len(GOOD) // 2], Corrupt, "truncated"),
    "truncated gzip": (gzip.compress(GOOD)[:-20], Corrupt, "truncated"),
    "no configuration": (tar(member("0/layer.tar", ROOT_TAR), MANIFEST_JSON), Corrupt, "config.json is missing"),
    "no layer": (tar(CONFIG, MANIFEST_JSON), Corrupt, "layer.tar is missing"),
    "another layer": (tar(member("0/layer.tar", SECOND), CONFIG, MANIFEST_JSON), Corrupt, "the configuration says"),
    "another count": (tar(member("0/layer.tar", ROOT_TAR), TWO, MANIFEST_JSON), Corrupt, "1 layers, but .* names 2"),
    "no image": (tar(member("manifest.json", b"[]")), NotFound, "it is empty"),
    "no JSON": (tar(member("manifest.json", b"[{]")), Corrupt, "invalid manifest.json"),
    "no diff id": (docker_archive(ROOT_TAR, rootfs=NO_DIFF_ID), Corrupt, "invalid image configuration"),
    "a bad tag": (docker_archive(ROOT_TAR, tags=("Not A Tag",)), Corrupt, "invalid tag"),
    "a blob that lies": (lying(SECOND), Corrupt, "digest mismatch"),
    "a compressed blob that lies": (lying(gzip.compress(SECOND)), Corrupt, "digest mismatch"),
    "a document that lies": (lying(b"{}"), Corrupt, "something else"),
    "a hostile layer": (docker_archive(ROOT_TAR, tar(EVIL)), Corrupt, "'../evil' leads out of the archive's root"),
    "a hostile archive": (tar(EVIL), Corrupt, "leads out"),
    "a loop of links": (tar(LOOP, CONFIG, MANIFEST_JSON), Corrupt, "loop of symbolic links"),
    "another machine's host": (docker_archive(ROOT_TAR, config=ELSEWHERE), InvalidArgument, "another machine's root"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_archives_are_refused_and_leave_nothing(images: Bench, name: str) -> None:
    data, error, message = BAD[name]
    await images.load(docker_archive(ROOT_TAR, tags=("before:1",)))
    before = images.files(), [item.id for item in await images.images.list()]
    with pytest.raises(error, match=message):
        await images.load(data)
    images.store.sweep()
    assert (images.files(), [item.id for item in await images.images.list()]) == before


@pytest.mark.parametrize("cut", range(0, len(GOOD), 2048 + 331))
async def test_an_archive_cut_anywhere_leaves_nothing(tmp_path: Path, cut: int) -> None:
    with bench(tmp_path / "store") as images:
        before = images.files()
        with pytest.raises(HafenError):
            await images.load(GOOD[:cut])
        images.store.sweep()
        assert images.files() == before


@pytest.mark.parametrize(
    "data", [b"", b"garbage", ROOT_TAR[:700], gzip.compress(ROOT_TAR)[:-9], tar(member("../a", b"x"))]
)
async def test_bad_imports_are_refused_and_leave_nothing(images: Bench, data: bytes) -> None:
    before = images.files()
    with pytest.raises(Corrupt):
        await images.import_(data, "imp:1")
    for arguments in (("Bad Name:1",), ("imp:1", "FOO x")):
        with pytest.raises(InvalidArgument):
            await images.import_(ROOT_TAR, *arguments)
    assert images.files() == before


async def test_a_layer_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    with bench(tmp_path / "store", limits=Limits(bytes=8 << 20)) as images:
        before = images.files()
        bomb = tar((Entry("zeros", size=32 << 20), bytes(32 << 20)))
        for data in (gzip.compress(bomb), zstd.compress(bomb)):
            assert len(data) < 100_000
            with pytest.raises(OutOfSpace, match="limit of 8388608 bytes"):
                await images.import_(data)
            with pytest.raises(OutOfSpace, match="limit of 8388608 bytes"):
                await images.load(oci_archive((bomb,), (data,), "+gzip"))
        images.store.sweep()
        assert images.files() == before


async def test_an_archive_of_documents_without_end_is_refused(tmp_path: Path) -> None:
    document = b"[" + b" " * (7 << 20) + b"]"

    async def archive(data: bytes) -> AsyncIterator[bytes]:
        for number in range(12):
            yield b"".join(archives.member(Entry(f"{number}.json", size=len(data)), (data,)))
        yield GOOD

    with bench(tmp_path / "store") as images:
        before = images.files()
        with pytest.raises(Corrupt, match="its documents have more than 67108864 bytes"):
            await images.bring(images.images.load(archive(document), quiet=True))
        images.store.sweep()
        assert images.files() == before
        await images.bring(images.images.load(archive(b"x" + document[1:]), quiet=True))  # no document
        assert images.content_of("a:1") == {"new": b"new"}


async def test_a_client_that_goes_away_leaves_nothing(images: Bench) -> None:
    before = images.files()
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield GOOD[:3000]
        waiting.set()
        await asyncio.Event().wait()

    async def load() -> None:
        await images.bring(images.images.load(endless(), quiet=True))

    task = asyncio.ensure_future(load())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    images.store.sweep()
    assert images.files() == before

    async def broken() -> AsyncIterator[bytes]:
        yield GOOD[:3000]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await images.bring(images.images.load(broken(), quiet=True))
    images.store.sweep()
    assert images.files() == before


async def test_loads_at_once_do_not_disturb_each_other(images: Bench) -> None:
    async def load(number: int) -> list[str]:
        return await images.load(docker_archive(ROOT_TAR, SECOND, tags=(f"a{number}:1",)))

    async def remove() -> None:
        for _ in range(20):
            await images.import_(SECOND, "gone:1")
            await images.images.remove("gone:1")

    said = await asyncio.gather(*(load(number) for number in range(6)), remove())
    assert said[:6] == [[f"Loaded image: a{number}:1\n"] for number in range(6)]
    assert images.content_of("a3:1") == {"new": b"new"}
    assert len([name for name in images.files() if name.startswith("snapshots/")]) == 2


async def test_what_a_crash_interrupted_is_gone_after_the_next_start(tmp_path: Path) -> None:
    with bench(tmp_path / "store") as images:
        await images.load(docker_archive(ROOT_TAR))
        before = images.files()
        directory = images.snapshots.stage()
        layers.apply(iter((SECOND,)), directory)
        images.store.content.put(b"a blob that no row names")
        (tmp_path / "store/content/ingest/half").write_bytes(b"half")
    with bench(tmp_path / "store") as again:
        assert again.files() == before
        assert again.content_of("a:1")["bin/sh"] == b"shell"


async def test_damaged_files_are_noticed_when_saved(images: Bench) -> None:
    await images.import_(ROOT_TAR, "imp:1")
    images.damage("imp:1", "bin/sh")
    with pytest.raises(Corrupt, match="damaged"):
        await images.save("imp:1")


async def test_the_feed_passes_everything_and_waits_for_its_reader(tmp_path: Path) -> None:
    with bench(tmp_path / "store") as images:
        data = os.urandom(20 << 20)
        await images.import_(tar((Entry("big", size=len(data)), data)), "big:1")
        assert images.content_of("big:1")["big"] == data
        assert [piece async for piece in stream(b"abc", 1)] == [b"a", b"b", b"c"]
