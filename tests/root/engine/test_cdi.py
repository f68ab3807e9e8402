"""CDI devices in real containers, from JSON and YAML, and the texts where there are none."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root

YAML = """\
cdiVersion: "0.7.0"
kind: other.org/net
devices:
  - name: "0"
    containerEdits:
      env: ["YAML=yes"]
      additionalGids: [4711]
"""


@pytest.fixture(scope="module")
def directories() -> Iterator[tuple[Path, Path]]:
    """Two directories of specifications; the second wins."""
    with tempfile.TemporaryDirectory(prefix="hafen-cdi-") as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        first.mkdir()
        second.mkdir()
        write(first, "a", {"one": {"env": ["WHICH=first"]}, "two": {"env": ["TWO=first"]}})
        edits = {
            "env": ["WHICH=second", "PATH=/bin:/cdi"],
            "deviceNodes": [{"path": "/dev/note", "hostPath": "/dev/kmsg", "permissions": "w", "uid": 7}],
            "mounts": [{"hostPath": f"{folder}/first", "containerPath": "/specs", "options": ["ro", "bind"]}],
            "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", f"cat >{folder}/hooked"]}],
        }
        write(second, "b", {"one": edits}, {"env": ["GLOBAL=1"]})
        write(second, "twice1", {"x": {"env": ["A=1"]}}, kind="twice.com/dev")
        write(second, "twice2", {"x": {"env": ["A=2"]}}, kind="twice.com/dev")
        (second / "net.yaml").write_text(YAML)
        (second / "broken.json").write_text("{")
        yield first, second


def write(
    folder: Path, name: str, devices: dict[str, object], whole: object = None, kind: str = "acme.com/dev"
) -> None:
    listed = [{"name": device, "containerEdits": edits} for device, edits in devices.items()]
    document = {"cdiVersion": "0.6.0", "kind": kind, "devices": listed, "containerEdits": whole or {}}
    (folder / f"{name}.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None, directories: tuple[Path, Path]) -> Iterator[EngineProcess]:
    flags = ["--bridge", f"hfc{os.getpid() % 100000}"]
    for directory in directories:
        flags += ["--cdi-spec-dir", str(directory)]
    with (
        tempfile.TemporaryDirectory(prefix="hafen-engine-") as folder,
        EngineProcess(Path(folder) / "e", *flags) as process,
    ):
        process.load_busybox()
        yield process


def test_every_kind_of_edit(engine: EngineProcess, directories: tuple[Path, Path]) -> None:
    script = "env; stat -c '%u %t:%T' /dev/note; ls /specs; touch /specs/x; cat /dev/note"
    shown = engine.docker(
        "run", "--rm", "--net", "none", "--device", "acme.com/dev=one", "busybox", "sh", "-c", script, check=False
    )
    lines = shown.stdout.splitlines()
    assert {"WHICH=second", "GLOBAL=1", "PATH=/bin:/cdi"} <= set(lines)
    assert {"7 1:b", "a.json"} <= set(lines)
    assert "touch: /specs/x: Read-only file system" in shown.stderr
    assert "/dev/note': Operation not permitted" in shown.stderr
    state = json.loads((directories[0].parent / "hooked").read_text())
    assert state["status"] in ("creating", "created")


def test_yaml_and_several(engine: EngineProcess) -> None:
    devices = ("--device", "other.org/net=0", "--device", "acme.com/dev=two")
    shown = engine.docker("run", "--rm", "--net", "none", *devices, "busybox", "sh", "-c", "env; id -G").stdout
    assert {"YAML=yes", "TWO=first"} <= set(shown.splitlines())
    assert "4711" in shown.splitlines()[-1].split()


def test_info_lists_them(engine: EngineProcess, directories: tuple[Path, Path]) -> None:
    shown = json.loads(engine.docker("info", "-f", "{{json .}}").stdout)
    assert shown["CDISpecDirs"] == [str(directory) for directory in directories]
    assert [device["ID"] for device in shown["DiscoveredDevices"]] == [
        "acme.com/dev=one", "acme.com/dev=two", "other.org/net=0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--device", "acme.com/dev=no", "--device", "acme.com/dev=one", "--device", "xy.org/zz=0"),
         "CDI device injection failed: unresolvable CDI devices acme.com/dev=no, xy.org/zz=0"),
        (("--device", "twice.com/dev=x"), "CDI device injection failed: unresolvable CDI devices twice.com/dev=x"),
        (("--gpus", "all"), 'could not select device driver "" with capabilities: [[gpu]]'),
        (("--gpus", "driver=nvidia,count=1,capabilities=compute"),
         'could not select device driver "nvidia" with capabilities: [[compute gpu]]'),
    ],
)  # fmt: skip
def test_what_is_not_there(engine: EngineProcess, options: tuple[str, ...], text: str) -> None:
    refused = engine.docker("run", "--rm", "--net", "none", *options, "busybox", "true", check=False)
    assert refused.code == 125
    assert text in refused.stderr
