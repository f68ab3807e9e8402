"""clone3, pidfds, prctl, subreaper, execve, close_range and what else a process can be given.

clone3(2), pidfd_open(2), prctl(2), close_range(2), sched_setattr(2), ioprio_set(2), set_mempolicy(2).
"""

import ctypes
import os
import signal
from collections.abc import Collection, Sequence
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_ulong, c_void_p

from hafen.kernel import consts
from hafen.kernel.libc import oserror, system_call
from hafen.values import NamedTuple


class _CloneArgs(ctypes.Structure):
    """struct clone_args, version 2 (88 bytes)."""

    _fields_ = [
        ("flags", c_uint64), ("pidfd", c_uint64), ("child_tid", c_uint64), ("parent_tid", c_uint64),
        ("exit_signal", c_uint64), ("stack", c_uint64), ("stack_size", c_uint64), ("tls", c_uint64),
        ("set_tid", c_uint64), ("set_tid_size", c_uint64), ("cgroup", c_uint64),
    ]  # fmt: skip


class _SchedAttr(ctypes.Structure):
    """struct sched_attr, version 0 (48 bytes)."""

    _fields_ = [
        ("size", c_uint32), ("sched_policy", c_uint32), ("sched_flags", c_uint64), ("sched_nice", ctypes.c_int32),
        ("sched_priority", c_uint32), ("sched_runtime", c_uint64), ("sched_deadline", c_uint64),
        ("sched_period", c_uint64),
    ]  # fmt: skip


# The child must not find the GIL released by its parent's thread, so these keep it.
_clone3 = system_call("clone3", c_void_p, c_size_t, keep_gil=True)
_pidfd_open = system_call("pidfd_open", c_int, c_uint)
_pidfd_send_signal = system_call("pidfd_send_signal", c_int, c_int, c_void_p, c_uint)
_prctl = system_call("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_close_range = system_call("close_range", c_uint, c_uint, c_uint)
_execve = system_call("execve", c_char_p, c_void_p, c_void_p)
_sched_setattr = system_call("sched_setattr", c_int, c_void_p, c_uint)
_ioprio_set = system_call("ioprio_set", c_int, c_int, c_int)
_set_mempolicy = system_call("set_mempolicy", c_int, c_void_p, c_ulong)
_personality = system_call("personality", c_ulong)
_keyctl = system_call("keyctl", c_int, c_char_p)


class Child(NamedTuple):
    """`pid` is 0 in the child, where `pidfd` is -1; the caller closes `pidfd` (it is close-on-exec)."""

    pid: int
    pidfd: int


def clone3(flags: int = 0, *, cgroup: int | None = None, exit_signal: int = signal.SIGCHLD) -> Child:
    """Fork with CLONE_NEW* `flags`, a pidfd, and with `cgroup` (a cgroup v2 directory descriptor) into that cgroup.

    Only for processes with one thread. The interpreter's own state is prepared as `os.fork` does it.
    """
    pidfd = c_int(-1)
    arguments = _CloneArgs(flags=flags | consts.CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    if cgroup is not None:
        arguments.flags |= consts.CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    if flags & consts.CLONE_PARENT:
        arguments.exit_signal = 0  # clone(2): the parent's own is used, and EINVAL otherwise
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _clone3(ctypes.addressof(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return Child(0, -1)
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise oserror("clone3")
    return Child(pid, pidfd.value)


def pidfd_open(pid: int) -> int:
    """A close-on-exec descriptor of the process `pid`; readable once it has ended."""
    fd = _pidfd_open(pid, 0)
    if fd < 0:
        raise oserror("pidfd_open", str(pid))
    return fd


def pidfd_send_signal(pidfd: int, signo: int) -> None:
    if _pidfd_send_signal(pidfd, signo, None, 0) < 0:
        raise oserror("pidfd_send_signal")


def wait_pidfd(pidfd: int) -> int:
    """Wait for the end of our child behind `pidfd`, reap it; its exit code, 128 + n for signal n."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None  # None only with WNOHANG
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def start_time(pid: int) -> int:
    """When `pid` started, in clock ticks since boot (proc_pid_stat(5), field 22): with `pid` a process's identity."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    result = _prctl(option, arg2, arg3, arg4, arg5)
    if result < 0:
        raise oserror(f"prctl({option})")
    return result


def set_subreaper() -> None:
    """Orphans among our descendants become our children instead of init's."""
    prctl(consts.PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(signo: int) -> None:
    """`signo` when the thread that made us ends. Lost when credentials change, so set it after the last change."""
    prctl(consts.PR_SET_PDEATHSIG, signo)


def set_name(name: str) -> None:
    """The name that ps shows, of 15 bytes at most."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(consts.PR_SET_NAME, ctypes.addressof(buffer))


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close descriptors `first` to `last`, or with CLOSE_RANGE_CLOEXEC only mark them."""
    if _close_range(first, last, flags) < 0:
        raise oserror("close_range")


def close_all_but(keep: Collection[int]) -> None:
    """Every descriptor above the standard streams that is not in `keep`."""
    first = 3
    for descriptor in sorted(keep):
        if descriptor > first:
            close_range(first, descriptor - 1)
        first = max(first, descriptor + 1)
    close_range(first)


def execve(path: str, argv: Sequence[str], env: Sequence[str]) -> None:
    """Replace the process; unlike os.execve the environment is passed as it stands ("NAME=value", in order)."""
    arguments = (c_char_p * (len(argv) + 1))(*map(os.fsencode, argv), None)
    environment = (c_char_p * (len(env) + 1))(*map(os.fsencode, env), None)
    _execve(os.fsencode(path), ctypes.addressof(arguments), ctypes.addressof(environment))
    raise oserror("execve", path)


def restore_signals() -> None:
    """Every disposition that exec would hand on as ignored back to default, and nothing blocked."""
    for signo in signal.valid_signals():
        if signal.getsignal(signo) is signal.SIG_IGN:
            signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def set_scheduler(policy: int, *, nice: int, priority: int, flags: int, times: tuple[int, int, int]) -> None:
    """sched_setattr of this process; `times` are runtime, deadline and period in nanoseconds."""
    attributes = _SchedAttr(
        size=ctypes.sizeof(_SchedAttr), sched_policy=policy, sched_flags=flags, sched_nice=nice,
        sched_priority=priority, sched_runtime=times[0], sched_deadline=times[1], sched_period=times[2],
    )  # fmt: skip
    if _sched_setattr(0, ctypes.addressof(attributes), 0) < 0:
        raise oserror("sched_setattr")


def set_io_priority(klass: int, priority: int) -> None:
    if _ioprio_set(consts.IOPRIO_WHO_PROCESS, 0, klass << consts.IOPRIO_CLASS_SHIFT | priority) < 0:
        raise oserror("ioprio_set")


def set_memory_policy(mode: int, nodes: frozenset[int]) -> None:
    """set_mempolicy with `mode` including its flags."""
    width = max(nodes, default=0) + 1
    words = (c_ulong * (width // 64 + 1))()
    for node in nodes:
        words[node // 64] |= 1 << node % 64
    if _set_mempolicy(mode, ctypes.addressof(words) if nodes else None, len(words) * 64 + 1 if nodes else 0) < 0:
        raise oserror("set_mempolicy")


def set_personality(persona: int) -> None:
    if _personality(persona) < 0:
        raise oserror("personality")


def join_session_keyring(name: str) -> None:
    """A new session keyring, so that the keys of whoever started us stay out of reach (keyctl(2))."""
    if _keyctl(consts.KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name)) < 0:
        raise oserror("keyctl", name)
