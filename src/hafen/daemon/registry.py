"""A registry inside of the engine: `registryd` over the engine's content store, its rows in a database of their own.

Each blob has two possible owners. There is one sweep, the engine's, which asks the registry's rows what they need, and
leases are shared. The rows are asked from before the first sweep on, whether the registry is served or not.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack

from hafen.daemon.config import DaemonConfig
from hafen.engine.imagestore import ImageStore
from hafen.engine.offer import Offer
from hafen.engine.registry import Registries
from hafen.registryd.config import of_options
from hafen.registryd.service import opened_beside, serving


class EngineRegistry:
    """Open from its making until `close`. Conflict where another process has its database open."""

    def __init__(self, config: DaemonConfig, root: str, store: ImageStore, registries: Registries) -> None:
        self._chosen = of_options({**config.registry_opts, "addr": config.registry}, root) if config.registry else None
        self._offer = Offer(store, config.registry_images) if config.registry_images else None
        self._open = ExitStack()
        content = f"{config.data_root}/content"
        self._kept = self._open.enter_context(opened_beside(root, content, store.leases, store.sweep_blobs))
        store.keepers.append(self._kept.rows.digests)
        self._serving = AsyncExitStack()
        self._registries = registries

    async def start(self) -> None:
        """Listen, where that is wanted. System where it is not possible."""
        if self._chosen is not None:
            self._registries.local = await self._serving.enter_async_context(
                serving(self._chosen, self._kept, self._offer)
            )

    async def close(self) -> None:
        await self._serving.aclose()
        self._open.close()
