"""Volumes of a size, on a file system with project quotas; the VM's kernel has them where this machine's has not."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.storage.volumes import LocalVolumes, Volume, data_directory


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 with project quotas."""
    if not shutil.which("mke2fs"):
        pytest.skip("no mke2fs")
    image, place = tmp_path / "image", tmp_path / "place"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-I", "256", "-O", "quota,project", str(image)], check=True)
    place.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", str(image), str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this kernel has no quotas (CONFIG_QFMT_V2)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(directory: str, size: int) -> bool:
    """Whether a container's root, who has not CAP_SYS_RESOURCE, can write a file of this size there."""
    command = ["setpriv", "--bounding-set", "-sys_resource", "dd", "if=/dev/zero", f"of={directory}/file", "bs=65536"]
    run = subprocess.run([*command, f"count={size >> 16}", "conv=fsync"], capture_output=True, text=True, check=False)
    assert run.returncode == 0 or "quota exceeded" in run.stderr or "No space left" in run.stderr, run.stderr
    return run.returncode == 0


def test_a_volume_has_its_size_and_no_more(root: Path) -> None:
    driver = LocalVolumes(str(root / "volumes"))
    for name, size in (("small", "1m"), ("large", "8m"), ("free", "0")):
        driver.create(Volume(name, {"size": size}))
    small, large, free = (data_directory(str(root / "volumes"), name) for name in ("small", "large", "free"))
    assert not fill(small, 2 << 20)
    assert fill(large, 7 << 20)
    assert fill(free, 16 << 20)
    os.mkdir(f"{small}/below")
    assert not fill(f"{small}/below", 1 << 20)
    os.unlink(f"{small}/file")
    assert fill(f"{small}/below", 1 << 19)


def test_the_next_volume_has_its_own(root: Path) -> None:
    driver = LocalVolumes(str(root / "volumes"))
    first = Volume("first", {"size": "1m"})
    driver.create(first)
    driver.remove(first)()
    driver.create(Volume("second", {"size": "4m"}))
    assert fill(data_directory(str(root / "volumes"), "second"), 3 << 20)


def test_no_quotas_no_sizes(tmp_path: Path) -> None:
    driver = LocalVolumes(str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"^quota size requested but no quota support$"):
        driver.create(Volume("one", {"size": "1m"}))
    assert not list(tmp_path.iterdir())
