"""What every volume driver must do; a driver's tests inherit `VolumeDriverSuite` and give a `driver` fixture."""

import os
from pathlib import Path

from hafen.storage.volumes import Volume, VolumeDriver

VOLUME = Volume("first")


def names(driver: VolumeDriver) -> list[str]:
    return [found.name for found in driver.list()]


def remove(driver: VolumeDriver, volume: Volume) -> None:
    rest = driver.remove(volume)
    if rest is not None:
        rest()


class VolumeDriverSuite:
    def test_what_is_created_is_there_and_what_is_removed_is_not(self, driver: VolumeDriver) -> None:
        assert driver.get("first") is None
        driver.create(VOLUME)
        driver.create(VOLUME)
        driver.create(Volume("second"))
        found = driver.get("first")
        assert found is not None
        assert found.name == "first"
        assert names(driver) == ["first", "second"]
        remove(driver, VOLUME)
        assert driver.get("first") is None
        assert names(driver) == ["second"]
        remove(driver, Volume("second"))

    def test_a_mounted_volume_is_a_directory_that_keeps_its_files(self, driver: VolumeDriver) -> None:
        driver.create(VOLUME)
        for turn in ("one", "two"):
            path = driver.mount(VOLUME)
            assert os.path.isdir(path)
            assert driver.path(VOLUME) == path
            Path(path, turn).write_text(turn)
            driver.unmount(VOLUME)
        path = driver.mount(VOLUME)
        assert sorted(os.listdir(path)) == ["one", "two"]
        driver.unmount(VOLUME)
        remove(driver, VOLUME)

    def test_unmounting_what_is_not_mounted_is_harmless(self, driver: VolumeDriver) -> None:
        driver.create(VOLUME)
        driver.unmount(VOLUME)
        driver.mount(VOLUME)
        driver.unmount(VOLUME)
        driver.unmount(VOLUME)
        remove(driver, VOLUME)

    def test_a_new_volume_of_an_old_name_is_empty(self, driver: VolumeDriver) -> None:
        driver.create(VOLUME)
        Path(driver.mount(VOLUME), "file").write_text("old")
        driver.unmount(VOLUME)
        remove(driver, VOLUME)
        driver.create(VOLUME)
        assert os.listdir(driver.mount(VOLUME)) == []
        driver.unmount(VOLUME)
        remove(driver, VOLUME)

    def test_scope(self, driver: VolumeDriver) -> None:
        assert driver.scope == "local"
