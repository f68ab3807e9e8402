"""A shim's worker: sets one container up, keeps its stdio, log and exit status, and outlives the engine.

work()      first: waits for `spawn`, or for the engine's end; later: goes on where the last worker slept
            -> makes the container, which is the keeper's child (keeper.py)
            -> serves engines (control.py) and clients (stdio.py) until it ends, or until nothing goes on: it sleeps
            -> drains its output, closes the log, writes exit.json, removes cgroup and run directory, tells the
               engines, waits for slow clients to take the rest, ends
"""

import gc
import json
import os
import socket
import sys
import time

from hafen import errors
from hafen.kernel import process as kernel_process
from hafen.kernel.cgroup import Cgroup, Hierarchy, OOMWatch
from hafen.logs.driver import LogFile, LogWriter, Source, choose
from hafen.logs.drivers import DRIVERS
from hafen.runtime import resources
from hafen.shim import files, foreign, protocol, setup
from hafen.shim.clients import AttachedClient
from hafen.shim.control import Control, Request
from hafen.shim.forwarder import Forwarder
from hafen.shim.helper import Helper
from hafen.shim.launch import Streams, set_up_beside, set_up_message
from hafen.shim.loop import READ, Loop
from hafen.shim.process import Process
from hafen.shim.protocol import Client, Exit, Spawn
from hafen.shim.reaper import Reaper
from hafen.shim.stdio import ProcessIO, Sink
from hafen.spec import runtime_config, stdcopy

LINGER = 3600.0  # seconds that clients have to take the last output of a container that has ended
EXEC_EXITS = 64  # of the newest execs that ended, told to an engine that comes later
REST = 1.0  # seconds without any event after which a worker sleeps


def work(keeper: int, descriptors: list[int], hierarchy: Hierarchy, first: bool) -> None:
    """A worker's life: from the link to the engine, or where the last worker slept, with the descriptors it left."""
    gc.enable()  # what we inherited is frozen; only what is made here is collected
    shim = Shim(socket.socket(fileno=keeper), hierarchy)
    if first:
        shim.begin(socket.socket(fileno=descriptors[0]))
    else:
        state, *kept = descriptors
        with open(state, "rb") as file:
            file.seek(0)
            shim.wake(json.load(file), kept)
    shim.loop.run()


class Shim:
    """The container, its processes and everyone who asks for them."""

    def __init__(self, keeper: socket.socket, hierarchy: Hierarchy) -> None:
        self.loop = Loop()
        self._keeper = keeper
        self._hierarchy = hierarchy
        self._reaper = Reaper(self.loop)
        self._helper = Helper(self.loop, self._reaper)
        self._control = Control(
            self.loop,
            {
                "spawn": self._spawn,
                "attach": self._attach,
                "release": self._release,
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
        self._container: Spawn | None = None
        self._init: Process | None = None
        self._group: Cgroup | None = None
        self._log: LogWriter
        self._oom: OOMWatch | None = None
        self._execs: dict[str, Process] = {}
        self._exec_exits: dict[str, int] = {}
        self._facts: protocol.Message = {}
        self._paused = False
        self._setting_up = 0
        self._finished = False
        self._events = -1  # whatever woke us is still to be done
        self.loop.add(keeper.fileno(), READ, self._told)

    # --- sleep and wake ----------------------------------------------------------------------------------------

    def begin(self, link: socket.socket) -> None:
        self._control.add(link)

    def wake(self, state: protocol.Message, descriptors: list[int]) -> None:
        """Go on where `_sleep` left off."""
        spawn = protocol.spawn_from_wire(state["container"])
        self._container = spawn
        self._facts = state["facts"]
        self._paused = state["paused"]
        self._exec_exits = state["exec_exits"]
        files.redirect_errors(spawn.data_dir)
        self._group = self._hierarchy.open(state["cgroup"])
        self._open_log(spawn, first=False)
        found: dict[str, int] = {}
        for role, descriptor in zip(state["roles"], descriptors, strict=True):
            if role in ("connection", "listener"):
                self._control.resume(role, descriptor)
            else:
                found[role] = descriptor
        outputs = [(found[f"output {stream}"], stream) for stream in (1, 2) if f"output {stream}" in found]
        streams = Streams(outputs, found.get("stdin", -1))
        self._init = self._process("", self._facts["pid"], found["pidfd"], streams, spawn, self._log)
        if "oom" in found:
            self._watch_oom(OOMWatch(found["oom"], state["oom_events"]))
        self.loop.after(REST, self._rest)  # not before what woke us was seen

    def _rest(self) -> None:
        """Look again and again whether there was nothing to do for a while."""
        if self._finished:
            return
        if self._events == self.loop.events and self._resting():
            self._sleep()
        else:
            self._events = self.loop.events
            self.loop.after(REST, self._rest)

    def _resting(self) -> bool:
        return (
            self._init is not None
            and self._init.code is None
            and self._init.io.resting
            and not (self._execs or self._setting_up or self._helper.busy)
            and self._control.quiet
            and self._log.resting
        )

    def _sleep(self) -> None:
        assert self._init is not None
        found = [*self._control.descriptors(), *self._init.descriptors()]
        if self._oom is not None:
            found.append(("oom", self._oom.fd))
        state = {
            "container": protocol.spawn_to_wire(self._spec._replace(clients=[])),
            "facts": self._facts,
            "paused": self._paused,
            "exec_exits": self._exec_exits,
            "cgroup": self._cgroup.path,
            "oom_events": 0 if self._oom is None else self._oom.events,
            "roles": [role for role, _ in found],
        }
        memory = os.memfd_create("state", os.MFD_CLOEXEC)
        os.write(memory, json.dumps(state).encode())
        masks = {"pidfd": 0, "stdin": 0, "oom": state["oom_events"]}
        message = " ".join(["sleep", "0", *(str(masks.get(role, READ)) for role, _ in found)])
        socket.send_fds(self._keeper, [message.encode()], [memory, *(descriptor for _, descriptor in found)])
        self._log.close()
        self.loop.stop()

    def _told(self, _: int) -> None:
        """By the keeper: the container's first process has ended."""
        data = self._keeper.recv(64)
        if not data:
            raise errors.System("the keeper is gone")
        if self._init is not None and self._init.code is None:
            self._init.exited(int(data[5:]))

    # --- start -------------------------------------------------------------------------------------------------

    def _spawn(self, request: Request) -> None:
        if self._container is not None:
            raise errors.Conflict("this shim has a container already")
        spawn = protocol.spawn_from_wire(request.fields)
        self._container = spawn
        clients: list[tuple[Client, socket.socket]] = []
        try:
            clients += [(client, request.take_socket(client.socket)) for client in spawn.clients]
            files.redirect_errors(spawn.data_dir)
            self._group = self._hierarchy.open(setup.read_config(spawn).get("linux", {}).get("cgroupsPath", ""))
            self._open_log(spawn, first=True)
            self._control.listen(spawn.run_dir)
            message, descriptors, streams = set_up_message(spawn.terminal, spawn.open_stdin)
            if spawn.netns is not None:
                descriptors.append(request.take(spawn.netns))
                spawn = spawn._replace(netns=len(descriptors) - 1)
            message["create"] = protocol.spawn_to_wire(spawn._replace(clients=[]))
            if spawn.runtime == "hafen":
                try:
                    answer, made = setup.perform(message, descriptors)
                finally:
                    protocol.close_all(descriptors)
                self._spawned(request, clients, streams, answer, made)
            else:
                self._setting_up += 1
                set_up_beside(
                    self.loop,
                    self._reaper,
                    message,
                    descriptors,
                    lambda answer, made: self._spawned(request, clients, streams, answer, made),
                    lambda error: self._refuse(request, clients, error),
                )
        except errors.HafenError as error:
            self._refuse(request, clients, error)
        except OSError as error:
            self._refuse(request, clients, errors.System(str(error)))

    def _spawned(
        self, request: Request, clients: list[tuple[Client, socket.socket]], streams: Streams,
        answer: protocol.Message, made: list[int],
    ) -> None:  # fmt: skip
        spawn = self._spec
        self._facts = {
            "pid": answer["pid"],
            "start_time": answer["start_time"],
            "started_at": time.time_ns(),
            "warnings": answer["warnings"],
        }
        self._setting_up = 0
        files.write_json(os.path.join(spawn.run_dir, "state.json"), {**self._facts, "shim_pid": os.getppid()})
        streams = _with_console(streams, made)
        self._init = self._process("", answer["pid"], made[0], streams, spawn, self._log)
        for client, sock in clients:
            self._add_client(self._init, client, sock)
        try:
            self._watch_oom(self._cgroup.watch_oom())
        except OSError:  # the container was so short-lived that its cgroup is gone
            pass
        request.ok(self._facts)
        self._keeper.send(b"init %d" % self._init.pid)
        self._rest()

    def _open_log(self, spawn: Spawn, *, first: bool) -> None:
        """Unavailable where the log's remote end is not there at the start of the container; later nobody minds."""
        log = spawn.log
        driver = choose(log.driver, DRIVERS)
        try:
            self._log = driver.writer(
                LogFile(log.directory, log.container_id), log.options, log.attributes, self._helper.start
            )
            sender = driver.sender(Source(spawn.container_id, log.attributes, **log.source), log.options)
        except errors.InvalidArgument as error:
            raise errors.Unavailable(f"failed to initialize logging driver: {error}") from error
        if sender is not None:
            self._log = forwarder = Forwarder(self.loop, self._reaper, self._log, sender, log.options)
            forwarder.on_done = self._leave_if_done
            if first:
                forwarder.open()

    def _watch_oom(self, watch: OOMWatch | None) -> None:
        self._oom = watch
        if watch is not None:
            self.loop.add(watch.fd, watch.events, self._oom_killed)

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
        message, descriptors, streams = set_up_message(wanted.terminal, wanted.open_stdin)
        message["exec"] = protocol.exec_to_wire(wanted._replace(client=None))
        message["container"] = protocol.spawn_to_wire(self._spec._replace(clients=[]))
        message["pid"] = init.pid
        # What differs from the container's own streams: the input always ends with its one client.
        kept = self._spec._replace(terminal=wanted.terminal, stdin_once=True)
        self._setting_up += 1

        def made(answer: protocol.Message, made: list[int]) -> None:
            self._setting_up -= 1
            ours = _with_console(streams, made)
            process = self._process(wanted.exec_id, answer["pid"], made[0], ours, kept, _Nowhere())
            self._execs[wanted.exec_id] = process
            for client, sock in clients:
                self._add_client(process, client, sock)
            request.ok({"pid": process.pid})
            if request.orphaned:  # a later engine could not see it in our hello
                self._control.tell({"event": "exec_made", "exec_id": wanted.exec_id, "pid": process.pid})
            self._reaper.watch(process.pid, process.exited)

        def refused(error: errors.HafenError) -> None:
            self._setting_up -= 1
            for _, sock in clients:
                sock.close()
            streams.close()
            ended = init.code is not None
            request.fail(errors.Conflict("the container is not running") if ended else error)

        if self._spec.runtime != "hafen":
            kernel_process.set_subreaper()  # what that runtime leaves behind is ours, not the keeper's
        set_up_beside(self.loop, self._reaper, message, descriptors, made, refused)

    def _process(self, exec_id: str, pid: int, pidfd: int, streams: Streams, kept: Spawn, sink: Sink) -> Process:
        console = streams.outputs[0][0] if kept.terminal and streams.outputs else -1
        process = Process(self.loop, exec_id, pid, pidfd, console, self._ended)
        process.io = ProcessIO(
            self.loop,
            streams.outputs,
            streams.stdin,
            terminal=kept.terminal,
            stdin_once=kept.stdin_once,
            sink=sink,
            on_drained=process.drained,
            on_client_done=self._client_done,
        )
        if isinstance(sink, Forwarder):
            sink.on_room = process.io.output_room
        return process

    # --- what engines ask --------------------------------------------------------------------------------------

    def _hello(self) -> protocol.Message:
        return {
            "event": "hello",
            "version": protocol.VERSION,
            "container_id": self._spec.container_id,
            "shim_pid": os.getppid(),
            "pid": 0,
            "started_at": 0,
            "start_time": 0,
            "warnings": [],
            **self._facts,
            "paused": self._paused,
            "execs": {exec_id: process.pid for exec_id, process in self._execs.items()},
            "exec_exits": self._exec_exits,
        }

    def _attach(self, request: Request) -> None:
        client = protocol.client_from_wire(request.fields["client"])
        process = self._find(request.fields.get("exec_id"))
        held = bool(request.fields.get("held"))
        self._add_client(process, client, request.take_socket(client.socket), held)
        request.ok({"at": time.time_ns()} if held else {})

    def _release(self, request: Request) -> None:
        """Also after the container's end, whose last output a held client has not got yet."""
        for client in self._held_clients():
            if client.number == request.fields["client"]:
                client.release()
        request.ok()

    def _held_clients(self) -> list[AttachedClient]:
        return [] if self._init is None else [client for client in self._init.io.clients if client.held]

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
        warnings = resources.impose(self._cgroup, wanted, self._hierarchy.version, update=True)
        request.ok({"warnings": warnings})

    # --- what happens ------------------------------------------------------------------------------------------

    def _alone(self) -> None:
        if self._init is None and not self._setting_up:
            self.loop.stop()  # without a container, and the engine is gone
        for client in self._held_clients():
            client.detach("gone")  # what was to come first will not be written any more

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
            # An engine may be killed before it has written down what it was told: whoever comes next is told again.
            self._exec_exits[process.exec_id] = code
            if len(self._exec_exits) > EXEC_EXITS:
                del self._exec_exits[next(iter(self._exec_exits))]
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
        self._helper.end()
        try:
            files.write_json(os.path.join(spawn.data_dir, "exit.json"), exit)
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
        sending = isinstance(self._log, Forwarder) and self._log.busy
        if (
            not sending
            and not self._init.io.clients
            and not any(process.io.clients for process in self._execs.values())
        ):
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
            files.remove_tree(spawn.run_dir)
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

    def _add_client(self, process: Process, wishes: Client, sock: socket.socket, held: bool = False) -> None:
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
        if held:
            client.hold()
        process.io.add(client)


class _Nowhere:
    """The output of an exec is not logged."""

    full = False

    def write(self, stream: int, data: bytes, at: int) -> None:
        pass


def _with_console(streams: Streams, made: list[int]) -> Streams:
    """A terminal's master is both output and input."""
    if len(made) < 2:
        return streams
    os.set_blocking(made[1], False)
    return Streams([(made[1], stdcopy.STDOUT)], os.dup(made[1]))
