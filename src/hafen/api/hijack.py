"""Attach and exec: an HTTP connection becomes the raw stream of a session.

A client that sends `Upgrade` is answered 101, an older one 200 without any length. Everything after the head belongs to
the session, which gets the socket itself: the transport lets go of it without a shutdown (`hafen.http.hijack`).
"""

from __future__ import annotations

from hafen.api import response
from hafen.api.message import HijackReply, Request
from hafen.api.stream import MULTIPLEXED, RAW
from hafen.engine.services import Session


def answer(request: Request, session: Session) -> HijackReply:
    """What Docker answers: only a client that upgrades and knows 1.42 is told that the stream is multiplexed."""
    upgrade = "upgrade" in request.headers
    multiplexed = upgrade and not session.tty and request.version >= (1, 42)
    head = response.switching if upgrade else response.raw
    return HijackReply(session, head(MULTIPLEXED if multiplexed else RAW))
