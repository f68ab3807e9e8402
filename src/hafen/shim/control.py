"""The shim's side of its conversations with engines: accept, dispatch by `op`, answer, tell events.

The first conversation is the link it was forked with; later engines connect to `shim.sock`. An engine that does not
read never stops the shim: what it does not take is queued, and past QUEUE messages it is hung up on.
"""

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping

from hafen import errors
from hafen.shim import protocol
from hafen.shim.loop import READ, WRITE, Loop

QUEUE = 1000


class Request:
    """One request; answer it once, with `ok` or `fail`. `descriptors` are closed after `take` ones are gone."""

    def __init__(self, connection: "Connection", message: protocol.Message, descriptors: list[int]) -> None:
        self._connection = connection
        self._id = message.pop("id", None)
        self.op = str(message.pop("op", ""))
        self.fields = message
        self.descriptors = descriptors

    @property
    def orphaned(self) -> bool:
        """Whoever asked is gone."""
        return self._connection.fileno() < 0

    def take(self, index: int) -> int:
        """The descriptor at `index`, now the caller's."""
        if not 0 <= index < len(self.descriptors) or self.descriptors[index] < 0:
            raise errors.InvalidArgument(f"{self.op}: no descriptor {index}")
        descriptor, self.descriptors[index] = self.descriptors[index], -1
        return descriptor

    def take_socket(self, index: int) -> socket.socket:
        return socket.socket(fileno=self.take(index))

    def drop_descriptors(self) -> None:
        protocol.close_all(descriptor for descriptor in self.descriptors if descriptor >= 0)
        self.descriptors = []

    def ok(self, fields: Mapping[str, object] | None = None) -> None:
        self._connection.send({"id": self._id, "ok": fields or {}})

    def fail(self, error: errors.HafenError) -> None:
        self._connection.send({"id": self._id, **errors.to_wire(error)})


Handler = Callable[[Request], None]


class Connection:
    """One engine."""

    def __init__(
        self, loop: Loop, sock: socket.socket, handle: Handler, on_close: Callable[["Connection"], None]
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._handle = handle
        self._on_close = on_close
        self._queue: deque[protocol.Message] = deque()
        loop.add(sock.fileno(), READ, self._ready)

    @property
    def quiet(self) -> bool:
        """Nothing waits to be sent."""
        return not self._queue

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: protocol.Message) -> None:
        if self._sock.fileno() < 0:
            return
        self._queue.append(message)
        if len(self._queue) == 1:
            self._flush()
        elif len(self._queue) > QUEUE:
            self.close()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self._on_close(self)

    def _flush(self) -> None:
        try:
            while self._queue:
                protocol.send(self._sock, self._queue[0])
                self._queue.popleft()
        except BlockingIOError:
            self._loop.change(self._sock.fileno(), READ | WRITE)
            return
        except OSError:
            self.close()
            return
        self._loop.change(self._sock.fileno(), READ)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        if mask & ~WRITE and self._sock.fileno() >= 0:
            try:
                received = protocol.receive(self._sock)
            except BlockingIOError:
                return
            except errors.System:  # not our protocol: nothing that could be answered
                received = None
            if received is None:
                self.close()
            else:
                self._dispatch(Request(self, *received))

    def _dispatch(self, request: Request) -> None:
        try:
            self._handle(request)
        except errors.HafenError as error:
            request.fail(error)
        except OSError as error:
            request.fail(errors.System(str(error)))
        except (KeyError, TypeError, ValueError) as error:
            request.fail(errors.InvalidArgument(f"{request.op}: {type(error).__name__}: {error}"))
        except Exception as error:  # noqa: BLE001 - the boundary of a request: a worker that ends kills its container
            sys.excepthook(type(error), error, error.__traceback__)
            request.fail(errors.System(f"{request.op}: {type(error).__name__}: {error}"))
        finally:
            request.drop_descriptors()


class Control:
    """All conversations. `handlers` is the table of what the shim can do; `hello` makes the first message."""

    def __init__(self, loop: Loop, handlers: Mapping[str, Handler], hello: Callable[[], protocol.Message]) -> None:
        self._loop = loop
        self._handlers = handlers
        self._hello = hello
        self._listener: socket.socket | None = None
        self._connections: list[Connection] = []
        self.on_alone: Callable[[], None] = lambda: None

    @property
    def alone(self) -> bool:
        return not self._connections

    @property
    def quiet(self) -> bool:
        return all(connection.quiet for connection in self._connections)

    def descriptors(self) -> list[tuple[str, int]]:
        """For `resume` in another process: what each is, and the descriptor."""
        found = [("connection", connection.fileno()) for connection in self._connections]
        if self._listener is not None:
            found.append(("listener", self._listener.fileno()))
        return found

    def resume(self, role: str, descriptor: int) -> None:
        sock = socket.socket(fileno=descriptor)
        if role == "connection":
            self.add(sock)
        else:
            self._listen(sock)

    def add(self, sock: socket.socket) -> Connection:
        connection = Connection(self._loop, sock, self._handle, self._closed)
        self._connections.append(connection)
        return connection

    def listen(self, directory: str) -> None:
        """On `shim.sock` in `directory`; through its descriptor, as sun_path holds 108 bytes only (unix(7))."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{at}/{protocol.SOCKET_NAME}")
            os.chmod(protocol.SOCKET_NAME, 0o600, dir_fd=at)
        finally:
            os.close(at)
        listener.listen(16)
        listener.setblocking(False)
        self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        self._listener = listener
        self._loop.add(listener.fileno(), READ, self._accept)

    def tell(self, event: protocol.Message) -> None:
        for connection in tuple(self._connections):
            connection.send(event)

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        try:
            sock, _address = self._listener.accept()
        except OSError:  # it has gone again
            return
        protocol.prepare_socket(sock)
        self.add(sock).send(self._hello())

    def _handle(self, request: Request) -> None:
        handler = self._handlers.get(request.op)
        if handler is None:
            raise errors.NotImplemented(f"this shim (protocol {protocol.VERSION}) knows no {request.op!r}")
        handler(request)

    def _closed(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        if not self._connections:
            self.on_alone()
