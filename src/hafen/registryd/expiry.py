"""Retention at work: plans over what the database has, performed repository by repository, each in one transaction."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from hafen.errors import Conflict
from hafen.registryd.retention import Inventory, RemoveManifest, Rule, Step, plan
from hafen.registryd.rows import Rows
from hafen.registryd.webhooks import Origin, Target, Webhooks
from hafen.spec.digest import Digest

_PAGE: Final = 1000  # repositories

log = logging.getLogger(__name__)


class Expiry:
    """Loop thread. `fresh` says of a manifest, by when it was pushed, whether an index may be about to need it. The
    interval is in seconds."""

    def __init__(
        self, rows: Rows, webhooks: Webhooks, rules: Iterable[Rule], fresh: Callable[[str, Digest, float], bool],
        interval: float,
    ) -> None:  # fmt: skip
        self._rows = rows
        self._webhooks = webhooks
        self._rules = tuple(rules)
        self._fresh = fresh
        self._interval = interval
        self._due = 0.0

    async def preview(self, rules: Iterable[Rule] | None = None) -> list[Step]:
        """What would be removed now, by other rules where some are given. Conflict where there are none at all."""
        chosen = self._chosen(rules)
        return [step async for inventory in self._inventories() for step in plan(inventory, chosen, time.time())]

    async def perform(self) -> list[Step]:
        """Remove it; what was removed."""
        done: list[Step] = []
        chosen = self._chosen(None)
        async for inventory in self._inventories():
            steps = plan(inventory, chosen, time.time())
            with self._rows.together():
                for step in steps:
                    self._do(step)
            for step in steps:
                log.info("retention: %s", step.describe())
            done += steps
        return done

    async def perform_when_due(self) -> None:
        """For whoever asks often: no more often than the interval says."""
        if self._rules and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._interval
            await self.perform()

    def _chosen(self, rules: Iterable[Rule] | None) -> tuple[Rule, ...]:
        chosen = self._rules if rules is None else tuple(rules)
        if not chosen:
            raise Conflict("this registry has no retention rules: it was started without --retention")
        return chosen

    async def _inventories(self) -> AsyncIterator[Inventory]:
        """One after the other, as they are when they are given: nothing comes between that and what is done."""
        last = ""
        while names := self._rows.repositories(last, _PAGE):
            for name in names:
                if not self._rows.is_cache(name):
                    yield self._rows.inventory(name, self._fresh)
                await asyncio.sleep(0)
            last = names[-1]

    def _do(self, step: Step) -> None:
        origin = Origin("DELETE", {}, "")
        if isinstance(step, RemoveManifest):
            self._rows.remove_manifest(step.repository, step.digest)
            self._webhooks.record("delete", Target(step.repository, step.digest), origin)
        else:
            self._rows.remove_tag(step.repository, step.tag)
            self._webhooks.record("delete", Target(step.repository, tag=step.tag), origin)
