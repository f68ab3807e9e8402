"""Containers straight from the runtime, in this process: what a shim does, without a shim."""

import json
import os
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from hafen.kernel import process
from hafen.runtime import join, parent, template
from hafen.runtime.child import Stdio
from hafen.runtime.parent import Options, Running
from hafen.spec.runtime_config import RootMount, from_json
from tests.harness.engine import busybox_tar

Document = dict[str, Any]
Edit = Callable[[Document], object]
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip
NAMESPACES = ("mount", "pid", "ipc", "uts")


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str
    warnings: tuple[str, ...]


def unpacked_busybox(directory: Path) -> None:
    with tarfile.open(fileobj=BytesIO(busybox_tar())) as archive:
        archive.extractall(directory, filter="fully_trusted")
    (directory / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\nlogs:x:90:daemon\n")


class Machine:
    """Runs containers over one busybox root; `close` kills and removes whatever is left of them."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"hafen-runtime-{name}-"))
        self.lower = self.directory / "lower"
        self.lower.mkdir()
        unpacked_busybox(self.lower)
        self.owner = 0  # of the upper directory
        self._alive: list[Running] = []
        self._count = 0

    def close(self) -> None:
        for running in list(self._alive):
            self.stop(running)
        shutil.rmtree(self.directory)

    def document(self, *args: str, edit: Edit | None = None) -> Document:
        """Docker's default, by and large, without network namespace; `edit` changes it in place."""
        self._count += 1
        found = template.config()
        found["process"] |= {
            "args": list(args),
            "terminal": False,
            "noNewPrivileges": False,
            "env": ["PATH=/usr/local/bin:/bin"],
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        }
        del found["process"]["rlimits"]
        found["root"]["readonly"] = False
        found["linux"]["namespaces"] = [{"type": kind} for kind in NAMESPACES]
        found["linux"]["cgroupsPath"] = f"/hafen/test-{self.directory.name}-{self._count}"
        if edit is not None:
            edit(found)
        return found

    def bundle(self) -> tuple[str, tuple[RootMount, ...]]:
        """A new bundle directory and the layers of its root: the shared busybox and an upper directory of its own."""
        bundle = self.directory / f"bundle{self._count}"
        for name in ("rootfs", "upper", "work"):
            (bundle / name).mkdir(parents=True)
        os.chown(bundle / "upper", self.owner, self.owner)
        options = (f"lowerdir={self.lower}", f"upperdir={bundle}/upper", f"workdir={bundle}/work")
        return str(bundle), (RootMount("overlay", "overlay", options),)

    @property
    def upper(self) -> Path:
        """The upper directory of the latest container."""
        return self.directory / f"bundle{self._count}" / "upper"

    def start(
        self, *args: str, edit: Edit | None = None, stdio: Stdio | None = None, options: Options | None = None,
        seccomp: bytes | None = None,
    ) -> Running:  # fmt: skip
        document = self.document(*args, edit=edit)
        bundle, rootfs = self.bundle()
        with ExitStack() as opened:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, null)
            running = parent.run(
                from_json(document), container_id=self.directory.name, bundle=bundle, rootfs=rootfs,
                stdio=stdio or Stdio(null, null, null), options=options or parent.DEFAULT, seccomp=seccomp,
            )  # fmt: skip
        self._alive.append(running)
        return running

    def run(self, *args: str, edit: Edit | None = None, stdin: bytes = b"", seccomp: bytes | None = None) -> Result:
        """Run to the end."""
        with Streams(stdin) as streams:
            running = self.start(*args, edit=edit, stdio=streams.stdio, seccomp=seccomp)
            code = self.wait(running)
            return Result(code, *streams.written(), running.warnings)

    def shell(self, script: str, edit: Edit | None = None) -> str:
        """The output of a script that must succeed without a word on stderr."""
        result = self.run("sh", "-c", script, edit=edit)
        assert (result.code, result.stderr) == (0, ""), result
        return result.stdout

    def execute(
        self, running: Running, *args: str, edit: Edit | None = None, config_edit: Edit | None = None
    ) -> Result:
        """exec in a running container."""
        document = self.document(*args, edit=edit)
        if config_edit is not None:
            config_edit(document)
        config = from_json(document)
        assert config.process is not None
        with Streams(b"") as streams:
            inside = join.execute(
                config.process, pid=running.pid, stdio=streams.stdio, config=config, cgroup=running.cgroup
            )
            code = process.wait_pidfd(inside.pidfd)
            os.close(inside.pidfd)
            return Result(code, *streams.written(), inside.warnings)

    def wait(self, running: Running) -> int:
        """The exit code of a container that ends by itself."""
        code = process.wait_pidfd(running.pidfd)
        self._forget(running)
        return code

    def stop(self, running: Running) -> None:
        running.cgroup.thaw()
        try:
            process.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait_pidfd(running.pidfd)
        self._forget(running)

    def _forget(self, running: Running) -> None:
        self._alive.remove(running)
        os.close(running.pidfd)
        if running.console is not None:
            os.close(running.console)
        running.cgroup.remove()


class Streams:
    """Standard streams that are files, so that nobody can block."""

    def __init__(self, stdin: bytes) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - closed by __exit__
        self._files[0].write(stdin)
        self._files[0].seek(0)
        self.stdio = Stdio(*(file.fileno() for file in self._files))

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def written(self) -> tuple[str, str]:
        """What stdout and stderr hold, once their writers have ended."""
        for file in self._files[1:]:
            file.seek(0)
        return self._files[1].read().decode(), self._files[2].read().decode()


def write_bundle(directory: Path, document: Document) -> None:
    (directory / "config.json").write_text(json.dumps(document))
