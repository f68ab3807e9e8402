"""Attach clients to a container's streams: handed to its shim, or kept until it starts.

A client that attaches before the start is registered before its answer's head is sent, so that the start that follows
waits for its socket and no byte of output is lost.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from hafen.engine.events import Events
from hafen.engine.logs import Logs
from hafen.engine.records import Container, Containers, PendingSession
from hafen.engine.services import AttachOptions, Session
from hafen.engine.shimlink import AttachClient
from hafen.errors import Conflict, HafenError, InvalidArgument
from hafen.spec.lifecycle import State

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p, ctrl-q


def detach_keys(text: str | None) -> bytes:
    """The bytes of `ctrl-p,ctrl-q`; Docker's default for None, none at all for an empty text."""
    if text is None or text == "":
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for part in text.split(","):
        if len(part) == 1:
            keys += part.encode("latin-1", "replace")
            continue
        prefix, _, key = part.partition("-")
        code = ord(key.upper()) - 64 if len(key) == 1 else -1
        if prefix != "ctrl" or not 0 <= code < 32:
            raise InvalidArgument(f"Unknown character: '{part}'")
        keys.append(code)
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
        self._pending: PendingSession | None = None
        if not container.alive and options.stream:
            self._pending = PendingSession()
            container.sessions.append(self._pending)

    @property
    def tty(self) -> bool:
        return self._container.record.config.tty

    async def run(self, sock: socket.socket, prefix: bytes = b"") -> None:
        options, container = self._options, self._container
        if options.logs:
            await self._replay(sock)
        if not options.stream:
            sock.close()
            return
        client = AttachClient(
            sock=sock,
            stdin=options.stdin and container.record.config.open_stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            multiplexed=options.multiplexed and not self.tty,
            detach_keys=self._keys,
            prefix=prefix,
        )
        if self._pending is not None and not self._pending.ready.done():
            self._pending.ready.set_result(client)
        elif container.shim is not None:
            try:
                await container.shim.attach(client)
            except HafenError:  # it ended in between: the stream is empty
                sock.close()
                return
        else:
            sock.close()
            return
        await self._until_done(client)

    async def _until_done(self, client: AttachClient) -> None:
        reason = await client.done
        if reason == "detach":
            container = self._container
            self._owner.events.publish("container", "detach", container.id, container.event_attributes())

    async def _replay(self, sock: socket.socket) -> None:
        """What was written so far comes first (`logs=1`)."""
        loop = asyncio.get_running_loop()
        options = self._options
        stream = await self._owner.logs.read(
            self._container.id, stdout=options.stdout, stderr=options.stderr, multiplexed=options.multiplexed
        )
        try:
            async for chunk in stream.chunks:
                await loop.sock_sendall(sock, chunk)
        except OSError:
            return  # the client is gone; attaching it will tell

    def abandon(self) -> None:
        if self._pending is not None and not self._pending.ready.done():
            self._pending.ready.set_result(None)
