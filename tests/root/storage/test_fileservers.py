"""Volumes of real NFS and SMB servers: mounted, written to, read, unmounted, removed; the server keeps its files."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import System
from hafen.storage.volumes import LocalVolumes, Volume, is_mounted
from tests.harness import fileservers

pytestmark = pytest.mark.skipif(
    "HAFEN_IN_VM" not in os.environ, reason="a kernel's file servers are the whole machine's: tests/vm runs this"
)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    directory = tmp_path / "export"
    directory.mkdir()
    (directory / "there").write_text("there")
    return directory


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[LocalVolumes]:
    yield LocalVolumes(str(tmp_path / "volumes"))
    assert not os.listdir(tmp_path / "volumes")


def live_on(driver: LocalVolumes, volume: Volume, export: Path) -> None:
    """All that a volume is for."""
    driver.create(volume)
    path = Path(driver.mount(volume))
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        (kind,) = (line.partition(" - ")[2].split()[0] for line in file if line.split()[4] == str(path))
    assert kind.startswith(volume.options["type"])
    assert (path / "there").read_text() == "there"
    (path / "folder").mkdir()
    (path / "folder/made").write_bytes(b"made" * 50_000)
    (path / "folder/made").rename(path / "made")
    assert (export / "made").read_bytes() == b"made" * 50_000
    assert driver.mount(volume) == str(path)  # it is
    driver.unmount(volume)
    assert not is_mounted(str(path))
    assert not os.listdir(path)
    driver.mount(volume)
    assert (path / "made").stat().st_size == 200_000
    driver.remove(volume)()
    assert sorted(os.listdir(export)) == ["folder", "made", "there"]


def test_nfs(driver: LocalVolumes, export: Path) -> None:
    with fileservers.nfs(export) as options:
        live_on(driver, Volume("far", options), export)
        deadline = time.monotonic() + fileservers.PATIENCE
        while len(Path("/proc/fs/nfsfs/servers").read_text().splitlines()) > 1:  # a head line
            assert time.monotonic() < deadline, "the client has not let go of the server"
            time.sleep(0.05)


def test_smb(driver: LocalVolumes, export: Path) -> None:
    with fileservers.smb(export, "secret") as options:
        live_on(driver, Volume("share", options), export)
        wrong = Volume("wrong", {**options, "o": options["o"].replace("secret", "guess")})
        driver.create(wrong)
        with pytest.raises(System, match=r"password=\*{8},.*: permission denied$"):
            driver.mount(wrong)
        driver.remove(wrong)()
