"""React to an exit: state, network, event, who waits, restart policy, auto-remove.

The shim has drained the output, closed the log and removed the cgroup before it tells the engine. What is done here is
synchronous and short; everything slow (anonymous volumes, a restart) is a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hafen.engine import guests
from hafen.engine.events import Events
from hafen.engine.mounting import Mounting
from hafen.engine.networks import Networks
from hafen.engine.records import Container, Containers, WaitResult
from hafen.engine.remove import Remover
from hafen.engine.scope import Scope
from hafen.engine.shimlink import Exit, Shim
from hafen.errors import HafenError
from hafen.spec import cronspec
from hafen.spec.lifecycle import Action, State

log = logging.getLogger(__name__)


class Exits:
    """Watches every running container. `restart` is how the start service starts one that this has locked."""

    restart: Callable[..., Awaitable[None]]

    def __init__(
        self,
        containers: Containers,
        networks: Networks,
        mounting: Mounting,
        remover: Remover,
        events: Events,
        scope: Scope,
    ) -> None:
        self._containers = containers
        self._networks = networks
        self._mounting = mounting
        self._remover = remover
        self._events = events
        self._scope = scope
        self._closing = False

    def close(self) -> None:
        """The engine stops: containers go on, and nothing is restarted by this engine any more."""
        self._closing = True
        for container in self._containers:
            self.cancel_restart(container)

    def watch(self, container: Container, shim: Shim) -> None:
        """`exited` is called once the container has ended."""
        shim.exited.add_done_callback(lambda future: self._ended(container, shim, future.result()))

    def _ended(self, container: Container, shim: Shim, exit: Exit) -> None:
        if container.shim is not shim or self._closing:
            return
        try:
            self.exited(container, exit)
        except HafenError:
            log.exception("the exit of container %s could not be recorded", container.id)

    def exited(self, container: Container, exit: Exit) -> None:
        """Record an exit and do what follows from it."""
        container.shim = None
        status = container.status
        finished = int(exit.at.timestamp() * 1e6) * 1000
        ran_for = max(0.0, (finished - status.started_ns) / 1e9)
        policy = container.record.host_config.restart_policy
        again = cronspec.wants_restart(
            policy.name, policy.maximum_retry_count, exit.code, status.restart_count, status.stopped_by_user
        )
        pause = cronspec.next_back_off(status.back_off, ran_for) if again else 0.0
        if exit.oom_killed:
            self._events.publish("container", "oom", container.id, container.event_attributes())
        self._containers.transit(
            container,
            Action.AWAIT_RESTART if again else Action.EXIT,
            pid=0,
            exit_code=exit.code,
            error=exit.error,
            oom_killed=exit.oom_killed,
            finished_ns=finished,
            back_off=pause,
            restart_count=status.restart_count + again,
            networks={name: guests.stopped(had) for name, had in status.networks.items()},
            ports={},
        )
        self.release(container)
        attributes = container.event_attributes(exitCode=str(exit.code), execDuration=str(int(ran_for)))
        self._events.publish("container", "die", container.id, attributes)
        if container.stopping:
            self._events.publish("container", "stop", container.id, container.event_attributes())
        container.resolve(WaitResult(exit.code), "next-exit", "not-running")  # both, whether it comes back or not
        for ended in container.exits:
            if not ended.done():
                ended.set_result(None)
        container.exits.clear()
        if again:
            self._restart_after(container, pause)
        elif container.record.host_config.auto_remove and not container.keep:
            self.auto_remove(container)

    def release(self, container: Container) -> None:
        """What the container held outside of its own namespaces."""
        try:
            self._networks.release(container.id)
            self._mounting.release(container.record)
            self._mounting.tell(container.record, "unmount")
        except (HafenError, OSError) as error:  # the next start of the engine sweeps what stays behind
            log.warning("after the exit of container %s: %s", container.id, error)

    def auto_remove(self, container: Container) -> None:
        """`--rm`: the container goes with its anonymous volumes."""
        if container.lock.locked():  # somebody removes it already
            self._scope.start(self._auto_remove_later(container), f"remove {container.id}")
            return
        volumes = self._remover.delete(container)
        self._scope.start(self._remover.clean(container, volumes), f"clean up after {container.id}")

    async def _auto_remove_later(self, container: Container) -> None:
        async with container.lock:
            if self._containers.lookup(container.id) is container and not container.alive:
                await self._remover.forget(container, volumes=True)

    def start_failed(self, container: Container) -> None:
        """A start came to nothing: an auto-removed container goes, others stay as they were."""
        if container.record.host_config.auto_remove:
            self._scope.start(self._auto_remove_later(container), f"remove {container.id}")

    def _restart_after(self, container: Container, pause: float) -> None:
        loop = asyncio.get_running_loop()
        container.restart = loop.call_later(
            pause, lambda: self._scope.start(self.bring_back(container), f"restart {container.id}")
        )

    async def bring_back(self, container: Container) -> None:
        """Start a container whose restart policy wants it, unless somebody decided otherwise meanwhile."""
        async with container.lock:
            container.restart = None
            if container.status.state is not State.RESTARTING or self._closing:
                return
            try:
                await self.restart(container)
            except Exception as error:  # the boundary of the task: whatever it was, the container does not come back
                log.warning("container %s cannot be restarted", container.id, exc_info=error)
                self._containers.transit(container, Action.GIVE_UP)
                container.resolve(
                    WaitResult(container.status.exit_code, container.status.error), "next-exit", "not-running"
                )

    def cancel_restart(self, container: Container) -> None:
        """Somebody decided otherwise."""
        if container.restart is not None:
            container.restart.cancel()
            container.restart = None
