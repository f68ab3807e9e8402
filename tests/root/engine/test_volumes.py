"""Volumes, binds and tmpfs as the docker command asks for them."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess


@pytest.fixture(scope="module")
def image(engine: EngineProcess) -> str:
    """An image that declares a volume with content: an owner, a mode, a link and a directory."""
    script = (
        "mkdir -p /data/sub && echo seed >/data/sub/file && chown 7:8 /data/sub/file && chmod 640 /data/sub/file"
        " && ln -s sub/file /data/link && chmod 1770 /data"
    )
    engine.docker("run", "--name", "seed", "--net", "none", "busybox", "sh", "-c", script)
    engine.docker("commit", "--change", "VOLUME /data", "--change", 'CMD ["sh"]', "seed", "seeded")
    engine.docker("rm", "seed")
    return "seeded"


def run(engine: EngineProcess, *arguments: str) -> str:
    return engine.docker("run", "--rm", "--net", "none", *arguments).stdout


def test_a_new_volume_takes_what_the_image_has(engine: EngineProcess, image: str) -> None:
    shown = run(engine, "-v", "copied:/data", image, "sh", "-c", "ls -ln /data/sub/file /data/link; stat -c %a /data")
    assert "-rw-r-----" in shown
    assert " 7 " in shown
    assert " 8 " in shown
    assert "/data/link -> sub/file" in shown
    assert shown.endswith("1770\n")
    outside = engine.data / "volumes/copied/_data/sub/file"
    assert (outside.stat().st_uid, outside.stat().st_gid, outside.read_text()) == (7, 8, "seed\n")
    run(engine, "-v", "copied:/data", image, "sh", "-c", "echo mine >/data/sub/file")
    assert run(engine, "-v", "copied:/data", image, "cat", "/data/link") == "mine\n"
    assert engine.docker("volume", "rm", "copied").stdout == "copied\n"


def test_nocopy_leaves_it_empty(engine: EngineProcess, image: str) -> None:
    assert run(engine, "-v", "bare:/data:nocopy", image, "ls", "-A", "/data") == ""
    engine.docker("volume", "rm", "bare")


def test_anonymous_volumes_go_with_an_auto_removed_container(engine: EngineProcess, image: str) -> None:
    before = set(os.listdir(engine.data / "volumes"))
    assert run(engine, image, "cat", "/data/sub/file") == "seed\n"
    events = engine.docker(
        "events", "--since", "1m", "--until", f"{time.time():.9f}", "--filter", "event=destroy"
    ).stdout
    assert events
    assert engine.docker("volume", "ls", "-q").stdout == ""
    assert set(os.listdir(engine.data / "volumes")) == before


def test_anonymous_volumes_stay_without_v(engine: EngineProcess, image: str, name: str) -> None:
    engine.docker("create", "--name", name, image)
    engine.docker("rm", name)
    (left,) = engine.docker("volume", "ls", "-q").stdout.split()
    assert engine.docker("volume", "prune", "-f").stdout.split()[2] == left
    engine.docker("create", "--name", name, image)
    engine.docker("rm", "-v", name)
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_a_volume_in_use_stays(engine: EngineProcess, name: str) -> None:
    container = engine.docker("create", "--name", name, "-v", "used:/x", "busybox").stdout.strip()
    refused = engine.docker("volume", "rm", "used", check=False)
    assert f"remove used: volume is in use - [{container}]" in refused.stderr
    engine.docker("rm", name)
    engine.docker("volume", "rm", "used")
    assert "get used: no such volume" in engine.docker("volume", "inspect", "used", check=False).stderr


def test_volumes_from(engine: EngineProcess, name: str) -> None:
    engine.docker("create", "--name", name, "-v", "/shared", "busybox")
    run(engine, "--volumes-from", name, "busybox", "sh", "-c", "echo x >/shared/f")
    assert run(engine, "--volumes-from", f"{name}:ro", "busybox", "cat", "/shared/f") == "x\n"
    refused = engine.docker(
        "run", "--rm", "--net", "none", "--volumes-from", f"{name}:ro", "busybox", "touch", "/shared/g", check=False
    )
    assert "Read-only file system" in refused.stderr


def test_v_makes_a_missing_source_and_mount_does_not(engine: EngineProcess, tmp_path: Path) -> None:
    assert run(engine, "-v", f"{tmp_path}/new/dir:/x", "busybox", "ls", "-A", "/x") == ""
    assert (tmp_path / "new/dir").is_dir()
    refused = engine.docker(
        "run", "--rm", "--mount", f"type=bind,src={tmp_path}/absent,dst=/x", "busybox", "true", check=False
    )
    assert refused.code == 125
    assert f'invalid mount config for type "bind": bind source path does not exist: {tmp_path}/absent' in refused.stderr
    assert not (tmp_path / "absent").exists()


def test_a_single_file_and_read_only(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content\n")
    assert run(engine, "-v", f"{tmp_path}/f:/etc/given:ro", "busybox", "cat", "/etc/given") == "content\n"
    refused = engine.docker(
        "run", "--rm", "--net", "none", "-v", f"{tmp_path}:/x:ro", "busybox", "touch", "/x/y", check=False
    )
    assert "Read-only file system" in refused.stderr


def test_tmpfs(engine: EngineProcess, name: str) -> None:
    shown = run(
        engine, "--tmpfs", "/t:size=1m,mode=700", "busybox", "sh", "-c", "grep ' /t ' /proc/mounts; stat -c %a /t"
    )
    assert "size=1024k" in shown
    assert "noexec" in shown
    assert shown.endswith("700\n")
    engine.docker("create", "--name", name, "--tmpfs", "/t:size=1m", "--mount", "type=tmpfs,dst=/u", "busybox")
    mounts = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", name).stdout)
    assert [(one["Type"], one["Destination"]) for one in mounts] == [("tmpfs", "/u")]


def test_options_of_the_local_driver(engine: EngineProcess) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m")
    engine.docker("volume", "create", *options, "memory")
    assert "size=2048k" in run(engine, "-v", "memory:/m", "busybox", "grep", " /m ", "/proc/mounts")
    engine.docker("volume", "rm", "memory")
    refused = engine.docker("volume", "create", "-o", "foo=1", "bad", check=False)
    assert 'create bad: invalid option: "foo"' in refused.stderr


def test_volume_subpath(engine: EngineProcess, image: str) -> None:
    run(engine, "-v", "sub:/data", image, "true")
    mount = "type=volume,src=sub,dst=/x,volume-subpath=sub"
    assert run(engine, "--mount", mount, "busybox", "cat", "/x/file") == "seed\n"
    run(engine, "-v", "sub:/data", "busybox", "ln", "-s", "/etc", "/data/out")
    refused = engine.docker(
        "run", "--rm", "--mount", "type=volume,src=sub,dst=/x,volume-subpath=out", "busybox", "true", check=False
    )
    assert refused.code == 127  # the docker command takes "no such file" for the program that is missing
    engine.docker("volume", "rm", "sub")


def test_mounts_are_shared_with_the_host_where_asked(engine: EngineProcess, tmp_path: Path) -> None:
    refused = engine.docker(
        "run", "--rm", "--net", "none", "-v", f"{tmp_path}:/x:rshared", "busybox", "true", check=False
    )
    assert "but it is not a shared mount" in refused.stderr
    subprocess.run(["mount", "-t", "tmpfs", "hafen-engine", str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
        script = "mkdir /x/inner && mount -t tmpfs inner /x/inner && touch /x/inner/f"
        run(engine, "--privileged", "-v", f"{tmp_path}:/x:rshared", "busybox", "sh", "-c", script)
        assert (tmp_path / "inner/f").exists()
    finally:
        subprocess.run(["umount", "-R", str(tmp_path)], check=True)
