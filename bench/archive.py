"""Image archives in the form of `docker save`, made once per machine: a Debian, and a tree of many small files."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable

DEBIAN = "hafen-bench/debian:1"
TREE = "hafen-bench/tree:1"
_FILES = 50_000
_PER_DIRECTORY = 25
_WORDS = 2000


def debian() -> str:
    """The path of an archive of Debian 12 with perl: 8,000 files, 172 MB."""
    return _kept("debian", DEBIAN, _debian)


def tree() -> str:
    """The path of an archive of 50,000 files of some 2 KB, as a package manager's directory has them."""
    return _kept("tree", TREE, _tree)


def _kept(what: str, name: str, make: Callable[[str], bytes]) -> str:
    path = os.path.join(tempfile.gettempdir(), f"hafen-bench-{what}.tar")
    if not os.path.exists(path):
        with tempfile.TemporaryDirectory(prefix="hafen-bench-") as folder:
            data = _image(make(folder), name)
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as file:
            file.write(data)
        os.rename(file.name, path)
    return path


def _debian(folder: str) -> bytes:
    root = f"{folder}/root"
    command = ["debootstrap", "--variant=minbase", "--include=perl", "bookworm", root]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for rest in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(f"{root}/{rest}")
    return subprocess.run(["tar", "--numeric-owner", "-C", root, "-c", "."], check=True, stdout=subprocess.PIPE).stdout


def _tree(_: str) -> bytes:
    numbers = random.Random(50)
    words = [numbers.randbytes(numbers.randrange(1, 6)).hex() for _ in range(_WORDS)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in range(_FILES):
            text = " ".join(numbers.choices(words, k=numbers.randrange(50, 500)))
            _add(tar, f"modules/{index // _PER_DIRECTORY}/{index}.js", text.encode())
    return buffer.getvalue()


def _image(layer: bytes, name: str) -> bytes:
    digest = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    ).encode()
    document = hashlib.sha256(config).hexdigest() + ".json"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, document, config)
        manifest = [{"Config": document, "RepoTags": [name], "Layers": ["layer.tar"]}]
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
