"""The child's side: perform the plan, drop privileges, execve. One straight line; read it from `become` down.

`become` is the first process of a new container, `join` one more in a running container; both end in `_finish`.
Whatever goes wrong is sent to the parent with the name of the step (`hafen.runtime.sync`), and the child exits.
"""

import gc
import os
import select
import signal
import stat
from typing import Any, NoReturn

from hafen.errors import HafenError, InvalidArgument, NotImplemented, StartFailed, System
from hafen.kernel import caps, cgroup, consts, fs, lsm, namespaces, process, seccomp, tty
from hafen.runtime import hooks, identity, program
from hafen.runtime.mounts import Bind
from hafen.runtime.placement import set_placement
from hafen.runtime.plan import Plan
from hafen.runtime.stage import Phase, Stage, Step, typed
from hafen.runtime.steps import open_console
from hafen.runtime.sync import Channel
from hafen.spec.runtime_config import Config, Process
from hafen.values import NamedTuple

_SYS_ADMIN = caps.mask(["CAP_SYS_ADMIN"])

_CGROUP = Phase("entering the cgroup")
_NAMESPACES = Phase("entering namespaces")
_SCORE = Phase("setting the OOM score")
_USER_NAMESPACE = Phase("waiting for the user namespace's id maps")
_IDENTITY = Phase("resolving the user")
_PLACEMENT = Phase("setting scheduler, I/O priority, memory policy and personality")
_LABEL = Phase("setting the security label")
_LIMITS = Phase("setting resource limits")
_STDIO = Phase("setting up standard input and output")
_CLOSE = Phase("closing descriptors")
_CAPABILITIES = Phase("setting user, groups and capabilities")
_PROGRAM = Phase("looking up the program")
_READY = Phase("waiting for start")
_HOOKS = Phase("running startContainer hooks")
_SECCOMP = Phase("installing the seccomp filter")
_EXEC = Phase("executing the program")


class Stdio(NamedTuple):
    """Descriptors that become 0, 1 and 2; unused with a terminal."""

    stdin: int
    stdout: int
    stderr: int


class Order(NamedTuple):
    """What the parent has decided and opened for the child.

    `gate` is a descriptor that yields a byte when the program may run (the OCI command line's fifo), and `report`
    one that takes a failure after that; without a gate the parent says `start`, and with `waits` False nobody does.
    """

    process: Process
    config: Config
    state: dict[str, Any]
    stdio: Stdio
    seccomp: bytes | None = None
    seccomp_flags: int = 0
    cgroup_entries: tuple[int, ...] = ()
    waits: bool = True
    gate: int = -1
    report: int = -1
    preserved: int = 0
    dies_with_parent: bool = True
    keyring: str = ""


def become(stage: Stage, order: Order, plan: Plan) -> NoReturn:
    """The first process of a container."""
    try:
        _enter_cgroup(stage, order)
        _isolate(stage, order)
        if plan.user_namespace:
            _become_namespace_root(stage, maps=bool(plan.clone_flags & consts.CLONE_NEWUSER))
        else:  # there the parent has the right to
            _set_oom_score(stage, order)
        stage.doing(_NAMESPACES)
        _join_namespaces(plan)
        if plan.cgroup_namespace:  # not by clone3: its root is the cgroup that we are in, and now we are in ours
            namespaces.unshare(consts.CLONE_NEWCGROUP)
        _open_shared_sources(stage, plan)
        for step in plan.steps:
            stage.doing(step)
            step.perform(stage)
        _finish(stage, order)
    except BaseException as error:  # noqa: BLE001 - the boundary of this process
        _report(stage, order, error)
    finally:
        os._exit(1)


def join(stage: Stage, order: Order, pidfd: int, flags: int) -> NoReturn:
    """One more process in the namespaces (CLONE_NEW* `flags`) of the process behind `pidfd`."""
    try:
        _enter_cgroup(stage, order)
        _isolate(stage, order)
        _set_oom_score(stage, order)
        stage.doing(_NAMESPACES)
        namespaces.setns(pidfd, flags)
        if flags & consts.CLONE_NEWUSER:
            _become_namespace_root(stage, maps=False)
        stage.root = os.open("/", consts.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if order.process.terminal:
            height, width = order.process.console_size or (0, 0)
            stage.console = open_console(stage.root, height, width)
        _finish(stage, order)
    except BaseException as error:  # noqa: BLE001 - the boundary of this process
        _report(stage, order, error)
    finally:
        os._exit(1)


def _enter_cgroup(stage: Stage, order: Order) -> None:
    gc.disable()  # a collection writes to every object: to pages shared with the parent
    stage.doing(_CGROUP)
    cgroup.enter(order.cgroup_entries)


def _isolate(stage: Stage, order: Order) -> None:
    """Apart from whoever started us, and out of reach of processes already inside (CVE-2016-9962)."""
    process.prctl(consts.PR_SET_DUMPABLE, 0)
    os.setsid()
    os.umask(0)  # noqa: TID251 - the child alone: nodes and directories get the modes that they are given
    stage.open_proc()
    if order.keyring:
        try:
            process.join_session_keyring(order.keyring)
        except OSError as error:  # ENOSYS without CONFIG_KEYS, EDQUOT, EPERM under a filter: not vital
            stage.warnings.append(f"no session keyring of its own: {error.strerror}")


def _set_oom_score(stage: Stage, order: Order) -> None:
    if order.process.oom_score_adj is not None:
        stage.doing(_SCORE)
        warning = identity.set_oom_score("self", order.process.oom_score_adj)
        stage.warnings += [warning] if warning else []


def _become_namespace_root(stage: Stage, *, maps: bool) -> None:
    """User 0 of the user namespace; with `maps` once the parent has written what that is."""
    stage.doing(_USER_NAMESPACE)
    if maps:
        stage.channel.expect("maps", "the runtime")
    if fs.read_in_root(stage.proc, "self/setgroups") == b"allow\n":
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process.prctl(consts.PR_SET_DUMPABLE, 0)  # a change of ids resets it


def _join_namespaces(plan: Plan) -> None:
    for kind, path in plan.joined:
        if kind in ("user", "pid"):  # entered before this process was made
            continue
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if kind == "mount" and os.path.sameopenfile(fd, own := namespaces.open_own("mount")):
            os.close(own)
            raise System("the mount namespace to join is the runtime's own")
        namespaces.setns(fd, namespaces.KINDS[kind].flag)
        os.close(fd)


def _open_shared_sources(stage: Stage, plan: Plan) -> None:
    """Sources whose mounts must reach the host, while this namespace still is the host's peer."""
    for step in plan.steps:
        if isinstance(step, Bind) and step.is_shared and step not in stage.sources:
            stage.doing(step)
            stage.sources[step] = step.open_source(stage.bundle)


def _finish(stage: Stage, order: Order) -> None:
    """From the right root to execve."""
    wanted = order.process
    stage.doing(_IDENTITY)
    who = identity.resolve(stage.root, wanted.user)
    env = identity.environment(wanted.env, who.home)
    stage.doing(_PLACEMENT)
    set_placement(wanted, order.config)
    stage.doing(_LABEL)
    _set_label(stage, wanted)
    stage.doing(_LIMITS)
    stage.warnings += identity.set_limits(wanted.rlimits)
    stage.doing(_STDIO)
    _set_stdio(stage, order, who.uid)
    may_set_groups = fs.read_in_root(stage.proc, "self/setgroups") == b"allow\n"
    stage.doing(_CLOSE)
    order = _close_all_but(stage, order)
    entered = program.enter_directory(wanted.cwd, last_try=False)
    os.umask(0o022 if wanted.user.umask is None else wanted.user.umask)  # noqa: TID251 - the child alone
    stage.doing(_CAPABILITIES)
    masks = _drop_to(stage, order, who, may_set_groups)
    if not entered:
        program.enter_directory(wanted.cwd, last_try=True)
    stage.doing(_PROGRAM)
    path = program.find(wanted.args[0], env)
    if order.dies_with_parent:  # not before: a change of credentials resets it
        process.set_parent_death_signal(signal.SIGKILL)
        _check_parent_alive(stage.channel)
    process.restore_signals()
    stage.doing(_READY)
    _say_ready(stage)
    _wait_for_start(stage.channel, order)
    if order.config.hooks.start_container:
        stage.doing(_HOOKS)
        state = {**order.state, "pid": os.getpid(), "status": "created"}
        hooks.run("startContainer", order.config.hooks.start_container, state)
    stage.doing(_SECCOMP)
    _restrict(order, masks)
    stage.doing(_EXEC)
    _execute(path, wanted, env)


def _set_label(stage: Stage, wanted: Process) -> None:
    if wanted.apparmor_profile:
        if not lsm.apparmor_enabled():
            raise NotImplemented(f"AppArmor profile {wanted.apparmor_profile!r}: this kernel has no AppArmor enabled")
        try:
            lsm.set_apparmor_profile(stage.proc, wanted.apparmor_profile)
        except FileNotFoundError:
            raise InvalidArgument(f"AppArmor profile {wanted.apparmor_profile!r} is not loaded") from None
    if wanted.selinux_label:
        if not lsm.selinux_enabled():
            raise NotImplemented(f"SELinux label {wanted.selinux_label!r}: this kernel has no SELinux enabled")
        lsm.set_selinux_label(stage.proc, wanted.selinux_label)


def _set_stdio(stage: Stage, order: Order, uid: int) -> None:
    """0, 1 and 2, owned by the user: else it could not open its own /dev/stdout."""
    if stage.console is not None:
        tty.make_controlling(stage.console.slave)
        sources = (stage.console.slave,) * 3
    else:
        # Out of the way first: a source may itself be 0, 1 or 2.
        sources = tuple(_duplicate_high(fd) for fd in order.stdio)  # type: ignore[assignment]  # three of three
    for target, source in enumerate(sources):
        os.dup2(source, target)
        status = os.fstat(target)
        if uid and status.st_uid != uid and not (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)):
            try:
                os.fchown(target, uid, -1)
            except OSError:  # a read-only or foreign file system, an unmapped owner: as it is, like runc
                pass


def _duplicate_high(fd: int) -> int:
    return fs.duplicate(fd, 64)


def _close_all_but(stage: Stage, order: Order) -> Order:
    """Only stdio, what is to be preserved, channel, gate and report stay: nothing leads out (CVE-2024-21626)."""
    master = stage.console.master if stage.console else -1
    base = 3 + order.preserved
    kept = [fs.duplicate(fd, 64) if fd >= 0 else -1 for fd in (master, order.gate, order.report)]
    stage.channel.move_to(fs.duplicate(stage.channel.fileno(), 64))
    position = base
    stage.channel.move_to(position)
    moved = []
    for fd in kept:
        if fd >= 0:
            position += 1
            os.dup2(fd, position, inheritable=False)
        moved.append(position if fd >= 0 else -1)
    process.close_range(position + 1)
    stage.root = stage.proc = stage.empty = -1
    if stage.console:
        stage.console = stage.console._replace(master=moved[0], slave=-1)
    for fd in range(3, base):
        if fs.is_open(fd):
            os.set_inheritable(fd, True)
    return order._replace(gate=moved[1], report=moved[2])


def _drop_to(
    stage: Stage, order: Order, who: identity.Identity, may_set_groups: bool
) -> identity.CapabilityMasks | None:
    """User, groups and all capability sets; CAP_SYS_ADMIN stays permitted where the filter is yet to be installed."""
    masks = identity.capability_masks(order.process.capabilities)
    if masks is not None:
        masks, warning = identity.available(masks, caps.get().permitted)
        if warning:
            stage.warnings.append(warning)
        caps.limit_bounding(masks.bounding)
        process.prctl(consts.PR_SET_KEEPCAPS, 1)
    identity.set_groups_and_user(who, set_groups=may_set_groups)
    if masks is not None:
        process.prctl(consts.PR_SET_KEEPCAPS, 0)
        extra = 0 if _no_new_privileges(order) or order.seccomp is None else _SYS_ADMIN & caps.get().permitted
        caps.set(caps.Sets(masks.effective, masks.permitted | extra, masks.inheritable))
        caps.set_ambient(masks.ambient)
    process.prctl(consts.PR_SET_DUMPABLE, 0)  # the change of user reset it
    return masks


def _no_new_privileges(order: Order) -> bool:
    return order.process.no_new_privileges


def _check_parent_alive(channel: Channel) -> None:
    """The parent may have ended before we asked to die with it: then its end of the channel is closed."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLHUP)
    if any(events & select.POLLHUP for _, events in poll.poll(0)):
        os._exit(1)


def _say_ready(stage: Stage) -> None:
    descriptors = (stage.console.master,) if stage.console else ()
    stage.channel.send("ready", {"warnings": stage.warnings, "trace": stage.trace()}, descriptors)
    for fd in descriptors:
        os.close(fd)


def _wait_for_start(channel: Channel, order: Order) -> None:
    if order.gate >= 0:
        channel.close()
        os.read(order.gate, 1)
    elif order.waits and channel.receive() is None:
        os._exit(1)  # the parent has gone, and nobody will start us


def _restrict(order: Order, masks: identity.CapabilityMasks | None) -> None:
    """The filter last: all it must let through after this is capset, where it needs CAP_SYS_ADMIN, and execve."""
    if _no_new_privileges(order):
        identity.set_no_new_privileges()
    if order.seccomp is None:
        return
    if _no_new_privileges(order) or masks is None:
        seccomp.install(order.seccomp, order.seccomp_flags)
        return
    final = caps.Sets(masks.effective, masks.permitted, masks.inheritable)
    if not caps.get().permitted & _SYS_ADMIN:  # seccomp(2): without it only no_new_privs allows a filter
        identity.set_no_new_privileges()
    else:
        caps.set(caps.Sets(masks.effective | _SYS_ADMIN, masks.permitted | _SYS_ADMIN, masks.inheritable))
    seccomp.install(order.seccomp, order.seccomp_flags)
    caps.set(final)


def _execute(path: str, wanted: Process, env: list[str]) -> None:
    try:
        process.execve(path, wanted.args, env)
    except OSError as error:
        # It has been started, as far as anybody knows: what is left is what a shell would do. runc says the same.
        os.write(2, f"exec {path}: {os.strerror(error.errno or 0).lower()}\n".encode())
        os._exit(1)


def _report(stage: Stage, order: Order, error: BaseException) -> None:
    if isinstance(error, StartFailed | InvalidArgument):  # who asked knows what they asked for
        wire: HafenError = error
    elif isinstance(error, HafenError):
        wire = type(error)(f"{stage.current.describe()}: {error.message}")
    elif isinstance(error, OSError):
        wire = typed(error, stage.current)
    else:
        wire = System(f"{stage.current.describe()}: {type(error).__name__}: {error}")
    try:
        if order.report >= 0 and stage.current in (_HOOKS, _SECCOMP, _EXEC):
            os.write(order.report, wire.message.encode())
        else:
            stage.channel.send_error(wire)
    except OSError:  # the parent has gone; there is nobody to tell
        pass


__all__ = ["Order", "Stage", "Stdio", "Step", "become", "join"]
