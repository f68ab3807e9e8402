"""The local driver without mounts, and what its options become."""

from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.kernel import consts as k
from hafen.spec import volumeoptions
from hafen.spec.volumeoptions import LocalOptions
from hafen.storage import volumemount
from hafen.storage.volumes import LocalVolumes, Volume, VolumeDriver
from tests.suites.volume_driver_suite import VolumeDriverSuite


class TestLocal(VolumeDriverSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> VolumeDriver:
        return LocalVolumes(str(tmp_path / "volumes"))


def test_a_crash_between_rename_and_removal_is_finished(tmp_path: Path) -> None:
    driver = LocalVolumes(str(tmp_path))
    driver.create(Volume("one"))
    driver.remove(Volume("one"))
    assert [entry.name for entry in tmp_path.iterdir()] == [".removing-one"]
    LocalVolumes(str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"foo": "1"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "tmpfs"}, 'missing required option: "type"'),
        ({"o": "bind"}, 'missing required option: "device"'),
        ({"size": "abc"}, "invalid size: 'abc'"),
    ],
)
def test_options_that_docker_refuses(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{words}$"):
        volumeoptions.parse(options)


def test_a_size_needs_a_quota(tmp_path: Path) -> None:
    driver = LocalVolumes(str(tmp_path))
    driver.create(Volume("one", {"size": "0"}))
    with pytest.raises(InvalidArgument, match=r"^quota size requested but no quota support$"):
        driver.create(Volume("two", {"size": "10m"}))


def test_options_are_flags_or_data() -> None:
    parsed = volumeoptions.parse({"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1,ro,nolock,noatime,rshared"})
    assert parsed == LocalOptions("nfs", ":/x", "addr=10.0.0.1,ro,nolock,noatime,rshared")
    flags, propagation, data = volumemount.split(parsed.words)
    assert flags == k.MS_RDONLY | k.MS_NOATIME
    assert propagation == k.MS_SHARED | k.MS_REC
    assert data == "addr=10.0.0.1,nolock"
    assert volumemount.split("ro,rw,rbind,defaults") == (k.MS_BIND | k.MS_REC, 0, "")
