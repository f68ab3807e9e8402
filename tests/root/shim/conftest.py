"""Real containers from a busybox root, without an engine above: what `ShimLink` offers is used directly."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hafen.engine.shimlink import AttachClient, Exit, LogConfig, Shim, ShimLink, SpawnRequest
from hafen.errors import HafenError
from hafen.spec import stdcopy
from hafen.spec.runtime_config import RootMount
from tests.harness.engine import busybox_tar

_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_SETGID", "CAP_SETUID"]


class Stream:
    """Our end of an attached client."""

    def __init__(self, **wishes: Any) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        self.client = AttachClient(theirs, **wishes)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def end_input(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    async def receive(self) -> bytes:
        """What has come, at least a byte; empty at the end."""
        return await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20)

    async def until(self, text: bytes) -> bytes:
        """Everything up to the first time `text` was seen."""
        got = b""
        async with asyncio.timeout(20):
            while text not in got:
                data = await self.receive()
                assert data, f"the stream ended after {got!r}"
                got += data
        return got

    async def rest(self) -> bytes:
        got = []
        async with asyncio.timeout(60):
            while data := await self.receive():
                got.append(data)
        return b"".join(got)

    async def output(self) -> tuple[bytes, bytes]:
        """The rest of a multiplexed stream, as stdout and stderr."""
        decoder = stdcopy.Decoder()
        streams: dict[int, list[bytes]] = {stdcopy.STDOUT: [], stdcopy.STDERR: []}
        for stream, data in decoder.feed(await self.rest()):
            streams[stream].append(data)
        assert decoder.complete
        return b"".join(streams[stdcopy.STDOUT]), b"".join(streams[stdcopy.STDERR])

    def close(self) -> None:
        self.sock.close()


class World:
    """A zygote, a root file system, and directories of its own. Whatever was started ends with it."""

    def __init__(self, base: Path, root: Path) -> None:
        self.base = base
        self.root = root
        self.link = ShimLink(idle_shims=1, idle_netns=1)
        self.shims: list[Shim] = []
        self.streams: list[Stream] = []

    def stream(self, **wishes: Any) -> Stream:
        made = Stream(**wishes)
        self.streams.append(made)
        return made

    def request(self, *args: str, **changes: Any) -> SpawnRequest:
        """Fields of SpawnRequest, or `pid="host"`, `user=`, `capabilities=`, `linux=` (merged into the config's)."""
        container_id = changes.pop("container_id", None) or "shimtest" + uuid4().hex
        run_dir = str(self.base / "run" / container_id)
        data_dir = self.base / "data" / container_id
        for name in ("fs", "work"):
            (data_dir / name).mkdir(parents=True, exist_ok=True)
        terminal = bool(changes.get("terminal"))
        capabilities = changes.pop("capabilities", _CAPABILITIES)
        config = {
            "ociVersion": "1.2.0",
            "process": {
                "args": list(args),
                "cwd": "/",
                "env": ["PATH=/bin"],
                "terminal": terminal,
                "user": changes.pop("user", {"uid": 0, "gid": 0}),
                "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            },
            "root": {"path": f"{run_dir}/rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
                },
            ],
            "linux": {
                "cgroupsPath": f"/hafen/{container_id}",
                "namespaces": [
                    {"type": kind}
                    for kind in ("pid", "mount", "uts", "ipc", "network")
                    if kind != "pid" or changes.get("pid") != "host"
                ],
                **changes.pop("linux", {}),
            },
        }
        changes.pop("pid", None)
        overlay = (f"lowerdir={self.root}", f"upperdir={data_dir}/fs", f"workdir={data_dir}/work")
        fields: dict[str, Any] = {
            "container_id": container_id,
            "run_dir": run_dir,
            "data_dir": str(data_dir),
            "config": config,
            "rootfs": (RootMount("overlay", "overlay", overlay),),
            "log": LogConfig("local", f"{data_dir}/logs"),
            **changes,
        }
        return SpawnRequest(**fields)

    async def spawn(self, request: SpawnRequest, streams: Sequence[Stream] = ()) -> Shim:
        shim = await self.link.spawn(request, [stream.client for stream in streams])
        self.shims.append(shim)
        return shim

    async def run(self, *args: str, **changes: Any) -> tuple[Exit, bytes, bytes]:
        """A whole container: its exit, stdout and stderr."""
        stream = self.stream()
        shim = await self.spawn(self.request(*args, **changes), [stream])
        out, err = await stream.output()
        return await exited(shim), out, err

    async def close(self) -> None:
        for stream in self.streams:
            stream.close()
        for shim in self.shims:
            if not shim.exited.done():
                with suppress(HafenError):
                    await shim.signal(9)
                await exited(shim)
        await self.link.close()


async def exited(shim: Shim) -> Exit:
    async with asyncio.timeout(20):
        return await asyncio.shield(shim.exited)


def nothing_left(request: SpawnRequest) -> None:
    """Neither a run directory nor a cgroup."""
    assert not os.path.exists(request.run_dir)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/hafen/{request.container_id}"))


def process_args(*args: str, **fields: Any) -> dict[str, Any]:
    """An OCI process object for an exec."""
    return {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, **fields}


def ps(pid: int) -> str:
    """The state letter of a process; empty when there is none."""
    run = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return run.stdout.strip()


@pytest.fixture(scope="session")
def busybox_root() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="hafen-shim-root-"))
    subprocess.run(["tar", "x", "-C", str(base)], input=busybox_tar(), check=True)
    yield base
    shutil.rmtree(base)


@pytest.fixture
async def world(busybox_root: Path) -> AsyncIterator[World]:
    base = Path(tempfile.mkdtemp(prefix="hafen-shim-"))
    made = World(base, busybox_root)
    await made.link.start()
    yield made
    await made.close()
    assert not (base / "run").exists() or not os.listdir(base / "run"), "a run directory is left"
    shutil.rmtree(base)
