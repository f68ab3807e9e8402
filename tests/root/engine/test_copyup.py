"""An image's content in empty volumes: all of it or nothing, also where two come at once, the disk is full, or the
engine is killed."""

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hafen.storage import treecopy
from tests.harness.api import Call
from tests.harness.engine import EngineProcess, busybox_tar

FILES = 1000


def image(engine: EngineProcess, name: str, sizes: dict[str, int]) -> None:
    """An image of busybox with files of these sizes in /data."""
    data = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=data, mode="a") as archive:
        for path, size in sizes.items():
            member = tarfile.TarInfo(f"data/{path}")
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
    engine.docker("import", "-", name, stdin=data.getvalue())


@pytest.fixture(scope="module")
def many(engine: EngineProcess) -> str:
    image(engine, "many", {f"{number % 10}/{number}": 10 for number in range(FILES)})
    return "many"


def files(engine: EngineProcess, volume: str) -> int:
    return sum(len(names) for _, _, names in os.walk(engine.data / "volumes" / volume / "_data"))


@pytest.fixture
def volume(engine: EngineProcess, name: str) -> Iterator[str]:
    engine.docker("volume", "create", name)
    yield name
    for one in range(4):
        engine.docker("rm", "-f", f"{name}-{one}", check=False)
    engine.docker("volume", "rm", name)


def test_several_containers_on_one_empty_volume(engine: EngineProcess, many: str, volume: str) -> None:
    body = {"Image": many, "Cmd": ["true"], "HostConfig": {"Binds": [f"{volume}:/data"]}}
    creating = [Call(engine, "POST", f"/containers/create?name={volume}-{one}", body) for one in range(4)]
    for one in reversed(creating):  # the first is the one that fills it
        status, said = one.answer()
        assert status == 201, said
        assert files(engine, volume) == FILES
    assert not list((engine.data / "volumes").glob(".filling/*"))


def test_a_kill_while_a_volume_is_filled(engine: EngineProcess, many: str, volume: str) -> None:
    """Whatever there is of the copy, and of the container, when the engine dies: what exists then is whole."""
    command = ["docker", "create", "-v", f"{volume}:/data", "--name", f"{volume}-0", many, "true"]
    place = engine.data / "volumes" / ".filling" / volume
    with subprocess.Popen(command, env=engine.environment, stderr=subprocess.DEVNULL) as creating:
        deadline = time.monotonic() + 10
        while not place.exists() and not files(engine, volume):
            assert time.monotonic() < deadline
        engine.kill()
        creating.wait(20)
    engine.start()
    assert engine.docker("ps", "-aq", "--filter", f"name={volume}-0").stdout
    assert files(engine, volume) == FILES
    assert not place.exists()


def test_a_kill_while_files_are_moved_into_their_place(engine: EngineProcess, volume: str) -> None:
    engine.kill()
    data, place = engine.data / "volumes" / volume / "_data", engine.data / "volumes" / ".filling" / volume
    (place / "done/rest").mkdir(parents=True)
    (place / "done/rest/file").write_text("of the image")
    (place / "done/taken").write_text("of the image")
    (place / "done").chmod(0o1770)
    (place / "into").symlink_to(".")
    (data / "first").write_text("of the image")
    (data / "taken").write_text("of a container")
    engine.start()
    assert sorted(os.listdir(data)) == ["first", "rest", "taken"]
    assert (data / "rest/file").read_text() == "of the image"
    assert (data / "taken").read_text() == "of a container"
    assert data.stat().st_mode & 0o7777 == 0o1770
    assert not place.exists()


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "hafen-small", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_volume_on_a_full_disk_stays_empty(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "48m") as disk, EngineProcess(disk / "e", "--idle-shims", "1") as engine:
        image(engine, "large", {"a": 1, "b": 14 << 20, "c": 14 << 20})
        engine.docker("volume", "create", "plain")
        refused = engine.docker("create", "-v", "plain:/data", "large", "true", check=False)
        assert refused.code == 1
        assert "No space left on device" in refused.stderr
        assert os.listdir(engine.data / "volumes/plain/_data") == []
        assert os.listdir(engine.data / "volumes/.filling") == []
        assert engine.docker("ps", "-aq").stdout == ""


def test_a_mounted_volume_that_is_too_small_stays_empty(engine: EngineProcess, many: str, tmp_path: Path) -> None:
    options = ("-o", "type=none", "-o", "o=bind", "-o")
    with small_disk(tmp_path / "disk", "1m") as disk:
        engine.docker("volume", "create", *options, f"device={disk}", "bound")
        refused = engine.docker("create", "-v", "bound:/data", many, "true", check=False)
        assert refused.code == 1
        assert "No space left on device" in refused.stderr
        assert os.listdir(disk) == []
        engine.docker("volume", "rm", "bound")


def test_a_file_system_without_extended_attributes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    os.setxattr(tmp_path / "source/file", "user.colour", b"blue")
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "hafen-ramfs", str(target)], check=True)
    descriptors = [os.open(tmp_path / side, os.O_RDONLY) for side in ("source", "target")]
    try:
        treecopy.copy(*descriptors)
        assert (target / "file").read_text() == "x"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        subprocess.run(["umount", str(target)], check=True)
