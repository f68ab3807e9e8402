"""Other people's container tools: Debian's podman, buildah and skopeo, confined to a folder of their own.

Each command runs in a mount and a process namespace of its own, in which /run and /var/lib are the folder's. So what it
stores lies in the folder, and nothing that it mounted or started (conmon goes on after `podman run`) outlives it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.harness.engine import Output

_CONTAINERS = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
[containers]
cgroups = "disabled"
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
_STORAGE = """
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
# crun refuses a machine with both versions of cgroups; it is to use neither.
_CONFINED = """
mount --bind "$0/run" /run && mount --bind "$0/lib" /var/lib || exit 99
if [ -d /sys/fs/cgroup/unified ]; then umount -l /sys/fs/cgroup/unified; fi
exec "$@"
"""


class Strangers:
    """`plain` are registries (HOST:PORT) without TLS; `authorities` are the certificates of others."""

    def __init__(self, folder: Path, plain: tuple[str, ...] = (), authorities: dict[str, Path] | None = None) -> None:
        self.folder = folder
        configuration = folder / "home/.config/containers"
        for place in (folder / "run", folder / "lib", configuration):
            place.mkdir(parents=True)
        (folder / "containers.conf").write_text(_CONTAINERS)
        (folder / "storage.conf").write_text(_STORAGE)
        tables = (f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in plain)
        (configuration / "registries.conf").write_text("".join(tables))
        for host, certificate in (authorities or {}).items():
            place = configuration / "certs.d" / host
            place.mkdir(parents=True)
            (place / "ca.crt").write_bytes(certificate.read_bytes())

    def podman(self, *arguments: str, stdin: str | bytes = b"", check: bool = True) -> Output:
        return self._run(["podman", *arguments], stdin, check)

    def buildah(self, *arguments: str, stdin: str | bytes = b"", check: bool = True) -> Output:
        return self._run(["buildah", *arguments], stdin, check)

    def skopeo(self, *arguments: str, stdin: str | bytes = b"", check: bool = True) -> Output:
        return self._run(["skopeo", "--insecure-policy", *arguments], stdin, check)

    def _run(self, command: list[str], stdin: str | bytes, check: bool) -> Output:
        environment = {
            **os.environ,
            "HOME": str(self.folder / "home"),
            "REGISTRY_AUTH_FILE": str(self.folder / "auth.json"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
        confine = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]
        run = subprocess.run(
            [*confine, "sh", "-c", _CONFINED, str(self.folder), *command],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True, check=False, env=environment, timeout=120, cwd=self.folder,
        )  # fmt: skip
        output = Output(run.returncode, run.stdout.decode(errors="replace"), run.stderr.decode(errors="replace"))
        if check:
            assert output.code == 0, f"{' '.join(command)} -> {output}"
        return output
