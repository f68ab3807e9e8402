"""Which process has a port of the host, told from /proc; slow, for errors only."""

from __future__ import annotations

import os


def who_has(protocol: str, number: int) -> str:
    """The process that has a local port, as "nginx, pid 123"; "" where it cannot be told."""
    inodes = set()
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        try:
            with open(table) as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        inodes |= {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == number}
    inodes.discard("socket:[0]")
    for pid in (name for name in os.listdir("/proc") if name.isdigit()) if inodes else ():
        if any(_link(f"/proc/{pid}/fd/{fd}") in inodes for fd in _listed(f"/proc/{pid}/fd")):
            return f"{_command(pid)}, pid {pid}"
    return ""


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # the process ended meanwhile
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "a process that has ended"
