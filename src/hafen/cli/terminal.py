"""The user's terminal: raw mode that is always undone, its size, detach keys, and the container's signals."""

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hafen.errors import HafenError, InvalidArgument

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p,ctrl-q
IMPATIENT = 3

_NEVER_PROXIED = frozenset(
    (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGSEGV, signal.SIGBUS,
     signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGWINCH)
)  # fmt: skip


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int = 1) -> tuple[int, int]:
    """(height, width); (0, 0) where there is no terminal."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return lines, columns


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as bytes; empty gives the default."""
    if not text:
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for word in text.split(","):
        if len(word) == 1:
            keys += word.encode()
            continue
        letter = word.lower().removeprefix("ctrl-")
        if (
            not word.lower().startswith("ctrl-")
            or len(letter) != 1
            or letter not in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
        ):
            raise InvalidArgument(f"invalid detach keys ({text}): Unknown character: '{word}'")
        keys.append(ord(letter.upper()) & 0x1F)
    return bytes(keys)


@contextmanager
def raw(fd: int = 0) -> Iterator[None]:
    """Raw mode until the block ends, however it ends: signals that would kill us leave the block first."""
    if not is_terminal(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    old = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    try:
        _set_raw(fd, before)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in old.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _set_raw(fd: int, before: list[int | list[bytes | int]]) -> None:
    """cfmakeraw(3)."""
    mode = list(before)
    for index, mask in (
        (0, termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
         | termios.ICRNL | termios.IXON),
        (1, termios.OPOST),
        (3, termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN),
    ):  # fmt: skip
        flags = mode[index]
        assert isinstance(flags, int)
        mode[index] = flags & ~mask
    control = mode[6]
    assert isinstance(control, list)
    mode[6] = [1 if i == termios.VMIN else 0 if i == termios.VTIME else item for i, item in enumerate(control)]
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)


@contextmanager
def resized(tell: Callable[[int, int], None], fd: int = 1) -> Iterator[None]:
    """Tell the size now and whenever it changes. Not being able to tell it ends nothing."""

    def on_change(number: int = 0, frame: FrameType | None = None) -> None:
        height, width = size(fd)
        if height or width:
            try:
                tell(height, width)
            except (HafenError, OSError):
                pass  # the container has just ended

    old = signal.signal(signal.SIGWINCH, on_change)
    try:
        on_change()
        yield
    finally:
        signal.signal(signal.SIGWINCH, old)


@contextmanager
def proxied(send: Callable[[str], None]) -> Iterator[None]:
    """Signals go to the container while the block runs. The third interrupt that it ignores ends this command."""
    interrupts = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number in (signal.SIGINT, signal.SIGTERM)
        if interrupts > IMPATIENT - 1 and number in (signal.SIGINT, signal.SIGTERM):
            sys.stderr.write("got 3 SIGTERM/SIGINTs, forcefully exiting\n")
            sys.exit(1)
        try:
            send(signal.Signals(number).name.removeprefix("SIG"))
        except (HafenError, OSError, ValueError):
            pass  # the container has just ended; its exit status says the rest

    old = {}
    for number in sorted(signal.valid_signals() - _NEVER_PROXIED):
        if number < signal.SIGRTMIN:
            old[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
