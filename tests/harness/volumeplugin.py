"""A small volume plug-in: directories below one, served as Docker's plug-in protocol has it.

Run: python tests/harness/volumeplugin.py SOCKET DIRECTORY [SCOPE [CERTIFICATE]]. Where SOCKET is `tcp` it listens on
loopback, with TLS where it has a certificate (and key, in the same file), and writes its port into the directory.

It keeps what it knows in the directory, so that it can be killed and started again; `log` there has each call, one JSON
line. A volume made with the option `fail=mount` cannot be mounted. It needs nothing of ours, as a stranger's plug-in
would not.
"""

import http.server
import json
import os
import shutil
import socketserver
import ssl
import sys
from typing import Any


class Plugin:
    """What the calls do; each answers with a JSON object."""

    def __init__(self, directory: str, scope: str) -> None:
        self.directory = directory
        self.scope = scope

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        with open(f"{self.directory}/log", "a") as log:
            log.write(json.dumps([method, body]) + "\n")
        name = body.get("Name", "")
        call = getattr(self, method.rpartition(".")[2].lower(), None)
        return call(name, body) if call else {"Err": f"unknown method {method}"}

    def _data(self, name: str) -> str:
        return f"{self.directory}/{name}/data"

    def _known(self, name: str) -> bool:
        return os.path.isdir(self._data(name))

    def activate(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"Implements": ["VolumeDriver"]}

    def capabilities(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"Capabilities": {"Scope": self.scope}}

    def create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        options = body.get("Opts") or {}
        if options.get("fail") == "create":
            return {"Err": "told to fail"}
        os.makedirs(self._data(name), exist_ok=True)
        with open(f"{self.directory}/{name}/options", "w") as file:
            json.dump(options, file)
        return {}

    def remove(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self._known(name):
            return {"Err": f"no volume {name}"}
        shutil.rmtree(f"{self.directory}/{name}")
        return {}

    def mount(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self._known(name):
            return {"Err": f"no volume {name}"}
        with open(f"{self.directory}/{name}/options") as file:
            if json.load(file).get("fail") == "mount":
                return {"Err": "told to fail"}
        with open(f"{self.directory}/{name}/mounted", "w"):
            return {"Mountpoint": self._data(name)}

    def unmount(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if os.path.exists(f"{self.directory}/{name}/mounted"):
            os.unlink(f"{self.directory}/{name}/mounted")
        return {}

    def path(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"Mountpoint": self._data(name)} if self._known(name) else {"Err": f"no volume {name}"}

    def get(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if not self._known(name):
            return {"Err": f"no volume {name}"}
        mounted = os.path.exists(f"{self.directory}/{name}/mounted")
        mountpoint = self._data(name) if mounted else ""
        return {"Volume": {"Name": name, "Mountpoint": mountpoint, "Status": {"mounted": mounted}}}

    def list(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        names = [entry for entry in sorted(os.listdir(self.directory)) if self._known(entry)]
        return {"Volumes": [self.get(entry, body)["Volume"] for entry in names]}


class Handler(http.server.BaseHTTPRequestHandler):
    plugin: Plugin

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.plugin.answer(self.path.lstrip("/"), json.loads(raw) if raw.strip() else {})
        data = json.dumps(answer).encode()
        self.send_response(500 if answer.get("Err") else 200)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("plugin", 0)


if __name__ == "__main__":
    path, directory = sys.argv[1:3]
    Handler.plugin = Plugin(directory, sys.argv[3] if len(sys.argv) > 3 else "local")
    if path == "tcp":
        tcp = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if len(sys.argv) > 4:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(sys.argv[4])
            tcp.socket = context.wrap_socket(tcp.socket, server_side=True)
        with open(f"{directory}/port", "w") as file:
            file.write(str(tcp.server_port))
        tcp.serve_forever()
    if os.path.exists(path):
        os.unlink(path)
    with Server(path, Handler) as server:
        server.serve_forever()
