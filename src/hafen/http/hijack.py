"""Letting go of a connection: its socket without the transport, and the moment when a client has read the head."""

from __future__ import annotations

import asyncio
import socket

from hafen.kernel.unix import has_unread

_HEAD_LOOKS = 120
_QUICK_LOOKS = 20  # a client that waits for the head reads it within these, and a sleep takes a millisecond
_HEAD_PAUSE = 0.001  # seconds between two looks; the kernel does not tell when a client reads


def take_socket(transport: asyncio.Transport) -> socket.socket:
    """The transport's socket as one of our own; the transport, whose writes must be out, ends without a shutdown."""
    sock: socket.socket = transport.get_extra_info("socket").dup()
    transport.abort()
    return sock


async def wait_head_read(sock: socket.socket) -> None:
    """Until a client on a unix socket has read the answer's head, or for a moment.

    Clients read heads with a buffer and streams without it (docker-py does): of what arrives together with the head
    they would lose the stream's part. Docker takes tens of milliseconds to say anything, we do not.
    """
    if sock.family != socket.AF_UNIX:
        return
    for look in range(_HEAD_LOOKS):
        if not has_unread(sock):
            return
        await asyncio.sleep(0 if look < _QUICK_LOOKS else _HEAD_PAUSE)
