"""Sockets to the servers that the embedded resolver asks, each in the network namespace that it is asked from.

Servers of the user's choice (`--dns`) are asked from the container's namespace, as by Docker: often only there is the
way to them, as on a macvlan network, which the host cannot reach. The host's own servers are asked from the host's,
whose loopback they may be on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from hafen.kernel import consts, namespaces

PORT = 53
_BATCH = 8  # UDP sockets made at once inside, as that takes a process that enters the namespace
_IFREQ = struct.Struct("16si20x")

MakeSockets = Callable[[int, int, int, int], Awaitable[Sequence[socket.socket]]]
"""In the namespace of this descriptor, of this family and type, so many: bound to ports of the kernel's choice."""


_Key = tuple[int, int]  # family, type


class Server(NamedTuple):
    """`inside`: it is asked from the container's network namespace."""

    address: str
    inside: bool = False


class ServerSockets:
    """Of one container, whose namespace is that of `own`. Each socket is used for one query, so that nobody guesses
    the port that its answer is awaited at (RFC 5452)."""

    def __init__(self, own: socket.socket, make: MakeSockets) -> None:
        self._own = own
        self._make = make
        self._ready: dict[_Key, list[socket.socket]] = {}
        self._refills: dict[_Key, asyncio.Task[None]] = {}
        self._closed = False

    async def take(self, server: Server, kind: int) -> socket.socket:
        """One of SOCK_DGRAM or SOCK_STREAM, not connected yet; the caller's to close."""
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        if not server.inside:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        ready = self._ready.setdefault((family, kind), [])
        while not ready:  # shielded: what was made for somebody who has given up is there for the next
            await asyncio.shield(self._refilling((family, kind)))
            if self._closed:
                raise OSError("the container ended")
        return ready.pop()

    def _refilling(self, key: _Key) -> asyncio.Task[None]:
        """The one for all who wait."""
        task = self._refills.get(key)
        if task is None or task.done():
            task = self._refills[key] = asyncio.get_running_loop().create_task(
                self._refill(key), name="sockets for DNS servers"
            )
        return task

    async def _refill(self, key: _Key) -> None:
        family, kind = key
        netns = namespaces.of_socket(self._own.fileno())
        try:
            made = await self._make(netns, family, kind, _BATCH if kind == socket.SOCK_DGRAM else 1)
        finally:
            os.close(netns)
        for one in made:
            one.setblocking(False)
        self._ready[key].extend(made)
        if self._closed:
            self.close()

    def close(self) -> None:
        self._closed = True
        for ready in self._ready.values():
            while ready:
                ready.pop().close()


def address_of(server: Server, through: socket.socket) -> tuple[str, int] | tuple[str, int, int, int]:
    """For connect(2) on that socket, in whose namespace a scope (fe80::1%eth0) is looked up."""
    address, _, scope = server.address.partition("%")
    if ":" not in address:
        return address, PORT
    index = 0
    if scope:
        asked = _IFREQ.pack(scope.encode(), 0)
        _, index = _IFREQ.unpack(fcntl.ioctl(through, consts.SIOCGIFINDEX, asked))
    return address, PORT, 0, index
