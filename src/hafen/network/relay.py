"""Published ports by way of a process: what comes in at a socket of the host goes on to the container.

For what the ruleset cannot or must not redirect (`publish`). A thread of its own, so that neither the engine's loop
waits for data nor data for the loop. TCP goes by splice(2) and is never copied; UDP clients each have a socket to the
container, for as long as they use it. The container sees the host's address as its client's, or the client's own where
`Target.keeps` says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass

log = logging.getLogger(__name__)

_TRANSPARENT = (socket.IPPROTO_IP, 19)  # IP_TRANSPARENT, linux/in.h
_TRANSPARENT6 = (socket.IPPROTO_IPV6, 75)  # IPV6_TRANSPARENT, linux/in6.h


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: `address` and `port`. Clients for whom `keeps` holds keep their address; see `transparent`."""

    address: str
    port: int
    keeps: Callable[[str], bool] = lambda client: False


_Asker = tuple[tuple[object, ...], tuple[tuple[int, int, bytes], ...]]
"""Where a datagram came from, and the ancillary data that tells which address it was sent to."""

UDP_PATIENCE = 90.0  # seconds without a datagram after which a client is forgotten, as by docker-proxy
MAX_UDP_CLIENTS = 4096
_PIPE_SIZE = 1 << 18  # bytes under way in each direction
_ROUNDS = 8  # of one connection before others have their turn
_REST = 1.0  # seconds until a listener tries again that had no descriptors for its clients
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # accept(2): of what there may be more later
_IN_PKTINFO = struct.Struct("=i4s4s")  # ip(7)
_IN6_PKTINFO = struct.Struct("=16sI")  # ipv6(7)
_IP_PKTINFO = 8  # linux/in.h
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50  # linux/in6.h


class Relay:
    """Serves sockets that it is given. Its thread starts with the first and ends with `close`."""

    def __init__(self) -> None:
        self._served: set[socket.socket] = set()
        self._thread: _Thread | None = None

    def serve(self, bound: socket.socket, target: Target) -> None:
        """The socket is the relay's from now on: a listening TCP socket, or a bound UDP socket."""
        if self._thread is None:
            self._thread = _Thread()
        self._served.add(bound)
        thread = self._thread
        if bound.type == socket.SOCK_STREAM:
            thread.call(lambda: thread.add(_Listener(thread, bound, target)))
        else:
            thread.call(lambda: thread.add(_Datagrams(thread, bound, target)))

    def stop(self, bound: socket.socket) -> bool:
        """Close the socket and whatever came in by it, before this returns; false where it is not served here."""
        if bound not in self._served or self._thread is None:
            return False
        self._served.discard(bound)
        thread = self._thread
        done: Future[None] = Future()

        def close() -> None:
            try:
                thread.drop(bound)
            finally:
                done.set_result(None)

        thread.call(close)
        done.result()
        return True

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()
            self._thread = None
        self._served.clear()


class _Thread:
    """A selector, and who waits for what. All but `call` and `close` is for this thread itself."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._awake, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._servers: dict[socket.socket, _Listener | _Datagrams] = {}
        self._resting: set[_Listener] = set()
        self._rested = 0.0  # when they may go on, by the monotonic clock
        self._open = True
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def call(self, what: Callable[[], None]) -> None:
        self._calls.put(what)
        with contextlib.suppress(BlockingIOError):  # then it is about to wake up
            os.write(self._wake, b"x")

    def close(self) -> None:
        self.call(self._end)
        self._thread.join()

    def add(self, server: _Listener | _Datagrams) -> None:
        self._servers[server.socket] = server
        self.watch(server.socket, selectors.EVENT_READ, server.ready)

    def drop(self, bound: socket.socket) -> None:
        server = self._servers.pop(bound, None)
        if server is not None:
            self._resting -= {server}
            server.close()

    def rest(self, listener: _Listener) -> None:
        """Its clients wait: who asked again at once would be told the same."""
        self.watch(listener.socket, 0, listener.ready)
        self._resting.add(listener)
        self._rested = time.monotonic() + _REST

    def watch(self, sock: socket.socket, events: int, what: Callable[[], None]) -> None:
        """Call `what` while one of these events holds; 0 for nothing any more."""
        known = sock.fileno() in self._selector.get_map()
        if events and known:
            self._selector.modify(sock, events, what)
        elif events:
            self._selector.register(sock, events, what)
        elif known:
            self._selector.unregister(sock)

    def _end(self) -> None:
        for bound in tuple(self._servers):
            self.drop(bound)
        self._open = False

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select(_REST if self._resting else UDP_PATIENCE / 3):
                # Not those that were closed earlier in this round, whose descriptor another may have by now.
                if key.fd != self._awake and self._selector.get_map().get(key.fd) is key:
                    self._perform(key.data, key)
            with contextlib.suppress(BlockingIOError):
                os.read(self._awake, 4096)
            while not self._calls.empty():
                self._perform(self._calls.get())
            for server in self._servers.values():
                server.tidy()
            if self._resting and time.monotonic() >= self._rested:
                self._perform(self._wake_up)
        self._selector.close()
        os.close(self._awake)
        os.close(self._wake)

    def _perform(self, what: Callable[[], None], key: selectors.SelectorKey | None = None) -> None:
        """What fails is reported and not called again; the other ports go on."""
        try:
            what()
        except Exception:
            log.exception("a relayed port or one of its connections does not go on")
            if key is not None and self._selector.get_map().get(key.fd) is key:
                self._selector.unregister(key.fileobj)

    def _wake_up(self) -> None:
        while self._resting:
            listener = self._resting.pop()
            self.watch(listener.socket, selectors.EVENT_READ, listener.ready)


class _Listener:
    """A published TCP port."""

    def __init__(self, thread: _Thread, listening: socket.socket, target: Target) -> None:
        self.socket = listening
        self._thread = thread
        self._target = target
        self.connections: set[_Connection] = set()
        listening.setblocking(False)

    def ready(self) -> None:
        try:
            client, (source, *_) = self.socket.accept()
        except OSError as error:
            if error.errno in SCARCE:
                self._thread.rest(self)
            return  # or it has gone again
        try:
            self.connections.add(_Connection(self._thread, self, client, source, self._target))
        except OSError:
            client.close()

    def tidy(self) -> None:
        """A connection ends by itself."""

    def close(self) -> None:
        self._thread.watch(self.socket, 0, self.ready)
        self.socket.close()
        for connection in tuple(self.connections):
            connection.close()


class _Connection:
    """A client and the container: two directions, each with a pipe between."""

    def __init__(self, thread: _Thread, owner: _Listener, client: socket.socket, source: str, target: Target) -> None:
        self._thread = thread
        self._owner = owner
        self._client = client
        self._server = _toward(target, socket.SOCK_STREAM, source)
        self._connecting = True
        with ExitStack() as undo:
            undo.callback(self._server.close)
            client.setblocking(False)
            for end in (client, self._server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            there = _Way(client, self._server)
            undo.callback(there.close)
            back = _Way(self._server, client)
            undo.callback(back.close)
            self._ways = (there, back)
            thread.watch(self._server, selectors.EVENT_WRITE, self._ready)
            undo.pop_all()

    def _ready(self) -> None:
        if self._connecting:
            if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                # As where nobody listens: a reset, not an end.
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close()
                return
            self._connecting = False
        try:
            for way in self._ways:
                way.pump()
        except OSError:
            self.close()
            return
        if all(way.over for way in self._ways):
            self.close()
            return
        there, back = self._ways
        for end, outgoing, incoming in ((self._client, back, there), (self._server, there, back)):
            events = selectors.EVENT_READ if incoming.wants_to_read else 0
            events |= selectors.EVENT_WRITE if outgoing.waiting else 0
            self._thread.watch(end, events, self._ready)

    def close(self) -> None:
        for end in (self._client, self._server):
            self._thread.watch(end, 0, self._ready)
            end.close()
        for way in self._ways:
            way.close()
        self._owner.connections.discard(self)


class _Way:
    """One direction. `waiting` bytes are in the pipe."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source = source
        self._sink = sink
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._room = fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:  # above fs.pipe-user-pages-soft, where we may not
            self._room = fcntl.fcntl(self._in, fcntl.F_GETPIPE_SZ)
        self.waiting = 0
        self._ended = False  # nothing more comes
        self.over = False  # and all that came has gone on

    @property
    def wants_to_read(self) -> bool:
        return not self._ended and not self.waiting

    def pump(self) -> None:
        """Move what can be moved now; OSError where one of the ends is gone."""
        for _ in range(_ROUNDS):
            moved = 0
            if not self._ended and not self.waiting:
                moved = self._fill()
            if self.waiting:
                moved += self._drain()
            if self._ended and not self.waiting and not self.over:
                self.over = True
                self._sink.shutdown(socket.SHUT_WR)
            if not moved:
                return

    def _fill(self) -> int:
        try:
            count = os.splice(self._source.fileno(), self._in, self._room, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        self.waiting += count
        self._ended = not count
        return count

    def _drain(self) -> int:
        try:
            count = os.splice(self._out, self._sink.fileno(), self.waiting, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        self.waiting -= count
        return count

    def close(self) -> None:
        os.close(self._in)
        os.close(self._out)


class _Datagrams:
    """A published UDP port: a socket to the container for each client, so that its answers find back."""

    def __init__(self, thread: _Thread, bound: socket.socket, target: Target) -> None:
        self.socket = bound
        self._thread = thread
        self._target = target
        self._clients: dict[_Asker, _UdpClient] = {}
        bound.setblocking(False)
        # Answers leave from the address that was asked, not from whichever the route prefers.
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def ready(self) -> None:
        for _ in range(_ROUNDS):
            try:
                data, ancillary, _, address = self.socket.recvmsg(65535, 64)
            except OSError:
                return
            asker = (address, tuple(ancillary))
            client = self._clients.get(asker)
            if client is None:
                if len(self._clients) >= MAX_UDP_CLIENTS:
                    self._forget(min(self._clients, key=lambda known: self._clients[known].used))
                try:
                    client = self._clients[asker] = _UdpClient(self, address, ancillary)
                except OSError:
                    continue  # no way to the container, as for any datagram that is lost
                self._thread.watch(client.upstream, selectors.EVENT_READ, client.ready)
            client.used = time.monotonic()
            with contextlib.suppress(OSError):  # refused, or its buffer is full: a datagram is lost
                client.upstream.send(data)

    @property
    def target(self) -> Target:
        return self._target

    def tidy(self) -> None:
        if self._clients:
            oldest = time.monotonic() - UDP_PATIENCE
            for asker in [known for known, client in self._clients.items() if client.used < oldest]:
                self._forget(asker)

    def _forget(self, asker: _Asker) -> None:
        client = self._clients.pop(asker)
        self._thread.watch(client.upstream, 0, client.ready)
        client.upstream.close()

    def close(self) -> None:
        self._thread.watch(self.socket, 0, self.ready)
        self.socket.close()
        for asker in tuple(self._clients):
            self._forget(asker)


class _UdpClient:
    """One client of a UDP port. `ancillary` came with its first datagram and tells which address it asked."""

    def __init__(self, owner: _Datagrams, address: tuple[object, ...], ancillary: list[tuple[int, int, bytes]]) -> None:
        self._owner = owner
        self._address = address
        self._from = [_answering(*one) for one in ancillary if one[1] in (_IP_PKTINFO, _IPV6_PKTINFO)]
        self.upstream = _toward(owner.target, socket.SOCK_DGRAM, str(address[0]))
        self.used = time.monotonic()

    def ready(self) -> None:
        for _ in range(_ROUNDS):
            try:
                data = self.upstream.recv(65535)
                self._owner.socket.sendmsg([data], self._from, 0, self._address)
            except OSError:
                return
            self.used = time.monotonic()


def _answering(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """What came with a datagram, turned into what goes with its answer: leave from the address that it was sent to."""
    if level == socket.IPPROTO_IPV6:
        address, _ = _IN6_PKTINFO.unpack_from(data)
        return level, kind, _IN6_PKTINFO.pack(address, 0)
    _, _, address = _IN_PKTINFO.unpack_from(data)
    return level, kind, _IN_PKTINFO.pack(0, address, bytes(4))


def _toward(target: Target, kind: int, source: str) -> socket.socket:
    """A socket that is, or is being, connected to the container, for the client at `source`."""
    ipv6 = ":" in target.address
    made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if (":" in source) == ipv6 and target.keeps(source):
            level, option = _TRANSPARENT6 if ipv6 else _TRANSPARENT
            made.setsockopt(level, option, 1)
            made.bind((source, 0))
        with contextlib.suppress(BlockingIOError):
            made.connect((target.address, target.port))
    except BaseException:
        made.close()
        raise
    return made
