"""Pseudo-terminals: a pair from a given devpts, raw mode, window size, controlling terminal (pts(4), ioctl_tty(2))."""

import fcntl
import os
import struct
import termios

from hafen.kernel import consts
from hafen.values import NamedTuple


class Pty(NamedTuple):
    """Both ends, close-on-exec; the slave is `number` in its devpts."""

    master: int
    slave: int
    number: int


def open_pty(ptmx: int) -> Pty:
    """The pair of the open multiplexer `ptmx`, which becomes the master.

    The slave is opened through the master (TIOCGPTPEER): no path of a foreign devpts is ever looked up.
    """
    fcntl.ioctl(ptmx, consts.TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("I", fcntl.ioctl(ptmx, consts.TIOCGPTN, bytes(4)))
    slave = fcntl.ioctl(ptmx, consts.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return Pty(ptmx, slave, number)


def set_window_size(fd: int, height: int, width: int) -> None:
    """In characters, of which the kernel keeps 16 bits (ioctl_tty(2)); what is more is cut off, as Docker does."""
    fcntl.ioctl(fd, consts.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


def window_size(fd: int) -> tuple[int, int]:
    """(height, width) in characters."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, consts.TIOCGWINSZ, bytes(8)))
    return height, width


def make_controlling(fd: int) -> None:
    """Make `fd` the controlling terminal of this session, which must have none."""
    fcntl.ioctl(fd, consts.TIOCSCTTY, 0)


def set_raw(fd: int) -> list[object]:
    """Pass every byte through (cfmakeraw(3)); returns the former attributes for `restore`."""
    before = termios.tcgetattr(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(fd)
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
    return list(before)


def restore(fd: int, attributes: list[object]) -> None:
    termios.tcsetattr(fd, termios.TCSADRAIN, attributes)  # type: ignore[arg-type]  # typeshed's list is invariant
