"""What comes in between: containers that start, removals, crashes, while something is done with their volumes."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.gate import Gate


def data(engine: EngineProcess, volume: str) -> Path:
    return engine.data / "volumes" / volume / "_data"


@contextmanager
def beside(engine: EngineProcess, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Our own command, while the test goes on."""
    command = [sys.executable, "-m", "hafen.cli.main", *words]
    process = subprocess.Popen(
        command, env=engine.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_prune_spares_what_comes_into_use_meanwhile(engine: EngineProcess, name: str) -> None:
    for volume in ("awaited", "other"):
        engine.docker("volume", "create", "--label", "race=1", volume)
        (data(engine, volume) / "file").write_text("x")
    prune = ("volume", "prune", "-af", "--filter", "label=race")
    with Gate(data(engine, "awaited")) as gate, beside(engine, *prune) as pruning:
        gate.wait_reached()  # its size is counted
        engine.docker("create", "--name", name, "-v", "awaited:/x:nocopy", "busybox")
        gate.open()
        told, _ = pruning.communicate(timeout=20)
    assert "awaited" not in told
    assert "other\n" in told
    assert "reclaimed space: 1B\n" in told
    assert (data(engine, "awaited") / "file").read_text() == "x"
    engine.docker("rm", name)
    engine.docker("volume", "rm", "awaited")


@contextmanager
def tmpfs(path: Path) -> Iterator[None]:
    """An administrator's own disk, with a file on it."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "hafen-disk", str(path)], check=True)
    try:
        (path / "theirs").write_text("theirs")
        yield
        assert (path / "theirs").read_text() == "theirs"
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_what_is_mounted_in_a_volume_keeps_it(engine: EngineProcess) -> None:
    engine.docker("volume", "create", "disk")
    for place in (engine.data / "volumes/disk", data(engine, "disk") / "deep/er"):
        with tmpfs(place):
            refused = engine.docker("volume", "rm", "disk", check=False).stderr
            assert f"remove disk: error removing volume path '{engine.data}/volumes/disk'" in refused
            assert f"{place} is mounted: device or resource busy" in refused
            assert "disk" not in engine.docker("volume", "prune", "-af").stdout
            assert engine.docker("volume", "ls", "-q").stdout == "disk\n"
    engine.docker("volume", "rm", "disk")
    assert not (engine.data / "volumes/disk").exists()


def test_a_removal_that_cannot_be_finished_does_not_keep_the_engine(engine: EngineProcess) -> None:
    engine.docker("volume", "create", "disk")
    with tmpfs(engine.data / "volumes/disk"):
        engine.kill()  # as it would be in the middle of the removal
        database = sqlite3.connect(engine.data / "hafen.db")
        with database:
            assert database.execute("UPDATE volumes SET removing = 1 WHERE name = 'disk'").rowcount == 1
        database.close()
        engine.start()
        assert engine.docker("volume", "ls", "-q").stdout == "disk\n"
    engine.docker("volume", "rm", "disk")


def orphan(engine: EngineProcess, volume: str) -> Path:
    """A file in the place of a volume that is none."""
    file = data(engine, volume) / "file"
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    return file


def test_files_of_no_volume_outlive_what_fails(engine: EngineProcess) -> None:
    mine = orphan(engine, "mine")
    for options in ("volume-opt=foo=1", "volume-opt=type=ext4,volume-opt=device=/nope"):
        bad = f"type=volume,src=bad,dst=/etc,{options}"
        refused = engine.docker("create", "-v", "mine:/x", "--mount", bad, "busybox", check=False)
        assert refused.code == 1
        assert "bad" not in engine.docker("volume", "ls", "-q").stdout
        assert not (engine.data / "volumes/bad").exists()
        assert mine.read_text() == "mine"
    engine.docker("volume", "create", "mine")  # as with Docker: now it is one
    assert mine.read_text() == "mine"
    engine.docker("volume", "rm", "mine")
    assert not mine.exists()


def test_files_of_no_volume_outlive_an_import(engine: EngineProcess, tmp_path: Path) -> None:
    engine.docker("volume", "create", "source")
    engine.hafen("volume", "export", "-o", str(tmp_path / "tar"), "source")
    mine = orphan(engine, "mine")
    refused = engine.hafen("volume", "import", "-i", str(tmp_path / "tar"), "mine", check=False).stderr
    assert f"create mine: {data(engine, 'mine')} has files, though there is no volume of that name" in refused
    mine.rename(tmp_path / "file")
    os.mkfifo(tmp_path / "slow")
    with beside(engine, "volume", "import", "-i", str(tmp_path / "slow"), "mine"), (tmp_path / "slow").open("wb"):
        wait_exists(engine.data / "volumes/.work", "*")
        (tmp_path / "file").rename(mine)  # somebody puts it there while the import waits for its archive
        engine.kill()
    engine.start()
    assert mine.read_text() == "mine"
    mine.unlink()
    engine.docker("volume", "create", "mine")
    engine.docker("volume", "rm", "mine", "source")


def wait_exists(directory: Path, pattern: str) -> None:
    deadline = time.monotonic() + 20
    while not list(directory.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def cut_short(engine: EngineProcess, *words: str) -> Path:
    """Kill the engine while it copies `source`; what it has copied so far."""
    with Gate(data(engine, "source") / "file") as gate, beside(engine, "volume", *words):
        gate.wait_reached()
        engine.kill()
    (job,) = (engine.data / "volumes/.work").iterdir()
    return job


@pytest.fixture
def source(engine: EngineProcess) -> Iterator[str]:
    engine.docker("volume", "create", "source")
    (data(engine, "source") / "file").write_text("source")
    yield "source"
    engine.docker("volume", "rm", "source")


def test_a_crash_between_rename_and_commit(engine: EngineProcess, source: str) -> None:
    for place, *words in (
        ("source/snapshots/one", "snapshot", "create", source, "one"),
        ("twin/_data", "clone", source, "twin"),
    ):
        job = cut_short(engine, *words)
        path = engine.data / "volumes" / place
        path.parent.mkdir(parents=True)
        job.rename(path)
        engine.start()
        assert not path.exists()
        assert not os.listdir(engine.data / "volumes/.work")
        assert engine.hafen("volume", *words).stdout == f"{words[-1]}\n"
        assert [one.read_text() for one in path.iterdir()] == ["source"]
    assert engine.docker("volume", "ls", "-q").stdout == "source\ntwin\n"
    assert engine.hafen("volume", "snapshot", "ls", "-q", source).stdout == "one\n"
    engine.docker("volume", "rm", "twin")


def test_a_crash_before_the_rename_spares_what_is_in_the_place(engine: EngineProcess, source: str) -> None:
    cut_short(engine, "clone", source, "twin")
    mine = orphan(engine, "twin")
    engine.start()
    assert mine.read_text() == "mine"
    assert not os.listdir(engine.data / "volumes/.work")
    mine.unlink()
    engine.hafen("volume", "clone", source, "twin")
    engine.docker("volume", "rm", "twin")


def test_a_snapshot_without_row_or_without_files(engine: EngineProcess, source: str) -> None:
    snapshots = engine.data / "volumes/source/snapshots"
    (snapshots / "one/of an engine of before").mkdir(parents=True)
    engine.hafen("volume", "snapshot", "create", source, "one")
    assert os.listdir(snapshots / "one") == ["file"]
    assert not os.listdir(engine.data / "volumes/.work")
    shutil.rmtree(snapshots / "one")
    refused = engine.hafen("volume", "restore", source, "one", check=False).stderr
    assert f"copying a volume: [Errno 2] No such file or directory: '{snapshots}/one'" in refused
    engine.hafen("volume", "snapshot", "rm", source, "one")
    assert engine.hafen("volume", "snapshot", "ls", "-q", source).stdout == ""


def state(engine: EngineProcess, name: str) -> str:
    return engine.docker("inspect", "-f", "{{.State.Status}}", name).stdout.strip()


def held(process: "subprocess.Popen[str]") -> bool:
    """Whether it is still there after a while in which it would have come to its end, if nothing held it."""
    try:
        process.wait(1.5)
    except subprocess.TimeoutExpired:
        return True
    return False


def test_a_start_waits_for_a_copy(engine: EngineProcess, source: str, name: str) -> None:
    script = "echo later >/v/file"
    engine.docker("create", "--net", "none", "--name", name, "-v", f"{source}:/v", "busybox", "sh", "-c", script)
    snapshot = ("volume", "snapshot", "create", source, "one")
    with Gate(data(engine, source)) as gate, beside(engine, *snapshot) as copying:
        gate.wait_reached()
        with beside(engine, "start", "-a", name) as starting:
            assert held(starting)
            reader = f"{source}:/v:ro,nocopy"  # who only reads does not wait
            engine.docker("run", "--rm", "--net", "none", "-v", reader, "busybox", "stat", "/v")
            gate.open()
            assert copying.wait(20) == 0
            assert starting.wait(20) == 0
    assert (engine.data / "volumes/source/snapshots/one/file").read_text() == "source"
    assert (data(engine, source) / "file").read_text() == "later\n"
    engine.docker("rm", name)


def test_a_copy_during_which_a_container_goes_on_is_none(engine: EngineProcess, source: str, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "-v", f"{source}:/v", "busybox", "sleep", "600")
    with Gate(data(engine, source)) as gate, beside(engine, "volume", "clone", source, "twin") as copying:
        gate.wait_reached()
        assert state(engine, name) == "paused"
        engine.docker("unpause", name)
        gate.open()
        _, told = copying.communicate(timeout=20)
    assert f"container {name} was paused for the copy, and somebody has let it go on" in told
    assert state(engine, name) == "running"
    assert engine.docker("volume", "ls", "-q").stdout == "source\n"
    engine.docker("rm", "-f", name)


def test_two_copies_at_once_pause_a_container_once(engine: EngineProcess, source: str, name: str) -> None:
    engine.docker("run", "-d", "--net", "none", "--name", name, "-v", f"{source}:/v", "busybox", "sleep", "600")
    with Gate(data(engine, source)) as gate, beside(engine, "volume", "clone", source, "first") as first:
        gate.wait_reached()
        with beside(engine, "volume", "clone", source, "second") as second:
            gate.wait_reached()
            gate.admit()
            assert first.wait(20) == 0
            assert state(engine, name) == "paused"
            gate.open()
            assert second.wait(20) == 0
    assert state(engine, name) == "running"
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", "first", "second")


def test_an_export_ends_where_a_writer_starts(engine: EngineProcess, source: str, name: str) -> None:
    """Before its first byte was sent, and after."""
    engine.docker("create", "--net", "none", "--name", name, "-v", f"{source}:/v", "busybox", "true")
    said = f"export {source}: a container that can write to the volume was started"
    for size, words in ((0, ("--live",)), (0, ()), (8 << 20, ())):
        (data(engine, source) / "before").write_bytes(bytes(size))  # by name
        export = ("volume", "export", "-o", os.devnull, *words, source)
        with Gate(data(engine, source) / "file") as gate, beside(engine, *export) as exporting:
            gate.wait_reached()
            engine.docker("start", name)
            gate.open()
            _, told = exporting.communicate(timeout=20)
        assert exporting.returncode == (0 if words else 1)
        assert (said in told) == (not words and not size)
    assert said in engine.log.read_text()
    engine.docker("rm", name)


def test_a_restore_waits_for_a_start(engine: EngineProcess, source: str, name: str, tmp_path: Path) -> None:
    """The start has the volume and waits for a second one, an image in a file."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={disk}", "-o", "o=loop", "slow")
    volumes = ("-v", f"{source}:/v:nocopy", "-v", "slow:/w:nocopy")
    engine.docker("create", "--net", "none", "--name", name, *volumes, "busybox", "sleep", "600")
    engine.hafen("volume", "snapshot", "create", source, "one")
    inode = data(engine, source).stat().st_ino
    with Gate(disk) as gate, beside(engine, "start", name) as starting:
        gate.wait_reached()
        with beside(engine, "volume", "restore", source, "one") as restoring:
            assert held(restoring)
            gate.open()
            assert starting.wait(20) == 0
            _, told = restoring.communicate(timeout=20)
    assert f"running containers use the volume: {name}" in told
    assert data(engine, source).stat().st_ino == inode
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", "slow")


def test_what_cannot_be_done_at_once(engine: EngineProcess, source: str) -> None:
    engine.hafen("volume", "snapshot", "create", source, "one")
    kept = engine.data / "volumes/source/snapshots/one/file"
    with Gate(kept) as gate, beside(engine, "volume", "clone", "--snapshot", "one", source, "twin") as copying:
        gate.wait_reached()
        refused = engine.hafen("volume", "snapshot", "rm", source, "one", check=False)
        assert "source/snapshots/one is being copied" in refused.stderr
        assert f"{source} is being copied" in engine.hafen("volume", "restore", source, "one", check=False).stderr
        gate.open()
        assert copying.wait(20) == 0
    with Gate(kept) as gate, beside(engine, "volume", "restore", source, "one") as restoring:
        gate.wait_reached()
        refused = engine.hafen("volume", "clone", source, "other", check=False)
        assert f"{source} is being changed" in refused.stderr
        gate.open()
        assert restoring.wait(20) == 0
    engine.docker("volume", "rm", "twin")
