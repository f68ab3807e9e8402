"""Remove containers: one, forced or not, and prune.

What is left of a container is its row, its snapshot, its directory and its anonymous volumes. One transaction takes
the rows; the files go right after, and what a crash leaves of them no row knows, so that `recover` sweeps it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from hafen.engine import links
from hafen.engine.events import Events
from hafen.engine.logs import Logs
from hafen.engine.paths import Paths
from hafen.engine.records import Container, Containers, WaitResult, wait_for_exit
from hafen.engine.volumes import Volumes
from hafen.errors import Conflict, HafenError, NotFound, System
from hafen.spec import lifecycle, units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.lifecycle import Action, State
from hafen.spec.wire.container import PruneResponse
from hafen.storage.database import Database
from hafen.storage.snapshot import Snapshotter

log = logging.getLogger(__name__)

_PRUNE_FILTERS = frozenset(("label", "label!", "until"))
_KILL_PATIENCE = 10.0


class Remover:
    """`Services.remove`."""

    def __init__(
        self,
        database: Database,
        containers: Containers,
        snapshotter: Snapshotter,
        volumes: Volumes,
        events: Events,
        paths: Paths,
        logs: Logs,
        unlinked: Callable[[], None],
    ) -> None:
        self._database = database
        self._containers = containers
        self._snapshotter = snapshotter
        self._volumes = volumes
        self._events = events
        self._paths = paths
        self._logs = logs
        self._unlinked = unlinked

    async def remove(self, ref: str, volumes: bool = False, force: bool = False, link: bool = False) -> None:
        if link:
            links.remove(self._containers, self._paths, ref)
            self._unlinked()
            return
        container = self._containers.find(ref)
        if container.status.state is State.REMOVING:
            raise Conflict(f"removal of container {container.name} is already in progress")
        while True:
            if _in_use(container):
                if not force:
                    raise lifecycle.refusal(container.status.state, Action.REMOVE, container.id, container.name)
                await self._kill(container)
            async with container.lock:
                if self._containers.lookup(container.id) is not container:
                    return  # removed meanwhile, by itself or by another client
                if not _in_use(container):  # else a start or the second half of a restart came first
                    await self.forget(container, volumes=volumes)
                    return

    async def _kill(self, container: Container) -> None:
        """SIGKILL, and wait until the exit is recorded."""
        if container.restart is not None:
            container.restart.cancel()
            container.restart = None
        if container.status.state is State.RESTARTING:
            self._containers.transit(container, Action.GIVE_UP, stopped_by_user=True)
            return
        if container.status.state is State.PAUSED and container.shim is not None:
            await container.shim.resume()
            self._containers.transit(container, Action.UNPAUSE)
        self._containers.amend(container, stopped_by_user=True)
        ended = wait_for_exit(container)
        if container.shim is not None:
            try:
                await container.shim.signal(signal.SIGKILL)
            except HafenError as error:  # it ended by itself
                log.debug("kill %s: %s", container.id, error)
            self._events.publish("container", "kill", container.id, container.event_attributes(signal="9"))
        try:
            await asyncio.wait_for(ended, _KILL_PATIENCE)
        except TimeoutError:
            raise System(
                f'cannot remove container "/{container.name}": could not kill: tried to kill container, '
                "but did not receive an exit event"
            ) from None

    async def forget(self, container: Container, *, volumes: bool) -> None:
        """Remove a container that does not run. The caller holds its lock."""
        mounted = self.delete(container)
        await self.clean(container, mounted if volumes else [])

    async def clean(self, container: Container, volumes: list[str]) -> None:
        """The files that no row knows any more."""
        await self._logs.delete(container.id)
        await self._volumes.remove_anonymous(volumes)

    def delete(self, container: Container) -> list[str]:
        """The rows, at once; returns the names of its anonymous volumes. `clean` does the rest."""
        lifecycle.next_state(container.status.state, Action.REMOVE, container.id, container.name)
        attributes = container.event_attributes()
        mounted = [point.name for point in container.record.mounts if point.type == "volume" and point.anonymous]
        with self._database.transaction(durable=not container.record.host_config.auto_remove):
            for key in container.record.snapshots:
                with suppress(NotFound):  # a crash came in between
                    self._snapshotter.remove(key)
            self._containers.delete(container)
        self._containers.forget(container)
        for session in container.sessions:  # clients that wait for a start that will not come
            if not session.ready.done():
                session.ready.set_result(None)
            elif (client := session.ready.result()) is not None:
                client.sock.close()
                client.done.set_result("gone")
        self._events.publish("container", "destroy", container.id, attributes)
        container.resolve(WaitResult(container.status.exit_code), "removed", "not-running", "next-exit")
        return mounted

    async def prune(self, filters: Filters = NO_FILTERS) -> PruneResponse:
        filters.check(_PRUNE_FILTERS)
        now = time.time_ns()
        until = filters.until()
        limit = None if until is None else units.parse_timestamp(until, now)
        deleted, reclaimed = [], 0
        for container in self._containers:
            record = container.record
            if container.alive or container.status.state in (State.RESTARTING, State.REMOVING):
                continue
            if limit is not None and record.created_ns >= limit:
                continue
            labels = record.config.labels
            if not filters.matches_labels(labels) or filters.excludes_labels(labels):
                continue
            usage = await asyncio.to_thread(self._snapshotter.tree(container.id).usage)
            await self.remove(container.id)
            deleted.append(container.id)
            reclaimed += usage.bytes
        self._events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return PruneResponse(containers_deleted=deleted or None, space_reclaimed=reclaimed)


def _in_use(container: Container) -> bool:
    return container.alive or container.status.state is State.RESTARTING
