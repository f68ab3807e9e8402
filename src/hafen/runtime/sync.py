"""Messages between a container's parent and the child that becomes it; one JSON object per SOCK_SEQPACKET datagram.

    child                                   parent
      | <---------------------------- maps    |   only with a new user namespace: its id maps are written
      | hooks ------------------------------> |   only with prestart or createRuntime hooks: mounts are made
      | <---------------------------- go      |   they have run; the root is changed now
      | ready {warnings, trace} [console] --> |   all is done but execve; `console`: pty master by SCM_RIGHTS
      | <---------------------------- start   |   only where the parent wants to say when
      | (end of file) ----------------------> |   execve closed the child's end: the program runs

At any time the child may send `error {error, message, exit_code}` (see `hafen.errors.to_wire`) and exits. The parent
dying is an end of file for the child, which then exits. `stage {pid}` comes from the intermediate process that
enters a joined user namespace: the pid, in our namespace, of the child that it made on our behalf.
"""

import errno
import json
import os
import socket
from typing import Any

from hafen.errors import HafenError, System, from_wire, to_wire
from hafen.kernel.unix import receive_descriptors
from hafen.values import NamedTuple

_LARGEST = 1 << 16


class Message(NamedTuple):
    """`descriptors` are the receiver's to close."""

    kind: str
    body: dict[str, Any]
    descriptors: tuple[int, ...] = ()


class Channel:
    """One end of the conversation."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def move_to(self, fd: int) -> None:
        """Continue on the descriptor `fd`, which is replaced."""
        os.dup2(self._socket.fileno(), fd, inheritable=False)
        self._socket.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)

    def send(self, kind: str, body: dict[str, Any] | None = None, descriptors: tuple[int, ...] = ()) -> None:
        data = json.dumps({"kind": kind, **(body or {})}).encode()
        if descriptors:
            socket.send_fds(self._socket, [data], list(descriptors), socket.MSG_NOSIGNAL)
        else:
            self._socket.send(data, socket.MSG_NOSIGNAL)

    def send_error(self, error: HafenError) -> None:
        self.send("error", to_wire(error))

    def receive(self) -> Message | None:
        """The next message, None at the end of file; raises the error that an `error` message carries."""
        try:
            data, descriptors, _ = receive_descriptors(self._socket, _LARGEST, 4)
        except OSError as error:
            if error.errno == errno.ECONNRESET:  # the peer closed with our message unread
                return None
            raise
        if not data:
            return None
        body = json.loads(data)
        kind = body.pop("kind")
        if kind == "error":
            raise from_wire(body)
        return Message(kind, body, tuple(descriptors))

    def expect(self, kind: str, what: str) -> Message:
        """The next message, which must be of that kind; `what` is the peer, for the error."""
        message = self.receive()
        if message is None:
            raise System(f"{what} ended before it said {kind!r}")
        if message.kind != kind:
            raise System(f"{what} said {message.kind!r} where {kind!r} was due")
        return message
