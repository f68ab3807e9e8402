"""Set a container or an exec up: from the messages' values to the runtime's call.

A container is set up by the shim's worker itself and becomes its keeper's child (CLONE_PARENT, clone(2)), so that the
worker can end; an exec, and a container of another runtime, by a process of its own.
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
    stdio = Stdio(*(descriptors[index] if index >= 0 else -1 for index in message["stdio"]))
    if "create" in message:
        running = _create(protocol.spawn_from_wire(message["create"]), stdio, descriptors)
    else:
        spawn = protocol.spawn_from_wire(message["container"])
        running = _execute(protocol.exec_from_wire(message["exec"]), spawn, int(message["pid"]), stdio)
    made = [running.pidfd] if running.console is None else [running.pidfd, running.console]
    return {"pid": running.pid, "start_time": running.start_time, "warnings": list(running.warnings)}, made


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


def _execute(request: Exec, spawn: Spawn, pid: int, stdio: Stdio) -> parent.Running:
    with open(os.path.join(spawn.run_dir, f"exec-{request.exec_id}.json"), "rb") as file:
        process = json.loads(file.read())
    if spawn.runtime != "hafen":
        return foreign.execute(spawn, request, process, pid, stdio)
    config = runtime_config.from_json(read_config(spawn))
    return join.execute(
        runtime_config.decode(runtime_config.Process, process, "process"),
        pid=pid,
        stdio=stdio,
        config=config,
        container_id=spawn.container_id,
        seccomp=_seccomp(spawn),
        options=parent.Options(sibling=True),
    )


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
