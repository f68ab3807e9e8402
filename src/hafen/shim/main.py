"""The shim: sets one container up, keeps its stdio, log and exit status, and outlives the engine.

run(link)   idle: waits for `spawn`, or for the engine's end
            -> the set-up process (setup.py) makes the container, which is our child
            -> serves engines (control.py) and clients (stdio.py) until it ends
            -> drains its output, closes the log, writes exit.json, removes cgroup and run directory, tells the
               engines, waits for slow clients to take the rest, ends
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from hafen import errors
from hafen.kernel import process as kernel_process
from hafen.kernel.cgroup import Cgroup, Hierarchy, OOMWatch
from hafen.logs.driver import LogFile, LogWriter, choose
from hafen.logs.drivers import DRIVERS
from hafen.runtime import resources
from hafen.shim import foreign, protocol, setup, stdio
from hafen.shim.clients import AttachedClient
from hafen.shim.control import Control, Request
from hafen.shim.fork import fork
from hafen.shim.loop import READ, Loop, Timer
from hafen.shim.process import Process
from hafen.shim.protocol import Client, Exit, Spawn
from hafen.shim.reaper import Reaper
from hafen.shim.stdio import ProcessIO
from hafen.spec import runtime_config, stdcopy

QUIET = 1.0  # seconds
LINGER = 3600.0  # seconds that clients have to take the last output of a container that has ended


def run(link: socket.socket, hierarchy: Hierarchy) -> None:
    """The whole life of a shim; returns when nothing is left to do."""
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_IGN)  # containers end first, and tell
    kernel_process.set_subreaper()
    shim = Shim(link, hierarchy)
    shim.loop.run()


class Shim:
    """The container, its processes and everyone who asks for them."""

    def __init__(self, link: socket.socket, hierarchy: Hierarchy) -> None:
        self.loop = Loop()
        self._hierarchy = hierarchy
        self._reaper = Reaper(self.loop)
        self._control = Control(
            self.loop,
            {
                "spawn": self._spawn,
                "attach": self._attach,
                "exec": self._exec,
                "signal": self._signal,
                "resize": self._resize,
                "pause": self._pause,
                "resume": self._resume,
                "pids": self._pids,
                "counters": self._counters,
                "update": self._update,
            },
            self._hello,
        )
        self._control.on_alone = self._alone
        self._control.add(link)
        self._setup = self._fork_setup()
        self._container: Spawn | None = None
        self._init: Process | None = None
        self._group: Cgroup | None = None
        self._log: LogWriter
        self._oom: OOMWatch | None = None
        self._execs: dict[str, Process] = {}
        self._exec_exits: dict[str, int] = {}
        self._facts: protocol.Message = {}
        self._paused = False
        self._finished = False
        self._helper = 0
        self._quiet: Timer | None = None

    # --- start -------------------------------------------------------------------------------------------------

    def _spawn(self, request: Request) -> None:
        if self._container is not None:
            raise errors.Conflict("this shim has a container already")
        spawn = protocol.spawn_from_wire(request.fields)
        self._container = spawn
        clients = [(client, request.take_socket(client.socket)) for client in spawn.clients]
        try:
            _redirect_errors(spawn.data_dir)
            cgroups_path = setup.read_config(spawn).get("linux", {}).get("cgroupsPath", "")
            self._group = self._hierarchy.open(cgroups_path)
            options = dict(spawn.log.options)
            driver = choose(spawn.log.driver, DRIVERS)
            driver.validate(options)
            file = LogFile(spawn.log.directory, spawn.log.container_id)
            self._log = driver.writer(file, options, spawn.log.attributes, self._background)
            self._control.listen(spawn.run_dir)
            message, descriptors, streams = _set_up_message(spawn.terminal, spawn.open_stdin)
        except (errors.HafenError, OSError) as error:
            self._refuse(request, clients, error if isinstance(error, errors.HafenError) else errors.System(str(error)))
            return
        if spawn.netns is not None:
            descriptors.append(request.take(spawn.netns))
            spawn = spawn._replace(netns=len(descriptors) - 1)
        message["create"] = protocol.spawn_to_wire(spawn._replace(clients=[]))
        self._perform(
            message,
            descriptors,
            lambda answer, made: self._spawned(request, clients, streams, answer, made),
            lambda error: self._refuse(request, clients, error),
        )

    def _spawned(
        self, request: Request, clients: list[tuple[Client, socket.socket]], streams: "Streams",
        answer: protocol.Message, made: list[int],
    ) -> None:  # fmt: skip
        spawn = self._spec
        self._facts = {
            "pid": answer["pid"],
            "start_time": answer["start_time"],
            "started_at": time.time_ns(),
            "warnings": answer["warnings"],
        }
        _write_file(os.path.join(spawn.run_dir, "state.json"), {**self._facts, "shim_pid": os.getpid()})
        self._init = self._process("", answer["pid"], made, streams, spawn.terminal, spawn.stdin_once, self._log)
        for client, sock in clients:
            self._add_client(self._init, client, sock)
        try:
            self._oom = self._cgroup.watch_oom()
        except OSError:  # the container is so short-lived that its cgroup is gone
            self._oom = None
        if self._oom is not None:
            self.loop.add(self._oom.fd, self._oom.events, self._oom_killed)
        request.ok(self._facts)
        self._reaper.watch(self._init.pid, self._init.exited)

    def _refuse(self, request: Request, clients: list[tuple[Client, socket.socket]], error: errors.HafenError) -> None:
        """The container could not be started: leave nothing, say why, end."""
        for _, sock in clients:
            sock.close()
        self._clean_up()
        request.fail(error)
        self.loop.stop()

    def _exec(self, request: Request) -> None:
        init = self._running()
        wanted = protocol.exec_from_wire(request.fields)
        if self._paused:
            text = f"Container {self._spec.container_id} is paused, unpause the container before exec"
            raise errors.Conflict(text)
        if wanted.exec_id in self._execs:
            raise errors.Conflict(f"exec {wanted.exec_id} runs already")
        clients = [] if wanted.client is None else [(wanted.client, request.take_socket(wanted.client.socket))]
        message, descriptors, streams = _set_up_message(wanted.terminal, wanted.open_stdin)
        message["exec"] = protocol.exec_to_wire(wanted._replace(client=None))
        message["container"] = protocol.spawn_to_wire(self._spec._replace(clients=[]))
        message["pid"] = init.pid

        def made(answer: protocol.Message, made: list[int]) -> None:
            process = self._process(wanted.exec_id, answer["pid"], made, streams, wanted.terminal, True, _Nowhere())
            self._execs[wanted.exec_id] = process
            for client, sock in clients:
                self._add_client(process, client, sock)
            request.ok({"pid": process.pid})
            self._reaper.watch(process.pid, process.exited)

        def refused(error: errors.HafenError) -> None:
            for _, sock in clients:
                sock.close()
            streams.close()
            ended = init.code is not None
            request.fail(errors.Conflict("the container is not running") if ended else error)

        self._perform(message, descriptors, made, refused)

    # --- the set-up process ------------------------------------------------------------------------------------

    def _fork_setup(self) -> socket.socket:
        ours, theirs = protocol.pair()
        with theirs:
            fork(lambda: setup.serve(theirs), {theirs.fileno()})
        return ours

    def _perform(
        self, message: protocol.Message, descriptors: list[int],
        done: Callable[[protocol.Message, list[int]], None], failed: Callable[[errors.HafenError], None],
    ) -> None:  # fmt: skip
        """Give the set-up process its one request; `descriptors` are closed here."""
        sock = self._setup
        try:
            try:
                protocol.send(sock, message, descriptors)
            except OSError:  # used up by an earlier request, or killed while it waited
                sock.close()
                sock = self._fork_setup()
                protocol.send(sock, message, descriptors)
        finally:
            protocol.close_all(descriptors)
        self._reaper.expect()

        def answered(_: int) -> None:
            received = protocol.receive(sock)
            self.loop.remove(sock.fileno())
            sock.close()
            if received is None:
                failed(errors.System("the process that sets containers up was killed"))
            elif "error" in received[0]:
                failed(errors.from_wire(received[0]))
            else:
                done(*received)
            self._reaper.expected()

        self.loop.add(sock.fileno(), READ, answered)

    def _process(
        self, exec_id: str, pid: int, made: list[int], streams: "Streams", terminal: bool, stdin_once: bool,
        sink: stdio.Sink,
    ) -> Process:  # fmt: skip
        console = -1
        if terminal:
            console = made[1]
            os.set_blocking(console, False)
            streams = Streams([(console, stdcopy.STDOUT)], os.dup(console))
        process = Process(self.loop, exec_id, pid, made[0], console, self._ended)
        process.io = ProcessIO(
            self.loop,
            streams.outputs,
            streams.stdin,
            terminal=terminal,
            stdin_once=stdin_once,
            sink=sink,
            on_drained=process.drained,
            on_client_done=self._client_done,
        )
        return process

    # --- what engines ask --------------------------------------------------------------------------------------

    def _hello(self) -> protocol.Message:
        exits, self._exec_exits = self._exec_exits, {}
        return {
            "event": "hello",
            "version": protocol.VERSION,
            "container_id": self._spec.container_id,
            "shim_pid": os.getpid(),
            "pid": 0,
            "started_at": 0,
            "start_time": 0,
            "warnings": [],
            **self._facts,
            "paused": self._paused,
            "exec_exits": exits,
        }

    def _attach(self, request: Request) -> None:
        client = protocol.client_from_wire(request.fields["client"])
        process = self._find(request.fields.get("exec_id"))
        self._add_client(process, client, request.take_socket(client.socket))
        request.ok()

    def _signal(self, request: Request) -> None:
        signo = int(request.fields["signal"])
        if request.fields.get("all"):
            self._running()
            for pid in self._cgroup.pids():
                try:
                    os.kill(pid, signo)
                except ProcessLookupError:
                    pass
        else:
            process = self._find(request.fields.get("exec_id"))
            try:
                process.signal(signo)
            except ProcessLookupError:
                raise errors.Conflict(f"process {process.pid} has ended") from None
        request.ok()

    def _resize(self, request: Request) -> None:
        self._find(request.fields.get("exec_id")).resize(int(request.fields["height"]), int(request.fields["width"]))
        request.ok()

    def _pause(self, request: Request) -> None:
        self._running()
        if self._paused:
            raise errors.Conflict(f"Container {self._spec.container_id} is already paused")
        self._cgroup.freeze()
        self._paused = True
        request.ok()

    def _resume(self, request: Request) -> None:
        self._running()
        if not self._paused:
            raise errors.Conflict(f"Container {self._spec.container_id} is not paused")
        self._cgroup.thaw()
        self._paused = False
        request.ok()

    def _pids(self, request: Request) -> None:
        self._running()
        request.ok({"pids": self._cgroup.pids()})

    def _counters(self, request: Request) -> None:
        self._running()
        request.ok({"counters": self._cgroup.counters()._asdict()})

    def _update(self, request: Request) -> None:
        self._running()
        wanted = runtime_config.decode(runtime_config.Resources, request.fields["resources"], "linux.resources")
        resources.impose(self._cgroup, wanted, self._hierarchy.version, update=True)
        request.ok()

    # --- what happens ------------------------------------------------------------------------------------------

    def _alone(self) -> None:
        if self._container is None:
            self.loop.stop()  # idle, and the engine is gone

    def _oom_killed(self, _: int) -> None:
        if self._oom is not None:
            self._oom.rearm()
            self._control.tell({"event": "oom"})

    def _client_done(self, client: AttachedClient) -> None:
        self._control.tell({"event": "client_done", "client": client.number, "reason": client.reason})
        if self._finished:
            self._leave_if_done()

    def _ended(self, process: Process) -> None:
        """A process was reaped and its output is complete."""
        code = 137 if process.code is None else process.code
        if process is self._init:
            self._finish(code)
        else:
            del self._execs[process.exec_id]
            if self._control.alone:
                self._exec_exits[process.exec_id] = code
            self._control.tell({"event": "exec_exit", "exec_id": process.exec_id, "code": code})
            process.io.end_clients("exit")

    def _finish(self, code: int) -> None:
        at = time.time_ns()
        error = ""
        oom_killed = False
        try:
            oom_killed = self._cgroup.oom_kills() > 0
            self._cgroup.kill()
        except OSError as failure:
            error = str(failure)
        self._reaper.reap()
        for process in tuple(self._execs.values()):
            if process.code is None:
                process.exited(137)
        spawn = self._spec
        exit = Exit(
            spawn.container_id, self._facts["pid"], self._facts["started_at"], at, code, oom_killed, error
        )._asdict()
        self._log.close()
        self._end_helper()
        try:
            _write_file(os.path.join(spawn.data_dir, "exit.json"), exit)
        except OSError as failure:
            exit["error"] = str(failure)
        self._clean_up()
        self._finished = True
        self._control.tell({"event": "exit", **exit})
        assert self._init is not None
        self._init.io.end_clients("exit")
        for process in tuple(self._execs.values()):
            process.io.end_clients("exit")
        self.loop.after(LINGER, self.loop.stop)
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        assert self._init is not None
        if not self._init.io.clients and not any(process.io.clients for process in self._execs.values()):
            self.loop.stop()

    def _clean_up(self) -> None:
        self._control.stop_listening()
        if self._oom is not None:
            self.loop.remove(self._oom.fd)
            os.close(self._oom.fd)
            self._oom = None
        spawn = self._spec
        if spawn.runtime != "hafen":
            foreign.delete(spawn)
        try:
            if self._group is not None:
                self._group.remove()
            _remove_run_dir(spawn.run_dir)
        except OSError as error:  # the container is over all the same; the next start of it will meet what is left
            sys.stderr.write(f"clean up: {error}\n")

    # --- small things ------------------------------------------------------------------------------------------

    @property
    def _spec(self) -> Spawn:
        assert self._container is not None
        return self._container

    @property
    def _cgroup(self) -> Cgroup:
        assert self._group is not None
        return self._group

    def _running(self) -> Process:
        if self._init is None or self._finished:
            raise errors.Conflict("the container is not running")
        return self._init

    def _find(self, exec_id: str | None) -> Process:
        init = self._running()
        if not exec_id:
            return init
        process = self._execs.get(exec_id)
        if process is None:
            raise errors.NotFound(f"No such exec instance: {exec_id}")
        return process

    def _add_client(self, process: Process, wishes: Client, sock: socket.socket) -> None:
        client = AttachedClient(
            self.loop,
            sock,
            wishes,
            scan=process.io.terminal,
            spill_directory=self._spec.data_dir,
            on_input=process.io.typed,
            on_input_end=process.io.input_ended,
            on_room=process.io.output_room,
            on_done=process.io.client_done,
        )
        process.io.add(client)

    def _background(self, work: Callable[[], None]) -> None:
        """Once nobody has asked for a moment: in a torrent of output, work on old files would be for nothing."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = self.loop.after(QUIET, lambda: self._start_helper(work))

    def _start_helper(self, work: Callable[[], None]) -> None:
        if self._helper:
            self._background(work)
        else:
            self._helper = fork(work)
            self._reaper.watch(self._helper, self._helper_ended)

    def _helper_ended(self, _: int) -> None:
        self._helper = 0

    def _end_helper(self) -> None:
        """Whoever is told of the container's end may remove its files."""
        if self._quiet is not None:
            self._quiet.cancel()
        if self._helper:
            os.kill(self._helper, signal.SIGKILL)
            os.waitpid(self._helper, 0)
            self._helper = 0


class Streams:
    """Our ends of a process's pipes; none for a terminal, whose master comes later."""

    def __init__(self, outputs: list[tuple[int, int]], stdin: int) -> None:
        self.outputs = outputs
        self.stdin = stdin

    def close(self) -> None:
        protocol.close_all(descriptor for descriptor, _ in self.outputs)
        if self.stdin >= 0:
            os.close(self.stdin)


class _Nowhere:
    """The output of an exec is not logged."""

    def write(self, stream: int, data: bytes, at: int) -> None:
        pass


def _set_up_message(terminal: bool, open_stdin: bool) -> tuple[protocol.Message, list[int], Streams]:
    if terminal:
        return {"stdio": [-1, -1, -1]}, [], Streams([], -1)
    outputs, stdin, theirs = stdio.pipes(open_stdin)
    return {"stdio": [0, 1, 2]}, theirs, Streams(outputs, stdin)


def _write_file(path: str, value: object) -> None:
    """Atomically: a reader sees all of it or nothing."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode())
    finally:
        os.close(descriptor)
    os.rename(path + ".new", path)


def _remove_run_dir(path: str) -> None:
    for name in os.listdir(path):
        child = os.path.join(path, name)
        if os.path.isdir(child) and not os.path.islink(child):
            _remove_run_dir(child)
        else:
            os.unlink(child)
    os.rmdir(path)


def _redirect_errors(data_dir: str) -> None:
    """The zygote's stderr is the engine's: what this process has to say must not hold it open."""
    log = os.open(os.path.join(data_dir, "shim.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
