"""Other people's registries for tests: docker-registry, a proxy that misbehaves on demand, images of every format."""

import gzip
import hashlib
import http.client
import io
import json
import socket
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from tests.harness.ports import free_port

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

Descriptor = dict[str, object]


class Registry:
    """docker-registry on loopback with its data in `folder`; `http` and `extra` go into its configuration."""

    def __init__(self, folder: Path, extra: str = "", http: str = "") -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        config = folder / "config.yml"
        config.write_text(
            f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {folder}/data}}\n  delete: {{enabled: true}}\n"
            f"{extra}http:\n  addr: {self.host}\n{http}"
        )
        with self.log.open("wb") as log:
            command = ["docker-registry", "serve", str(config)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_listening()

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + 15
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)  # it tells nobody that it listens

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "") -> http.client.HTTPResponse:
        """The answer, read by the caller."""
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        headers = {"Accept": f"{DOCKER}, {OCI}, {DOCKER_LIST}, {OCI_INDEX}"}
        if kind:
            headers["Content-Type"] = kind
        request = urllib.request.Request(url, body or None, headers, method=method)
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=20)
        return answer

    def blob(self, repository: str, data: bytes) -> Descriptor:
        """Uploads it; its digest and size for a descriptor."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        place = self.call("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        separator = "&" if "?" in place else "?"
        self.call("PUT", f"{place}{separator}digest={digest}", data, "application/octet-stream").read()
        return {"digest": digest, "size": len(data)}

    def manifest(self, repository: str, tag: str, document: Descriptor) -> Descriptor:
        """Uploads it; its descriptor."""
        data, kind = json.dumps(document).encode(), str(document["mediaType"])
        self.call("PUT", f"/v2/{repository}/manifests/{tag}", data, kind).read()
        return {"mediaType": kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


def layer(files: dict[str, bytes]) -> bytes:
    """A layer's tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def publish(
    registry: Registry,
    repository: str,
    tag: str,
    layers: list[bytes],
    *,
    compress: Callable[[bytes], bytes] = gzip.compress,
    suffix: str = "gzip",
    oci: bool = False,
    architecture: str = "amd64",
    damage: Callable[[list[Descriptor]], None] | None = None,
) -> Descriptor:
    """An image of these layers, each compressed so; the descriptor of its manifest. `damage` may lie in it."""
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]},
    }
    kind = "application/vnd.oci.image.layer.v1.tar" if oci else "application/vnd.docker.image.rootfs.diff.tar"
    mark = f"{'+' if oci else '.'}{suffix}" if suffix else ""
    described = [{"mediaType": kind + mark, **registry.blob(repository, compress(one))} for one in layers]
    if damage is not None:
        damage(described)
    config_kind = "vnd.oci.image.config.v1+json" if oci else "vnd.docker.container.image.v1+json"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI if oci else DOCKER,
        "config": {
            "mediaType": f"application/{config_kind}",
            **registry.blob(repository, json.dumps(config).encode()),
        },
        "layers": described,
    }
    return registry.manifest(repository, tag, document)


class Exchange:
    """One request on its way through the proxy. What `before` is told of it may change `request_body`, or let only
    `arrives` bytes of that get through before the line dies. A fault may change `status`, `headers` and `body`, cut
    the answer after `cut` bytes of its body or lose all of it, or hold the second half back until `pause` is set."""

    def __init__(self, method: str, path: str, headers: dict[str, str], request_body: bytes) -> None:
        self.method = method
        self.path = path
        self.request_headers = headers
        self.request_body = request_body
        self.arrives: int | None = None
        self.lost = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.cut: int | None = None
        self.pause: threading.Event | None = None


Fault = Callable[[Exchange], None]


class Proxy:
    """A registry in front of another one, whose answers `fault` may spoil. `seen` are its requests, `sent` the bytes
    of blobs that went to clients."""

    def __init__(self, target: str, fault: Fault = lambda _: None, before: Fault = lambda _: None) -> None:
        self.target = target
        self.fault = fault
        self.before = before
        self.seen: list[Exchange] = []
        self.sent = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                proxy._exchange(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _exchange(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        exchange = Exchange(handler.command, handler.path, dict(handler.headers.items()), body)
        self.seen.append(exchange)
        self.before(exchange)
        if exchange.arrives is not None:
            self._ask(exchange, exchange.request_body[: exchange.arrives], ("content-length", "content-range"))
            self._hang_up(handler)
            return
        self._ask(exchange, exchange.request_body)
        self.fault(exchange)
        if exchange.lost:
            self._hang_up(handler)
            return
        self._answer(handler, exchange)

    def _ask(self, exchange: Exchange, body: bytes, without: tuple[str, ...] = ("content-length",)) -> None:
        headers = {name: value for name, value in exchange.request_headers.items() if name.lower() not in without}
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            connection.request(exchange.method, exchange.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            exchange.status, exchange.headers, exchange.body = answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, handler: BaseHTTPRequestHandler, exchange: Exchange) -> None:
        handler.send_response(exchange.status)
        length = str(len(exchange.body))
        for name, value in exchange.headers:
            if name.lower() == "content-length" and handler.command == "HEAD":
                length = value
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                handler.send_header(name, value.replace(f"http://{self.target}", f"http://{self.host}"))
        handler.send_header("Content-Length", length)
        handler.end_headers()
        body = exchange.body if exchange.cut is None else exchange.body[: exchange.cut]
        half = len(body) // 2 if exchange.pause is not None else len(body)
        try:
            self._write(handler, exchange, body[:half])
            if exchange.pause is not None:
                exchange.pause.wait(20)
                self._write(handler, exchange, body[half:])
        except OSError:
            handler.close_connection = True  # the client has gone
            return
        if len(body) < len(exchange.body):
            self._hang_up(handler)

    def _write(self, handler: BaseHTTPRequestHandler, exchange: Exchange, data: bytes) -> None:
        handler.wfile.write(data)
        handler.wfile.flush()
        if "/blobs/" in exchange.path and exchange.method == "GET":
            self.sent += len(data)

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with suppress(OSError):  # the client was first
            handler.connection.shutdown(socket.SHUT_RDWR)
