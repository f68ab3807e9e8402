"""An engine that answers anything and remembers the requests: what a client sends is compared as data."""

import json
import os
import socketserver
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ID = "0123456789abcdef" * 4


class FakeEngine:
    """Listens while it is entered; `requests` are (method, path, query, body) without the API version."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "fake.sock"
        self.requests: list[tuple[str, str, dict[str, list[str]], Any]] = []

    def __enter__(self) -> "FakeEngine":
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self) -> None:
                target = urlsplit(self.path)
                path = target.path
                if path.startswith("/v1."):
                    path = "/" + path.split("/", 2)[2]
                length = int(self.headers.get("Content-Length") or 0)
                data = self.rfile.read(length)
                body = json.loads(data) if data.strip() else None
                if path != "/_ping":
                    requests.append((self.command, path, parse_qs(target.query), body))
                reply = b"OK" if path == "/_ping" else json.dumps({"Id": ID, "Name": "x", "Warnings": []}).encode()
                self.send_response(201 if path.endswith("/create") else 200)
                self.send_header("Api-Version", "1.50")
                self.send_header("Ostype", "linux")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply)

            do_GET = do_POST = do_DELETE = do_HEAD = _answer

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(self.socket), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def run(self, command: list[str], directory: Path) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a client; its requests are in `requests`, which is emptied before."""
        self.requests.clear()
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(directory),
            "V": "from outside",
        }
        environment.pop("HAFEN_HOST", None)
        done = subprocess.run(command, capture_output=True, env=environment, cwd=directory, timeout=60, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()
