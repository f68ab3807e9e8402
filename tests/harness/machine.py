"""What the machine shows from outside: compared before and after a test, so that nothing is left behind."""

import os
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class MachineState:
    """Everything of ours that the kernel could still hold. Each entry is a line for people."""

    mounts: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]

    def extra(self, before: "MachineState") -> list[str]:
        """What is here now and was not before."""
        return [
            f"{field.name}: {entry}"
            for field in fields(self)
            for entry in sorted(getattr(self, field.name) - getattr(before, field.name))
        ]


def machine_state() -> MachineState:
    return MachineState(_mounts(), _links(), _tables(), _cgroups(), _processes())


def leftovers(before: MachineState, seconds: float = 5.0) -> list[str]:
    """What stays after `before`, once the kernel had time to end what it ends by itself (namespaces, processes)."""
    deadline = time.monotonic() + seconds
    while extra := machine_state().extra(before):
        if time.monotonic() > deadline:
            return extra
        time.sleep(0.05)  # namespaces and veths are destroyed by a kernel worker; it announces nothing
    return []


def _mounts() -> frozenset[str]:
    return frozenset(line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _links() -> frozenset[str]:
    return frozenset(os.listdir("/sys/class/net"))


def _tables() -> frozenset[str]:
    run = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return frozenset(run.stdout.splitlines())


def _cgroups() -> frozenset[str]:
    """Ours and what is below them, but for the parent "hafen": it stays, as Docker's "docker" does."""
    folders = (folder for folder, _, _ in os.walk("/sys/fs/cgroup"))  # who vanishes meanwhile is passed over
    return frozenset(folder for folder in folders if "hafen" in folder and not folder.endswith("/hafen"))


def _processes() -> frozenset[str]:
    """Our engines, zygotes and shims, and what runs in containers of ours (found by their cgroup)."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            cgroup = (entry / "cgroup").read_text()
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not zombie and ("hafen.daemon" in command or "hafen.shim" in command or "/hafen/" in cgroup):
            found.add(f"{entry.name} {command[:120]}")
    return frozenset(found)
