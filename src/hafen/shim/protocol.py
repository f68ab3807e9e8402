"""The conversations between engine, zygote, shim and set-up process: one JSON object per SOCK_SEQPACKET datagram.

Descriptors travel beside it (SCM_RIGHTS, unix(7)); a field that holds one is its index in that list. Requests carry
an `id` that the answer repeats; an answer is `{"id": n, "ok": {...}}` or `{"id": n, "error": class, "message": ...}`
(`hafen.errors.to_wire`). A request of unknown `op` is answered with NotImplemented, never by closing. The first
datagram of zygote and shim is their `hello`, with the VERSION they speak.

    engine -> zygote    {"op":"fork"} + [link], without an id: the shim answers "<pid>" on its link (keeper.py)
                        netns {}                                    -> {} + [netns, rtnetlink socket inside it]
                        sockets {specs: [[family, type, address, port]]} + [netns] -> {} + [socket...]
                        sysctls {settings: {path below /proc/sys: value}} + [netns] -> {}
    zygote -> engine    hello {version, pid}
                        (EOF in either direction: the other is gone; the zygote then exits)

    engine -> shim      spawn {Spawn} + [netns?, client...]         -> {pid, started_at, start_time, warnings}
                        attach {client: Client, exec_id?, held} + [socket] -> {at?}
                            held: it gets what was written from `at` on (ns since the epoch), but not before
                        release {client}                            -> {}
                        exec {Exec} + [socket?]                     -> {pid}
                        signal {signal, exec_id?, all}              -> {}
                        resize {height, width, exec_id?}            -> {}
                        pause {} | resume {}                        -> {}
                        pids {}                                     -> {pids}
                        counters {}                                 -> {counters}
                        update {resources}                          -> {warnings}
    shim -> engine      hello {version, container_id, shim_pid, pid, started_at, start_time, paused, warnings,
                               execs,                               {id: pid} of those that run
                               exec_exits}                          {id: code} of those that ended last
                        event=client_done {client, reason}          the socket is closed; `exit|detach|gone|stalled`
                        event=exec_made {exec_id, pid}              who had asked for it is gone
                        event=exec_exit {exec_id, code}
                        event=oom {}                                the kernel killed a process of the container
                        event=exit {Exit}                           the last message; everything is cleaned up

    set-up -> shim      {pid, start_time, warnings} + [pidfd, console?], or an error; asked by fork (setup.py)

The hello of a shim comes on every connection to `<run_dir>/shim.sock`; the link with which it was forked has none.
What can be large is a file in the run directory and not in a datagram (their limit is the socket's send buffer):
`config.json`, `seccomp.bpf`, `exec-<id>.json`.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from hafen import errors
from hafen.kernel.unix import receive_descriptors
from hafen.values import NamedTuple

VERSION = 1

MAX_MESSAGE = 192 * 1024
MAX_DESCRIPTORS = 64  # SCM_MAX_FD is 253
SOCKET_NAME = "shim.sock"

Message = dict[str, Any]


class Client(NamedTuple):
    """An attached stream, as it is handed to the shim; `socket` is the descriptor's index."""

    client: int
    socket: int
    stdin: bool
    stdout: bool
    stderr: bool
    multiplexed: bool
    detach_keys: str  # latin-1
    prefix: str  # latin-1: bytes the engine had read already


class Log(NamedTuple):
    """Where output goes: a driver by name, its options, its directory, json-file's `attrs`.

    `source` are the fields of `logs.driver.Source` that a remote driver sends, but for the id and the attributes.
    """

    driver: str
    options: dict[str, str]
    directory: str
    container_id: str
    attributes: dict[str, str]
    source: dict[str, str]


class Spawn(NamedTuple):
    """A container to start. `run_dir` holds config.json (and seccomp.bpf); `rootfs` are (type, source, options)."""

    container_id: str
    run_dir: str
    data_dir: str
    rootfs: list[tuple[str, str, list[str]]]
    netns: int | None
    terminal: bool
    open_stdin: bool
    stdin_once: bool
    log: Log
    runtime: str  # "hafen", or the path of an OCI runtime
    clients: list[Client]


class Exec(NamedTuple):
    """A further process; `exec-<exec_id>.json` in the run directory holds its OCI process object."""

    exec_id: str
    terminal: bool
    open_stdin: bool
    height: int
    width: int
    client: Client | None


class Exit(NamedTuple):
    """How a container ended; also the shape of `exit.json`."""

    container_id: str
    pid: int
    started_at: int  # ns since the epoch
    at: int  # ns since the epoch
    code: int  # 128 + n where signal n ended it
    oom_killed: bool
    error: str


def client_from_wire(wire: Mapping[str, Any]) -> Client:
    return Client(**wire)


def spawn_from_wire(wire: Mapping[str, Any]) -> Spawn:
    fields = dict(wire)
    fields["log"] = Log(**fields["log"])
    fields["clients"] = [client_from_wire(client) for client in fields["clients"]]
    fields["rootfs"] = [(kind, source, list(options)) for kind, source, options in fields["rootfs"]]
    return Spawn(**fields)


def spawn_to_wire(spawn: Spawn) -> Message:
    return {
        **spawn._asdict(),
        "log": spawn.log._asdict(),
        "clients": [client._asdict() for client in spawn.clients],
    }


def exec_from_wire(wire: Mapping[str, Any]) -> Exec:
    fields = dict(wire)
    client = fields["client"]
    fields["client"] = None if client is None else client_from_wire(client)
    return Exec(**fields)


def exec_to_wire(value: Exec) -> Message:
    return {**value._asdict(), "client": None if value.client is None else value.client._asdict()}


def encode(message: Mapping[str, Any]) -> bytes:
    """The datagram; InvalidArgument where it cannot be sent whole."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise errors.InvalidArgument(f"message of {len(data)} bytes is over the limit of {MAX_MESSAGE}")
    return data


def send(sock: socket.socket, message: Mapping[str, Any], descriptors: Iterable[int] = ()) -> None:
    """Send one message; OSError as the socket raises it (BlockingIOError where its buffer is full)."""
    socket.send_fds(sock, [encode(message)], list(descriptors), socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (close-on-exec, now the caller's); None at the end of the conversation."""
    try:
        data, descriptors, flags = receive_descriptors(sock, MAX_MESSAGE, MAX_DESCRIPTORS)
    except ConnectionError:
        return None
    if not data:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise errors.System("a message between Hafen's own processes was cut short")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise errors.System("a message between Hafen's own processes is no object")
    except (ValueError, errors.System) as error:
        close_all(descriptors)
        if isinstance(error, errors.System):
            raise
        raise errors.System(f"a message between Hafen's own processes is not JSON: {error}") from error
    return message, descriptors


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def prepare_socket(sock: socket.socket) -> None:
    """Room for the largest message: the default send buffer (net.core.wmem_default) holds 208 KiB with overhead."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair for one conversation; both ends close-on-exec."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    prepare_socket(left)
    prepare_socket(right)
    return left, right
