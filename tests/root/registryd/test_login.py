"""Strangers and a registry with private and public names: docker, skopeo and podman log in, push, pull as nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.harness.engine import EngineProcess
from tests.harness.registry import RegistryProcess

RULES = """
*      public/*      pull
anna   *             pull,push,delete
ci     public/*      pull,push
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(f"anna:{bcrypt.hashpw(b'apple', bcrypt.gensalt(4)).decode()}\n")
    (folder / "rules").write_text(RULES)
    flags = ("--htpasswd", str(folder / "htpasswd"), "--rules", str(folder / "rules"))
    with RegistryProcess(folder / "root", *flags) as process:
        yield process


@pytest.fixture(scope="module")
def engine(machine_left_as_found: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("e"), "--idle-shims", "1", "--idle-netns", "1") as process:
        process.load_busybox()
        yield process


@pytest.fixture(scope="module")
def ci(registry: RegistryProcess) -> str:
    """An access token's secret."""
    command = [sys.executable, "-m", "hafen.cli.main", "registry", "token", "create", "--root", str(registry.root),
               "--user", "ci", "--scope", "public/*:pull,push"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def pushed(engine: EngineProcess, registry: RegistryProcess) -> str:
    """host:port, where docker has pushed public/app and private/app after logging in as anna."""
    host = f"127.0.0.1:{registry.port}"
    engine.docker("login", "-u", "anna", "--password-stdin", host, stdin="apple")
    for name in ("public/app", "private/app"):
        engine.docker("tag", "busybox", f"{host}/{name}:v1")
        engine.docker("push", "-q", f"{host}/{name}:v1")
        engine.docker("rmi", f"{host}/{name}:v1")
    return host


def test_docker_keeps_no_password(engine: EngineProcess, pushed: str) -> None:
    saved = json.loads((engine.base / "config.json").read_text())["auths"][pushed]
    assert saved["identitytoken"].count(".") == 2
    engine.docker("pull", "-q", f"{pushed}/private/app:v1")
    engine.docker("rmi", f"{pushed}/private/app:v1")
    assert f"{pushed}/private/app" in engine.docker("search", f"{pushed}/app").stdout


def test_docker_without_a_name(engine: EngineProcess, pushed: str) -> None:
    engine.docker("logout", pushed)
    engine.docker("pull", "-q", f"{pushed}/public/app:v1")
    refused = engine.docker("pull", f"{pushed}/private/app:v1", check=False)
    assert f"pull access denied for {pushed}/private/app, repository does not exist or may require" in refused.stderr
    refused = engine.docker("push", f"{pushed}/public/app:v1", check=False)
    assert refused.code == 1
    assert "authentication required" in refused.stderr
    refused = engine.docker("login", "-u", "anna", "--password-stdin", pushed, stdin="wrong", check=False)
    assert "unauthorized: incorrect username or password" in refused.stderr


def test_docker_with_an_access_token(engine: EngineProcess, pushed: str, ci: str) -> None:
    engine.docker("login", "-u", "ci", "--password-stdin", pushed, stdin=ci)
    engine.docker("tag", "busybox", f"{pushed}/public/by-ci:v1")
    engine.docker("push", "-q", f"{pushed}/public/by-ci:v1")
    engine.docker("tag", "busybox", f"{pushed}/private/by-ci:v1")
    refused = engine.docker("push", f"{pushed}/private/by-ci:v1", check=False)
    assert "denied: " in refused.stderr


def skopeo(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, check=check)


def test_skopeo(pushed: str, ci: str, tmp_path: Path) -> None:
    base = f"docker://{pushed}"
    skopeo("copy", "--src-tls-verify=false", f"{base}/public/app:v1", f"oci:{tmp_path}/out:v1")
    assert (
        "authentication required" in skopeo("inspect", "--tls-verify=false", f"{base}/private/app", check=False).stderr
    )
    there = f"{base}/public/by-skopeo:v1"
    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", f"ci:{ci}", f"oci:{tmp_path}/out:v1", there)
    # A mount takes a token for two repositories.
    skopeo(
        "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", "anna:apple", "--dest-creds",
        "anna:apple", f"{base}/private/app:v1", f"{base}/private/mounted:v1",
    )  # fmt: skip
    skopeo("delete", "--tls-verify=false", "--creds", "anna:apple", f"{base}/private/mounted:v1")
    refused = skopeo("delete", "--tls-verify=false", "--creds", f"ci:{ci}", f"{base}/private/app:v1", check=False)
    assert refused.returncode != 0


def test_podman(pushed: str, ci: str, tmp_path: Path) -> None:
    environment = {**os.environ, "REGISTRY_AUTH_FILE": f"{tmp_path}/auth.json"}
    (tmp_path / "auth.json").write_text("{}")
    with tempfile.TemporaryDirectory(prefix="hafen-") as folder:  # podman wants a short name
        stores = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

        def podman(*arguments: str, stdin: str = "") -> None:
            command = ["podman", *stores, *arguments]
            subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True, env=environment)

        podman("pull", "--tls-verify=false", f"{pushed}/public/app:v1")
        podman("login", "--tls-verify=false", "-u", "ci", "--password-stdin", pushed, stdin=ci)
        podman("push", "--tls-verify=false", f"{pushed}/public/app:v1", f"{pushed}/public/by-podman:v1")
        podman("rmi", "-a", "-f")
