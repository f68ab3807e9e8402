"""Run OCI hooks: the container's state on stdin, a timeout, in order, the first failure ends it.

OCI runtime specification, config.md "POSIX-platform Hooks". Fork and exec without the subprocess module.
"""

import errno
import json
import os
import select
import signal
import time
from typing import Any

from hafen.errors import System
from hafen.kernel import process
from hafen.spec.runtime_config import Config, Hook, Hooks

NONE = Hooks()
_OUTPUT_LIMIT = 4096


def run(kind: str, hooks: tuple[Hook, ...], state: dict[str, Any]) -> None:
    """`kind` is the hooks' name in the configuration; System names the hook that failed and what it wrote."""
    for position, hook in enumerate(hooks):
        _run_one(f"error running {kind} hook #{position}", hook, json.dumps(state).encode())


def run_all(kind: str, hooks: tuple[Hook, ...], state: dict[str, Any]) -> list[str]:
    """For poststart and poststop, whose failures are warnings and stop nothing (OCI runtime.md, "Lifecycle")."""
    warnings = []
    for hook in hooks:
        try:
            run(kind, (hook,), state)
        except System as error:
            warnings.append(error.message)
    return warnings


def _run_one(label: str, hook: Hook, state: bytes) -> None:
    state_read, state_write = os.pipe2(os.O_CLOEXEC)
    output_read, output_write = os.pipe2(os.O_CLOEXEC)
    child = process.clone3()
    if child.pid == 0:
        _exec(hook, state_read, output_write)
    os.close(state_read)
    os.close(output_write)
    try:
        os.set_blocking(state_write, False)
        output, in_time = _converse(child.pidfd, state_write, output_read, state, hook.timeout)
        if not in_time:
            os.killpg(child.pid, signal.SIGKILL)  # it leads its own process group
        code = process.wait_pidfd(child.pidfd)
    finally:
        os.close(output_read)
        os.close(child.pidfd)
    if not in_time:
        raise System(f"{label}: {hook.path}: timed out after {hook.timeout} s")
    if code != 0:
        words = output.decode(errors="replace").strip()
        raise System(f"{label}: {hook.path}: exit status {code}" + (f", output: {words}" if words else ""))


def _converse(pidfd: int, stdin: int, output: int, state: bytes, timeout: int | None) -> tuple[bytes, bool]:
    """Feed the state and read the output until the hook ends; what it said, and whether it ended in time."""
    deadline = None if timeout is None else time.monotonic() + timeout
    said = b""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(stdin, select.POLLOUT)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            events = dict(poll.poll(left))
            if not events:
                return said, False
            if stdin in events:
                state = state[_feed(stdin, state) :]
                if not state:
                    poll.unregister(stdin)
                    os.close(stdin)
                    stdin = -1
            if output in events:
                chunk = os.read(output, _OUTPUT_LIMIT)
                said = (said + chunk)[:_OUTPUT_LIMIT]
                if not chunk:
                    poll.unregister(output)
            elif pidfd in events:  # ended, and all it said is read
                return said, True
    finally:
        if stdin >= 0:
            os.close(stdin)


def _feed(fd: int, data: bytes) -> int:
    """How much was taken; a hook that does not read its stdin has had it all."""
    try:
        return os.write(fd, data)
    except OSError as error:
        if error.errno == errno.EPIPE:
            return len(data)
        raise


def _exec(hook: Hook, stdin: int, output: int) -> None:
    """In the new process: never returns."""
    try:
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_range(3)
        process.restore_signals()
        process.execve(hook.path, hook.args or (hook.path,), hook.env)
    except OSError as error:
        os.write(2, f"{hook.path}: {error.strerror}".encode())
    finally:
        os._exit(127)


def state(config: Config, container_id: str, bundle: str) -> dict[str, Any]:
    """The state that hooks get on stdin, without status and pid (OCI runtime.md, "State")."""
    return {
        "ociVersion": config.oci_version,
        "id": container_id,
        "bundle": bundle,
        "annotations": dict(config.annotations),
    }
