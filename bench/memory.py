"""Proportional set sizes of an engine's processes, read from /proc; in bytes."""

import socket
import struct
from pathlib import Path

PROC = Path("/proc")


def pss(pid: int) -> int:
    """PSS of one process (`Pss` of smaps_rollup, proc(5)); 0 when it is gone."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def parent(pid: int) -> int:
    return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def children() -> dict[int, list[int]]:
    tree: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                tree.setdefault(parent(int(entry.name)), []).append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return tree


def listener(path: str) -> int:
    """The process that listens on the unix socket at `path` (SO_PEERCRED, unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def engine(listening: int, shims: set[int]) -> int:
    """PSS of the engine at rest: the listener and its descendants, without the shims and what runs below them."""
    tree = children()
    total, stack = 0, [listening]
    while stack:
        pid = stack.pop()
        if pid in shims:
            continue
        total += pss(pid)
        stack.extend(tree.get(pid, []))
    return total
