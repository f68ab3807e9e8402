"""exec: one more process in a running container's namespaces and cgroup, as the container's configuration has it.

setns(2) with a pidfd enters all namespaces at once (Linux 5.8); the pid namespace only takes a child's birth.
"""

import os
import signal
from contextlib import ExitStack

from hafen.errors import Conflict, HafenError, StartFailed, System
from hafen.kernel import consts, namespaces, process
from hafen.kernel.cgroup import Cgroup
from hafen.runtime import child, hooks
from hafen.runtime.child import Order, Stdio
from hafen.runtime.parent import DEFAULT, Options, Running, compiled, end, hierarchy, open_cgroup, receive
from hafen.runtime.plan import check_process
from hafen.runtime.stage import Phase, Stage, typed
from hafen.runtime.sync import Channel, Message
from hafen.spec.runtime_config import Config, Process

_FIND = Phase("finding the container's process")
_CLONE = Phase("creating the process")
_CHILD = Phase("waiting for the process")


class Joining:
    """A process on its way into the container; its child until `advance` has told that it executes.

    For callers that wait for other things too: `fileno` is readable whenever `advance` can go on. A failure ends it.
    """

    def __init__(self, channel: Channel, launched: process.Child, cgroup: Cgroup, reap: bool) -> None:
        self.pid = launched.pid
        self._channel = channel
        self._launched = launched
        self._cgroup = cgroup
        self._reap = reap
        self._console: int | None = None
        self._start_time = 0
        self._ready: Message | None = None

    def fileno(self) -> int:
        return self._channel.fileno()

    def advance(self) -> Running | None:
        """What it says next; Running once it executes. Waits where nothing has come. Errors as `execute`."""
        try:
            if self._ready is None:
                self._get_ready()
                return None
            if (rest := self._channel.receive()) is not None:
                raise System(f"the process said {rest.kind!r} where it was to execute")
        except HafenError:
            self._abort()
            raise
        except OSError as error:
            self._abort()
            raise typed(error, _CHILD) from None
        self._channel.close()
        body = self._ready.body
        trace = tuple((name, at // 1000) for name, at in body["trace"])
        warnings = tuple(body["warnings"])
        return Running(self.pid, self._launched.pidfd, self._start_time, self._console, self._cgroup, warnings, trace)

    def _get_ready(self) -> None:
        message = receive(self._channel, self._launched.pidfd, self._cgroup)
        if message.kind != "ready":
            raise System(f"the process said {message.kind!r}")
        self._console = message.descriptors[0] if message.descriptors else None
        try:
            self._start_time = process.start_time(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            pass  # a sibling that has executed and ended is reaped by our parent, perhaps before we look
        self._ready = message

    def _abort(self) -> None:
        self._channel.close()
        if self._console is not None:
            os.close(self._console)
        end(self._launched, reap=self._reap)


def execute(
    wanted: Process,
    *,
    pid: int,
    stdio: Stdio,
    config: Config,
    pidfd: int | None = None,
    cgroup: Cgroup | None = None,
    container_id: str = "",
    seccomp: bytes | None = None,
    options: Options = DEFAULT,
) -> Running:
    """`wanted` executing beside the container's process `pid`.

    `config` is the container's: seccomp profile (unless `seccomp` is its compiled form) and cgroup path (unless
    `cgroup` is given). Conflict where the container has ended or is paused; StartFailed as in `parent.run`.
    """
    joining = launch(
        wanted, pid=pid, stdio=stdio, config=config, pidfd=pidfd, cgroup=cgroup, container_id=container_id,
        seccomp=seccomp, options=options, reap=not options.sibling,
    )  # fmt: skip
    while (running := joining.advance()) is None:
        pass
    return running


def launch(
    wanted: Process,
    *,
    pid: int,
    stdio: Stdio,
    config: Config,
    pidfd: int | None = None,
    cgroup: Cgroup | None = None,
    container_id: str = "",
    seccomp: bytes | None = None,
    options: Options = DEFAULT,
    reap: bool,
) -> Joining:
    """`execute` up to the birth of the process. `reap`: of one that fails; else it is left to the caller's reaper."""
    check_process(wanted)
    if not wanted.args:
        raise StartFailed("process.args is missing")
    current = _FIND
    with ExitStack() as undo, ExitStack() as opened:
        try:
            pidfd = _own_pidfd(pid, pidfd, opened)
            flags = _namespaces_of(pid)
            cgroup = cgroup or hierarchy().open(config.linux.cgroups_path or f"/hafen/{container_id}")
            if cgroup.frozen():  # the child would stop as soon as it enters
                raise Conflict("cannot exec in a paused container")
            program, filter_flags = compiled(config, seccomp)
            current = _CLONE
            ours, theirs = Channel.pair()
            undo.callback(ours.close)
            opened.callback(theirs.close)
            clone_fd, entries = open_cgroup(cgroup, opened)
            state = hooks.state(config, container_id, "")
            order = Order(
                wanted, config._replace(hooks=hooks.NONE), state, stdio, program, filter_flags, entries,
                waits=False, preserved=options.preserved, dies_with_parent=options.dies_with_parent,
                keyring=f"_ses.{container_id}" if options.keyring and container_id else "",
            )  # fmt: skip
            _enter_pid_namespace(pidfd, opened)
            launched = process.clone3(consts.CLONE_PARENT if options.sibling else 0, cgroup=clone_fd)
            if launched.pid == 0:
                signal.set_wakeup_fd(-1)
                # Nothing of the caller's gets near the container; what is above 2 + preserved stays until execve.
                kept = {theirs.fileno(), pidfd, *entries, *stdio, *range(3, 3 + options.preserved)}
                process.close_all_but(kept)
                stage = Stage(theirs, bundle="", state=state, trace=options.trace)
                child.join(stage, order, pidfd, flags & ~consts.CLONE_NEWPID)
            undo.callback(end, launched, reap=reap)
            opened.close()
        except OSError as error:
            raise typed(error, current) from None
        undo.pop_all()
        return Joining(ours, launched, cgroup, reap)


def _enter_pid_namespace(pidfd: int, opened: ExitStack) -> None:
    """For our next child; when `opened` closes, children are born in our own namespace again."""
    own = namespaces.open_own("pid")
    opened.callback(os.close, own)
    namespaces.setns(pidfd, consts.CLONE_NEWPID)
    opened.callback(namespaces.setns, own, consts.CLONE_NEWPID)


def _own_pidfd(pid: int, pidfd: int | None, opened: ExitStack) -> int:
    if pidfd is not None:
        return pidfd
    try:
        fd = process.pidfd_open(pid)
    except ProcessLookupError:
        raise Conflict("cannot exec in a stopped container") from None
    opened.callback(os.close, fd)
    return fd


def _namespaces_of(pid: int) -> int:
    """CLONE_NEW* of what to enter: every kind that this kernel has, a user namespace only where it is not ours."""
    flags = 0
    for kind, (flag, _, _) in namespaces.KINDS.items():
        if kind == "user":
            flags |= 0 if namespaces.same_user_namespace(pid) else flag
        elif namespaces.exists(kind):
            flags |= flag
    return flags
