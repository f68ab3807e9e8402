"""Volumes that are directories of other machines, by SFTP: what the tool sshfs mounts (sshfs(1))."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from hafen.errors import InvalidArgument, System
from hafen.storage.volumes import LocalVolumes, Volume

TOOL = "sshfs"


class SshfsVolumes(LocalVolumes):
    """`-d sshfs`, with the options of the plug-in vieux/sshfs: `sshcmd` is `user@host:directory`, `password` goes to
    sshfs by its standard input, all others (`port`, `IdentityFile`, ...) by `-o`.

    Unlike that plug-in's, its hosts must be known to ssh(1), or `StrictHostKeyChecking` say otherwise. The process that
    sshfs leaves behind serves the mount, and ends with it.
    """

    name = "sshfs"

    def check(self, options: Mapping[str, str]) -> None:
        if not options.get("sshcmd"):
            raise InvalidArgument("'sshcmd' option required")

    def prepare(self, volume: Volume, path: str) -> None:
        """Nothing: how much there may be is the other machine's to say."""

    def needs_mount(self, volume: Volume) -> bool:
        return True

    def attach(self, volume: Volume, path: str) -> None:
        options = dict(volume.options)
        source, password = options.pop("sshcmd"), options.pop("password", "")
        words = ["allow_other", *(["password_stdin"] if password else [])]
        words += [f"{key}={value}" if value else key for key, value in sorted(options.items())]
        command = [TOOL, *(part for word in words for part in ("-o", word)), "--", source, path]
        run = subprocess.run(command, input=password.encode(), capture_output=True, check=False)
        if run.returncode:
            said = run.stderr.decode(errors="replace").strip() or f"exit code {run.returncode}"
            raise System(f"sshfs command execute failed: {said}")
