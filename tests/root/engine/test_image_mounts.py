"""`--mount type=image`: another image's files in a container, and what keeps them there."""

import io
import json
import tarfile

import pytest

from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root


def snapshots(engine: EngineProcess) -> set[str]:
    return {path.name for path in (engine.data / "snapshots/overlay").iterdir()}


def test_its_files_are_there_and_what_is_written_stays_with_the_container(engine: EngineProcess) -> None:
    before = snapshots(engine)
    engine.docker("tag", "busybox", "mounted:1")
    script = "test -x /img/bin/sh && echo $(cat /img/new); echo written >/img/new"
    engine.docker(
        "create",
        "--name",
        "mounter",
        "--mount",
        "type=image,source=mounted:1,target=/img",
        "busybox",
        "sh",
        "-c",
        script,
    )
    assert engine.docker("start", "-a", "mounter").stdout == "\n"
    engine.kill()
    engine.start()
    assert engine.docker("start", "-a", "mounter").stdout == "written\n"
    shown = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "mounter").stdout)
    assert [(point["Type"], point["Source"], point["Destination"], point["RW"]) for point in shown] == [
        ("image", "mounted:1", "/img", True)
    ]
    engine.docker("rm", "mounter")
    engine.docker("rmi", "mounted:1")
    assert snapshots(engine) == before


def test_read_only(engine: EngineProcess) -> None:
    mount = "type=image,source=busybox,target=/img,readonly"
    refused = engine.docker("run", "--rm", "--mount", mount, "busybox", "touch", "/img/new", check=False)
    assert (refused.code, refused.stderr) == (1, "touch: /img/new: Read-only file system\n")


def test_an_image_that_is_mounted_is_in_use(engine: EngineProcess) -> None:
    image = engine.docker("import", "-", "only:mounted", stdin=_one_file()).stdout.strip().removeprefix("sha256:")
    engine.docker(
        "run", "-d", "--name", "user", "--mount", "type=image,source=only:mounted,target=/m", "busybox", "sleep", "60"
    )
    refused = engine.docker("rmi", "-f", image, check=False)
    assert refused.code == 1
    assert f"conflict: unable to delete {image[:12]} (cannot be forced)" in refused.stderr
    assert engine.docker("exec", "user", "cat", "/m/file").stdout == "content"
    engine.docker("rm", "-f", "user")
    engine.docker("rmi", "only:mounted")


def test_one_that_is_not_there(engine: EngineProcess) -> None:
    refused = engine.docker("create", "--mount", "type=image,source=nowhere,target=/m", "busybox", check=False)
    assert refused.code == 1
    assert "No such image: nowhere:latest" in refused.stderr


def _one_file() -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("file")
            entry.size = 7
            archive.addfile(entry, io.BytesIO(b"content"))
        return buffer.getvalue()
