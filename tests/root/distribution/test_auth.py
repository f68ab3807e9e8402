"""Who may: htpasswd and token services, TLS with an authority of its own, mirrors, search and inspection."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.harness.api import call
from tests.harness.engine import EngineProcess
from tests.harness.upstream import Exchange, Proxy, Registry, layer, publish

HTPASSWD = "joe:$2y$05$jLFLy5SWKU2gW9nqKb9GMuFmakq2WoRFw4pEObvCyDqp.0B/sZLoK\n"  # bcrypt of "secret"


@pytest.fixture(scope="module")
def private(folder: Path) -> Iterator[Registry]:
    (folder / "htpasswd").write_text(HTPASSWD)
    with Registry(folder / "private", f"auth:\n  htpasswd: {{realm: r, path: {folder}/htpasswd}}\n") as process:
        yield process


@pytest.mark.parametrize("command", ["docker", "hafen"])
def test_login_push_pull_logout(engine: EngineProcess, private: Registry, command: str) -> None:
    run = getattr(engine, command)
    name = f"{private.host}/mine:latest"
    engine.docker("import", "-", name, stdin=layer({"a": b"1"}))
    refused = run("push", name, check=False)
    assert refused.code == 1
    assert "no basic auth credentials" in refused.stderr
    refused = run("login", "-u", "joe", "--password-stdin", private.host, stdin="wrong", check=False)
    assert refused.code == 1
    assert f"login attempt to http://{private.host}/v2/ failed with status: 401 Unauthorized" in refused.stderr
    assert "Login Succeeded" in run("login", "-u", "joe", "--password-stdin", private.host, stdin="secret").stdout
    saved = json.loads((engine.base / "config.json").read_text())
    assert base64.b64decode(saved["auths"][private.host]["auth"]) == b"joe:secret"
    run("push", name)
    run("rmi", name)
    run("pull", "-q", name)
    run("rmi", name)
    assert run("logout", private.host).stdout == f"Removing login credentials for {private.host}\n"
    assert private.host not in (engine.base / "config.json").read_text()
    refused = run("pull", name, check=False)
    assert "no basic auth credentials" in refused.stderr


class Tokens:
    """A token service that knows joe; each token is good for `uses` requests."""

    def __init__(self, uses: int, anonymous: bool = False) -> None:
        self.uses = uses
        self.known: list[bool] = []
        self.left: dict[str, int] = {}
        self.asked: list[dict[str, list[str]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(parse_qs(urlsplit(self.path).query))
                service.known.append(
                    self.headers.get("Authorization") == "Basic " + base64.b64encode(b"joe:secret").decode()
                )
                self._answer(anonymous or service.known[-1])

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                service.asked.append(form)
                self._answer(form.get("refresh_token") == ["refresh"])

            def _answer(self, known: bool) -> None:
                token = f"token{len(service.asked)}"
                service.left[token] = service.uses
                body = {"token": token, "expires_in": 300, "refresh_token": "refresh"} if known else {}
                data = json.dumps(body).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.server.server_port}/token"

    def guard(self, exchange: Exchange) -> None:
        """The fault of a proxy: what has no token, or one that is used up, is refused."""
        token = exchange.request_headers.get("Authorization", "").removeprefix("Bearer ")
        if self.left.get(token, 0) > 0:
            self.left[token] -= 1
            return
        exchange.status, exchange.body = 401, b""
        exchange.headers = [("WWW-Authenticate", f'Bearer realm="{self.realm}",service="test"')]

    @contextmanager
    def serving(self) -> Iterator["Tokens"]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def test_tokens_and_their_end(engine: EngineProcess, registry: Registry) -> None:
    """Three requests a token: some end in the middle of a pull."""
    publish(registry, "tokens", "latest", [layer({"a": b"1"}), layer({"b": b"2"}), layer({"c": b"3"})])
    with Tokens(3).serving() as tokens, Proxy(registry.host, tokens.guard) as proxy:
        refused = engine.docker("login", "-u", "joe", "--password-stdin", proxy.host, stdin="no", check=False)
        assert "unauthorized: incorrect username or password" in refused.stderr
        engine.docker("login", "-u", "joe", "--password-stdin", proxy.host, stdin="secret")
        assert tokens.asked[-1]["offline_token"] == ["true"]
        saved = json.loads((engine.base / "config.json").read_text())["auths"][proxy.host]
        assert saved["identitytoken"] == "refresh"
        engine.docker("pull", "-q", f"{proxy.host}/tokens")
        assert tokens.asked[-1]["grant_type"] == ["refresh_token"]
        assert tokens.asked[-1]["scope"] == ["repository:tokens:pull"]
        engine.docker("push", "-q", f"{proxy.host}/tokens")
        assert tokens.asked[-1]["scope"] == ["repository:tokens:pull,push"]
        engine.docker("rmi", f"{proxy.host}/tokens")
        engine.docker("logout", proxy.host)
        refused = engine.docker("pull", f"{proxy.host}/tokens", check=False)
        assert "unauthorized" in refused.stderr


@pytest.mark.parametrize("away", [False, True], ids=["beside", "to another host"])
def test_a_token_service_that_has_moved(engine: EngineProcess, registry: Registry, away: bool) -> None:
    """It is followed; a password goes nowhere else along with it."""
    publish(registry, "moved-tokens", "latest", [layer({"a": b"1"})])
    with Tokens(99, anonymous=away).serving() as tokens:
        host = urlsplit(tokens.realm).netloc
        elsewhere = f"http://localhost:{host.partition(':')[2]}" if away else ""

        def moved(exchange: Exchange) -> None:
            place = urlsplit(exchange.path)
            if place.path == "/token":
                exchange.status, exchange.body = 302, b""
                exchange.headers = [("Location", f"{elsewhere}/moved?{place.query}")]

        with Proxy(host, moved) as front, Proxy(registry.host, tokens.guard) as proxy:
            tokens.realm = f"http://{front.host}/token"
            (engine.base / "config.json").write_text(
                json.dumps({"auths": {proxy.host: {"auth": base64.b64encode(b"joe:secret").decode()}}})
            )
            engine.docker("pull", "-q", f"{proxy.host}/moved-tokens")
            assert [one.request_headers.get("Authorization", "")[:6] for one in front.seen[:1]] == ["Basic "]
            # each request that the front has seen it has also passed on; the last one came by the redirect
            assert tokens.known[-1] is not away
            engine.docker("rmi", f"{proxy.host}/moved-tokens")
            (engine.base / "config.json").unlink()


def test_an_authority_of_ones_own(engine: EngineProcess, folder: Path) -> None:
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=registry.test -addext "
        f"subjectAltName=DNS:registry.test -keyout {folder}/key.pem -out {folder}/cert.pem".split(),
        check=True,
        capture_output=True,
    )  # fmt: skip
    hosts = Path("/etc/hosts").read_text()
    tls = f"  tls:\n    certificate: {folder}/cert.pem\n    key: {folder}/key.pem\n"
    with Registry(folder / "tls", http=tls) as registry:
        host = f"registry.test:{registry.port}"
        Path("/etc/hosts").write_text(f"{hosts}127.0.0.1 registry.test\n")
        try:
            refused = engine.docker("pull", f"{host}/x", check=False)
            assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in refused.stderr
            place = folder / "certs.d" / host
            place.mkdir(parents=True)
            (place / "ca.crt").write_bytes((folder / "cert.pem").read_bytes())
            missing = engine.docker("pull", f"{host}/x", check=False)
            assert f"manifest for {host}/x:latest not found" in missing.stderr
            (place / "ca.crt").rename(place / "own.pem")
            (place / "hosts.toml").write_text('ca = "own.pem"\n')
            missing = engine.docker("pull", f"{host}/x", check=False)
            assert f"manifest for {host}/x:latest not found" in missing.stderr
            with Registry(folder / "clients", http=f"{tls}    clientcas: [{folder}/cert.pem]\n") as strict:
                host = f"registry.test:{strict.port}"
                place = folder / "certs.d" / host
                place.mkdir(parents=True)
                words = f'ca = "{folder}/cert.pem"\n'
                (place / "hosts.toml").write_text(words)
                refused = engine.docker("pull", f"{host}/x", check=False)
                assert "not found" not in refused.stderr
                (place / "hosts.toml").write_text(f'{words}client = [["{folder}/cert.pem", "{folder}/key.pem"]]\n')
                missing = engine.docker("pull", f"{host}/x", check=False)
                assert f"manifest for {host}/x:latest not found" in missing.stderr
                (place / "hosts.toml").write_text(f"{words}client = 'nothing.pem'\n")
                refused = engine.docker("pull", f"{host}/x", check=False)
                assert f"{place}/nothing.pem: No such file or directory" in refused.stderr
        finally:
            Path("/etc/hosts").write_text(hosts)


def test_mirrors_with_another_path(engine: EngineProcess, registry: Registry, folder: Path) -> None:
    publish(registry, "cache/hub/library/app", "latest", [layer({"a": b"1"})])
    place = folder / "certs.d" / "docker.io"
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(
        '[host."http://127.0.0.1:1"]\n'  # the first is away
        f'[host."http://{registry.host}/v2/cache/hub"]\ncapabilities = ["pull", "resolve"]\noverride_path = true\n'
    )
    engine.docker("pull", "app")
    assert "app@sha256:" in engine.docker("image", "inspect", "-f", "{{.RepoDigests}}", "app").stdout
    engine.docker("rmi", "app")


@pytest.mark.parametrize("command", ["docker", "hafen"])
def test_search_and_inspection(engine: EngineProcess, registry: Registry, command: str) -> None:
    manifest = publish(registry, "find/needle", "latest", [layer({"a": b"1"})])
    found = getattr(engine, command)("search", f"{registry.host}/needle").stdout
    assert f"{registry.host}/find/needle" in found
    shown = getattr(engine, command)("manifest", "inspect", "--insecure", f"{registry.host}/find/needle").stdout
    assert json.loads(shown)["schemaVersion"] == 2
    answer = engine.docker("version", "--format", "{{.Server.APIVersion}}")
    assert answer.code == 0
    assert str(manifest["digest"]).startswith("sha256:")


WRONG_HOSTS = {
    "[x:y": "parse \"https://[x:y\": missing ']' in host",
    "x:y": 'parse "https://x:y": invalid port ":y" after host',
    "a b.c": 'parse "https://a b.c": invalid character " " in host name',
}


@pytest.mark.parametrize("host", WRONG_HOSTS)
def test_hosts_that_there_cannot_be(engine: EngineProcess, host: str) -> None:
    """Docker's words."""
    failed = engine.docker("search", f"{host}/x", check=False)
    assert failed.stderr.strip() == f"Error response from daemon: {WRONG_HOSTS[host]}"
    login = {"username": "a", "password": "b", "serveraddress": host}
    assert call(engine, "POST", "/auth", login) == (
        400, {"message": f"unable to parse server address: {WRONG_HOSTS[host]}"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{'a' * 64}.test/x", f"dial tcp: lookup {'a' * 64}.test: no such host"),
        ("localhost:99999/x", "dial tcp: address 99999: invalid port"),
    ],
)
def test_hosts_that_no_network_has(engine: EngineProcess, name: str, words: str) -> None:
    failed = engine.docker("pull", name, check=False)
    assert failed.stderr.strip().endswith(words), failed.stderr


def test_a_token_service_that_there_cannot_be(engine: EngineProcess, registry: Registry) -> None:
    def fault(exchange: Exchange) -> None:
        exchange.status, exchange.body = 401, b""
        exchange.headers = [("WWW-Authenticate", 'Bearer realm="http://[x"')]

    with Proxy(registry.host, fault) as proxy:
        failed = engine.docker("pull", f"{proxy.host}/x", check=False)
    assert "invalid token service 'http://[x'" in failed.stderr


def test_stars_without_end(engine: EngineProcess) -> None:
    failed = engine.docker("search", "--filter", f"stars={'9' * 30}", "x", check=False)
    assert failed.stderr.strip().endswith(f'parsing "{"9" * 30}": value out of range')


@pytest.mark.parametrize(("name", "scheme"), [("127.77.1:1", "http"), ("127.78.1:1", "https")])
def test_an_insecure_network_is_meant_for_names_too(engine: EngineProcess, name: str, scheme: str) -> None:
    """These are names, of which the resolver makes 127.77.0.1 and 127.78.0.1; nobody connects to such."""
    for command in (("pull", f"{name}/x"), ("login", "-u", "a", "-p", "b", name)):
        failed = engine.docker(*command, check=False)
        assert f'Get "{scheme}://{name}/v2/": dial tcp: lookup {name[:-2]}: no such host' in failed.stderr
