"""The parent's side: cgroup, clone, id maps, hooks, the conversation with the child, and undoing it all.

    created = create(config, container_id=..., bundle=..., rootfs=..., stdio=...)   # set up, waiting right before exec
    running = created.start()                                                       # execve
    running = run(config, ...)                                                      # both, without the round trip

The caller has one thread, reaps the child (`Running.pidfd`), and closes the descriptors that it gets. Every failure
is a HafenError that names the step; nothing is left behind then: no process, no cgroup, no descriptor.
"""

import errno
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

from hafen.errors import HafenError, InvalidArgument, NotImplemented, StartFailed, System
from hafen.kernel import cgroup as cgroups
from hafen.kernel import consts, namespaces, process, seccomp
from hafen.kernel.cgroup import Cgroup, Hierarchy
from hafen.kernel.process import Child
from hafen.runtime import child, hooks, identity, resources
from hafen.runtime.child import Order
from hafen.runtime.child import Stdio as Stdio
from hafen.runtime.mounts import Bind, MountRoot, id_maps
from hafen.runtime.plan import Plan, plan
from hafen.runtime.program import failed
from hafen.runtime.stage import Phase, Stage, Step, typed
from hafen.runtime.sync import Channel, Message
from hafen.spec.runtime_config import Config, Resources, RootMount
from hafen.values import NamedTuple

_CGROUP = Phase("creating the cgroup")
_LIMITS = Phase("applying cgroup limits")
_CLONE = Phase("creating the container's process")
_MAPS = Phase("writing the user namespace's id maps")
_SCORE = Phase("setting the OOM score")
_CHILD = Phase("waiting for the container's process")


class Running(NamedTuple):
    """A container's (or an exec's) process, executing its program.

    `start_time` in clock ticks since boot; `console` is the pty's master where the process has a terminal.
    `trace` is (what, microseconds since `create` was called) for each step, where tracing was asked for.
    """

    pid: int
    pidfd: int
    start_time: int
    console: int | None
    cgroup: Cgroup
    warnings: tuple[str, ...] = ()
    trace: tuple[tuple[str, int], ...] = ()


class Options(NamedTuple):
    """What only some callers want.

    `sibling`: the new process becomes a child of our own parent (CLONE_PARENT), who reaps it.
    `dies_with_parent`: SIGKILL when that parent ends. `gate`, `report`, `preserved`: see `child.Order`.
    """

    sibling: bool = False
    dies_with_parent: bool = True
    gate: int = -1
    report: int = -1
    preserved: int = 0
    keyring: bool = True
    trace: bool = False


DEFAULT = Options()


class Created:
    """A container whose process waits right before execve. Either `start` or `abort` it."""

    def __init__(
        self, launched: Child, channel: Channel, config: Config, state: dict[str, Any], cgroup: Cgroup, undo: ExitStack
    ) -> None:
        self.pid, self.pidfd = launched
        self.cgroup = cgroup
        self.console: int | None = None
        self.warnings: list[str] = []
        self.trace: list[tuple[str, int]] = []
        self.start_time = 0
        self._channel = channel
        self._config = config
        self._state = state
        self._undo = undo

    def start(self) -> Running:
        """Let it execve. StartFailed and other errors leave nothing behind."""
        try:
            try:
                self._channel.send("start")
            except OSError:  # it has died meanwhile: what it said, or that, comes out of the next line
                pass
            return self._wait_executing()
        except HafenError:
            self.abort()
            raise

    def abort(self) -> None:
        """Undo everything: the process is killed (and reaped, where it is our child), the cgroup removed."""
        self._undo.close()

    def release(self) -> None:
        """The child waits for the gate, not for us: forget it without undoing anything."""
        self._undo.pop_all()
        self._channel.close()
        os.close(self.pidfd)
        if self.console is not None:
            os.close(self.console)

    def _wait_executing(self) -> Running:
        """The end of file on the channel: execve has closed the other end, or the process has died before."""
        message = self._channel.receive()
        if message is not None:
            raise System(f"the container's process said {message.kind!r} where it was to execute")
        self.warnings += hooks.run_all("poststart", self._config.hooks.poststart, {**self._state, "status": "running"})
        self._undo.pop_all()
        self._channel.close()
        return Running(
            self.pid, self.pidfd, self.start_time, self.console, self.cgroup, tuple(self.warnings), tuple(self.trace)
        )

    def wait_ready(self, sequence: "_Sequence") -> None:
        """Converse until the child stands right before execve."""
        while (message := receive(self._channel, self.pidfd, self.cgroup)).kind != "ready":
            if message.kind != "hooks":
                raise System(f"the container's process said {message.kind!r}")
            state = {**self._state, "status": "creating"}
            hooks.run("prestart", self._config.hooks.prestart, state)
            hooks.run("createRuntime", self._config.hooks.create_runtime, state)
            self._channel.send("go")
        if message.descriptors:
            self.console = message.descriptors[0]
            self._undo.callback(os.close, self.console)
        self.warnings += message.body["warnings"]
        try:
            self.start_time = process.start_time(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            pass  # `run` only: it has executed, ended, and its parent has reaped it
        self.trace = sequence.merged(message.body["trace"])


@cache
def hierarchy() -> Hierarchy:
    """The cgroup hierarchies of this machine, found once per process."""
    return cgroups.open_hierarchy()


def create(
    config: Config,
    *,
    container_id: str,
    bundle: str,
    rootfs: tuple[RootMount, ...],
    stdio: Stdio,
    seccomp: bytes | None = None,
    options: Options = DEFAULT,
) -> Created:
    """A new container, its program not yet executed.

    `rootfs` are mounted at `config.root.path` inside the new mount namespace; without any that directory is the root.
    Namespace paths may be `/proc/self/fd/N` of the caller. `seccomp` is a compiled filter in place of the profile.
    """
    return _create(config, container_id, bundle, rootfs, stdio, seccomp, options, waits=True)


def run(
    config: Config,
    *,
    container_id: str,
    bundle: str,
    rootfs: tuple[RootMount, ...],
    stdio: Stdio,
    seccomp: bytes | None = None,
    options: Options = DEFAULT,
) -> Running:
    """`create` and `start` in one."""
    created = _create(config, container_id, bundle, rootfs, stdio, seccomp, options, waits=False)
    try:
        return created._wait_executing()
    except HafenError:
        created.abort()
        raise


class _Sequence:
    """What the parent does, in order: names errors and feeds the trace."""

    def __init__(self, trace: bool) -> None:
        self.current: Step | Phase = _CGROUP
        self._tracing = trace
        self._times = [("planning", time.monotonic_ns())]

    def doing(self, what: Phase) -> None:
        self.current = what
        if self._tracing:
            self._times.append((what.text, time.monotonic_ns()))

    def merged(self, childs: list[list[Any]]) -> list[tuple[str, int]]:
        """Our steps and the child's by time, in microseconds since the beginning."""
        if not self._tracing:
            return []
        began = self._times[0][1]
        both = [*self._times, *((f"  {name}", at) for name, at in childs)]
        return [(name, (at - began) // 1000) for name, at in sorted(both, key=lambda item: item[1])]


def _create(
    config: Config,
    container_id: str,
    bundle: str,
    rootfs: tuple[RootMount, ...],
    stdio: Stdio,
    program: bytes | None,
    options: Options,
    *,
    waits: bool,
) -> Created:
    sequence = _Sequence(options.trace)
    the_plan = plan(config, rootfs, bundle=bundle)
    with ExitStack() as undo, ExitStack() as opened:
        try:
            program, flags = compiled(config, program)
            cgroup, warnings = _make_cgroup(config, container_id, sequence, undo)
            sequence.doing(_CLONE)
            ours, theirs = Channel.pair()
            undo.callback(ours.close)
            opened.callback(theirs.close)
            state = hooks.state(config, container_id, bundle)
            # With a joined user namespace a process inside it clones: it may not name the cgroup, only use entries.
            clone_fd, entries = open_cgroup(cgroup, opened, by_clone="user" not in dict(the_plan.joined))
            sources, root_layers = _open_sources(the_plan, bundle, sequence, opened)
            order = Order(
                the_plan.process, config, state, stdio, program, flags, entries, waits, options.gate, options.report,
                options.preserved, options.dies_with_parent, f"_ses.{container_id}" if options.keyring else "",
            )  # fmt: skip

            def in_child() -> None:
                ours.close()
                stage = Stage(
                    theirs, bundle=bundle, state=state, cgroup_mounts=cgroup.mounts(), sources=sources,
                    root_layers=root_layers, user_namespace=the_plan.user_namespace, trace=options.trace,
                )  # fmt: skip
                child.become(stage, order, the_plan)

            launched = launch(the_plan, in_child, clone_fd, sibling=options.sibling)
            undo.callback(end, launched, reap=not options.sibling)
            opened.close()
            created = Created(launched, ours, config, {**state, "pid": launched.pid}, cgroup, undo.pop_all())
            undo.callback(created.abort)
            created.warnings += warnings
            _settle(created, config, the_plan, ours, sequence)
            sequence.doing(_CHILD)
            created.wait_ready(sequence)
        except OSError as error:
            raise typed(error, sequence.current) from None
        undo.pop_all()
        return created


def compiled(config: Config, program: bytes | None) -> tuple[bytes | None, int]:
    """The seccomp filter, compiled from the configuration where it is not given, and the flags to install it with."""
    profile = config.linux.seccomp
    if profile is None:
        return program, consts.SECCOMP_FILTER_FLAG_SPEC_ALLOW if program else 0
    return program if program is not None else seccomp.compile(profile), seccomp.flags(profile)


def _make_cgroup(
    config: Config, container_id: str, sequence: _Sequence, undo: ExitStack
) -> tuple[Cgroup, tuple[str, ...]]:
    sequence.doing(_CGROUP)
    tree = hierarchy()
    cgroup = tree.create(config.linux.cgroups_path or f"/hafen/{container_id}")
    undo.callback(_remove_cgroup, cgroup)
    sequence.doing(_LIMITS)
    return cgroup, resources.impose(cgroup, config.linux.resources or Resources(), tree.version)


def _remove_cgroup(cgroup: Cgroup) -> None:
    cgroup.kill()
    cgroup.remove()


def open_cgroup(cgroup: Cgroup, opened: ExitStack, *, by_clone: bool = True) -> tuple[int | None, tuple[int, ...]]:
    """What clone3 and the child need to enter `cgroup`: a descriptor for the former, entries for the latter."""
    clone_fd = cgroup.clone_fd() if by_clone else None
    entries = cgroup.entries(cloned=clone_fd is not None)
    for fd in entries if clone_fd is None else (*entries, clone_fd):
        opened.callback(os.close, fd)
    return clone_fd, entries


def _open_sources(
    the_plan: Plan, bundle: str, sequence: "_Sequence", opened: ExitStack
) -> tuple[dict[Step, int], list[int | None] | None]:
    """Mounts that the child could not make: sources of binds, and the layers of the root.

    With a user namespace it may not reach what it is to bind, and an overlay would lack the privileges that its upper
    directory needs; to map ids we need a process whose pid the host's procfs shows.
    """
    sources: dict[Step, int] = {}
    layers: list[int | None] | None = None
    for step in the_plan.steps:
        if isinstance(step, Bind) and step not in sources and (the_plan.user_namespace or step.uid_mappings):
            sequence.current = step
            sources[step] = step.open_source(bundle)
            opened.callback(os.close, sources[step])
        elif isinstance(step, MountRoot) and the_plan.user_namespace:
            sequence.current = step
            layers = step.open_layers()
            for fd in layers:
                if fd is not None:
                    opened.callback(os.close, fd)
    return sources, layers


def _settle(created: Created, config: Config, the_plan: Plan, ours: Channel, sequence: _Sequence) -> None:
    """What only we may do to the child while it works."""
    linux = config.linux
    if the_plan.user_namespace and the_plan.process.oom_score_adj is not None:
        sequence.doing(_SCORE)
        warning = identity.set_oom_score(str(created.pid), the_plan.process.oom_score_adj)
        created.warnings += [warning] if warning else []
    if the_plan.clone_flags & consts.CLONE_NEWUSER:
        sequence.doing(_MAPS)
        namespaces.write_id_maps(created.pid, id_maps(linux.uid_mappings), id_maps(linux.gid_mappings))
        ours.send("maps")


def receive(channel: Channel, pidfd: int, cgroup: Cgroup) -> Message:
    """The child's next message; StartFailed with how it ended where there is none."""
    message = channel.receive()
    if message is None:
        if cgroup.oom_kills():
            raise failed("container init was OOM-killed (memory limit too low?)", 128)
        raise StartFailed(f"the container's process ended during set-up: {_how_it_ended(pidfd)}")
    return message


def _how_it_ended(pidfd: int) -> str:
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # a sibling
        return "unknown"
    if result is None:
        return "unknown"
    killed = result.si_code != os.CLD_EXITED
    return f"killed by signal {result.si_status}" if killed else f"exit code {result.si_status}"


def end(launched: Child, *, reap: bool) -> None:
    """SIGKILL, wait for the end; `reap` where it is our own child. Closes the pidfd."""
    try:
        process.pidfd_send_signal(launched.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if reap:
        process.wait_pidfd(launched.pidfd)
    else:
        poll = select.poll()
        poll.register(launched.pidfd, select.POLLIN)
        poll.poll()
    os.close(launched.pidfd)


def launch(the_plan: Plan, in_child: Callable[[], None], clone_fd: int | None, *, sibling: bool) -> Child:
    """clone3 into the new and joined namespaces that only a birth can enter: pid, time with offsets, user.

    `in_child` is what the new process does; it does not return.
    """
    flags = the_plan.clone_flags | (consts.CLONE_PARENT if sibling else 0)
    paths = dict(the_plan.joined)
    if "user" in paths:
        if the_plan.time_offsets:
            raise NotImplemented("linux.timeOffsets together with a joined user namespace")
        return _launch_in_user_namespace(paths, flags, in_child)
    with ExitStack() as restore:
        if "pid" in paths:
            _enter_for_children("pid", paths["pid"], restore)
        if the_plan.time_offsets:
            _make_time_namespace(the_plan.time_offsets, restore)
        try:
            launched = process.clone3(flags, cgroup=clone_fd)
        except OSError as error:
            raise _missing(error, flags) from None
        if launched.pid == 0:
            in_child()
            os._exit(1)
        return launched


def _missing(error: OSError, flags: int) -> Exception:
    """The kernel feature that a refused clone lacks, or the error itself."""
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        for kind, (flag, _, option) in namespaces.KINDS.items():
            if flags & flag and not namespaces.exists(kind):
                return NotImplemented(f"this kernel has no {kind} namespaces ({option})")
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return System("creating the container's process: too many namespaces (see /proc/sys/user/max_*_namespaces)")
    return error


def _enter_for_children(kind: str, path: str, restore: ExitStack) -> None:
    """Our next child is born in the namespace `path`; afterwards they are born in ours again."""
    flag = namespaces.KINDS[kind].flag
    own = namespaces.open_own(kind)
    restore.callback(os.close, own)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(fd, flag)
    finally:
        os.close(fd)
    restore.callback(namespaces.setns, own, flag)


def _make_time_namespace(offsets: tuple[str, ...], restore: ExitStack) -> None:
    """time_namespaces(7): the offsets are fixed by the first process that enters."""
    if not namespaces.exists("time"):
        raise NotImplemented("this kernel has no time namespaces (CONFIG_TIME_NS)")
    own = namespaces.open_own("time")
    restore.callback(os.close, own)
    namespaces.unshare(consts.CLONE_NEWTIME)
    restore.callback(namespaces.setns, own, consts.CLONE_NEWTIME)
    with open("/proc/self/timens_offsets", "w", encoding="ascii") as file:
        try:
            file.write("\n".join(offsets))
            file.flush()
        except OSError as error:
            raise InvalidArgument(f"linux.timeOffsets: {error.strerror}") from None


def _launch_in_user_namespace(paths: dict[str, str], flags: int, in_child: Callable[[], None]) -> Child:
    """By way of a process that enters the user namespace first, so that the new namespaces belong to it.

    It cannot come back, hence a process of its own; CLONE_PARENT makes the container our child (or sibling) all the
    same, and its pid is one of our pid namespace, where the process in between is.
    """
    ours, theirs = Channel.pair()
    between = process.clone3(flags & consts.CLONE_PARENT)
    if between.pid == 0:
        try:
            ours.close()
            for kind in ("user", "pid"):
                if kind in paths:
                    fd = os.open(paths[kind], os.O_RDONLY | os.O_CLOEXEC)
                    namespaces.setns(fd, namespaces.KINDS[kind].flag)
                    os.close(fd)
            inner = process.clone3(flags | consts.CLONE_PARENT)
            if inner.pid == 0:
                theirs.close()
                in_child()
            theirs.send("stage", {"pid": inner.pid}, (inner.pidfd,))
        except OSError as error:
            theirs.send_error(typed(error, Phase("entering the user namespace")))
        finally:
            os._exit(0)
    theirs.close()
    try:
        message = ours.expect("stage", "the process that enters the user namespace")
        return Child(int(message.body["pid"]), message.descriptors[0])
    finally:
        ours.close()
        end(between, reap=not flags & consts.CLONE_PARENT)
