"""A synthetic image archive in the form of `docker save`, made once per machine; its bytes do not compress."""

import hashlib
import io
import json
import os
import random
import tarfile
import tempfile

NAME = "hafen-bench/large:1"
_FILES = 3000
_SIZE = 57_000  # bytes each


def large() -> str:
    """The path of the archive, 172 MB; made where it is not there."""
    path = os.path.join(tempfile.gettempdir(), "hafen-bench-large.tar")
    if not os.path.exists(path):
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as file:
            file.write(_image(_layer()))
        os.rename(file.name, path)
    return path


def _layer() -> bytes:
    numbers = random.Random(172)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in range(_FILES):
            _add(tar, f"data/{index // 100}/{index}", numbers.randbytes(_SIZE))
    return buffer.getvalue()


def _image(layer: bytes) -> bytes:
    digest = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, name, config)
        _add(tar, "manifest.json", json.dumps([{"Config": name, "RepoTags": [NAME], "Layers": ["layer.tar"]}]).encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
