"""`hafen system fsck`: finds every kind of damage, mends what a registry can give again, and is clean after it."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, busybox_tar
from tests.harness.upstream import DOCKER_LIST, Registry, layer, publish

NOTE = layer({"note": b"of the second layer"})


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hafen-fsck-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Registry]:
    with Registry(folder / "registry") as process:
        yield process


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None, folder: Path) -> Iterator[EngineProcess]:
    with EngineProcess(folder / "e", "--idle-shims", "1", "--idle-netns", "1") as process:
        process.load_busybox()
        yield process


@pytest.fixture
def pulled(engine: EngineProcess, registry: Registry) -> Iterator[str]:
    """An image of three layers that came by an index."""
    entry = publish(registry, "fsck", "amd64", [busybox_tar(), layer({"below": b"it"}), NOTE])
    member = {**entry, "platform": {"os": "linux", "architecture": "amd64"}}
    registry.manifest("fsck", "latest", {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [member]})
    name = f"{registry.host}/fsck:latest"
    engine.docker("pull", "-q", name)
    yield name
    engine.docker("rmi", "-f", name)
    assert engine.fsck() == []


def rows(engine: EngineProcess, query: str, *values: object) -> list[tuple[object, ...]]:
    """Asks or changes the database of an engine that is stopped."""
    with sqlite3.connect(engine.data / "hafen.db") as database:
        found = database.execute(query, values).fetchall()
    database.close()
    return found


def blob(engine: EngineProcess, digest: object) -> Path:
    return engine.data / "content/blobs/sha256" / str(digest).partition(":")[2]


def top_layer(engine: EngineProcess, name: str) -> Path:
    return Path(engine.docker("image", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", name).stdout.strip())


def kinds(problems: list[dict[str, str]]) -> list[str]:
    return sorted(problem["Kind"] for problem in problems)


def test_a_store_in_use_is_clean(engine: EngineProcess, pulled: str) -> None:
    engine.docker("volume", "create", "fsck")
    engine.docker("run", "-d", "--name", "fsck", "-v", "fsck:/v", pulled, "sleep", "60")
    engine.docker("commit", "fsck", "fsck:made")
    assert engine.fsck() == []
    said = engine.hafen("system", "fsck").stdout
    assert said.startswith("Checked "), said
    assert said.endswith(": nothing is wrong\n")
    engine.docker("rm", "-fv", "fsck")
    engine.docker("volume", "rm", "fsck")
    engine.docker("rmi", "fsck:made")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [flip, truncate, os.unlink], ids=["flipped", "truncated", "deleted"])
@pytest.mark.parametrize("what", ["configuration", "manifest", "index", "layer", "recipe"])
def test_a_damaged_blob_is_fetched_again(
    engine: EngineProcess, pulled: str, what: str, harm: Callable[[Path], None]
) -> None:
    identity = engine.docker("image", "inspect", "-f", "{{.Id}}", pulled).stdout.strip()
    engine.stop()
    query = {
        "configuration": "SELECT id FROM images WHERE id = ?",
        "manifest": "SELECT digest FROM manifests WHERE image = ? EXCEPT SELECT digest FROM repository_digests",
        "index": "SELECT digest FROM repository_digests WHERE image = ?",
        "layer": "SELECT blob FROM layers JOIN images ON layers.chain_id = images.chain_id WHERE id = ?",
        "recipe": "SELECT recipe FROM layers JOIN images ON layers.chain_id = images.chain_id WHERE id = ?",
    }[what]
    ((digest,),) = rows(engine, query, identity)
    before = blob(engine, digest).read_bytes()
    engine.start()
    harm(blob(engine, digest))
    kind = "blob-missing" if harm is os.unlink else "blob-damaged"
    assert [(one["Kind"], one["Subject"]) for one in engine.fsck()] == [(kind, digest)]
    plan = engine.hafen("system", "fsck", "--repair", "--dry-run", check=False)
    assert "to repair: " in plan.stdout, plan
    assert plan.code == 1
    repaired = engine.hafen("system", "fsck", "--repair")
    assert "repaired: " in repaired.stdout, repaired
    assert blob(engine, digest).read_bytes() == before
    assert engine.fsck() == []
    assert engine.docker("run", "--rm", pulled, "cat", "/note").stdout == "of the second layer"


def change(path: Path) -> None:
    (path / "note").write_text("OF THE SECOND LAYER")


def delete(path: Path) -> None:
    (path / "note").unlink()


def add(path: Path) -> None:
    (path / "stranger").touch()


def allow(path: Path) -> None:
    (path / "note").chmod(0o777)


def give(path: Path) -> None:
    os.chown(path / "note", 7, 7)


@pytest.mark.parametrize("harm", [change, delete, add, allow, give, shutil.rmtree])
@pytest.mark.parametrize("kept", ["with its blob", "without its blob"])
def test_damaged_files_of_a_layer_are_unpacked_again(
    engine: EngineProcess, pulled: str, harm: Callable[[Path], None], kept: str
) -> None:
    directory = top_layer(engine, pulled)
    if kept == "without its blob":
        engine.stop()
        ((digest,),) = rows(
            engine, "SELECT blob FROM layers JOIN snapshots ON key = chain_id WHERE number = ?", directory.parent.name
        )
        rows(engine, "UPDATE layers SET blob = NULL, media_type = NULL WHERE blob = ?", digest)
        engine.start()
    harm(directory)
    (problem,) = engine.fsck()
    assert problem["Kind"] == ("layer-missing" if harm is shutil.rmtree else "layer-damaged")
    engine.hafen("system", "fsck", "--repair")
    assert engine.fsck() == []
    assert engine.docker("run", "--rm", pulled, "stat", "-c", "%a %u", "/note").stdout == "755 0\n"
    assert engine.docker("run", "--rm", pulled, "cat", "/note").stdout == "of the second layer"


def test_a_layer_in_use_is_left_alone(engine: EngineProcess, pulled: str) -> None:
    engine.docker("run", "-d", "--name", "fsck-user", pulled, "sleep", "60")
    delete(top_layer(engine, pulled))
    failed = engine.hafen("system", "fsck", "--repair", check=False)
    assert failed.code == 1
    assert "it is in use: stop fsck-user and repair again" in failed.stdout
    engine.docker("stop", "-t", "0", "fsck-user")
    assert kinds(engine.fsck("--repair")) == ["layer-damaged"]
    assert engine.fsck() == []
    engine.docker("start", "fsck-user")
    assert engine.docker("exec", "fsck-user", "cat", "/note").stdout == "of the second layer"
    engine.docker("rm", "-f", "fsck-user")


def test_what_no_registry_has_is_told(engine: EngineProcess) -> None:
    engine.docker("import", "-", "fsck-alone", stdin=NOTE)
    directory = top_layer(engine, "fsck-alone")
    (directory / "note").rename(directory / "nota")
    failed = engine.hafen("system", "fsck", "--repair", check=False)
    assert failed.code == 1
    assert "not repaired: layer-damaged" in failed.stdout
    assert "no registry is known to have this layer" in failed.stdout
    (directory / "nota").rename(directory / "note")
    assert engine.fsck() == []
    engine.docker("rmi", "fsck-alone")


def test_an_image_that_cannot_be_read_harms_no_other(engine: EngineProcess, pulled: str) -> None:
    engine.docker("import", "-", "fsck-lost", stdin=NOTE)
    ids = engine.docker("image", "inspect", "-f", "{{.Id}}", "fsck-lost", pulled).stdout.split()
    engine.stop()  # it remembers configurations
    flip(blob(engine, ids[0]))
    blob(engine, ids[1]).unlink()
    engine.start()
    listed = engine.docker("images", "--format", "{{.Repository}}").stdout.split()
    assert "busybox" in listed
    assert "fsck-lost" not in listed
    failed = engine.docker("run", "--rm", "fsck-lost", "true", check=False)
    assert "is damaged" in failed.stderr
    engine.docker("pull", "-q", pulled)  # mends by itself
    assert engine.docker("run", "--rm", pulled, "cat", "/note").stdout == "of the second layer"
    assert kinds(engine.fsck()) == ["blob-damaged"]
    engine.docker("rmi", "fsck-lost")
    assert engine.fsck() == []


def test_orphans_are_removed(engine: EngineProcess, pulled: str) -> None:
    strays = [
        engine.data / "content/blobs/sha256" / ("0" * 64),
        engine.data / "content/blobs/sha256/README",
        engine.data / "content/ingest/0011223344556677",
        engine.data / "snapshots/overlay/999999/fs",
        engine.data / "containers" / ("a" * 64),
    ]
    for path in strays:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.name in ("fs", "a" * 64) else path.write_bytes(b"stray")
    volume = engine.data / "volumes/nobodys/_data"
    volume.mkdir(parents=True)
    found = ["blob-orphan", "container-orphan", "file-orphan", "file-orphan", "snapshot-orphan", "volume-orphan"]
    assert kinds(engine.fsck()) == found
    assert kinds(engine.fsck("--repair")) == found
    assert volume.exists()  # it may be somebody's
    assert kinds(engine.fsck()) == ["volume-orphan"]
    engine.docker("volume", "create", "nobodys")
    assert engine.fsck() == []
    engine.docker("volume", "rm", "nobodys")
    assert not [path for path in strays if path.exists()]


LIES = {
    "UPDATE images SET size = size + 1 WHERE id = :image": ["image-row"],
    "UPDATE images SET chain_id = (SELECT parent FROM layers WHERE chain_id = images.chain_id) WHERE id = :image": [
        "image-row"
    ],
    "UPDATE layers SET size = size + 5 WHERE chain_id = :top": ["layer-row"],
    "UPDATE layers SET blob = (SELECT blob FROM layers WHERE chain_id = :bottom) WHERE chain_id = :top": ["layer-row"],
    "UPDATE layers SET recipe = (SELECT recipe FROM layers WHERE chain_id = :bottom) WHERE chain_id = :top": [
        "layer-damaged"
    ],
    "DELETE FROM snapshots WHERE key = :top": ["layer-missing"],
    "INSERT INTO tags VALUES ('docker.io/library/lost', 'latest', 'sha256:0')": ["name-row"],
    "INSERT INTO repository_digests VALUES ('docker.io/library/lost', :image, 'sha256:0')": ["name-row"],
    "INSERT INTO manifests VALUES (:image, 'sha256:0')": ["name-row"],
    "INSERT INTO snapshots (key, kind, created_at) VALUES ('lost', 'committed', 0.5)": ["snapshot-row"],
}


@pytest.mark.parametrize("lie", LIES)
def test_rows_that_lie_are_corrected(engine: EngineProcess, pulled: str, lie: str) -> None:
    engine.stop()
    query = "SELECT id, chain_id FROM images JOIN tags ON image = id WHERE repository LIKE '%/fsck'"
    ((image, top),) = rows(engine, query)
    ((bottom,),) = rows(engine, "SELECT parent FROM layers WHERE chain_id = ?", top)
    with sqlite3.connect(engine.data / "hafen.db") as database:
        database.execute(lie, {"image": image, "top": top, "bottom": bottom})
    database.close()
    engine.start()
    assert kinds(engine.fsck()) == LIES[lie]
    engine.hafen("system", "fsck", "--repair")
    assert engine.fsck() == []
    assert engine.docker("run", "--rm", pulled, "cat", "/note").stdout == "of the second layer"


def test_lost_files_of_containers_and_volumes(engine: EngineProcess, pulled: str) -> None:
    engine.docker("volume", "create", "fsck-lost")
    engine.docker("create", "--name", "fsck-lost", "-v", "fsck-lost:/v", pulled, "true")
    (work,) = (engine.data / "snapshots/overlay").glob("*/work")
    shutil.rmtree(work.parent / "fs")
    shutil.rmtree(engine.data / "volumes/fsck-lost")
    assert kinds(engine.fsck()) == ["snapshot-missing", "volume-missing"]
    engine.hafen("system", "fsck", "--repair")
    assert engine.fsck() == []
    engine.docker("start", "-a", "fsck-lost")
    engine.docker("rm", "fsck-lost")
    engine.docker("volume", "rm", "fsck-lost")


def test_beside_pulls_and_removals(engine: EngineProcess, registry: Registry) -> None:
    """What is on its way in or out is no orphan, and what is being checked does not go away."""
    for number in range(4):
        publish(registry, "busy", str(number), [layer({f"file{number}": os.urandom(3 << 20)})])
    names = [f"{registry.host}/busy:{number}" for number in range(4)]
    for _ in range(3):
        with engine.docker_beside("pull", "-q", "-a", f"{registry.host}/busy") as pull:
            while pull.process.poll() is None:
                assert engine.fsck() == []
        with engine.docker_beside("rmi", *names) as removal:
            while removal.process.poll() is None:
                assert engine.fsck() == []
    assert engine.fsck() == []


def test_the_report_is_machine_readable(engine: EngineProcess, pulled: str) -> None:
    report = json.loads(engine.hafen("system", "fsck", "--format", "json").stdout)
    assert report["Clean"] is True
    assert report["Images"] >= 2
    assert report["Bytes"] > len(busybox_tar())
