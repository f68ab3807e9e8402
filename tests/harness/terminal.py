"""A person at a terminal: a command on a real pseudo-terminal, typed at and read from."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time


class Terminal:
    """`with Terminal(["docker", "run", "-it", ...], env) as t: t.expect("#"); t.type("ls\\r")`"""

    def __init__(self, command: list[str], env: dict[str, str], rows: int = 30, columns: int = 100) -> None:
        self.command = command
        self.env = env
        self.size = (rows, columns)
        self.seen = b""

    def __enter__(self) -> "Terminal":
        self.master, slave = pty.openpty()
        self._set_size(*self.size)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            self.command, stdin=slave, stdout=slave, stderr=slave, env=self.env, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.slave)
        os.close(self.master)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        self._set_size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str, seconds: float = 15) -> str:
        """Reads until `text` appears; what came before it, inclusive. What follows stays for the next call."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.seen:
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} did not appear; seen: {self.seen!r}")
            try:
                self.seen += os.read(self.master, 65536)
            except OSError as gone:  # EIO: every holder of the other side is gone
                raise AssertionError(f"{text!r} did not appear; seen: {self.seen!r}") from gone
        before, found, self.seen = self.seen.partition(text.encode())
        return (before + found).decode(errors="replace")

    def wait(self, seconds: float = 15) -> int:
        return self.process.wait(seconds)

    def restored(self) -> bool:
        """Whether the terminal's modes are what they were before the command."""
        return termios.tcgetattr(self.slave)[:4] == self.before[:4]


def main(arguments: list[str]) -> int:
    """`prompt=keys`... command: types keys (with escapes, as \\x10) where a prompt appears; says what was seen."""
    typing = []
    while "=" in arguments[0]:
        typing.append(arguments.pop(0).split("=", 1))
    with Terminal(arguments, dict(os.environ)) as terminal:
        for prompt, keys in typing:
            sys.stdout.write(terminal.expect(prompt.encode().decode("unicode_escape")))
            terminal.type(keys.encode().decode("unicode_escape"))
        code = terminal.wait()
        while select.select([terminal.master], [], [], 0)[0]:
            terminal.seen += os.read(terminal.master, 65536)
        sys.stdout.write(terminal.seen.decode(errors="replace"))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
