"""Set a container or an exec up: from the messages' values to the runtime's call.

A container is set up by the shim's worker itself and becomes its keeper's child (CLONE_PARENT, clone(2)), so that the
worker can end. An exec is the worker's own child, which joins the container while the worker goes on. Other runtimes
are waited for by a process of its own.
"""

import json
import os
import socket
from typing import Any

from hafen import errors
from hafen.runtime import join, parent
from hafen.runtime.child import Stdio
from hafen.shim import foreign, protocol
from hafen.shim.protocol import Exec, Spawn
from hafen.spec import runtime_config
from hafen.spec.runtime_config import RootMount

# What an exec takes from its container's configuration; to decode all of it would take ten times as long.
_SHARED = ("cgroupsPath", "seccomp", "memoryPolicy", "personality")


def serve(sock: socket.socket, message: protocol.Message, descriptors: list[int]) -> None:
    """`perform`, with its result or error as one message to `sock`."""
    try:
        answer, made = perform(message, descriptors)
    except errors.HafenError as error:
        answer, made = errors.to_wire(error), []
    except OSError as error:
        answer, made = errors.to_wire(errors.System(str(error))), []
    protocol.send(sock, answer, made)


def perform(message: protocol.Message, descriptors: list[int]) -> tuple[protocol.Message, list[int]]:
    """`{pid, start_time, warnings}`, and its descriptors: pidfd, and console where it has a terminal.

    `message` has `stdio` (indexes of `descriptors`, -1 for none) and either `create`, a Spawn, or `exec`, an Exec,
    with `container`, its Spawn, and `pid`, its first process. The new process is a child of our parent.
    """
    stdio = _stdio(message, descriptors)
    if "create" in message:
        return told(_create(protocol.spawn_from_wire(message["create"]), stdio, descriptors))
    request, spawn = protocol.exec_from_wire(message["exec"]), protocol.spawn_from_wire(message["container"])
    return told(foreign.execute(spawn, request, _read_process(spawn, request), int(message["pid"]), stdio))


def told(running: parent.Running) -> tuple[protocol.Message, list[int]]:
    """What `perform` returns for it."""
    made = [running.pidfd] if running.console is None else [running.pidfd, running.console]
    return {"pid": running.pid, "start_time": running.start_time, "warnings": list(running.warnings)}, made


def _stdio(message: protocol.Message, descriptors: list[int]) -> Stdio:
    return Stdio(*(descriptors[index] if index >= 0 else -1 for index in message["stdio"]))


def _create(spawn: Spawn, stdio: Stdio, descriptors: list[int]) -> parent.Running:
    config = read_config(spawn)
    if spawn.netns is not None:
        _set_netns(config, f"/proc/{os.getpid()}/fd/{descriptors[spawn.netns]}")
    rootfs = tuple(RootMount(kind, source, tuple(options)) for kind, source, options in spawn.rootfs)
    if spawn.runtime != "hafen":
        return foreign.create(spawn, config, rootfs, stdio)
    return parent.run(
        runtime_config.from_json(config),
        container_id=spawn.container_id,
        bundle=spawn.run_dir,
        rootfs=rootfs,
        stdio=stdio,
        seccomp=_seccomp(spawn),
        options=parent.Options(sibling=True),
    )


def begin_exec(message: protocol.Message, descriptors: list[int]) -> join.Joining:
    """The process of an `exec` message (see `perform`) on its way into a container of our own runtime; our child."""
    request, spawn = protocol.exec_from_wire(message["exec"]), protocol.spawn_from_wire(message["container"])
    config = read_config(spawn)
    linux = {name: value for name, value in config["linux"].items() if name in _SHARED}
    return join.launch(
        runtime_config.decode(runtime_config.Process, _read_process(spawn, request), "process"),
        pid=int(message["pid"]),
        stdio=_stdio(message, descriptors),
        config=runtime_config.from_json({"ociVersion": config["ociVersion"], "linux": linux}),
        container_id=spawn.container_id,
        seccomp=_seccomp(spawn),
        reap=False,
    )


def _read_process(spawn: Spawn, request: Exec) -> dict[str, Any]:
    with open(os.path.join(spawn.run_dir, f"exec-{request.exec_id}.json"), "rb") as file:
        process: dict[str, Any] = json.loads(file.read())
    return process


def read_config(spawn: Spawn) -> dict[str, Any]:
    with open(os.path.join(spawn.run_dir, "config.json"), "rb") as file:
        config: dict[str, Any] = json.loads(file.read())
    return config


def _seccomp(spawn: Spawn) -> bytes | None:
    try:
        with open(os.path.join(spawn.run_dir, "seccomp.bpf"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _set_netns(config: dict[str, Any], path: str) -> None:
    linux = config.setdefault("linux", {})
    others = [namespace for namespace in linux.get("namespaces", []) if namespace.get("type") != "network"]
    linux["namespaces"] = [*others, {"type": "network", "path": path}]
