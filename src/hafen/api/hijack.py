"""Attach and exec: an HTTP connection becomes the raw stream of a session.

A client that sends `Upgrade` is answered 101, an older one 200 without any length. Everything after the head belongs to
the session, which gets the socket itself: the transport lets go of it without a shutdown.
"""

from __future__ import annotations

import asyncio
import socket

from hafen.api import response
from hafen.api.message import HijackReply, Request
from hafen.api.stream import MULTIPLEXED, RAW
from hafen.engine.services import Session
from hafen.kernel.unix import has_unread

_HEAD_LOOKS = 300
_HEAD_PAUSE = 0.0003  # seconds between two looks; the kernel does not tell when a client reads


def answer(request: Request, session: Session) -> HijackReply:
    """What Docker answers: only a client that upgrades and knows 1.42 is told that the stream is multiplexed."""
    upgrade = "upgrade" in request.headers
    multiplexed = upgrade and not session.tty and request.version >= (1, 42)
    head = response.switching if upgrade else response.raw
    return HijackReply(session, head(MULTIPLEXED if multiplexed else RAW))


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
    for _ in range(_HEAD_LOOKS):
        if not has_unread(sock):
            return
        await asyncio.sleep(_HEAD_PAUSE)
