"""Health checks: one timer for each running container that has a check, and one task while a probe runs.

    START, UNPAUSE    status `starting` (or as it was left), the first probe after one interval
    timer             the probe is an exec of the container's own user, environment and directory
    its end           result noted, status judged (`spec.cronspec`), `health_status` told if it changed, timer set
    its time-out      SIGKILL, and the result is -1
    EXIT, PAUSE       timer and probe end; what comes of the probe is not noted

Rules and texts are moby's, `daemon/health.go`. After an engine's end the next one goes on with what was noted
(`Execs.adopt` ends a probe that was under way).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time

from hafen.engine.events import Events
from hafen.engine.exec import Execs
from hafen.engine.records import Container, Containers, Exec
from hafen.engine.scope import Scope
from hafen.engine.services import ExecStartOptions
from hafen.engine.shimlink import AttachClient
from hafen.errors import HafenError, InvalidArgument
from hafen.spec import cronspec, units
from hafen.spec.lifecycle import State
from hafen.spec.wire.container import Health, HealthcheckResult

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 4096  # bytes of a probe's output that are kept
_KEPT_RESULTS = 5
_STARTS_AT_ONCE = 16  # after an engine's start the probes of all containers may be due
_SHELL = ("/bin/sh", "-c")
_FAILED = -1


class HealthChecks:
    """Follows every container's state; costs nothing for those without a check."""

    def __init__(self, containers: Containers, execs: Execs, events: Events, scope: Scope) -> None:
        self._containers = containers
        self._execs = execs
        self._events = events
        self._scope = scope
        self._monitors: dict[str, Monitor] = {}
        self._starting = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._closed = False

    def resume(self, container: Container) -> None:
        """An earlier engine's container was found: the interval goes on from its last probe."""
        self.follow(container, _since_last_probe(container))

    def follow(self, container: Container, waited: float = 0.0) -> None:
        """The container's state changed; `waited` seconds of the first interval are over."""
        if container.status.health is None or self._closed:
            return
        monitor = self._monitors.pop(container.id, None)
        if monitor is not None:
            self._stop(monitor)
        if container.status.state is State.RUNNING:
            self._monitors[container.id] = monitor = Monitor(container)
            self._schedule(monitor, max(0.0, monitor.delay() - waited))

    def close(self) -> None:
        """No more probes; one that runs is the next engine's to end."""
        self._closed = True
        for monitor in self._monitors.values():
            if monitor.timer is not None:
                monitor.timer.cancel()
        self._monitors.clear()

    def _stop(self, monitor: Monitor) -> None:
        if monitor.timer is not None:
            monitor.timer.cancel()
        if monitor.probe is not None and monitor.probe.running:
            self._scope.start(_kill(monitor.probe), f"end the health probe of {monitor.container.id}")

    def _schedule(self, monitor: Monitor, delay: float) -> None:
        def begin() -> None:
            self._scope.start(self._probe(monitor), f"health probe of {monitor.container.id}")

        monitor.timer = asyncio.get_running_loop().call_later(delay, begin)

    async def _probe(self, monitor: Monitor) -> None:
        began = time.time_ns()
        try:
            code, output = await self._run(monitor)
        except (HafenError, OSError) as error:
            code, output = _FAILED, error.message if isinstance(error, HafenError) else str(error)
            log.warning("health check of container %s: %s", monitor.container.id, output)
        if self._monitors.get(monitor.container.id) is not monitor:
            return
        try:
            self._note(monitor, began, code, output)
        except HafenError as error:  # no space for it: the check goes on
            log.warning("the health of container %s cannot be noted: %s", monitor.container.id, error)
        self._schedule(monitor, monitor.delay())

    async def _run(self, monitor: Monitor) -> tuple[int, str]:
        """(exit code, output) of one probe."""
        config = monitor.container.record.config
        assert config.healthcheck is not None
        kind, *command = config.healthcheck.test
        if kind == "CMD-SHELL":
            command = [*(config.shell or _SHELL), *command]
        if not command:
            raise InvalidArgument("No exec command specified")
        ours, theirs = socket.socketpair()
        with ours:
            output = Output(ours)
            try:
                monitor.probe = self._execs.probe(monitor.container, command)
                async with self._starting:
                    handle = await self._execs.run(
                        monitor.probe, ExecStartOptions(), AttachClient(theirs, multiplexed=False)
                    )
                timeout = monitor.times.timeout
                ended, _ = await asyncio.wait([handle.exited], timeout=timeout)
                if not ended:
                    await _kill(monitor.probe)
                code = await handle.exited
                await output.ended
            finally:
                theirs.close()
                output.close()
                monitor.probe = None
        if not ended:
            told = f"Health check exceeded timeout ({units.format_duration(timeout)})"
            return _FAILED, f"{told}: {output}" if output.data else told
        return code, str(output)

    def _note(self, monitor: Monitor, began: int, code: int, output: str) -> None:
        container = monitor.container
        old = container.status.health
        assert old is not None
        up_for = (began - container.status.started_ns) / 1e9
        status, streak = cronspec.judge(monitor.times, old.status, old.failing_streak, code, up_for)
        result = HealthcheckResult(
            start=units.format_timestamp(began),
            end=units.format_timestamp(time.time_ns()),
            exit_code=code,
            output=output,
        )
        results = [*old.log, result][-_KEPT_RESULTS:]
        self._containers.note_health(container, Health(status=status, failing_streak=streak, log=results))
        if status != old.status:
            self._events.publish("container", f"health_status: {status}", container.id, container.event_attributes())


class Monitor:
    """The check of one container from a start or unpause to the next stop or pause."""

    __slots__ = ("container", "probe", "timer", "times")

    def __init__(self, container: Container) -> None:
        assert container.record.config.healthcheck is not None
        self.container = container
        self.times = cronspec.health_times(container.record.config.healthcheck)
        self.timer: asyncio.TimerHandle | None = None
        self.probe: Exec | None = None

    def delay(self) -> float:
        """Seconds until the next probe."""
        status = self.container.status
        assert status.health is not None
        up_for = time.time() - status.started_ns / 1e9
        return cronspec.next_probe(self.times, status.health.status, up_for)


class Output:
    """Reads what a probe writes until its end, and keeps the beginning."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.data = bytearray()
        self._cut = False
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sock, self._readable)

    def __str__(self) -> str:
        return self.data.decode(errors="replace") + ("..." if self._cut else "")

    def close(self) -> None:
        self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            if not self.ended.done():
                self.ended.set_result(None)
            return
        room = OUTPUT_LIMIT - len(self.data)
        self.data += data[:room]
        self._cut = self._cut or len(data) > room


async def _kill(probe: Exec) -> None:
    try:
        await probe.container.running_shim().signal(signal.SIGKILL, probe.id)
    except HafenError as error:  # it has ended
        log.debug("health probe %s: %s", probe.id, error)


def _since_last_probe(container: Container) -> float:
    """Seconds since the last probe of this run of the container; 0 where there was none."""
    status = container.status
    if status.health is None or not status.health.log:
        return 0.0
    now = time.time_ns()
    last = units.parse_timestamp(status.health.log[-1].end, now)
    return (now - last) / 1e9 if last > status.started_ns else 0.0
