"""The engine's side of zygote and shims: spawn a container, and talk to the shim that keeps it.

    link = ShimLink(); await link.start()
    shim = await link.spawn(SpawnRequest(...), [AttachClient(...)])     # the container runs
    exit = await shim.exited                                            # always resolves, whatever dies
    shim = await link.reconnect(container_id, run_dir, data_dir)        # in a later engine

A shim that was killed leaves its container to the engine: `exited` then resolves with 137 after everything of the
container was killed and removed.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hafen import errors
from hafen.engine.conversation import Answer, Conversation
from hafen.engine.zygote import NetnsHandle, SocketSpec, Zygote
from hafen.kernel import cgroup
from hafen.shim import protocol
from hafen.spec.runtime_config import RootMount

__all__ = [
    "AttachClient", "ExecHandle", "Exit", "LogConfig", "NetnsHandle", "Shim", "ShimLink", "SocketSpec", "SpawnRequest",
    "read_exit", "sweep",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogConfig:
    """A log driver by Docker's name, its options, and the directory its files are in.

    `attributes` are what json-file writes as `attrs` (labels and variables chosen by its options); `source` what else
    a remote end is told: the fields of `logs.driver.Source`.
    """

    driver: str
    directory: str
    options: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """A container to start.

    `config` is the OCI runtime configuration (JSON-shaped, absolute `root.path`, `linux.cgroupsPath` set). `run_dir`
    is made by spawn and removed at the container's end. `netns_fd` replaces the path of config's network namespace.
    """

    container_id: str
    run_dir: str
    data_dir: str
    config: Mapping[str, Any]
    rootfs: tuple[RootMount, ...]
    log: LogConfig
    netns_fd: int | None = None
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    runtime: str = "hafen"
    console_size: tuple[int, int] | None = None  # (height, width)
    seccomp_bpf: bytes | None = None


@dataclass(slots=True, eq=False)
class AttachClient:
    """A connected stream socket to hand to a shim; it is the shim's from then on, whatever happens.

    `prefix` was read from it already. `done` resolves when the session is over: `exit`, `detach`, `gone`, `stalled`.
    """

    sock: socket.socket
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    multiplexed: bool = True
    detach_keys: bytes = b""
    prefix: bytes = b""
    done: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Held:
    """An attached client that waits for `release`; `at` in ns since the epoch."""

    number: int
    at: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended; `code` is 128 + n where signal n ended it; `error` is for people."""

    code: int
    oom_killed: bool
    at: datetime.datetime
    error: str = ""


@dataclass(frozen=True, slots=True)
class ExecHandle:
    """A further process in a container; `pid` is the host's."""

    pid: int
    exited: asyncio.Future[int]


class Shim:
    """A live container as its shim tells of it.

    Methods raise Conflict where the container's state forbids the operation, NotFound for an unknown exec, and
    Unavailable where the shim died meanwhile.
    """

    def __init__(self, container_id: str, run_dir: str, data_dir: str, shim_pid: int) -> None:
        self.container_id = container_id
        self.shim_pid = shim_pid
        self.pid = 0
        self.started_at = datetime.datetime.fromtimestamp(0, datetime.UTC)
        self.warnings: tuple[str, ...] = ()
        self.paused = False  # as an earlier engine left it; later changes are the caller's own
        self.oom = 0  # processes the kernel killed for memory so far
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.execs: dict[str, int] = {}  # pids of execs of an earlier engine that run
        self.exec_exits: dict[str, int] = {}  # of execs of an earlier engine that have ended
        self.on_exec: Callable[[str], None] = lambda exec_id: None  # one more of those turned up in `execs`
        self.on_gone: Callable[[], None] = lambda: None  # the link has ended
        self._run_dir = run_dir
        self._data_dir = data_dir
        self._conversation: Conversation
        self._clients: dict[int, AttachClient] = {}
        self._execs: dict[str, asyncio.Future[int]] = {}
        self._hello: asyncio.Future[protocol.Message] = asyncio.get_running_loop().create_future()
        self._started = False
        self._next_client = 0

    async def attach(self, client: AttachClient) -> None:
        """Hand a client over; returns when the shim has it. `client.done` tells the end of the session."""
        await self._attach(client, held=False)

    async def attach_held(self, client: AttachClient) -> Held:
        """As `attach`, but it gets nothing before `release`, and then all output since `Held.at`."""
        number, fields = await self._attach(client, held=True)
        return Held(number, int(fields["at"]))

    async def release(self, held: Held) -> None:
        await self._conversation.request("release", client=held.number)

    async def _attach(self, client: AttachClient, held: bool) -> tuple[int, protocol.Message]:
        wire, descriptor = self._hand_over(client, 0)
        try:
            answer = await self._conversation.request("attach", [descriptor], client=wire, held=held)
        except errors.HafenError:
            self._client_done(wire["client"], "gone")
            raise
        finally:
            client.sock.close()
        return wire["client"], answer.fields

    async def exec(
        self,
        exec_id: str,
        process: Mapping[str, Any],
        client: AttachClient | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> ExecHandle:
        """Start a further process (an OCI process object); it runs when this returns, StartFailed where it cannot."""
        wire, descriptors = None, []
        if client is not None:
            wire, descriptor = self._hand_over(client, 0)
            descriptors.append(descriptor)
        height, width = console_size or (0, 0)
        terminal = bool(process.get("terminal", False))
        request = protocol.Exec(exec_id, terminal, client is not None and client.stdin, height, width, None)
        fields = {**protocol.exec_to_wire(request), "client": wire}
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._execs[exec_id] = exited
        path = os.path.join(self._run_dir, f"exec-{exec_id}.json")
        try:
            _write(path, json.dumps(_with_console(process, console_size)).encode())
            answer = await self._conversation.request("exec", descriptors, **fields)
        except BaseException:
            self._execs.pop(exec_id, None)
            if wire is not None:
                self._client_done(wire["client"], "gone")
            raise
        finally:
            if client is not None:
                client.sock.close()
            _unlink(path)
        return ExecHandle(int(answer.fields["pid"]), exited)

    def watch_exec(self, exec_id: str) -> ExecHandle:
        """An exec of an earlier engine, in `execs` or in `exec_exits`."""
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if exec_id in self.exec_exits:
            exited.set_result(self.exec_exits[exec_id])
        else:
            self._execs[exec_id] = exited
        return ExecHandle(self.execs.get(exec_id, 0), exited)

    async def signal(self, signo: int, exec_id: str | None = None, all: bool = False) -> None:
        """To the container's first process, to an exec, or to every process of the container."""
        await self._conversation.request("signal", signal=signo, exec_id=exec_id, all=all)

    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        await self._conversation.request("resize", height=height, width=width, exec_id=exec_id)

    async def pause(self) -> None:
        await self._conversation.request("pause")

    async def resume(self) -> None:
        await self._conversation.request("resume")

    async def pids(self) -> list[int]:
        """The host's pids of all processes of the container."""
        answer = await self._conversation.request("pids")
        return [int(pid) for pid in answer.fields["pids"]]

    async def update(self, resources: Mapping[str, Any]) -> list[str]:
        """New limits: an OCI `linux.resources` object. Returns warnings about those that the kernel lacks."""
        answer = await self._conversation.request("update", resources=dict(resources))
        return [str(warning) for warning in answer.fields["warnings"]]

    async def counters(self) -> dict[str, Any]:
        """`kernel.cgroup.Counters` as a JSON-shaped value."""
        answer = await self._conversation.request("counters")
        counters: dict[str, Any] = answer.fields["counters"]
        return counters

    def _connect(self, sock: socket.socket) -> None:
        self._conversation = Conversation(sock, f"the shim of {self.container_id}", self._event, self._closed)

    async def _start(self, spawn: protocol.Spawn, clients: Sequence[AttachClient], netns_fd: int | None) -> None:
        descriptors = [] if netns_fd is None else [netns_fd]
        wires: list[protocol.Message] = []
        for client in clients:
            wire, descriptor = self._hand_over(client, len(descriptors))
            wires.append(wire)
            descriptors.append(descriptor)
        fields = {**protocol.spawn_to_wire(spawn), "netns": None if netns_fd is None else 0, "clients": wires}
        running = self._conversation.request("spawn", descriptors, **fields)
        try:
            answer = await asyncio.shield(running)
        except asyncio.CancelledError:
            # The shim cannot be stopped half way: it ends what it starts, as soon as it runs.
            running.add_done_callback(self._kill)
            raise
        except BaseException:
            for wire in wires:
                self._client_done(wire["client"], "gone")
            raise
        finally:
            for client in clients:
                client.sock.close()
        self._running(answer.fields)

    def _kill(self, running: asyncio.Future[Answer]) -> None:
        if running.exception() is not None:
            return
        killed = self._conversation.request("signal", signal=int(signal.SIGKILL), exec_id=None, all=False)
        killed.add_done_callback(lambda done: done.exception())

    def _running(self, facts: protocol.Message) -> None:
        self._started = True
        self.pid = int(facts["pid"])
        self.started_at = _time(int(facts["started_at"]))
        self.warnings = tuple(facts["warnings"])

    def _hand_over(self, client: AttachClient, index: int) -> tuple[protocol.Message, int]:
        self._next_client += 1
        self._clients[self._next_client] = client
        wire = protocol.Client(
            self._next_client,
            index,
            client.stdin,
            client.stdout,
            client.stderr,
            client.multiplexed,
            client.detach_keys.decode("latin-1"),
            client.prefix.decode("latin-1"),
        )
        return wire._asdict(), client.sock.fileno()

    def _event(self, message: protocol.Message, descriptors: list[int]) -> None:
        protocol.close_all(descriptors)
        match message.get("event"):
            case "hello":
                self.shim_pid = int(message["shim_pid"])
                self.paused = bool(message["paused"])
                self.execs = {str(key): int(pid) for key, pid in message.get("execs", {}).items()}
                self.exec_exits = {str(key): int(code) for key, code in message["exec_exits"].items()}
                self._running(message)
                if not self._hello.done():
                    self._hello.set_result(message)
            case "client_done":
                self._client_done(int(message["client"]), str(message["reason"]))
            case "exec_made":
                self.execs[str(message["exec_id"])] = int(message["pid"])
                self.on_exec(str(message["exec_id"]))
            case "exec_exit":
                exited = self._execs.pop(str(message["exec_id"]), None)
                if exited is None:
                    self.exec_exits[str(message["exec_id"])] = int(message["code"])
                elif not exited.done():
                    exited.set_result(int(message["code"]))
            case "oom":
                self.oom += 1
            case "exit":
                self._ended(_exit(message))

    def _client_done(self, number: int, reason: str) -> None:
        client = self._clients.pop(number, None)
        if client is not None and not client.done.done():
            client.done.set_result(reason)

    def _ended(self, exit: Exit) -> None:
        for exited in self._execs.values():
            if not exited.done():
                exited.set_result(137)
        self._execs.clear()
        if not self.exited.done():
            self.exited.set_result(exit)

    def _closed(self) -> None:
        """The link is gone; where no exit was told the shim was killed, and what it kept falls to the engine."""
        for number in tuple(self._clients):
            self._client_done(number, "gone")
        if not self._hello.done():
            self._hello.set_exception(errors.Unavailable(f"the shim of {self.container_id} died"))
            self._hello.exception()
        if self._started and not self.exited.done():
            loop = asyncio.get_running_loop()
            swept = loop.run_in_executor(None, sweep, self._run_dir, self._data_dir)
            swept.add_done_callback(self._swept)
        self.on_gone()

    def _swept(self, swept: asyncio.Future[Exit | None]) -> None:
        error = swept.exception()
        told = None if error is not None else swept.result()
        if told is not None and told.at >= self.started_at:
            self._ended(told)
        else:
            text = "the container's shim was killed" if error is None else f"the container's shim was killed: {error}"
            self._ended(Exit(137, False, datetime.datetime.now(datetime.UTC), text))


class ShimLink:
    """One per engine: the zygote, what it keeps warm, and the way to every shim."""

    def __init__(self, *, idle_shims: int = 2, idle_netns: int = 4) -> None:
        self._counts = (idle_shims, idle_netns)
        self._zygote: Zygote | None = None
        self._shims: set[Shim] = set()

    async def start(self) -> None:
        self._zygote = Zygote(idle_shims=self._counts[0], idle_netns=self._counts[1])
        self._zygote.start()

    async def close(self) -> None:
        """Hang up on everything. Shims with a container go on."""
        if self._zygote is not None:
            self._zygote.close()
            await asyncio.sleep(0)  # what had just come is closed by the callbacks that would have kept it
        for shim in tuple(self._shims):
            shim._started = False  # nothing died: the link goes because the engine does
            shim._conversation.close()
        self._shims.clear()

    @property
    def zygote_pid(self) -> int | None:
        return None if self._zygote is None else self._zygote.pid

    async def netns(self) -> NetnsHandle:
        """A network namespace with `lo` up; the caller's to close. From the warm pool where it has one."""
        return await self._running_zygote().netns()

    async def sockets(self, netns_fd: int, specs: Sequence[SocketSpec]) -> list[socket.socket]:
        """Sockets bound inside a network namespace, in the order of `specs`; OSError's text in System."""
        return await self._running_zygote().sockets(netns_fd, specs)

    async def set_sysctls(self, netns_fd: int, settings: Mapping[str, str]) -> None:
        """Write sysctls of a network namespace, by paths below /proc/sys; OSError's text in System."""
        await self._running_zygote().set_sysctls(netns_fd, settings)

    async def spawn(self, request: SpawnRequest, clients: Sequence[AttachClient] = ()) -> Shim:
        """Start a container; its process executes when this returns. Otherwise an error, and nothing is left.

        Ownership of the clients' sockets passes in either case.
        """
        try:
            idle = await self._running_zygote().shim()
        except BaseException:
            for client in clients:
                client.sock.close()
            raise
        shim = Shim(request.container_id, request.run_dir, request.data_dir, idle.pid)
        shim._connect(idle.link)
        try:
            _write_run_dir(request)
            await shim._start(_spawn(request), clients, request.netns_fd)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            shim._conversation.close()
            if isinstance(error, errors.Unavailable) or not isinstance(error, errors.HafenError):
                await asyncio.get_running_loop().run_in_executor(None, sweep, request.run_dir, request.data_dir)
            raise
        self._keep(shim)
        return shim

    async def reconnect(self, container_id: str, run_dir: str, data_dir: str) -> Shim | None:
        """The shim that keeps a container since an earlier engine; None where none lives, and what it left is removed.

        `read_exit(data_dir)` then says how the container ended, if the shim could still write it.
        """
        sock = _dial(run_dir)
        if sock is None:
            await asyncio.get_running_loop().run_in_executor(None, sweep, run_dir, data_dir)
            return None
        shim = Shim(container_id, run_dir, data_dir, 0)
        shim._connect(sock)
        try:
            await shim._hello
        except errors.Unavailable:
            await asyncio.get_running_loop().run_in_executor(None, sweep, run_dir, data_dir)
            return None
        self._keep(shim)
        return shim

    def _keep(self, shim: Shim) -> None:
        """Until its link is gone, which is a moment after its exit."""
        if not shim._conversation.closed:
            self._shims.add(shim)
            shim.on_gone = lambda: self._shims.discard(shim)

    def _running_zygote(self) -> Zygote:
        if self._zygote is None:
            raise errors.Unavailable("the engine is not started")
        return self._zygote


def read_exit(data_dir: str) -> Exit | None:
    """What the last shim wrote into `exit.json`; None where it could not, or the file was cut."""
    try:
        with open(os.path.join(data_dir, "exit.json"), "rb") as file:
            return _exit(json.loads(file.read()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sweep(run_dir: str, data_dir: str) -> Exit | None:
    """Kill and remove what a dead shim left: processes by their cgroup, the cgroup, the run directory. Blocks."""
    try:
        with open(os.path.join(run_dir, "config.json"), "rb") as file:
            path = json.loads(file.read())["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError, TypeError):
        path = None
    if path:
        group = cgroup.open_hierarchy().open(path)
        group.kill()
        group.remove()
    shutil.rmtree(run_dir, ignore_errors=True)
    return read_exit(data_dir)


def _spawn(request: SpawnRequest) -> protocol.Spawn:
    log = request.log
    return protocol.Spawn(
        container_id=request.container_id,
        run_dir=request.run_dir,
        data_dir=request.data_dir,
        rootfs=[(mount.type, mount.source, list(mount.options)) for mount in request.rootfs],
        netns=None,
        terminal=request.terminal,
        open_stdin=request.open_stdin,
        stdin_once=request.stdin_once,
        log=protocol.Log(
            log.driver,
            dict(log.options),
            log.directory,
            request.container_id,
            dict(log.attributes),
            dict(log.source),
        ),
        runtime=request.runtime,
        clients=[],
    )


def _write_run_dir(request: SpawnRequest) -> None:
    os.makedirs(os.path.join(request.run_dir, "rootfs"), mode=0o700, exist_ok=True)
    _unlink(os.path.join(request.data_dir, "exit.json"))
    config = dict(request.config)
    if "process" in config:
        config["process"] = _with_console(config["process"], request.console_size)
    _write(os.path.join(request.run_dir, "config.json"), json.dumps(config).encode())
    if request.seccomp_bpf is not None:
        _write(os.path.join(request.run_dir, "seccomp.bpf"), request.seccomp_bpf)


def _with_console(process: Mapping[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    if size is None:
        return dict(process)
    return {**process, "consoleSize": {"height": size[0], "width": size[1]}}


def _dial(run_dir: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    protocol.prepare_socket(sock)
    try:
        directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        sock.close()
        return None
    try:
        sock.connect(f"/proc/self/fd/{directory}/{protocol.SOCKET_NAME}")  # sun_path holds 108 bytes, unix(7)
    except OSError:  # ENOENT, ECONNREFUSED
        sock.close()
        return None
    finally:
        os.close(directory)
    return sock


def _exit(wire: Mapping[str, Any]) -> Exit:
    return Exit(int(wire["code"]), bool(wire["oom_killed"]), _time(int(wire["at"])), str(wire["error"]))


def _time(nanoseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.UTC)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
