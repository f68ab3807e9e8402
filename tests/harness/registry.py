"""A registry process of ours with a root of its own, and a client of plain HTTP that adds and hides nothing."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha512(data: bytes) -> str:
    return "sha512:" + hashlib.sha512(data).hexdigest()


def descriptor(data: bytes, media_type: str, algorithm: str = "sha256", **more: object) -> dict[str, object]:
    digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


def image(*layers: bytes, config: bytes = EMPTY, config_type: str = "application/vnd.oci.image.config.v1+json",
          algorithm: str = "sha256", **more: object) -> bytes:  # fmt: skip
    """An image manifest over these blobs."""
    layer_type = "application/vnd.oci.image.layer.v1.tar"
    return json.dumps({
        "schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor(config, config_type, algorithm),
        "layers": [descriptor(layer, layer_type, algorithm) for layer in layers], **more,
    }).encode()  # fmt: skip


def index(*members: bytes, **more: object) -> bytes:
    """An index over these manifests, each of which says its own media type."""
    entries = [descriptor(member, json.loads(member)["mediaType"]) for member in members]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}).encode()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error's code."""
        return str(self.json()["errors"][0]["code"])

    @property
    def location(self) -> str:
        return self.headers["location"]


class Client:
    """One kept connection; a new one after a failure."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def __call__(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        except BaseException:
            self._connection.close()
            raise

    def push_blob(self, name: str, data: bytes) -> str:
        digest = sha256(data)
        answer = self("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, name: str, reference: str, data: bytes) -> Answer:
        return self("PUT", f"/v2/{name}/manifests/{reference}", data, {"Content-Type": json.loads(data)["mediaType"]})

    def push(self, name: str, tag: str, *layers: bytes) -> bytes:
        """An image with these layers, under this tag: its manifest."""
        for blob in (EMPTY, *layers):
            self.push_blob(name, blob)
        manifest = image(*layers)
        assert self.push_manifest(name, tag, manifest).status == 201
        return manifest

    def close(self) -> None:
        self._connection.close()


class RegistryProcess:
    """`hafen registry serve` on a free port of loopback."""

    def __init__(self, root: Path, *flags: str) -> None:
        self.root = root
        self.flags = flags
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-I", "-m", "hafen.registryd.main", "--addr", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            [*command, "--root", str(self.root), *self.flags], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.log = ""
        for line in self.process.stderr:
            self.log += line
            if found := re.search(r"listening on .* port (\d+)", line):
                self.port = int(found[1])
                return
        self._reap()
        raise AssertionError(f"the registry ended: {self.log}")

    def client(self) -> Client:
        return Client(self.port)

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        os.kill(self.process.pid, signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        _, rest = self.process.communicate(timeout=20)
        self.log += rest or ""
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.stop()
        if kind is not None:
            print(self.log)
