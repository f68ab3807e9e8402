"""Real engines for tests: a process with roots of its own, driven as a user would drive it."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BRIDGES = itertools.count(os.getpid() % 100_000 * 10)


class EngineProcess:
    """One engine under `base` (data in base/lib, run files in base/run). `with` starts it and leaves nothing."""

    def __init__(self, base: Path, *flags: str) -> None:
        self.base = base
        self.data = base / "lib"
        self.run = base / "run"
        self.socket = self.run / "hafen.sock"
        self.log = base / "engine.log"
        # Engines that share a machine need interfaces of their own; the name is also their firewall table's.
        self.flags = flags if "--bridge" in flags else ("--bridge", f"hft{next(_BRIDGES)}", *flags)
        self.prefix: tuple[str, ...] = ()  # words of a command that runs the engine as its last argument
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EngineProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.address, "HAFEN_HOST": self.address, "DOCKER_CONFIG": str(self.base)}

    def start(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        command = [
            *self.prefix,
            sys.executable,
            "-m",
            "hafen.daemon.main",
            "--root",
            str(self.data),
            "--run",
            str(self.run),
            *self.flags,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + 20
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the engine did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.01)  # until it listens; a stranger has no better sign

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return probe.recv(64).startswith(b"HTTP/1.1 200")

    def stop(self) -> None:
        """Orderly: SIGTERM; containers go on running."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.process = None

    def kill(self) -> None:
        """As a crash: SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait(20)
        self.process = None

    def destroy(self) -> None:
        """Removes every container, stops the engine and deletes its roots."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        names = self.docker("ps", "-aq").stdout.split()
        if names:
            self.docker("rm", "-f", "-v", *names)
        self.stop()
        shutil.rmtree(self.base)

    def docker(
        self, *arguments: str, stdin: str | bytes | None = None, check: bool = True, timeout: float = 60
    ) -> "Output":
        """The real docker command against this engine."""
        return self._command(["docker", *arguments], stdin, check, timeout)

    def docker_beside(self, *arguments: str) -> "Beside":
        """The real docker command, running beside the test."""
        return Beside(["docker", *arguments], self.environment)

    def hafen(
        self, *arguments: str, stdin: str | bytes | None = None, check: bool = True, timeout: float = 60
    ) -> "Output":
        """Our own command against this engine."""
        return self._command([sys.executable, "-m", "hafen.cli.main", *arguments], stdin, check, timeout)

    def _command(self, command: list[str], stdin: str | bytes | None, check: bool, timeout: float) -> "Output":
        given = stdin.encode() if isinstance(stdin, str) else stdin or b""
        run = subprocess.run(
            command, input=given, capture_output=True, check=False, env=self.environment, timeout=timeout
        )
        output = Output(run.returncode, run.stdout.decode(errors="replace"), run.stderr.decode(errors="replace"))
        if check:
            assert output.code == 0, f"{' '.join(command)} -> {output}\n{self.log.read_text()[-3000:]}"
        return output

    def fsck(self, *flags: str) -> list[dict[str, str]]:
        """What `hafen system fsck` finds wrong with the store: nothing, in a test that only wants to know that."""
        run = self.hafen("system", "fsck", "--format", "json", *flags, check=False, timeout=300)
        assert run.stdout, run
        problems: list[dict[str, str]] = json.loads(run.stdout)["Problems"]
        assert run.code == 1 or "--repair" in flags or not problems, run
        return problems

    def load_busybox(self) -> None:
        """Imports the small root of Debian's busybox-static as `busybox:latest`."""
        self.docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())


class Output:
    """What a command said: `code`, `stdout`, `stderr` (text)."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\nstdout: {self.stdout}\nstderr: {self.stderr}"


class Beside:
    """A command that runs beside the test; its standard output is read as it comes."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.stdout = self.process.stdout

    def line(self) -> str:
        return self.stdout.readline()

    def rest(self) -> str:
        return self.stdout.read()

    def wait(self, seconds: float = 15) -> int:
        return self.process.wait(seconds)

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()


_BUSYBOX: list[bytes] = []


def busybox_tar() -> bytes:
    """A tar of a root file system made of Debian's static busybox (package busybox-static)."""
    if not _BUSYBOX:
        with tempfile.TemporaryDirectory(prefix="hafen-busybox-") as folder:
            _BUSYBOX.append(_make_busybox(Path(folder)))
    return _BUSYBOX[0]


def _make_busybox(folder: Path) -> bytes:
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "var", "home"):
        (folder / name).mkdir()
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
    folder.chmod(0o755)
    (folder / "tmp").chmod(0o1777)
    (folder / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    )
    (folder / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")
    tar = [
        "tar",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-C",
        str(folder),
        "-cf",
        "-",
        ".",
    ]
    return subprocess.run(tar, capture_output=True, check=True).stdout
