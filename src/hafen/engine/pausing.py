"""Pause containers for the time of a piece of work (commit, copies of volumes), and let them go on after it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from hafen.engine.events import Events
from hafen.engine.records import Container, Containers
from hafen.errors import HafenError
from hafen.spec.lifecycle import Action, State

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pauser:
    """The cgroup freezer: no process of the container runs between the two calls."""

    containers: Containers
    events: Events

    async def pause(self, container: Container) -> bool:
        """False where there is nothing to pause, maybe because it ends just now, or where it cannot be (moby commits
        such a container as it is)."""
        if container.status.state is not State.RUNNING:
            return False
        try:
            await container.running_shim().pause()
            self.containers.transit(container, Action.PAUSE)
        except HafenError as error:
            log.info("container %s cannot be paused: %s", container.id, error.message)
            return False
        self.events.publish("container", "pause", container.id, container.event_attributes())
        return True

    async def resume(self, container: Container) -> None:
        """Undo `pause`; harmless where it has ended, or goes on, meanwhile."""
        if container.status.state is not State.PAUSED or container.shim is None:
            return
        try:
            await container.shim.resume()
            self.containers.transit(container, Action.UNPAUSE)
            self.events.publish("container", "unpause", container.id, container.event_attributes())
        except HafenError:
            if container.status.state is State.PAUSED:  # else it ended meanwhile
                raise
