"""Clients that leave while their upload becomes a blob: it does all the same, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hafen.registryd import config
from hafen.registryd.collect import BlobSweep
from hafen.registryd.rows import Rows
from hafen.registryd.schema import MIGRATIONS
from hafen.registryd.service import Kept, serving
from hafen.registryd.store import LocalBlobs
from hafen.spec import digest as digests
from hafen.spec.digest import Digest
from hafen.storage.collect import Leases
from hafen.storage.database import Database
from tests.harness.ports import free_port

DATA = b"sent whole"
DIGEST = digests.of(DATA)
PATIENCE = 20.0  # seconds


class SlowDisk(LocalBlobs):
    """A file becomes a blob when the test says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), f"{root}/content")
        self.reached = threading.Event()
        self.ready = threading.Event()

    def adopt(self, path: str, digest: Digest) -> None:
        self.reached.set()
        assert self.ready.wait(PATIENCE)
        super().adopt(path, digest)


class Here:
    """A registry for this process, over a slow disk."""

    def __init__(self, root: Path, database: Database) -> None:
        self.port = free_port()
        self.disk, self.leases, self.rows = SlowDisk(root), Leases(), Rows(database)
        sweep = BlobSweep(self.rows, self.disk, self.leases)
        self.kept = Kept(str(root), database, self.rows, self.disk, self.leases, sweep)
        self.config = config.parse(["--addr", f"127.0.0.1:{self.port}", "--root", str(root)])

    async def send(self, method: str, target: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{method} {target} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    async def ask(self, method: str, target: str) -> str:
        """The answer, head and body."""
        reader, writer = await self.send(method, target, b"")
        with closing(writer):
            return (await asyncio.wait_for(reader.read(), PATIENCE)).decode()

    async def leave_while_committing(self, method: str, target: str) -> None:
        """Send all of it, and go when it is about to become a blob; others have been answered since."""
        _, writer = await self.send(method, target, DATA)
        assert await asyncio.to_thread(self.disk.reached.wait, PATIENCE)
        _reset(writer)
        for _ in range(3):
            assert " 200 " in await self.ask("GET", "/v2/")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close it so that the registry sees it at once: of an end alone it waits to see whether it was the client's."""
    option = struct.pack("ii", 1, 0)  # linger, for no time: socket(7)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
    writer.transport.abort()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with closing(Database(tmp_path / "registry.db", MIGRATIONS)) as database:
        yield Here(tmp_path, database)


@pytest.mark.parametrize("how", ["in one request", "in two"])
async def test_what_was_sent_whole_is_there_though_its_client_has_left(here: Here, how: str) -> None:
    async with serving(here.config, here.kept), asyncio.timeout(2 * PATIENCE):
        method, target = "POST", f"/v2/a/blobs/uploads/?digest={DIGEST}"
        if how == "in two":
            begun = await here.ask("POST", "/v2/a/blobs/uploads/")
            location = begun.partition("Location: ")[2].partition("\r\n")[0]
            method, target = "PUT", f"{location}?digest={DIGEST}"
        await here.leave_while_committing(method, target)
        assert DIGEST in here.leases.held  # collection leaves it alone until its row is there
        here.disk.ready.set()
        while " 200 " not in await here.ask("HEAD", f"/v2/a/blobs/{DIGEST}"):
            pass
        assert here.rows.uploads() == set()
        assert (await here.ask("GET", f"/v2/a/blobs/{DIGEST}")).endswith(DATA.decode())


async def test_a_registry_that_stops_finishes_it_first(here: Here) -> None:
    async with serving(here.config, here.kept), asyncio.timeout(2 * PATIENCE):
        await here.leave_while_committing("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}")
        threading.Timer(0.2, here.disk.ready.set).start()  # while it stops, or before: either way it is there after
    assert here.rows.linked("a", DIGEST) == len(DATA)
