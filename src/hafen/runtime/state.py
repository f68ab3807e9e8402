"""What the OCI command line remembers of its containers: one directory each, `state.json` replaced atomically.

    <root>/<id>/state.json   a `Record`
    <root>/<id>/config.json  the configuration as it was at `create`
    <root>/<id>/exec.fifo    there while the container waits for `start`
    <root>/<id>/failure      what went wrong between `start` and execve
    <root>/<id>/lock         flock(2) of whoever changes the container

The status is never stored: it is what the kernel says (OCI runtime.md, "State").
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hafen.errors import Conflict, InvalidArgument, NotFound, System
from hafen.kernel import process
from hafen.kernel.cgroup import Cgroup
from hafen.runtime.parent import hierarchy
from hafen.spec import runtime_config
from hafen.spec.runtime_config import Config
from hafen.values import NamedTuple

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Record(NamedTuple):
    """`start_time` in clock ticks since boot identifies the process together with `pid`; `created` is RFC 3339."""

    id: str
    pid: int
    start_time: int
    bundle: str
    rootfs: str
    cgroup: str
    created: str
    oci_version: str


class Store:
    """The containers below one `--root`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """InvalidArgument for an id that is no plain name."""
        if not container_id or not _NAME.issuperset(container_id) or container_id in (".", ".."):
            raise InvalidArgument(f"invalid container ID format: {container_id!r}")
        return os.path.join(self.root, container_id)

    def claim(self, container_id: str) -> str:
        """Make the container's directory; Conflict where there is one."""
        directory = self.directory(container_id)
        os.makedirs(self.root, 0o711, exist_ok=True)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise Conflict(f"container with given ID already exists: {container_id}") from None
        return directory

    @contextmanager
    def locked(self, container_id: str) -> Iterator[str]:
        """The container's directory, ours alone meanwhile; NotFound where there is none."""
        directory = self.directory(container_id)
        try:
            fd = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"container does not exist: {container_id}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield directory
        finally:
            os.close(fd)

    def save(self, record: Record, config: Config) -> None:
        directory = self.directory(record.id)
        _replace(f"{directory}/config.json", runtime_config.to_json(config))
        _replace(f"{directory}/state.json", record._asdict())

    def load(self, container_id: str) -> Record:
        """NotFound; System where the file is not one of ours."""
        try:
            with open(f"{self.directory(container_id)}/state.json", "rb") as file:
                return Record(**json.loads(file.read()))
        except FileNotFoundError:
            raise NotFound(f"container does not exist: {container_id}") from None
        except (ValueError, TypeError) as error:
            raise System(f"container {container_id}: damaged state.json: {error}") from None

    def config(self, container_id: str) -> Config:
        with open(f"{self.directory(container_id)}/config.json", "rb") as file:
            return runtime_config.from_json(json.loads(file.read()))

    def ids(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.root) if os.path.exists(f"{self.root}/{name}/state.json"))
        except FileNotFoundError:
            return []

    def forget(self, container_id: str) -> None:
        """Remove the directory; what is already gone is fine."""
        directory = self.directory(container_id)
        for name in ("exec.fifo", "failure", "config.json", "state.json", "state.json.new", "config.json.new", "lock"):
            try:
                os.unlink(f"{directory}/{name}")
            except FileNotFoundError:
                pass
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass

    def status(self, record: Record) -> str:
        """created, running, paused or stopped."""
        pidfd = open_process(record)
        if pidfd is None:
            return "stopped"
        os.close(pidfd)
        if os.path.exists(f"{self.directory(record.id)}/exec.fifo"):
            return "created"
        return "paused" if cgroup_of(record).frozen() else "running"


def cgroup_of(record: Record) -> Cgroup:
    return hierarchy().open(record.cgroup)


def open_process(record: Record) -> int | None:
    """A pidfd of the container's process, None where it has ended (a zombie has) or the pid is another's."""
    try:
        pidfd = process.pidfd_open(record.pid)
    except (ProcessLookupError, OSError) as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise
    try:
        with open(f"/proc/{record.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        os.close(pidfd)
        return None
    if int(fields[19]) != record.start_time or fields[0] in (b"Z", b"X"):
        os.close(pidfd)
        return None
    return pidfd


def oci_state(store: Store, record: Record, config: Config) -> dict[str, Any]:
    """The state as the specification shapes it, with the fields that runc adds."""
    status = store.status(record)
    return {
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": 0 if status == "stopped" else record.pid,
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": dict(config.annotations),
        "owner": "",
    }


def _replace(path: str, value: object) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(json.dumps(value))
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
