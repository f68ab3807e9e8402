"""One engine per module that listens on a unix socket and, for clients with certificates, on TLS."""

import gc
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.tls import TLSConfig

from tests.harness.engine import EngineProcess
from tests.harness.ports import free_port

# The names under which other projects' suites look for a small image.
IMAGES = ("alpine:latest", "alpine:3.10", "busybox:buildroot-2014.02", "hello-world:latest", "postgres:latest")


@dataclass(frozen=True, slots=True)
class Serving:
    """An engine and how to reach it: `certificate` is authority, certificate and key in one file."""

    engine: EngineProcess
    certificate: Path
    port: int

    def client(self, transport: str) -> docker.DockerClient:
        if transport == "unix":
            return docker.DockerClient(base_url=self.engine.address, timeout=30)
        files = str(self.certificate)
        tls = TLSConfig(client_cert=(files, files), ca_cert=files, verify=True)
        return docker.DockerClient(base_url=f"tcp://localhost:{self.port}", tls=tls, timeout=30)


@pytest.fixture(scope="module")
def serving(machine_left_as_found: None) -> Iterator[Serving]:
    with tempfile.TemporaryDirectory(prefix="hafen-clients-") as name:
        folder = Path(name)
        certificate, port = _certificate(folder), free_port()
        engine = EngineProcess(
            folder / "e",
            *("--host", f"unix://{folder}/e/run/hafen.sock", "--host", f"tcp://127.0.0.1:{port}", "--tlsverify"),
            *("--tlscacert", str(certificate), "--tlscert", str(certificate), "--tlskey", str(certificate)),
        )
        with engine:
            engine.load_busybox()
            for image in IMAGES:
                engine.docker("tag", "busybox", image)
            yield Serving(engine, certificate, port)


@pytest.fixture
def engine(serving: Serving) -> Iterator[EngineProcess]:
    """The engine; whatever containers, networks and volumes a test made are removed."""
    yield serving.engine
    with closing(serving.client("unix")) as client:
        for container in client.containers.list(all=True, ignore_removed=True, sparse=True):
            container.remove(force=True, v=True)
        for network in client.networks.list(filters={"type": "custom"}):
            network.remove()
        for volume in client.volumes.list():
            volume.remove()


@pytest.fixture(params=["unix", "tls"])
def client(
    request: pytest.FixtureRequest, serving: Serving, engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> Iterator[docker.DockerClient]:
    """docker-py's client, once over each transport."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers them to the authority that it is given
        monkeypatch.delenv(variable, raising=False)
    if request.param == "tls" and shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    with closing(serving.client(request.param)) as client:
        yield client
    gc.collect()  # docker-py leaves sockets to it, and what it warns of belongs to this test


def _certificate(folder: Path) -> Path:
    """A certificate and its key, for both sides, trusted by both."""
    key, path = folder / "key.pem", folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path
