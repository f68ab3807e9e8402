"""Attach clients to a container's streams: handed to its shim, or kept until it starts.

A client that attaches before the start is registered before its answer's head is sent, so that the start that follows
waits for its socket and no byte of output is lost.
"""

from __future__ import annotations

import asyncio
import select
import socket
import string
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hafen.engine.events import Events
from hafen.engine.logs import Logs, Replay
from hafen.engine.records import Container, Containers, PendingSession
from hafen.engine.services import AttachOptions, Session
from hafen.engine.shimlink import AttachClient, Shim
from hafen.errors import Conflict, HafenError, InvalidArgument, NotImplemented
from hafen.spec.lifecycle import State

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q
_CONTROL_KEYS = string.ascii_lowercase + "@[\\]^_"


def detach_keys(text: str | None) -> bytes:
    """The bytes of `ctrl-p,ctrl-q`; Docker's default for None and for an empty text. InvalidArgument for what is none.

    A key is one character of ASCII, or `ctrl-` and one of a to z and @ [ \\ ] ^ _ (moby/term: ToBytes).
    """
    if text is None or text == "":
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for part in text.split(","):
        key = part.removeprefix("ctrl-")
        if part.isascii() and len(part) == 1:
            keys += part.encode()
        elif part != key and len(key) == 1 and key in _CONTROL_KEYS:
            keys.append(ord(key.upper()) - 64)
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(keys)


@dataclass(frozen=True, slots=True)
class Attacher:
    """`Services.attach`."""

    containers: Containers
    events: Events
    logs: Logs

    async def attach(self, ref: str, options: AttachOptions) -> Session:
        container = self.containers.find(ref)
        if container.status.state is State.PAUSED:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.status.state is State.RESTARTING:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        keys = detach_keys(options.detach_keys)
        self.events.publish("container", "attach", container.id, container.event_attributes())
        return AttachSession(self, container, options, keys)

    async def resize(self, ref: str, height: int, width: int) -> None:
        container = self.containers.find(ref)
        await container.running_shim().resize(height, width)
        attributes = container.event_attributes(height=str(height), width=str(width))
        self.events.publish("container", "resize", container.id, attributes)


class AttachSession:
    """One attached client; see `services.Session`."""

    def __init__(self, owner: Attacher, container: Container, options: AttachOptions, keys: bytes) -> None:
        self._owner = owner
        self._container = container
        self._options = options
        self._keys = keys
        self._streams = options.stream and (options.stdin or options.stdout or options.stderr)
        self._pending: PendingSession | None = None
        if not container.alive and self._streams:
            self._pending = PendingSession()
            container.sessions.append(self._pending)

    @property
    def tty(self) -> bool:
        return self._container.record.config.tty

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        options, container = self._options, self._container
        client = AttachClient(
            sock=sock,
            stdin=options.stdin and container.record.config.open_stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            multiplexed=options.multiplexed and not self.tty,
            detach_keys=self._keys,
            prefix=prefix,
        )
        with sock:
            if not await self._begin(client):
                return
            if self._pending is not None and self._pending.ready.result() is client:
                await self._wait_started(self._pending, client)
            if await client.done == "detach":
                self._owner.events.publish("container", "detach", container.id, container.event_attributes())

    async def _begin(self, client: AttachClient) -> bool:
        """Send the log, then let the shim, or the start to come, have the client; False where there is no stream."""
        with ExitStack() as scope:
            replay = self._replay()
            if replay is not None:
                scope.callback(replay.close)
                await _send(client.sock, replay.rest())
            if not self._streams:
                return False
            if self._pending is not None and not self._pending.ready.done():
                self._pending.ready.set_result(client)
                return True
            shim = self._container.shim
            if shim is None:
                return False
            try:
                await self._hand_over(shim, client, replay)
            except HafenError:  # it ended in between: the stream is empty
                return False
        return True

    def _replay(self) -> Replay | None:
        """What was written so far comes first (`logs=1`), where it is kept."""
        options = self._options
        if not options.logs:
            return None
        try:
            return self._owner.logs.replay(
                self._container, stdout=options.stdout, stderr=options.stderr, multiplexed=options.multiplexed
            )
        except NotImplemented:
            return None

    async def _hand_over(self, shim: Shim, client: AttachClient, replay: Replay | None) -> None:
        """With a replay, the shim keeps what is written from now on until the log before it was sent: no byte is lost
        or doubled."""
        if replay is None:
            await shim.attach(client)
            return
        with client.sock.dup() as spare:
            try:
                held = await shim.attach_held(client)
            except HafenError:
                await _send(spare, replay.rest())  # it ended in between: the log has all
                raise
            await _send(spare, replay.rest(held.at))
            await shim.release(held)

    async def _wait_started(self, pending: PendingSession, client: AttachClient) -> None:
        """Keep the client until its container starts or is removed, or it goes away."""
        with hangup(client.sock) as gone:
            await asyncio.wait((gone, pending.taken, client.done), return_when=asyncio.FIRST_COMPLETED)
        if not (pending.taken.done() or client.done.done()):
            self._container.sessions.remove(pending)
            client.done.set_result("gone")

    def abandon(self) -> None:
        if self._pending is not None and not self._pending.ready.done():
            self._pending.ready.set_result(None)
            if not self._pending.taken.done():
                self._container.sessions.remove(self._pending)


async def _send(sock: socket.socket, chunks: AsyncIterator[bytes]) -> None:
    loop = asyncio.get_running_loop()
    try:
        async for chunk in chunks:
            await loop.sock_sendall(sock, chunk)
    except OSError:
        pass  # the client is gone; attaching it will tell


@contextmanager
def hangup(sock: socket.socket) -> Iterator[asyncio.Future[None]]:
    """Resolves when the peer has gone altogether, without reading what it sent; a half-close is none (poll(2))."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    with select.epoll() as watch:
        watch.register(sock.fileno(), 0)  # only EPOLLHUP and EPOLLERR
        loop.add_reader(watch.fileno(), _resolve, gone)
        try:
            yield gone
        finally:
            loop.remove_reader(watch.fileno())


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
