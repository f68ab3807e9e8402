"""Servers of files: Samba, and the kernel's nfsd, which is the whole machine's: for one that serves nothing else.

nfsd is told all through files: what rpc.mountd(8) and exportfs(8) would answer is in its caches beforehand.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.ports import free_port

_NFSD = Path("/proc/fs/nfsd")
# linux/nfsd/export.h: INSECURE_PORT, NOSUBTREECHECK, FSID
_EXPORT_FLAGS = 0x2 | 0x400 | 0x2000
_SAMBA_DIRECTORIES = ("private dir", "lock directory", "state directory", "cache directory", "pid directory",
                      "ncalrpc dir")  # fmt: skip
PATIENCE = 30


@contextmanager
def nfs(directory: Path) -> Iterator[dict[str, str]]:
    """The directory as the root of an NFSv4 server; options of a local volume that is it."""
    port, expiry = free_port(), int(time.time()) + 3600
    os.makedirs("/var/lib/nfs/v4recovery", exist_ok=True)  # without it there is no end of grace
    subprocess.run(["modprobe", "nfsd"], check=True)
    subprocess.run(["mount", "-t", "nfsd", "nfsd", str(_NFSD)], check=True)
    try:
        _tell(_NFSD / "versions", "-3 +4 +4.1 +4.2")
        _tell(_NFSD / "nfsv4leasetime", "10")
        _tell(_NFSD / "nfsv4gracetime", "10")
        for cache, entry in (
            ("auth.unix.ip", f"nfsd 127.0.0.1 {expiry} tests"),
            ("nfsd.export", f"tests {directory} {expiry} {_EXPORT_FLAGS} 65534 65534 0"),
            ("nfsd.fh", f"tests 1 \\x00000000 {expiry} {directory}"),  # file system 0: the root of NFSv4
        ):
            _tell(Path("/proc/net/rpc", cache, "channel"), entry)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            listening.listen(64)
            _tell(_NFSD / "portlist", str(listening.fileno()))
        _tell(_NFSD / "threads", "4")
        _tell(_NFSD / "v4_end_grace", "Y")  # no client of before is waited for
        yield {"type": "nfs", "device": ":/", "o": f"addr=localhost,nfsvers=4.2,port={port}"}
    finally:
        _tell(_NFSD / "threads", "0")
        subprocess.run(["umount", str(_NFSD)], check=True)


@contextmanager
def smb(directory: Path, password: str) -> Iterator[dict[str, str]]:
    """The directory as the share `data` of the user root, served by Samba; options of a local volume that is it."""
    port, state = free_port(), directory.with_suffix(".state")
    state.mkdir()
    settings = state / "smb.conf"
    kept = "".join(f"{what} = {state}\n" for what in _SAMBA_DIRECTORIES)
    settings.write_text(
        f"[global]\nserver role = standalone server\nsmb ports = {port}\ndisable netbios = yes\n"
        f"interfaces = lo\nbind interfaces only = yes\nload printers = no\ndisable spoolss = yes\n"
        f"passdb backend = smbpasswd:{state}/users\nlog file = {state}/log\n{kept}"
        f"[data]\npath = {directory}\nread only = no\n"
    )
    add = ["smbpasswd", "-c", str(settings), "-a", "-s", "root"]
    subprocess.run(add, check=True, input=f"{password}\n{password}\n", text=True)
    command = ["smbd", "--foreground", "--no-process-group", f"--configfile={settings}"]
    daemon = subprocess.Popen(command, start_new_session=True)  # it ends its whole process group with itself
    try:
        _wait_listens(port)
        words = f"username=root,password={password},vers=3.1.1,port={port}"
        yield {"type": "cifs", "device": "//localhost/data", "o": words}
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE)


def _tell(path: Path, words: str) -> None:
    """One line in one write(2), for that is one request."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, f"{words}\n".encode())
    finally:
        os.close(fd)


def _wait_listens(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.05)
