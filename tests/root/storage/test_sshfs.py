"""The sshfs driver against a real SFTP server, which a stand-in for ssh starts: there is no other machine here."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument, System
from hafen.storage.sshfsvolumes import TOOL, SshfsVolumes
from hafen.storage.volumes import Volume, VolumeDriver, is_mounted
from tests.suites.volume_driver_suite import VolumeDriverSuite

SERVER = "/usr/lib/openssh/sftp-server"

pytestmark = pytest.mark.skipif(
    shutil.which(TOOL) is None or not os.path.exists(SERVER) or not os.path.exists("/dev/fuse"), reason="no sshfs here"
)


class Far(SshfsVolumes):
    """Volumes `<far>/<name>` of the machine that the stand-in for ssh reaches."""

    def __init__(self, root: Path, far: Path) -> None:
        super().__init__(str(root))
        self._far = far
        self._ssh = far.parent / "ssh"
        self._ssh.write_text(f"#!/bin/sh\nexec {SERVER}\n")
        self._ssh.chmod(0o755)

    def _seen(self, volume: Volume) -> Volume:
        place = self._far / volume.name
        options = {"sshcmd": f"user@far.invalid:{place}", "ssh_command": str(self._ssh), **volume.options}
        return Volume(volume.name, options)

    def create(self, volume: Volume) -> None:
        (self._far / volume.name).mkdir(exist_ok=True)
        super().create(self._seen(volume))

    def remove(self, volume: Volume) -> Callable[[], None]:
        rest = super().remove(volume)
        shutil.rmtree(self._far / volume.name)
        return rest

    def attach(self, volume: Volume, path: str) -> None:
        super().attach(self._seen(volume), path)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    (tmp_path / "far").mkdir()
    driver = Far(tmp_path / "volumes", tmp_path / "far")
    yield driver
    for found in driver.list():
        driver.unmount(Volume(found.name))


class TestSshfs(VolumeDriverSuite):
    @pytest.fixture
    def driver(self, far: Far) -> VolumeDriver:
        return far


def test_what_is_written_is_there(far: Far, tmp_path: Path) -> None:
    volume = Volume("one")
    far.create(volume)
    path = far.mount(volume)
    Path(path, "file").write_text("content")
    assert (tmp_path / "far/one/file").read_text() == "content"
    far.unmount(volume)
    assert not is_mounted(path)
    assert os.listdir(path) == []
    far.remove(volume)()


def test_refusals(tmp_path: Path) -> None:
    driver = SshfsVolumes(str(tmp_path))
    with pytest.raises(InvalidArgument, match="'sshcmd' option required"):
        driver.create(Volume("one", {"port": "22"}))
    with pytest.raises(System, match=r"^sshfs command execute failed: "):
        driver.mount(Volume("two", {"sshcmd": "user@far.invalid:/x", "ssh_command": "/bin/false"}))
