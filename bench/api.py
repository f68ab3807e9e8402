"""A small Engine API client over one kept connection, so that an engine's time is told from a client's start-up."""

import http.client
import json
import socket
import struct
from typing import Any
from urllib.parse import quote


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a unix socket path."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ApiError(Exception):
    """An answer of 400 or above: (status, message)."""


class Engine:
    """One engine under test: its name in the report and its `unix://` address."""

    def __init__(self, name: str, address: str) -> None:
        if not address.startswith("unix://"):
            raise SystemExit(f"bench: only unix:// addresses, not {address}")
        self.name = name
        self.address = address
        self.path = address.removeprefix("unix://")
        self._kept = UnixConnection(self.path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request over the kept connection; the decoded JSON body, or None where there is none."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data is not None else {}
        self._kept.request(method, path, data, headers)
        answer = self._kept.getresponse()
        raw = answer.read()
        if answer.status >= 400:
            raise ApiError(answer.status, raw.decode(errors="replace"))
        return json.loads(raw) if raw.strip() and raw[:1] in b"{[" else None

    def hijack(self, path: str, body: Any = None) -> socket.socket:
        """POST with `Upgrade: tcp`; the raw stream after the head."""
        data = b"" if body is None else json.dumps(body).encode()
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(120)
        stream.connect(self.path)
        stream.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = stream.recv(1)
            if not byte:
                raise ApiError(0, f"connection closed in the head: {head!r}")
            head += byte
        if not head.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
            raise ApiError(int(head[9:12]), head.decode())
        return stream

    def create(self, image: str, command: list[str], *, network: str = "bridge", **config: Any) -> str:
        host = {"NetworkMode": network, **config.pop("HostConfig", {})}
        body = {"Image": image, "Cmd": command, "HostConfig": host, **config}
        return str(self.call("POST", "/containers/create", body)["Id"])

    def start(self, ident: str) -> None:
        self.call("POST", f"/containers/{ident}/start")

    def remove(self, ident: str) -> None:
        self.call("DELETE", f"/containers/{quote(ident)}?force=1&v=1")

    def wait_exit(self, ident: str) -> int:
        return int(self.call("POST", f"/containers/{ident}/wait")["StatusCode"])

    def exec(self, ident: str, command: list[str]) -> bytes:
        """Runs a command in a running container; its demultiplexed output."""
        created = self.call(
            "POST", f"/containers/{ident}/exec", {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        )
        stream = self.hijack(f"/exec/{created['Id']}/start", {"Detach": False, "Tty": False})
        raw = b""
        while chunk := stream.recv(65536):
            raw += chunk
        stream.close()
        out = b""
        while len(raw) >= 8:
            (size,) = struct.unpack(">I", raw[4:8])
            out, raw = out + raw[8 : 8 + size], raw[8 + size :]
        return out
