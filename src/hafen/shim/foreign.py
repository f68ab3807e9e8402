"""Another OCI runtime (runc, crun) in the place of ours, by its command line.

`create` and `execute` run in the set-up process. The root is mounted in a mount namespace of its own, which only the
container inherits. What the runtime starts and leaves without a parent falls to the nearest subreaper: a container to
the shim's keeper, an exec to the worker that asked for it. What it
remembers of the container is kept in the run directory and goes with it.
"""

import json
import os
import socket
from typing import Any

from hafen import errors
from hafen.kernel import cgroup, consts, mount, namespaces, process
from hafen.kernel.unix import receive_descriptors
from hafen.runtime import identity
from hafen.runtime.child import Stdio
from hafen.runtime.mounts import mount_layer
from hafen.runtime.parent import Running
from hafen.shim.protocol import Exec, Spawn
from hafen.spec import runtime_config
from hafen.spec.runtime_config import RootMount, User

# The only thing by which these runtimes tell why a program did not start, and Docker tells exit codes by it, too.
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")


def create(spawn: Spawn, config: dict[str, Any], rootfs: tuple[RootMount, ...], stdio: Stdio) -> Running:
    """A running container; StartFailed with the runtime's own words where it refuses."""
    namespaces.unshare(consts.CLONE_NEWNS)
    mount.set_propagation(consts.MS_SLAVE)
    root = os.path.join(spawn.run_dir, "rootfs")
    for layer in rootfs:
        mount_layer(layer, root)
    config["ociVersion"] = "1.0.2"  # crun before 1.9 takes nothing newer; what it does not know it leaves out
    config["root"] = {**config.get("root", {}), "path": root}
    config["process"] = {"cwd": "/", **_resolved(config["process"], root)}  # we leave out what is by default
    bundle = os.path.join(spawn.run_dir, "bundle")
    os.makedirs(bundle, mode=0o700, exist_ok=True)
    _write(os.path.join(bundle, "config.json"), config)
    try:
        running = _launch(spawn, ["create", "--bundle", bundle], [spawn.container_id], stdio, spawn.terminal)
        _call(spawn, ["start", spawn.container_id])
    except errors.HafenError:
        delete(spawn)
        raise
    return running


def execute(spawn: Spawn, request: Exec, wanted: dict[str, Any], pid: int, stdio: Stdio) -> Running:
    """A further process beside the container's `pid`."""
    path = os.path.join(spawn.run_dir, f"exec-{request.exec_id}.foreign.json")
    _write(path, _resolved(wanted, f"/proc/{pid}/root"))
    try:
        arguments = ["exec", "--process", path, "--detach"]
        return _launch(spawn, arguments, [spawn.container_id], stdio, request.terminal)
    finally:
        os.unlink(path)


def delete(spawn: Spawn) -> None:
    """Whatever the runtime remembers of the container; nothing where it knows of none."""
    try:
        _call(spawn, ["delete", "--force", spawn.container_id])
    except (
        errors.HafenError
    ):  # the cgroup is emptied and removed in any case, and its memory goes with the run directory
        pass


def _launch(spawn: Spawn, arguments: list[str], last: list[str], stdio: Stdio, terminal: bool) -> Running:
    pid_file = os.path.join(spawn.run_dir, f"{os.getpid()}.pid")
    arguments = [*arguments, "--pid-file", pid_file]
    console = None
    if terminal:
        path = os.path.join(spawn.run_dir, f"{os.getpid()}.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            _bind(listener, path)
            try:
                _call(spawn, [*arguments, "--console-socket", path, *last])
                console = _receive_console(listener)
            finally:
                os.unlink(path)
    else:
        _call(spawn, [*arguments, *last], stdio)
    with open(pid_file) as file:
        pid = int(file.read())
    os.unlink(pid_file)
    group = cgroup.open_hierarchy().open(f"/hafen/{spawn.container_id}")
    return Running(pid, process.pidfd_open(pid), process.start_time(pid), console, group)


def _call(spawn: Spawn, arguments: list[str], stdio: Stdio | None = None) -> None:
    """Run the runtime to its end; its log tells what went wrong, as its streams are the container's."""
    log = os.path.join(spawn.run_dir, "runtime.log")
    state = os.path.join(spawn.run_dir, "runtime")
    command = [spawn.runtime, "--root", state, "--log", log, "--log-format", "json", *arguments]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    streams = Stdio(null, null, null) if stdio is None else stdio
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(streams)]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        pid = os.posix_spawn(spawn.runtime, command, environment, file_actions=actions)
    except OSError as error:
        raise errors.StartFailed(f"{spawn.runtime}: {error.strerror}") from None
    finally:
        os.close(null)
    _, status = os.waitpid(pid, 0)
    if status:
        words = _last_words(log) or f"{spawn.runtime} {arguments[0]} ended with {os.waitstatus_to_exitcode(status)}"
        raise errors.StartFailed(words, _exit_code(words))


def _last_words(log: str) -> str:
    words = ""
    try:
        with open(log, "rb") as file:
            for line in file:
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    words = str(entry["msg"])
    except (OSError, ValueError, KeyError):
        pass
    return words


def _exit_code(words: str) -> int:
    if any(part in words for part in _NOT_EXECUTABLE):
        return 126
    return 127 if any(part in words for part in _NOT_FOUND) else 128


def _resolved(wanted: dict[str, Any], root: str) -> dict[str, Any]:
    """User and groups by number: names are an extension of ours."""
    user = runtime_config.decode(User, wanted.get("user", {}), "process.user")
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = identity.resolve(directory, user)
    finally:
        os.close(directory)
    environment = list(wanted.get("env", []))
    if not any(variable.startswith("HOME=") for variable in environment):
        environment.append(f"HOME={found.home}")
    numbers = {"uid": found.uid, "gid": found.gid, "additionalGids": list(found.groups)}
    return {**wanted, "env": environment, "user": numbers}


def _bind(listener: socket.socket, path: str) -> None:
    """The runtime gets the whole path, so it has to fit."""
    try:
        listener.bind(path)
    except OSError as error:
        raise errors.System(f"console socket {path}: {error.strerror or error}") from None
    listener.listen(1)


def _receive_console(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, descriptors, _ = receive_descriptors(connection, 4096, 1)
    if not descriptors:
        raise errors.System("the runtime sent no console")
    return descriptors[0]


def _write(path: str, value: object) -> None:
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(value, file)
