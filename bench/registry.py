"""Our registry beside Debian's docker-registry on loopback: `python -m bench.registry`

Reports, for each in turn, round by round: a large blob's download and upload rate, and small requests a second over
eight kept connections. The client is one process that parses next to nothing. It judges nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONNECTIONS = 8
IMAGE = "application/vnd.oci.image.manifest.v1+json"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def ours(port: int, root: Path) -> list[str]:
    return [sys.executable, "-I", "-m", "hafen.registryd.main", "--addr", f"127.0.0.1:{port}", "--root", str(root)]


def debians(port: int, root: Path) -> list[str]:
    config = root / "config.json"  # JSON is YAML
    config.write_text(json.dumps({
        "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }))  # fmt: skip
    return ["docker-registry", "serve", str(config)]


@contextmanager
def running(command: Callable[[int, Path], list[str]]) -> Iterator[int]:
    """The port of a registry that answers."""
    with tempfile.TemporaryDirectory(prefix="hafen-bench-registry-") as folder:
        port = free_port()
        process = subprocess.Popen(command(port, Path(folder)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None:
                        raise SystemExit(f"{process.args!r} ended") from None
                    time.sleep(0.01)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


class Connection:
    """Requests over one socket; answers are told apart by Content-Length alone."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)

    def head(self) -> tuple[int, int, str]:
        """(status, bytes of the body that are still to come, Location)."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionResetError("the registry closed the connection")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
        fields = {name.lower(): value for name, value in lines.items()}
        return int(head[9:12]), int(fields.get("content-length", 0)) - len(body), fields.get("location", "")

    def skip(self, left: int) -> None:
        while left > 0:
            left -= self.sock.recv_into(self._buffer, min(left, len(self._buffer)))

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode())
        self.sock.sendall(body)
        status, left, location = self.head()
        self.skip(0 if method == "HEAD" else left)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status}")
        return location

    def push(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        location = self.call("POST", "/v2/bench/blobs/uploads/")
        path = "/" + location.partition("://")[2].partition("/")[2] if "://" in location else location
        self.call("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", data)
        return digest


def rate(port: int, request: bytes, seconds: float) -> float:
    """Answers a second over some connections, each with one request on its way."""
    selector, done = selectors.DefaultSelector(), 0
    connections = [Connection(port) for _ in range(CONNECTIONS)]
    for connection in connections:
        selector.register(connection.sock, selectors.EVENT_READ, connection)
        connection.sock.sendall(request)
    begin = time.perf_counter()
    while time.perf_counter() < begin + seconds:
        for key, _ in selector.select():
            status, left, _ = key.data.head()
            if status != 200:
                raise SystemExit(f"{request!r}: {status}")
            key.data.skip(0 if request.startswith(b"HEAD") else left)
            key.data.sock.sendall(request)
            done += 1
    elapsed = time.perf_counter() - begin
    for connection in connections:
        connection.sock.close()
    return done / elapsed


def measure(port: int, size: int, seconds: float) -> dict[str, float]:
    connection, data, found = Connection(port), os.urandom(size), {}
    begin = time.perf_counter()
    digest = connection.push(data)
    found["blob upload, MiB/s"] = size / (time.perf_counter() - begin) / (1 << 20)
    begin = time.perf_counter()
    for _ in range(3):
        connection.call("GET", f"/v2/bench/blobs/{digest}")
    found["blob download, MiB/s"] = 3 * size / (time.perf_counter() - begin) / (1 << 20)
    small = connection.push(b"{}")
    part = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": small, "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": IMAGE, "config": part, "layers": []}
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        text = json.dumps({**manifest, "annotations": {"number": str(count)}}).encode()
        connection.call("PUT", f"/v2/bench/manifests/t{count % 10}", text, IMAGE)
        count += 1
    found["manifest PUT /s"] = count / (time.perf_counter() - begin)
    for method in ("GET", "HEAD"):
        request = f"{method} /v2/bench/manifests/t1 HTTP/1.1\r\nHost: x\r\nAccept: {IMAGE}\r\n\r\n".encode()
        found[f"manifest {method} /s"] = rate(port, request, seconds)
    found["small blob GET /s"] = rate(
        port, f"GET /v2/bench/blobs/{small} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), seconds
    )
    connection.sock.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="of the large blob, MiB")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each rate")
    flags = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"hafen": [], "docker-registry": []}
    for _ in range(flags.rounds):
        for name, command in (("hafen", ours), ("docker-registry", debians)):
            with running(command) as port:
                results[name].append(measure(port, flags.size << 20, flags.seconds))
    print(f"{'':24}{'hafen':>12}{'debian':>12}{'ratio':>8}")
    for what in results["hafen"][0]:
        mine, theirs = (statistics.median(one[what] for one in values) for values in results.values())
        print(f"{what:24}{mine:12.0f}{theirs:12.0f}{mine / theirs:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
