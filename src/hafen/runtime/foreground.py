"""What the OCI command line does while a container or exec runs in the foreground, and how it hands a console over."""

import os
import select
import signal
import socket

from hafen.errors import System
from hafen.kernel import process, tty
from hafen.runtime.parent import Running

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def send_console(path: str, master: int) -> None:
    """The pty's master to whoever listens at `path` (runc, docs/terminals.md): one message with the descriptor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(path)
            socket.send_fds(sock, [b"/dev/ptmx"], [master])
        except OSError as error:
            raise System(f"console socket {path}: {error.strerror}") from None


def wait(running: Running) -> int:
    """The exit code, 128 + n for signal n; signals are passed on, a terminal is relayed to ours."""
    for signo in _FORWARDED:
        signal.signal(signo, lambda number, _: _forward(running.pidfd, number))
    if running.console is not None:
        _relay(running.console, running.pidfd)
    return process.wait_pidfd(running.pidfd)


def _forward(pidfd: int, signo: int) -> None:
    try:
        process.pidfd_send_signal(pidfd, signo)
    except ProcessLookupError:
        pass


def _relay(console: int, pidfd: int) -> None:
    """Between our standard streams and `console`, until its last slave is closed."""
    before = None
    if os.isatty(0):
        before = tty.set_raw(0)
        height, width = tty.window_size(0)
        tty.set_window_size(console, height, width)
        signal.signal(signal.SIGWINCH, lambda *_: tty.set_window_size(console, *tty.window_size(0)))
    poll = select.poll()
    poll.register(console, select.POLLIN)
    poll.register(0, select.POLLIN)
    try:
        while True:
            for fd, _ in poll.poll():
                if fd == 0:
                    typed = os.read(0, 32768)
                    if not typed:
                        poll.unregister(0)
                    _write_all(console, typed or b"\x04")
                elif not _copy_out(console):
                    return
    finally:
        if before is not None:
            tty.restore(0, before)


def _copy_out(console: int) -> bool:
    try:
        data = os.read(console, 32768)
    except OSError:  # EIO: nobody has the slave any more
        return False
    _write_all(1, data)
    return bool(data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
