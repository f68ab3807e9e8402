"""Nothing listens at the default place: start the engine, or say how."""

import os
import sys
import time

from hafen.cli.output import err
from hafen.client.address import DEFAULT_SOCKET, Endpoint
from hafen.errors import Unavailable

LOG = "/var/log/hafen.log"
START_SECONDS = 30.0


def start_engine(endpoint: Endpoint, error: Unavailable) -> bool:
    """True when an engine listens now. Only root's engine at its default socket is ours to start."""
    if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
        return False
    if not endpoint.may_start or os.geteuid() != 0:
        return False
    err(f"hafen: starting the engine (log: {LOG})")
    pid = _spawn()
    _wait_listening(pid)
    return True


def _spawn() -> int:
    """A session of its own, nothing inherited: the engine outlives the terminal and holds no pipe of the caller."""
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            "/bin/sh",  # for the directory: posix_spawn cannot leave the caller's, which would stay busy
            ["sh", "-c", 'cd / && exec "$0" -I -m hafen.daemon.main', os.path.abspath(sys.executable)],
            {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
            + [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()],
            setsid=True,
        )
    finally:
        os.close(log)
        os.close(null)


def _inherited() -> list[int]:
    """Descriptors beyond 2 that a caller left open without close-on-exec."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            pass  # the descriptor of the listing itself
    return found


def _wait_listening(pid: int) -> None:
    """Until the socket answers; another caller may have started an engine at the same time, which is as good."""
    import socket

    deadline = time.monotonic() + START_SECONDS
    pause, ended = 0.005, False
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(DEFAULT_SOCKET)
                return
            except OSError:
                pass  # not yet
        ended = ended or os.waitpid(pid, os.WNOHANG)[0] != 0
        if ended and not _another_lives():
            break
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    what = "ended" if ended else f"does not listen on {DEFAULT_SOCKET} after {START_SECONDS:.0f} seconds"
    raise Unavailable(f"the engine was started and {what}:\n{_log_tail()}\nthe whole log is {LOG}")


def _another_lives() -> bool:
    """Ours gave way to an engine that holds the lock, and is about to listen. The lock itself is not tried:
    it could be just when an engine tries it."""
    try:
        with open(os.path.join(os.path.dirname(DEFAULT_SOCKET), "engine.lock"), encoding="ascii") as file:
            os.kill(int(file.read()), 0)
    except (OSError, ValueError):
        return False
    return True


def _log_tail() -> str:
    try:
        with open(LOG, encoding="utf-8", errors="replace") as file:
            return "".join("  " + line for line in file.readlines()[-8:]).rstrip()
    except OSError as error:
        return f"  ({error})"
