"""Exec: further processes in running containers; create, start, inspect, resize.

Execs live on while no engine does. The next one takes them up: those that run or have ended its shims tell, the others
are still to be started.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import socket

from hafen.engine import links, specgen
from hafen.engine.attach import detach_keys
from hafen.engine.create import new_id
from hafen.engine.events import Events
from hafen.engine.execrecords import ExecRecords
from hafen.engine.hostfacts import HostFacts
from hafen.engine.records import Container, Containers, Exec
from hafen.engine.scope import Scope
from hafen.engine.services import ExecStartOptions, Session
from hafen.engine.shimlink import AttachClient, ExecHandle, Exit, Shim
from hafen.errors import Conflict, HafenError, InvalidArgument, NotFound, StartFailed, System
from hafen.spec import runtime_config, stdcopy
from hafen.spec.lifecycle import State, not_running
from hafen.spec.runtime_config import Box, Capabilities, Process, User
from hafen.spec.wire.exec import ExecConfig, ExecInspect, ProcessConfig

_STDOUT = 1
_KEPT = 512  # ended execs that a container remembers
_EXIT_PATIENCE = 2.0  # seconds from a process' end until its shim has told it
_RESIZE_PATIENCE = 10  # seconds, as Docker's
_LOST = 137  # exit code of what ended with its container while no engine was there


class Execs:
    """`Services.exec`."""

    def __init__(
        self, containers: Containers, rows: ExecRecords, events: Events, host: HostFacts, scope: Scope
    ) -> None:
        self._containers = containers
        self._rows = rows
        self._events = events
        self._host = host
        self._scope = scope

    async def create(self, ref: str, config: ExecConfig) -> str:
        container = self._containers.find(ref)
        self._check(container, ref)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        if config.detach_keys:
            try:
                detach_keys(config.detach_keys)
            except InvalidArgument:
                raise System(f"Invalid escape keys ({config.detach_keys}) provided") from None
        links.check(self._containers, container.record)
        self._forget_ended(container)
        one = Exec(new_id(), container, config)
        self._rows.insert(one)
        self._await_start(one, container.running_shim())
        return self._add(one).id

    def probe(self, container: Container, command: list[str]) -> Exec:
        """A probe of a health check, to be started with `run`; it is forgotten when it has ended."""
        return self._add(Exec(new_id(), container, ExecConfig(cmd=command), started=True, probe=True))

    def _add(self, one: Exec) -> Exec:
        self._containers.execs[one.id] = one.container.execs[one.id] = one
        self._tell(one, _told("exec_create", one.config))
        return one

    def _await_start(self, one: Exec, shim: Shim) -> None:
        """An exec that was not started when its container ends is forgotten, as by Docker."""

        def ended(_: asyncio.Future[Exit]) -> None:
            if not one.started and one.id in self._containers.execs:
                self._rows.forget([one])

        shim.exited.add_done_callback(ended)

    async def adopt(self, container: Container, shim: Shim) -> None:
        """Take up what an earlier engine began in a running container; a probe whose result nobody takes is killed."""

        def made(exec_id: str) -> None:
            self._scope.start(self._adopt(container, shim, exec_id), f"adopt exec {exec_id}")

        shim.on_exec = made
        for exec_id in (*shim.execs, *shim.exec_exits):
            await self._adopt(container, shim, exec_id)
        for one in container.execs.values():
            if not one.started:
                self._await_start(one, shim)

    async def _adopt(self, container: Container, shim: Shim, exec_id: str) -> None:
        one = container.execs.get(exec_id)
        if one is None and exec_id not in shim.exec_exits:
            try:
                await shim.signal(signal.SIGKILL, exec_id)
            except HafenError:  # it has ended
                pass
        elif one is not None and one.exit_code is None:
            one.started = True
            self._watch(one, shim.watch_exec(exec_id))

    def lost(self, container: Container) -> None:
        """The container ended while no engine was there, and all that was in it."""
        for one in container.execs.values():
            if one.exit_code is None:
                one.started, one.exit_code = True, _LOST
                self._rows.ended(one)

    def ids(self, container: Container) -> list[str] | None:
        """Ids of the execs that are running or yet to be started; None where there are none."""
        return [key for key, one in container.execs.items() if one.exit_code is None] or None

    async def start(self, exec_id: str, options: ExecStartOptions) -> Session | None:
        one = self._find(exec_id)
        self._check(one.container, one.container.id)
        if one.started:
            how = "is already running" if one.running else "has already run"
            refused = Conflict(f"Error: Exec command {exec_id} {how}")
            if options.detach:
                raise refused
            return ExecSession(self, one, options, refused)
        one.started = True
        if not options.detach:
            return ExecSession(self, one, options)
        await self.run(one, options, None)
        return None

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        one = self._find(exec_id)
        self._check(one.container, one.container.id)
        if one.exit_code is None:  # clients that attach know that it is to start, and not when it has
            try:
                async with asyncio.timeout(_RESIZE_PATIENCE):
                    await one.begun.wait()
            except TimeoutError:
                raise System("timeout waiting for exec session ready") from None
        if not one.running:
            raise NotFound(f"process does not exist {exec_id}: not found")
        await one.container.running_shim().resize(height, width, exec_id)

    async def inspect(self, exec_id: str) -> ExecInspect:
        one = self._find(exec_id)
        if one.running and not _runs(one.pid):  # a client whose streams ended asks for the exit code: it is on its way
            try:
                async with asyncio.timeout(_EXIT_PATIENCE):
                    await one.ended.wait()
            except TimeoutError:
                pass
        config = one.config
        words = config.cmd or [""]
        return ExecInspect(
            id=one.id,
            running=one.running,
            exit_code=one.exit_code,
            process_config=ProcessConfig(
                tty=config.tty,
                entrypoint=words[0],
                arguments=list(words[1:]),
                privileged=config.privileged,
                user=config.user,
            ),
            open_stdin=config.attach_stdin,
            open_stderr=config.attach_stderr,
            open_stdout=config.attach_stdout,
            can_remove=False,
            container_id=one.container.id,
            detach_keys=base64.b64encode(detach_keys(config.detach_keys)).decode() if config.detach_keys else "",
            pid=one.pid,
        )

    async def run(self, one: Exec, options: ExecStartOptions, client: AttachClient | None) -> ExecHandle:
        """Start the process; StartFailed where it cannot be, and its exit code is then what Docker reports."""
        size = options.console_size or _size(one.config)
        try:
            shim = one.container.running_shim()
            self._tell(one, _told("exec_start", one.config))
            _check_process(one.config)
            process = runtime_config.to_json(self._process(one, size))
            handle = await shim.exec(one.id, process, client, size)
        except (HafenError, OSError) as error:
            self._ended(one, error.exit_code if isinstance(error, StartFailed) else 126)
            if isinstance(error, StartFailed):
                raise StartFailed(
                    f"OCI runtime exec failed: exec failed: {error.message}: unknown", error.exit_code
                ) from error
            if isinstance(error, InvalidArgument):  # a user that is not there is no mistake of the client to Docker
                raise System(error.message) from error
            raise
        self._watch(one, handle)
        return handle

    def _watch(self, one: Exec, handle: ExecHandle) -> None:
        one.running, one.pid = True, handle.pid
        one.begun.set()
        handle.exited.add_done_callback(lambda future: self._exited(one, future.result()))

    def _exited(self, one: Exec, code: int) -> None:
        self._ended(one, code)
        self._tell(one, "exec_die", exitCode=str(code))

    def _ended(self, one: Exec, code: int) -> None:
        one.running, one.exit_code = False, code
        one.begun.set()
        one.ended.set()
        if one.probe:
            self._containers.execs.pop(one.id, None)
            one.container.execs.pop(one.id, None)
        else:
            self._rows.ended(one)

    def detached(self, one: Exec) -> None:
        """Its client typed the detach keys."""
        self._tell(one, "exec_detach")

    def abandon(self, one: Exec) -> None:
        """The client that was to start it went away."""
        self._ended(one, 126)

    def _process(self, one: Exec, size: tuple[int, int] | None) -> Process:
        """The container's own process with what the exec says otherwise."""
        config, record = one.config, one.container.record
        hostname = record.config.hostname
        given = self._host.capabilities if config.privileged else specgen.capabilities(record.host_config, self._host)
        own = specgen.process(record, self._host, hostname, init=False)
        linked = links.environment(self._containers, record)
        return own._replace(
            args=tuple(config.cmd or ()),
            cwd=config.working_dir or own.cwd,
            env=specgen.environment(hostname, config.tty, (*linked, *(record.config.env or ()), *(config.env or ()))),
            terminal=config.tty,
            console_size=Box(*size) if size and config.tty else None,
            user=User(name=config.user or record.config.user, group_add=own.user.group_add),
            capabilities=Capabilities(bounding=given, effective=given, permitted=given),
        )

    def _find(self, exec_id: str) -> Exec:
        one = self._containers.execs.get(exec_id)
        if one is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return one

    def _check(self, container: Container, ref: str) -> None:
        if container.status.state is State.PAUSED:
            raise Conflict(f"Container {ref} is paused, unpause the container before exec")
        if container.status.state is State.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.alive:
            raise not_running(container.id)

    def _tell(self, one: Exec, action: str, **more: str) -> None:
        attributes = one.container.event_attributes(execID=one.id, **more)
        self._events.publish("container", action, one.container.id, attributes)

    def _forget_ended(self, container: Container) -> None:
        ended = [one for one in container.execs.values() if one.exit_code is not None]
        if len(ended) > _KEPT:
            self._rows.forget(ended[:-_KEPT])


class ExecSession:
    """The client of an exec that was started attached; its process starts with `run`, unless it is refused there."""

    def __init__(self, owner: Execs, one: Exec, options: ExecStartOptions, refused: HafenError | None = None) -> None:
        self._owner = owner
        self._one = one
        self._options = options
        self._refused = refused

    @property
    def tty(self) -> bool:
        """As the client takes its stream, which it says at the start; Docker asks nothing else."""
        return self._options.tty

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        if self._refused:
            with sock:
                await self._explain(sock, self._refused)
            return
        config = self._one.config
        client = AttachClient(
            sock=sock,
            stdin=config.attach_stdin,
            stdout=config.attach_stdout or config.tty,
            stderr=config.attach_stderr,
            multiplexed=not self.tty,
            detach_keys=detach_keys(config.detach_keys),
            prefix=prefix,
        )
        spare = sock.dup()
        try:
            await self._owner.run(self._one, self._options, client)
        except HafenError as error:
            await self._explain(spare, error)
            return
        finally:
            spare.close()
        if await client.done == "detach":
            self._owner.detached(self._one)

    async def _explain(self, sock: socket.socket, error: HafenError) -> None:
        """Its head is sent: what went wrong is told in the stream, as Docker does."""
        text = f"{error.message}\r\n".encode()
        sock.setblocking(False)
        try:
            data = text if self.tty else stdcopy.frame(_STDOUT, text)
            await asyncio.get_running_loop().sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it went away

    def abandon(self) -> None:
        if not self._refused:
            self._owner.abandon(self._one)


def _size(config: ExecConfig) -> tuple[int, int] | None:
    size = config.console_size
    return (size[0], size[1]) if size and len(size) == 2 else None


def _told(action: str, config: ExecConfig) -> str:
    """The event's action: with the command line, and the space that Docker sets even before no arguments."""
    command, *arguments = config.cmd or [""]
    return f"{action}: {command} {' '.join(arguments)}"


def _check_process(config: ExecConfig) -> None:
    """What Docker leaves to the runtime, and says in its words."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise StartFailed("Cwd must be an absolute path", 126)
    if any(entry.startswith("=") for entry in config.env or ()):
        raise StartFailed("unable to start container process: invalid environment variable: name cannot be empty", 126)


def _runs(pid: int) -> bool:
    """Whether the process is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(") ")[2][:1] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes while we read
        return False
