"""cp, diff and export: running and stopped, and never outside of the root."""

import tarfile
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess


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
