"""Volume plug-ins of ours, as processes beside the test."""

import json
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).with_name("volumeplugin.py")


class PluginProcess:
    """A plug-in that listens on `socket` and keeps its volumes in `directory`; `with` starts and ends it."""

    def __init__(self, socket: Path, directory: Path, scope: str = "local") -> None:
        self.socket = socket
        self.directory = directory
        self.scope = scope
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PluginProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.socket.unlink(missing_ok=True)

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        command = [sys.executable, str(PROGRAM), str(self.socket), str(self.directory), self.scope]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)  # until it listens

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def calls(self) -> list[tuple[str, dict[str, object]]]:
        """(method, body) of every call so far."""
        lines = (self.directory / "log").read_text().splitlines()
        return [(method, body) for method, body in map(json.loads, lines)]
