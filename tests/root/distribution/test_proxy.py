"""Registries behind a proxy of the environment, credential helpers, and `docker manifest` against both registries."""

import base64
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.forward import ForwardProxy
from tests.harness.registry import RegistryProcess
from tests.harness.upstream import Registry, layer, publish
from tests.root.distribution.test_auth import HTPASSWD

SECURE, PLAIN = "secure.test:443", "plain.test:5000"


@pytest.fixture(scope="module")
def behind(folder: Path, registry: Registry) -> Iterator[dict[str, tuple[str, int]]]:
    """Two registries that only a proxy can reach: one over TLS, one over plain HTTP."""
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=secure.test -addext "
        f"subjectAltName=DNS:secure.test -keyout {folder}/p-key.pem -out {folder}/p-cert.pem".split(),
        check=True,
        capture_output=True,
    )  # fmt: skip
    place = folder / "proxied.d" / "secure.test"
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes((folder / "p-cert.pem").read_bytes())
    tls = f"  tls:\n    certificate: {folder}/p-cert.pem\n    key: {folder}/p-key.pem\n"
    with Registry(folder / "behind", http=tls) as secure:
        yield {SECURE: ("127.0.0.1", secure.port), PLAIN: ("127.0.0.1", registry.port)}


@pytest.fixture
def proxied(
    machine_left_as_found: None,
    folder: Path,
    behind: dict[str, tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[tuple[EngineProcess, ForwardProxy]]:
    password = getattr(request, "param", "")
    with ForwardProxy(behind, password) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "straight.test,10.0.0.0/8")
        flags = ("--registry-certs", str(folder / "proxied.d"), "--insecure-registry", PLAIN)
        base = folder / f"proxied-{len(password)}"
        with EngineProcess(base, "--idle-shims", "1", "--idle-netns", "1", *flags) as engine:
            for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                monkeypatch.delenv(name)
            yield engine, proxy


@pytest.mark.parametrize("proxied", ["", "user:secret"], indirect=True, ids=["open", "with a password"])
def test_pull_and_push_through_a_proxy(proxied: tuple[EngineProcess, ForwardProxy], registry: Registry) -> None:
    engine, proxy = proxied
    for host in ("secure.test", PLAIN):
        name = f"{host}/proxied:{os.urandom(4).hex()}"
        engine.docker("import", "-", name, stdin=layer({"noise": os.urandom(300_000)}))
        engine.docker("push", "-q", name)
        engine.docker("rmi", name)
        engine.docker("pull", "-q", name)
        engine.docker("rmi", name)
    assert f"CONNECT {SECURE}" in proxy.seen
    assert any(line.startswith(f"GET http://{PLAIN}/v2/proxied/blobs/") for line in proxy.seen)
    asked = len(proxy.seen)
    publish(registry, "straight", "latest", [layer({"a": b"1"})])
    engine.docker("pull", "-q", f"{registry.host}/straight")  # loopback goes by no proxy
    refused = engine.docker("pull", "straight.test/x", check=False)
    assert "no such host" in refused.stderr
    assert len(proxy.seen) == asked


HELPER = """#!/bin/sh
case $1 in
  store) cat > "$0.kept" ;;
  get) [ -e "$0.kept" ] && cat "$0.kept" || { echo "credentials not found in native keychain"; exit 1; } ;;
  erase) rm -f "$0.kept" ;;
esac
"""


@pytest.mark.parametrize("program", ["docker", "hafen"])
@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
def test_credential_helpers(
    engine: EngineProcess, folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, setting: str
) -> None:
    directory = folder / f"{program}-{setting}"
    directory.mkdir()
    helper = directory / "docker-credential-testing"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    users = directory / "users"
    users.write_text(HTPASSWD)
    auth = f"auth:\n  htpasswd:\n    realm: here\n    path: {users}\n"
    command = engine.docker if program == "docker" else engine.hafen
    config = engine.base / "config.json"
    with Registry(directory / "registry", extra=auth) as private:
        chosen: object = "testing" if setting == "credsStore" else {private.host: "testing"}
        config.write_text(json.dumps({setting: chosen}))
        try:
            command("login", "-u", "joe", "--password-stdin", private.host, stdin="secret")
            assert json.loads((directory / "docker-credential-testing.kept").read_text())["Secret"] == "secret"
            assert "secret" not in config.read_text()
            assert base64.b64encode(b"joe:secret").decode() not in config.read_text()
            name = f"{private.host}/kept:1"
            engine.docker("import", "-", name, stdin=layer({"a": b"1"}))
            command("push", "-q", name)
            engine.docker("rmi", name)
            command("pull", "-q", name)
            command("logout", private.host)
            refused = command("push", "-q", name, check=False)
            assert "no basic auth credentials" in refused.stderr
            engine.docker("rmi", name)
        finally:
            config.unlink()


@pytest.mark.parametrize("kind", ["docker-registry", "hafen"])
def test_a_manifest_list_made_with_docker(engine: EngineProcess, registry: Registry, folder: Path, kind: str) -> None:
    with RegistryProcess(folder / f"manifests-{kind}") as ours:
        host = registry.host if kind == "docker-registry" else f"127.0.0.1:{ours.port}"
        for architecture in ("amd64", "arm64"):
            name = f"{host}/lists:{architecture}"
            data = layer({"arch": architecture.encode()})
            engine.docker("import", "--platform", f"linux/{architecture}", "-", name, stdin=data)
            engine.docker("push", "-q", name)
            engine.docker("rmi", name)
        members = [f"{host}/lists:{architecture}" for architecture in ("amd64", "arm64")]
        engine.docker("manifest", "create", "--insecure", f"{host}/lists:all", *members)
        engine.docker("manifest", "annotate", "--variant", "v8", f"{host}/lists:all", members[1])
        pushed = engine.docker("manifest", "push", "--insecure", "-p", f"{host}/lists:all").stdout.strip()
        shown = json.loads(engine.docker("manifest", "inspect", "--insecure", f"{host}/lists:all").stdout)
        assert [one["platform"]["architecture"] for one in shown["manifests"]] == ["amd64", "arm64"]
        assert shown["manifests"][1]["platform"]["variant"] == "v8"
        assert json.loads(engine.hafen("manifest", "inspect", "--insecure", f"{host}/lists:all").stdout) == shown
        for platform in ("linux/arm64", "linux/amd64"):
            said = engine.docker("pull", "--platform", platform, f"{host}/lists:all").stdout
            assert f"Digest: {pushed}" in said
        engine.docker("rmi", f"{host}/lists:all")


AUTHS = {
    "": 200,
    "e30=": 200,  # {}
    "e30": 200,
    "bnVsbA==": 200,  # null
    "!!!": 200,
    "W10=": 200,  # []
    "e": 200,
    base64.urlsafe_b64encode(b'{"username":"\xc3\xbc","password":"\xff"}').decode(): 200,
    base64.urlsafe_b64encode(b'{"auth":"bm9uc2Vuc2U="}').decode(): 200,
    base64.b64encode(b'{"username":"joe","password":"??>>"}').decode(): 200,
    base64.urlsafe_b64encode(b'{"username":7}').decode(): 200,
}


@pytest.mark.parametrize("header", AUTHS)
def test_odd_credentials_fail_no_pull(engine: EngineProcess, registry: Registry, header: str) -> None:
    """Docker's pull takes what it cannot read for nobody's; a registry that asks for no name does not care."""
    publish(registry, "odd", "latest", [layer({"a": b"1"})])
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))
    path = f"/v1.47/images/create?fromImage={registry.host}/odd&tag=latest"
    connection.request("POST", path, headers={"X-Registry-Auth": header})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert (answer.status, "errorDetail" in text) == (AUTHS[header], False), text
