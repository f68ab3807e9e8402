"""Plug-ins as volume drivers: found where Docker looks for them, spoken to as Docker speaks."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.errors import NotFound, System, Unavailable
from hafen.storage import plugin
from hafen.storage.plugin import Places
from hafen.storage.volumeplugin import PluginDrivers
from hafen.storage.volumes import Volume, VolumeDriver
from tests.harness.plugins import PROGRAM, PluginProcess
from tests.suites.volume_driver_suite import VolumeDriverSuite


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("sockets", "etc", "usr"):
        (tmp_path / name).mkdir()
    return Places(str(tmp_path / "sockets"), (str(tmp_path / "etc"), str(tmp_path / "usr")), patience=1.0)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[PluginProcess]:
    with PluginProcess(tmp_path / "sockets/harbour.sock", tmp_path / "volumes") as running:
        yield running


class TestPlugin(VolumeDriverSuite):
    @pytest.fixture
    def driver(self, places: Places, process: PluginProcess) -> VolumeDriver:
        return PluginDrivers(places).find("harbour")


def test_places(places: Places) -> None:
    sockets, etc, usr = Path(places.sockets), Path(places.specs[0]), Path(places.specs[1])
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(sockets / "a.sock"))
        (sockets / "b").mkdir()
        other.bind(str(sockets / "b/b.sock"))
        (etc / "a.spec").write_text("tcp://10.0.0.1:1")
        (etc / "c.spec").write_text("unix:///somewhere\n")
        (usr / "c.json").write_text("{}")
        (usr / "d.json").write_text(json.dumps({"Name": "d", "Addr": "https://h:2", "TLSConfig": {"CAFile": "/ca"}}))
        found = {name: plugin.find(name, places) for name in plugin.names(places)}
    assert {name: address and address.url for name, address in found.items()} == {
        "a": f"unix://{sockets}/a.sock", "b": f"unix://{sockets}/b/b.sock", "c": "unix:///somewhere", "d": "https://h:2",
    }  # fmt: skip
    assert found["d"]
    assert found["d"].tls == {"CAFile": "/ca"}
    for name in ("e", "", "../etc/c", ".c"):
        assert plugin.find(name, places) is None


def test_files_that_make_no_sense(places: Places) -> None:
    etc = Path(places.specs[0])
    (etc / "a.spec").write_text("somewhere")
    (etc / "b.json").write_text("[]")
    for name in ("a", "b"):
        with pytest.raises(Unavailable, match=name):
            plugin.find(name, places)


def test_what_the_plugin_is_told(places: Places, process: PluginProcess) -> None:
    driver = PluginDrivers(places).find("harbour")
    volume = Volume("v", {"size": "1"})
    driver.create(volume)
    driver.mount(volume)
    driver.unmount(volume)
    driver.remove(volume)
    said = process.calls()
    mount = said[3][1]
    assert [method for method, _ in said] == [
        "Plugin.Activate", "VolumeDriver.Capabilities", "VolumeDriver.Create", "VolumeDriver.Mount",
        "VolumeDriver.Unmount", "VolumeDriver.Remove",
    ]  # fmt: skip
    assert said[2][1] == {"Name": "v", "Opts": {"size": "1"}}
    assert said[4][1] == mount == {"Name": "v", "ID": mount["ID"]}
    assert len(str(mount["ID"])) == 64


def test_a_refusal_has_the_plugins_words(places: Places, process: PluginProcess) -> None:
    driver = PluginDrivers(places).find("harbour")
    with pytest.raises(System, match=r"^VolumeDriver.Create: told to fail$"):
        driver.create(Volume("v", {"fail": "create"}))


def test_one_that_is_restarted_is_waited_for_and_one_that_is_away_is_not_listed(
    places: Places, process: PluginProcess
) -> None:
    drivers = PluginDrivers(places)
    driver = drivers.find("harbour")
    driver.create(Volume("kept"))
    process.kill()
    with pytest.raises(Unavailable, match="harbour"):
        driver.list()
    assert PluginDrivers(places).known() == []
    process.start()
    assert [found.name for found in driver.list()] == ["kept"]
    with pytest.raises(NotFound, match='plugin "nobody" not found'):
        drivers.find("nobody")


def test_global_scope(places: Places, tmp_path: Path) -> None:
    with PluginProcess(tmp_path / "sockets/wide.sock", tmp_path / "wide", "global"):
        assert PluginDrivers(places).find("wide").scope == "global"


@pytest.fixture(params=["tcp", "tls"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A plug-in on loopback, as the text of its file: `.spec` for plain TCP, `.json` for TLS."""
    directory, certificate = tmp_path / "far", tmp_path / "certificate.pem"
    directory.mkdir()
    command = [sys.executable, str(PROGRAM), "tcp", str(directory), "local"]
    if request.param == "tls":
        if not shutil.which("openssl"):
            pytest.skip("openssl makes the certificate")
        make = [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(certificate), "-out", str(tmp_path / "cert")),
        ]
        subprocess.run(make, check=True, capture_output=True)
        certificate.write_text(certificate.read_text() + (tmp_path / "cert").read_text())
        command.append(str(certificate))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not (directory / "port").exists() or not (port := (directory / "port").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # until it listens
        if request.param == "tcp":
            yield f"tcp://localhost:{port}"
        else:
            yield json.dumps({"Addr": f"https://localhost:{port}", "TLSConfig": {"CAFile": str(tmp_path / "cert")}})
    finally:
        process.kill()
        process.wait()


def test_over_the_network(places: Places, far: str) -> None:
    suffix = "json" if far.startswith("{") else "spec"
    Path(places.specs[1], f"far.{suffix}").write_text(far)
    drivers = PluginDrivers(places)
    drivers.find("far").create(Volume("one"))
    assert [driver.name for driver in drivers.known()] == ["far"]
    assert [found.name for found in drivers.find("far").list()] == ["one"]
