"""One engine, the strangers' tools, our registry with TLS and passwords, and Debian's docker-registry."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.registry import RegistryProcess
from tests.harness.strangers import Strangers
from tests.harness.upstream import Registry

HTPASSWD = "joe:$2y$05$jLFLy5SWKU2gW9nqKb9GMuFmakq2WoRFw4pEObvCyDqp.0B/sZLoK\n"  # bcrypt of "secret"


@dataclass(frozen=True)
class Place:
    """All who meet here: `hosts` are the registries, by name."""

    engine: EngineProcess
    strangers: Strangers
    hosts: dict[str, str]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hafen-strangers-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def place(machine_left_as_found: None, folder: Path) -> Iterator[Place]:
    (folder / "htpasswd").write_text(HTPASSWD)
    certificate = folder / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext "
        f"subjectAltName=IP:127.0.0.1 -keyout {folder}/key.pem -out {certificate}".split(),
        check=True,
        capture_output=True,
    )  # fmt: skip
    guarded = ("--tls-cert", str(certificate), "--tls-key", f"{folder}/key.pem", "--htpasswd", f"{folder}/htpasswd")
    with ExitStack() as stack:
        ours = stack.enter_context(RegistryProcess(folder / "ours", *guarded))
        theirs = stack.enter_context(Registry(folder / "theirs"))
        hosts = {"hafen": f"127.0.0.1:{ours.port}", "docker-registry": theirs.host}
        strangers = Strangers(folder / "strangers", (theirs.host,), {hosts["hafen"]: certificate})
        engine = stack.enter_context(EngineProcess(folder / "e", "--idle-shims", "1", "--idle-netns", "1"))
        engine.load_busybox()
        strangers.skopeo("login", "-u", "joe", "--password-stdin", hosts["hafen"], stdin="secret")
        engine.docker("login", "-u", "joe", "--password-stdin", hosts["hafen"], stdin="secret")
        yield Place(engine, strangers, hosts)


@pytest.fixture(params=["hafen", "docker-registry"])
def host(request: pytest.FixtureRequest, place: Place) -> str:
    """HOST:PORT of each registry in turn."""
    return place.hosts[request.param]
