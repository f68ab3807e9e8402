"""One conversation with a process of ours (zygote or shim): requests, answers and events on the engine's loop.

The messages are those of `hafen.shim.protocol`. Nothing here knows what they mean.
"""

from __future__ import annotations

import asyncio
import collections
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hafen import errors
from hafen.shim import protocol

EventHandler = Callable[[protocol.Message, list[int]], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the message's `ok` object and the descriptors that came with it, now the caller's."""

    fields: protocol.Message
    descriptors: list[int]


class Conversation:
    """Sends requests and hands out answers by their id, until the other side is gone.

    `on_event` gets every message that answers nothing, `on_close` is called once, after all pending requests failed
    with Unavailable. `closed` is true from then on.
    """

    def __init__(self, sock: socket.socket, name: str, on_event: EventHandler, on_close: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._name = name
        self._on_event = on_event
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._outgoing: collections.deque[tuple[protocol.Message, tuple[int, ...]]] = collections.deque()
        self._next = 0
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def request(self, op: str, descriptors: Sequence[int] = (), **fields: object) -> asyncio.Future[Answer]:
        """Send a request; the future has its answer or a HafenError. The descriptors stay the caller's."""
        self._next += 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self.closed:
            future.set_exception(errors.Unavailable(f"{self._name} is gone"))
            return future
        message = {"id": self._next, "op": op, **fields}
        protocol.encode(message)  # too large: the caller's error, before anything is queued
        self._pending[self._next] = future
        self._send(message, descriptors)
        return future

    def tell(self, op: str, descriptors: Sequence[int] = ()) -> None:
        """Send what has no answer."""
        if not self.closed:
            self._send({"op": op}, descriptors)

    def close(self) -> None:
        """Hang up. Pending requests fail with Unavailable."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, descriptors in self._outgoing:
            protocol.close_all(descriptors)
        self._outgoing.clear()
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(errors.Unavailable(f"{self._name} died"))
        self._on_close()

    def _send(self, message: protocol.Message, descriptors: Sequence[int]) -> None:
        self._outgoing.append((message, tuple(os.dup(descriptor) for descriptor in descriptors)))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outgoing:
            message, descriptors = self._outgoing[0]
            try:
                protocol.send(self._sock, message, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self.close()
                return
            protocol.close_all(descriptors)
            self._outgoing.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while not self.closed:
            try:
                received = protocol.receive(self._sock)
            except BlockingIOError:
                return
            if received is None:
                self.close()
                return
            message, descriptors = received
            if "id" in message:
                self._answer(message, descriptors)
            else:
                self._on_event(message, descriptors)

    def _answer(self, message: protocol.Message, descriptors: list[int]) -> None:
        future = self._pending.pop(message["id"], None)
        if future is None or future.done():  # whoever asked was cancelled
            protocol.close_all(descriptors)
        elif "error" in message:
            protocol.close_all(descriptors)
            future.set_exception(errors.from_wire(message))
        else:
            future.set_result(Answer(message["ok"], descriptors))
