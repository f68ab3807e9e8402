"""Stop, kill, restart, pause, unpause, and wait."""

from __future__ import annotations

import asyncio
import logging
import signal as signals
from dataclasses import dataclass

from hafen.engine.events import Events
from hafen.engine.exits import Exits
from hafen.engine.records import Container, Containers, Waiter, WaitResult, wait_for_exit
from hafen.engine.start import Starter
from hafen.errors import Conflict, HafenError, InvalidArgument, NotFound, NotModified, System
from hafen.spec import lifecycle, units
from hafen.spec.lifecycle import Action, State
from hafen.spec.wire.container import WaitExitError, WaitResponse

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 10
_KILL_PATIENCE = 10.0
_CONDITIONS = ("not-running", "next-exit", "removed")


@dataclass(frozen=True, slots=True)
class Stopper:
    """`Services.stop`."""

    containers: Containers
    starter: Starter
    exits: Exits
    events: Events

    async def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        container = self.containers.find(ref)
        try:
            number = self._stop_signal(container, signal)
        except InvalidArgument as error:
            raise System(f"cannot stop container: {ref}: {error.message}") from error  # 500, as Docker
        await self._stop(container, number, timeout)

    async def _stop(self, container: Container, number: int, timeout: int | None) -> None:
        if container.status.state is State.RESTARTING:
            self._give_up(container)
            self.events.publish("container", "stop", container.id, container.event_attributes())
            return
        if not container.alive:
            raise NotModified(f"container {container.id} is already stopped")
        self.containers.amend(container, stopped_by_user=True)
        if timeout is None:
            own = container.record.config.stop_timeout
            timeout = DEFAULT_TIMEOUT if own is None else own
        ended = wait_for_exit(container)
        container.stopping = True  # the event comes with the exit, before an auto-removed container is gone
        try:
            await self._send(container, number)
            if container.status.state is State.PAUSED:
                await (self._thaw if number == signals.SIGKILL else self._unpause)(container)
            if not await _within(ended, None if timeout < 0 else float(timeout)):
                await self._send(container, signals.SIGKILL)
                if not await _within(ended, _KILL_PATIENCE):
                    raise System(
                        f"cannot stop container: {container.id}: tried to kill container, "
                        "but did not receive an exit event"
                    )
        finally:
            container.stopping = False

    def _give_up(self, container: Container) -> None:
        """It waits for its next start, which is called off."""
        self.exits.cancel_restart(container)
        self.containers.transit(container, Action.GIVE_UP, stopped_by_user=True)
        container.resolve(WaitResult(container.status.exit_code), "next-exit", "not-running")

    async def kill(self, ref: str, signal: str | None = None) -> None:
        try:
            container = self.containers.find(ref)
        except NotFound as error:
            raise NotFound(f"cannot kill container: {ref}: {error.message}") from error
        try:
            number = units.parse_signal(signal) if signal else int(signals.SIGKILL)
        except InvalidArgument as error:
            why = error.message
            if signal and signal.isdecimal() and int(signal):
                why = f"the linux daemon does not support signal {signal}"
            raise InvalidArgument(f"cannot kill container: {ref}: {why}") from error
        if container.status.state is State.RESTARTING:
            self._give_up(container)
            return
        if not container.alive:
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        # The restart policy does not bring it back: with a stop signal of its own that and SIGKILL mean "stay down",
        # otherwise any signal does (moby `killWithSignal`).
        own = container.record.config.stop_signal
        if not own or number in (signals.SIGKILL, units.parse_signal(own)):
            self.containers.amend(container, stopped_by_user=True)
        ended = wait_for_exit(container)
        await self._send(container, number)
        if number == signals.SIGKILL and container.status.state is State.PAUSED:
            await self._thaw(container)  # a frozen process dies when it is thawed, on cgroup v1
        if number == signals.SIGKILL:
            await _within(ended, _KILL_PATIENCE)

    async def restart(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        container = self.containers.find(ref)
        try:
            number = self._stop_signal(container, signal)
        except InvalidArgument as error:
            raise System(f"Cannot restart container {ref}: {error.message}") from error
        auto_remove = container.record.host_config.auto_remove
        if auto_remove:
            container.keep = True
        try:
            if container.alive or container.status.state is State.RESTARTING:
                await self._stop(container, number, timeout)
            async with container.lock:
                if not container.alive:  # else another restart came first
                    await self.starter.run(container, restart_count=0, back_off=0.0)
        finally:
            container.keep = False
        self.events.publish("container", "restart", container.id, container.event_attributes())

    async def pause(self, ref: str) -> None:
        container = self.containers.find(ref)
        async with container.lock:
            lifecycle.next_state(container.status.state, Action.PAUSE, container.id, container.name)
            await container.running_shim().pause()
            self.containers.transit(container, Action.PAUSE)
        self.events.publish("container", "pause", container.id, container.event_attributes())

    async def unpause(self, ref: str) -> None:
        container = self.containers.find(ref)
        async with container.lock:
            lifecycle.next_state(container.status.state, Action.UNPAUSE, container.id, container.name)
            await self._unpause(container)

    async def _thaw(self, container: Container) -> None:
        await container.running_shim().resume()
        if container.status.state is State.PAUSED:
            self.containers.transit(container, Action.UNPAUSE)

    async def _unpause(self, container: Container) -> None:
        await self._thaw(container)
        self.events.publish("container", "unpause", container.id, container.event_attributes())

    async def wait(self, ref: str, condition: str | None = None) -> asyncio.Future[WaitResponse]:
        if condition and condition not in _CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        container = self.containers.find(ref)
        answer: asyncio.Future[WaitResponse] = asyncio.get_running_loop().create_future()
        wanted = condition or "not-running"
        if wanted == "not-running" and not container.alive and container.status.state is not State.RESTARTING:
            answer.set_result(WaitResponse(status_code=container.status.exit_code))
            return answer
        result: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        waiter = Waiter(wanted, result)
        container.waiters.append(waiter)

        def resolved(future: asyncio.Future[WaitResult]) -> None:
            if not future.cancelled() and not answer.done():
                answer.set_result(_response(future.result()))

        def answered(future: asyncio.Future[WaitResponse]) -> None:
            if future.cancelled() and waiter in container.waiters:
                container.waiters.remove(waiter)

        result.add_done_callback(resolved)
        answer.add_done_callback(answered)
        return answer

    async def _send(self, container: Container, number: int) -> None:
        try:
            await container.running_shim().signal(number)
        except HafenError as error:  # it ended by itself in between, which is what was wanted
            log.debug("signal %d to %s: %s", number, container.id, error)
            return
        attributes = container.event_attributes(signal=str(int(number)))
        self.events.publish("container", "kill", container.id, attributes)

    def _stop_signal(self, container: Container, asked: str | None) -> int:
        return units.parse_signal(asked or container.record.config.stop_signal or "SIGTERM")


def _response(result: WaitResult) -> WaitResponse:
    return WaitResponse(status_code=result.code, error=WaitExitError(message=result.error) if result.error else None)


async def _within(future: asyncio.Future[None], seconds: float | None) -> bool:
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)
