"""An image store of its own for a test, and archives to feed it."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hafen.engine.images import Images, ImageStore, ImageUser
from hafen.spec.platform import of_machine
from hafen.spec.wire.image import Progress
from hafen.storage.archive import DEFAULT_LIMITS, Limits
from hafen.storage.content import LocalContent
from hafen.storage.database import Database
from hafen.storage.overlay import OverlaySnapshotter
from hafen.storage.vfs import VfsSnapshotter


class Bench:
    """Everything below one directory; `events` are (action, name)."""

    def __init__(self, root: Path, driver: str = "overlay", limits: Limits = DEFAULT_LIMITS) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.database = Database(root / "hafen.db")
        directory = str(root / "snapshots")
        kind = OverlaySnapshotter if driver == "overlay" else VfsSnapshotter
        self.snapshots: OverlaySnapshotter | VfsSnapshotter = kind(self.database, directory)
        self.events: list[tuple[str, str]] = []
        self.users: dict[str, list[ImageUser]] = {}
        content = LocalContent(str(root / "content"))
        machine = of_machine(os.uname().machine)
        self.store = ImageStore(self.database, content, self.snapshots, self._heard, machine, limits)
        self.images = Images(self.store, lambda identity: self.users.get(identity, []))
        self.images.recover(str(root), str(root / "run"))

    def _heard(self, _: str, action: str, __: str, attributes: Mapping[str, str]) -> None:
        self.events.append((action, attributes.get("name", "")))

    def close(self) -> None:
        self.images.close()
        self.snapshots.close()
        self.database.close()

    async def bring(self, messages: AsyncIterator[Progress]) -> list[Progress]:
        """All messages of a load, import or bootstrap."""
        return [message async for message in messages]

    async def load(self, data: bytes, quiet: bool = True) -> list[str]:
        """What `docker load` prints."""
        return [message.stream for message in await self.bring(self.images.load(stream(data), quiet)) if message.stream]

    async def import_(self, data: bytes, name: str = "", *changes: str) -> str:
        repo, _, tag = name.partition(":")
        messages = await self.bring(self.images.import_(stream(data), repo or None, tag or None, None, changes))
        return messages[-1].status

    async def save(self, *refs: str) -> bytes:
        return b"".join([piece async for piece in self.images.save(refs)])

    def files(self) -> set[str]:
        """Every blob, file being written, and snapshot directory on disk."""
        self.snapshots.wait_removed()
        found = {str(path.relative_to(self.root)) for path in (self.root / "content").rglob("*") if path.is_file()}
        return found | {f"snapshots/{name}" for name in os.listdir(self.root / "snapshots")}

    def write(self, key: str, name: str, text: str) -> None:
        """A file in a container's root."""
        descriptor = self.snapshots.tree(key).open_root(readonly=False)
        try:
            Path(f"/proc/self/fd/{descriptor}/{name}").write_text(text)
        finally:
            os.close(descriptor)

    def read(self, key: str, name: str) -> str:
        """The same, read."""
        descriptor = self.snapshots.tree(key).open_root(readonly=True)
        try:
            return Path(f"/proc/self/fd/{descriptor}/{name}").read_text()
        finally:
            os.close(descriptor)

    def damage(self, ref: str, name: str) -> None:
        """Change a file of an image's top layer behind the store's back."""
        image = self.images.resolve(ref)
        assert image.snapshot is not None
        path = Path(self.snapshots.directory(image.snapshot), name)
        path.write_text(path.read_text().swapcase())

    def content_of(self, ref: str) -> dict[str, bytes]:
        """Regular files of an image, by path."""
        image = self.images.resolve(ref)
        assert image.snapshot is not None
        descriptor = self.snapshots.tree(image.snapshot).open_root(readonly=True)
        try:
            root = Path(f"/proc/self/fd/{descriptor}")
            return {
                str(path.relative_to(root)): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file() and not path.is_symlink()
            }
        finally:
            os.close(descriptor)


@contextmanager
def bench(root: Path, driver: str = "overlay", limits: Limits = DEFAULT_LIMITS) -> Iterator[Bench]:
    """A bench, closed whatever happens."""
    made = Bench(root, driver, limits)
    try:
        yield made
    finally:
        made.close()


async def stream(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    """Bytes in pieces, as a client sends them."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
