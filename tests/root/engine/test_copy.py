"""cp, diff and export: running and stopped, and never outside of the root."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from hafen.kernel import fs
from tests.harness.engine import EngineProcess
from tests.root.engine.conftest import wait_exists


@pytest.fixture(params=["running", "stopped"])
def container(request: pytest.FixtureRequest, engine: EngineProcess, name: str) -> str:
    mounts = ("-v", "/volume", "--tmpfs", "/tmpfs")
    engine.docker("run", "-d", "--net", "none", *mounts, "--name", name, "busybox", "sleep", "1000")
    if request.param == "stopped":
        engine.docker("kill", name)
    return name


def test_there_and_back(engine: EngineProcess, container: str, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").write_text("x" * 100_000)
    (tmp_path / "d/link").symlink_to("e/f")
    engine.docker("cp", f"{tmp_path}/d", f"{container}:/root/")
    engine.docker("cp", f"{container}:/root/d", f"{tmp_path}/back")
    assert (tmp_path / "back/e/f").read_text() == "x" * 100_000
    assert (tmp_path / "back/link").readlink() == Path("e/f")
    engine.docker("cp", f"{container}:/root/d/.", f"{tmp_path}/flat")
    assert (tmp_path / "flat/e/f").exists()


def test_into_a_volume(engine: EngineProcess, container: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("in the volume")
    engine.docker("cp", f"{tmp_path}/f", f"{container}:/volume/f")
    (volume,) = engine.docker("volume", "ls", "-q").stdout.split()
    assert (engine.data / "volumes" / volume / "_data/f").read_text() == "in the volume"
    engine.docker("cp", f"{container}:/volume/f", f"{tmp_path}/g")
    assert (tmp_path / "g").read_text() == "in the volume"


def test_links_do_not_lead_out(engine: EngineProcess, container: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    trap = tmp_path / "trap"
    trap.symlink_to(tmp_path)
    engine.docker("cp", f"{trap}", f"{container}:/trap")
    refused = engine.docker("cp", f"{container}:/trap/secret", f"{tmp_path}/out", check=False)
    assert refused.code == 1
    assert "Could not find the file /trap/secret in container" in refused.stderr
    (tmp_path / "new").write_text("x")
    assert engine.docker("cp", f"{tmp_path}/new", f"{container}:/trap/written", check=False).code == 1
    assert not (tmp_path / "written").exists()


def test_errors(engine: EngineProcess, container: str, tmp_path: Path) -> None:
    missing = engine.docker("cp", f"{container}:/absent", f"{tmp_path}/x", check=False)
    assert f"Could not find the file /absent in container {container}" in missing.stderr
    (tmp_path / "f").write_text("x")
    assert engine.docker("cp", f"{tmp_path}/f", f"{container}:/absent/f", check=False).code == 1
    assert "no such" in engine.docker("cp", f"{container}-no:/x", f"{tmp_path}/x", check=False).stderr.lower()


def test_diff_and_export(engine: EngineProcess, container: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    engine.docker("cp", f"{tmp_path}/f", f"{container}:/root/f")
    assert engine.docker("diff", container).stdout == "C /root\nA /root/f\nA /tmpfs\nA /volume\n"
    archive = engine.base / "export.tar"
    engine.docker("export", "-o", str(archive), container)
    with tarfile.open(archive) as tar:
        assert "root/f" in tar.getnames()
        assert "bin/busybox" in tar.getnames()
        member = tar.extractfile("root/f")
        assert member is not None
        assert member.read() == b"x"


def test_read_only_root(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    engine.docker(
        "run", "-d", "--net", "none", "--read-only", "-v", "/volume", "--name", name, "busybox", "sleep", "99"
    )
    refused = engine.docker("cp", f"{tmp_path}/f", f"{name}:/root/f", check=False)
    assert "container rootfs is marked read-only" in refused.stderr
    engine.docker("cp", f"{tmp_path}/f", f"{name}:/volume/f")


def test_archive_mode_gives_files_to_the_containers_user(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    engine.docker("create", "--name", name, "--user", "daemon:65534", "busybox", "true")
    engine.docker("cp", "-a", f"{tmp_path}/f", f"{name}:/home/a")
    engine.docker("cp", f"{tmp_path}/f", f"{name}:/home/b")
    with tarfile.open(fileobj=io.BytesIO(engine_tar(engine, name, "/home"))) as archive:
        owners = {member.name: (member.uid, member.gid) for member in archive}
    assert owners == {"home": (0, 0), "home/a": (1, 65534), "home/b": (0, 0)}


def engine_tar(engine: EngineProcess, name: str, path: str) -> bytes:
    """What the engine sends of a path, with the owners it has inside."""
    command = ["docker", "cp", f"{name}:{path}", "-"]
    return subprocess.run(command, env=engine.environment, capture_output=True, check=True).stdout


def test_directories_and_files_do_not_replace_each_other(engine: EngineProcess, container: str, tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    (tmp_path / "a/x").mkdir()
    (tmp_path / "b/x").write_text("file")
    for first, second, text in (
        ("a", "b", 'cannot overwrite directory "/root/a/x" with non-directory "/root/a"'),
        ("b", "a", 'cannot overwrite non-directory "/root/b/x" with directory "/root/b"'),
    ):
        engine.docker("cp", f"{tmp_path}/{first}", f"{container}:/root/{first}")
        refused = engine.docker("cp", f"{tmp_path}/{second}/.", f"{container}:/root/{first}", check=False)
        assert text in refused.stderr


def test_what_is_read_only(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    options = ("--read-only", "-v", "/volume", "-v", f"{tmp_path}:/bound:ro")
    engine.docker("create", "--name", name, "--net", "none", *options, "busybox", "sleep", "1000")
    for _ in range(2):  # stopped, then running
        for place, text in (
            ("/root", "container rootfs is marked read-only"),
            ("/bound", "mounted volume is marked read-only"),
        ):
            assert text in engine.docker("cp", f"{tmp_path}/f", f"{name}:{place}/g", check=False).stderr
        engine.docker("cp", f"{tmp_path}/f", f"{name}:/volume/g")
        engine.docker("start", name)


def test_links_lead_into_volumes_and_bound_files(engine: EngineProcess, name: str, tmp_path: Path) -> None:
    (tmp_path / "bound").write_text("of the host\n")
    options = ("-v", "/volume", "-v", f"{tmp_path}/bound:/root/bound")
    script = "ln -s ../volume /home/link; ln -s /loop /loop; echo v >/volume/v"
    engine.docker("run", "--name", name, "--net", "none", *options, "busybox", "sh", "-c", script)
    (tmp_path / "new").write_text("new\n")
    engine.docker("cp", f"{tmp_path}/new", f"{name}:/home/link/new")
    for inside, text in (("/volume/new", "new\n"), ("/home/link/v", "v\n"), ("/root/bound", "of the host\n")):
        engine.docker("cp", f"{name}:{inside}", f"{tmp_path}/out")
        assert (tmp_path / "out").read_text() == text
    looping = engine.docker("cp", f"{tmp_path}/new", f"{name}:/loop/x", check=False)
    assert "too many" in looping.stderr


@pytest.mark.parametrize("verb", ["cp", "volume export"])
def test_a_swapped_directory_leads_nowhere(engine: EngineProcess, name: str, tmp_path: Path, verb: str) -> None:
    """The container's owner puts a link to a directory of the host in the place of the one that is being read."""
    (tmp_path / "2").write_text("of the host")
    engine.docker("run", "-d", "--net", "none", "-v", f"{name}:/v", "--name", name, "busybox", "sleep", "1000")
    volume = engine.data / "volumes" / name / "_data"
    try:
        (volume / "a").mkdir()
        (volume / "a/1").write_bytes(b"x" * (64 << 20))  # more than waits between the engine and its client
        (volume / "a/2").write_text("inside")
        (volume / "z").symlink_to(tmp_path)
        ours = [sys.executable, "-m", "hafen.cli.main", "volume", "export", "--live", name]
        command = ["docker", "cp", f"{name}:/v", "-"] if verb == "cp" else ours
        with subprocess.Popen(command, env=engine.environment, stdout=subprocess.PIPE) as reading:
            assert reading.stdout
            reading.stdout.read(1 << 20)  # it is in the middle of `1`
            descriptor = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
            fs.exchange(descriptor, "a", "z")
            os.close(descriptor)
            rest = reading.stdout.read()
        assert reading.returncode == 0
        assert len(rest) > 63 << 20
        assert b"of the host" not in rest
        assert b"inside" in rest
    finally:
        engine.docker("rm", "-f", name)
        engine.docker("volume", "rm", name)


def test_copies_of_one_stopped_container_share_its_volume(engine: EngineProcess, name: str) -> None:
    """A tmpfs: what is in it goes when it is unmounted."""
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", name)
    engine.docker("create", "--name", name, "--net", "none", "-v", f"{name}:/v", "busybox", "true")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file in ("first", "last"):
            member = tarfile.TarInfo(file)
            member.size = 1 << 20
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    data = archive.getvalue()
    command = ["docker", "cp", "-", f"{name}:/v"]
    with subprocess.Popen(command, env=engine.environment, stdin=subprocess.PIPE) as copying:
        assert copying.stdin
        copying.stdin.write(data[: 3 << 19])  # the first file and half of the other
        copying.stdin.flush()
        wait_exists(engine.data / "volumes" / name / "_data/last")
        for _ in range(2):
            with tarfile.open(fileobj=io.BytesIO(engine_tar(engine, name, "/v"))) as tar:
                assert "v/first" in tar.getnames()
        copying.stdin.write(data[3 << 19 :])
    assert copying.returncode == 0
    engine.docker("rm", name)
    engine.docker("volume", "rm", name)
