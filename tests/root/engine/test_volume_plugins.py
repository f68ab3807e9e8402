"""Volumes of plug-ins, as the docker command asks for them; the plug-in is a process of ours on a unix socket."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.gate import Gate
from tests.harness.plugins import PluginProcess


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="hafen-plugins-") as folder:
        base = Path(folder)
        flags = ("--bridge", f"hfv{os.getpid() % 100000}", "--plugin-sockets", str(base / "plugins"))
        with EngineProcess(base / "e", *flags, "--plugin-spec-dir", str(base / "specs")) as process:
            process.load_busybox()
            yield process


@pytest.fixture
def plugin(engine: EngineProcess) -> Iterator[PluginProcess]:
    base = engine.base.parent
    with PluginProcess(base / "plugins/harbour.sock", base / "served") as running:
        yield running


def run(engine: EngineProcess, *arguments: str) -> str:
    return engine.docker("run", "--rm", "--net", "none", *arguments).stdout


def wait_unmounted(plugin: PluginProcess, name: str) -> None:
    """The unmount follows the exit; the plug-in's log is what tells."""
    deadline = time.monotonic() + 10
    while (method := plugin.calls()[-1][0]) != "VolumeDriver.Unmount" or plugin.calls()[-1][1]["Name"] != name:
        assert time.monotonic() < deadline, method
        time.sleep(0.01)


def test_the_life_of_a_volume(engine: EngineProcess, plugin: PluginProcess, name: str) -> None:
    assert engine.docker("volume", "create", "-d", "harbour", "-o", "size=3", "--label", "a=b", "far").stdout == "far\n"
    shown = json.loads(engine.docker("volume", "inspect", "far").stdout)[0]
    assert (shown["Driver"], shown["Scope"], shown["Mountpoint"]) == ("harbour", "local", "")
    assert (shown["Options"], shown["Labels"], shown["Status"]) == ({"size": "3"}, {"a": "b"}, {"mounted": False})
    assert "harbour   far" in engine.docker("volume", "ls").stdout
    assert engine.docker("volume", "ls", "-q", "--filter", "driver=harbour").stdout == "far\n"
    engine.docker("run", "-dit", "--net", "none", "--name", name, "-v", "far:/x", "busybox")
    engine.docker("exec", name, "sh", "-c", "echo kept >/x/file")
    assert run(engine, "-v", "far:/x", "busybox", "cat", "/x/file") == "kept\n"
    (mount,) = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", name).stdout)
    assert (mount["Driver"], mount["Mode"], mount["Source"]) == ("harbour", "", f"{plugin.directory}/far/data")
    assert (plugin.directory / "far/data/file").read_text() == "kept\n"
    assert "in use" in engine.docker("volume", "rm", "far", check=False).stderr
    engine.docker("rm", "-f", name)
    wait_unmounted(plugin, "far")
    assert not (plugin.directory / "far/mounted").exists()
    engine.docker("volume", "rm", "far")
    assert not (plugin.directory / "far").exists()


def test_a_create_that_fails_leaves_what_the_plugin_had(engine: EngineProcess, plugin: PluginProcess) -> None:
    (plugin.directory / "theirs/data").mkdir(parents=True)
    (plugin.directory / "theirs/data/file").write_text("theirs")
    new, bad = "type=volume,dst=/y,volume-driver=harbour", "type=volume,src=bad,dst=/z,volume-opt=foo=1"
    refused = engine.docker("create", "-v", "theirs:/x", "--mount", new, "--mount", bad, "busybox", check=False)
    assert 'create bad: invalid option: "foo"' in refused.stderr
    assert (plugin.directory / "theirs/data/file").read_text() == "theirs"
    assert engine.docker("volume", "ls", "-q").stdout == "theirs\n"  # and not the new one
    engine.docker("volume", "create", "-d", "harbour", "theirs")
    engine.docker("volume", "rm", "theirs")


def test_a_volume_is_removed_once(engine: EngineProcess, plugin: PluginProcess) -> None:
    engine.docker("volume", "create", "-d", "harbour", "far")
    with Gate(plugin.directory / "far") as gate, engine.docker_beside("volume", "rm", "far") as removing:
        gate.wait_reached()
        refused = engine.docker("volume", "rm", "far", check=False)
        assert "remove far: the volume is being removed" in refused.stderr
        gate.open()
        assert removing.wait() == 0
    assert plugin.calls()[-1] == ("VolumeDriver.Remove", {"Name": "far"})
    assert plugin.calls()[-2][0] != "VolumeDriver.Remove"


def test_image_content_and_anonymous_volumes(engine: EngineProcess, plugin: PluginProcess, name: str) -> None:
    assert "root:x" in run(engine, "--volume-driver", "harbour", "-v", "filled:/etc", "busybox", "cat", "/etc/passwd")
    assert (plugin.directory / "filled/data/passwd").exists()
    engine.docker("volume", "rm", "filled")
    engine.docker("create", "--name", name, "--mount", "type=volume,dst=/x,volume-driver=harbour", "busybox")
    (anonymous,) = engine.docker("volume", "ls", "-q").stdout.split()
    assert (plugin.directory / anonymous).exists()
    engine.docker("rm", "-v", name)
    assert not (plugin.directory / anonymous).exists()


def test_what_a_plugin_knows_is_known(engine: EngineProcess, plugin: PluginProcess) -> None:
    (plugin.directory / "theirs/data").mkdir(parents=True)
    (plugin.directory / "theirs/options").write_text("{}")
    assert engine.docker("volume", "ls", "-q").stdout == "theirs\n"
    assert json.loads(engine.docker("volume", "inspect", "theirs").stdout)[0]["Driver"] == "harbour"
    run(engine, "-v", "theirs:/x", "busybox", "touch", "/x/used")
    assert (plugin.directory / "theirs/data/used").exists()
    engine.docker("volume", "rm", "theirs")


def test_refusals(engine: EngineProcess, plugin: PluginProcess) -> None:
    refused = engine.docker("volume", "create", "-d", "nobody", "bad", check=False).stderr
    assert 'create bad: error looking up volume plugin nobody: plugin "nobody" not found' in refused
    refused = engine.docker("volume", "create", "-d", "harbour", "-o", "fail=create", "bad", check=False).stderr
    assert "create bad: VolumeDriver.Create: told to fail" in refused
    engine.docker("volume", "create", "-d", "harbour", "-o", "fail=mount", "bad")
    refused = engine.docker("run", "--rm", "--net", "none", "-v", "bad:/x", "busybox", "true", check=False).stderr
    assert "error while mounting volume '': VolumeDriver.Mount: told to fail" in refused
    refused = engine.docker("volume", "create", "-d", "local", "bad", check=False).stderr
    assert "create bad: driver 'harbour' already has volume 'bad': volume name must be unique" in refused
    engine.docker("volume", "rm", "bad")
    assert "harbour" in engine.docker("info", "-f", "{{.Plugins.Volume}}").stdout


def test_a_plugin_that_is_away(engine: EngineProcess, plugin: PluginProcess, name: str) -> None:
    engine.docker("volume", "create", "-d", "harbour", "lost")
    engine.docker("create", "--net", "none", "--name", name, "-v", "lost:/x", "busybox", "true")
    plugin.kill()
    plugin.socket.unlink()
    assert engine.docker("volume", "ls", "-q").stdout == "lost\n"
    refused = engine.docker("start", name, check=False).stderr
    assert "error while mounting volume '': plugin \"harbour\" not found" in refused
    engine.docker("rm", name)
    assert 'plugin "harbour" not found' in engine.docker("volume", "rm", "lost", check=False).stderr
    engine.docker("volume", "rm", "-f", "lost")
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_mounts_after_a_kill(engine: EngineProcess, plugin: PluginProcess, name: str) -> None:
    engine.docker("volume", "create", "-d", "harbour", "held")
    engine.docker("run", "-dit", "--net", "none", "--name", name, "-v", "held:/x", "busybox")
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)
    engine.kill()
    os.kill(pid, 9)
    assert (plugin.directory / "held/mounted").exists()
    engine.start()
    wait_unmounted(plugin, "held")
    mounts = [body for method, body in plugin.calls() if method.endswith("ount") and body["Name"] == "held"]
    assert mounts[0] == mounts[1]
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", "held")
