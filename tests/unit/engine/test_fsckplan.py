"""What the check of the store finds in rows alone, and what it plans to do about it."""

from dataclasses import replace

import pytest

from hafen.engine import fsckplan, fsckrows
from hafen.engine.fsckplan import FetchBlob, FetchManifest, Known, Leave, PullImage, Remove, RestoreLayer
from hafen.engine.fsckrows import ImageRow, Inventory, Kind, LayerRow, Problem, SnapshotState
from hafen.spec import digest as digests
from hafen.spec.image import Image, RootFs

BOTTOM, TOP_DIFF, IMAGE, MANIFEST, RECIPES, BLOB = (
    str(digests.of(text)) for text in (b"0", b"1", b"2", b"3", b"4", b"5")
)
TOP = fsckrows.chain_id(BOTTOM, TOP_DIFF)
REPOSITORY = "registry.test/app"
WHOLE = Inventory(
    blobs=frozenset((IMAGE, MANIFEST, RECIPES, BLOB)),
    layers={
        BOTTOM: LayerRow(BOTTOM, BOTTOM, None, 3, RECIPES, None),
        TOP: LayerRow(TOP, TOP_DIFF, BOTTOM, 4, RECIPES, BLOB),
    },
    images={IMAGE: ImageRow(IMAGE, None, TOP, 7)},
    tags=((REPOSITORY, "latest", IMAGE),),
    manifests=((MANIFEST, IMAGE),),
    repository_digests=((REPOSITORY, MANIFEST, IMAGE),),
    sources=((BLOB, TOP_DIFF, REPOSITORY),),
    snapshots={BOTTOM: SnapshotState(None, True), TOP: SnapshotState(BOTTOM, True), "c": SnapshotState(TOP, False)},
    containers={"c": ("c",)},
    container_directories=frozenset("c"),
    volumes=frozenset("v"),
    volume_directories=frozenset("v"),
)
DOCUMENT = Image(os="linux", architecture="arm64", variant="v8", rootfs=RootFs(diff_ids=[BOTTOM, TOP_DIFF]))


def planned(found: Inventory, *problems: Problem, damaged: tuple[str, ...] = ()) -> list[fsckplan.Step]:
    known = Known(found, {IMAGE: DOCUMENT}, frozenset(damaged))
    return [step for _, step in fsckplan.plan(problems, known)]


def test_a_store_that_is_whole() -> None:
    assert fsckrows.structure(WHOLE) == []
    assert fsckrows.image_rows(WHOLE, {IMAGE: DOCUMENT}) == []


@pytest.mark.parametrize(
    ("changed", "kind", "subject"),
    [
        ({"blobs": WHOLE.blobs - {MANIFEST}}, Kind.BLOB_MISSING, MANIFEST),
        ({"blobs": WHOLE.blobs | {"sha256:x"}}, Kind.BLOB_ORPHAN, "sha256:x"),
        ({"stray_files": ("ingest/1",)}, Kind.FILE_ORPHAN, "ingest/1"),
        ({"stray_directories": ("/9",)}, Kind.SNAPSHOT_ORPHAN, "/9"),
        ({"container_directories": frozenset("cd")}, Kind.CONTAINER_ORPHAN, "d"),
        ({"volume_directories": frozenset("vw")}, Kind.VOLUME_ORPHAN, "w"),
        ({"volumes_without_files": frozenset("v")}, Kind.VOLUME_MISSING, "v"),
        ({"tags": ((REPOSITORY, "old", "sha256:x"),)}, Kind.NAME_ROW, f"{REPOSITORY}:old"),
        ({"snapshots": {**WHOLE.snapshots, "d": SnapshotState(TOP, False)}}, Kind.SNAPSHOT_ROW, "d"),
        ({"snapshots": {**WHOLE.snapshots, "c": SnapshotState(TOP, False, ("/c/fs",))}}, Kind.SNAPSHOT_MISSING, "c"),
        ({"snapshots": {**WHOLE.snapshots, TOP: SnapshotState(BOTTOM, True, ("/2/fs",))}}, Kind.LAYER_MISSING, TOP),
        ({"layers": {**WHOLE.layers, TOP: replace(WHOLE.layers[TOP], parent=None)}}, Kind.LAYER_ROW, TOP),
    ],
)  # fmt: skip
def test_each_contradiction_is_one_problem(changed: dict[str, object], kind: Kind, subject: str) -> None:
    (problem,) = fsckrows.structure(replace(WHOLE, **changed))  # type: ignore[arg-type] # one field at a time
    assert (problem.kind, problem.subject) == (kind, subject)


def test_what_an_operation_holds_is_no_orphan() -> None:
    found = replace(WHOLE, blobs=WHOLE.blobs | {"sha256:x"}, held=frozenset(("sha256:x",)))
    assert fsckrows.structure(found) == []


def test_what_came_or_went_meanwhile_is_no_problem() -> None:
    orphan, lost = Problem(Kind.BLOB_ORPHAN, "sha256:x", ""), Problem(Kind.BLOB_MISSING, "sha256:y", "")
    assert fsckrows.settled([orphan, lost], []) == [lost]
    assert fsckrows.settled([orphan, lost], [orphan]) == [orphan, lost]


def test_images_that_do_not_add_up() -> None:
    for row in (ImageRow(IMAGE, None, BOTTOM, 7), ImageRow(IMAGE, None, TOP, 8), ImageRow(IMAGE, "sha256:x", TOP, 7)):
        (problem,) = fsckrows.image_rows(replace(WHOLE, images={IMAGE: row}), {IMAGE: DOCUMENT})
        assert (problem.kind, problem.subject) == (Kind.IMAGE_ROW, IMAGE)


def test_a_blob_is_brought_back_as_what_it_is() -> None:
    assert planned(WHOLE, Problem(Kind.BLOB_MISSING, MANIFEST, "")) == [FetchManifest(MANIFEST, (REPOSITORY,))]
    assert planned(WHOLE, Problem(Kind.BLOB_DAMAGED, IMAGE, "")) == [FetchBlob(IMAGE, (REPOSITORY,))]
    assert planned(WHOLE, Problem(Kind.BLOB_DAMAGED, BLOB, "")) == [FetchBlob(BLOB, (REPOSITORY,), TOP)]
    alone = replace(WHOLE, repository_digests=(), sources=())
    assert isinstance(planned(alone, Problem(Kind.BLOB_DAMAGED, IMAGE, ""))[0], Leave)
    assert isinstance(planned(alone, Problem(Kind.BLOB_DAMAGED, MANIFEST, ""))[0], Leave)
    # a layer's files are enough: without a source its compressed form is only forgotten
    assert planned(alone, Problem(Kind.BLOB_DAMAGED, BLOB, "")) == [FetchBlob(BLOB, (), TOP)]


def test_a_layer_comes_from_its_blob_or_else_from_a_registry() -> None:
    problem = Problem(Kind.LAYER_DAMAGED, TOP, "")
    sources = ((BLOB, REPOSITORY),)
    assert planned(WHOLE, problem) == [RestoreLayer(TOP, TOP_DIFF, BOTTOM, BLOB, sources)]
    assert planned(WHOLE, problem, damaged=(BLOB,)) == [RestoreLayer(TOP, TOP_DIFF, BOTTOM, None, sources)]
    assert isinstance(planned(WHOLE, Problem(Kind.LAYER_DAMAGED, BOTTOM, ""))[0], Leave)


def test_an_image_without_layers_is_pulled_for_its_platform() -> None:
    found = replace(WHOLE, layers={})
    (step,) = planned(found, Problem(Kind.IMAGE_ROW, IMAGE, ""))
    assert step == PullImage(f"{REPOSITORY}@{MANIFEST}", "linux/arm64/v8")


def test_layers_are_mended_from_below_and_orphans_go_last() -> None:
    found = replace(WHOLE, sources=(*WHOLE.sources, (BLOB, BOTTOM, REPOSITORY)))
    problems = [
        Problem(Kind.BLOB_ORPHAN, "sha256:x", ""),
        *(Problem(Kind.LAYER_DAMAGED, key, "") for key in (TOP, BOTTOM)),
    ]
    bottom, top, orphan = planned(found, *problems)
    assert isinstance(bottom, RestoreLayer)
    assert isinstance(top, RestoreLayer)
    assert (bottom.chain_id, top.chain_id) == (BOTTOM, TOP)
    assert orphan == Remove(Kind.BLOB_ORPHAN, "sha256:x")


def test_a_snapshot_that_others_lie_on_stays() -> None:
    found = replace(WHOLE, snapshots={"below": SnapshotState(None, True), "d": SnapshotState("below", False)})
    assert isinstance(planned(found, Problem(Kind.SNAPSHOT_ROW, "below", ""))[0], Leave)
    assert planned(found, Problem(Kind.SNAPSHOT_ROW, "d", "")) == [Remove(Kind.SNAPSHOT_ROW, "d")]


def test_every_step_describes_itself() -> None:
    found = replace(WHOLE, sources=(*WHOLE.sources, (BLOB, BOTTOM, REPOSITORY)))
    for kind in Kind:
        subject = {"layer": TOP, "blob": BLOB, "image": IMAGE}.get(kind.value.partition("-")[0], "c")
        assert planned(found, Problem(kind, subject, ""))[0].describe()
