"""The embedded resolver at 127.0.0.11: names of the container's networks from us, everything else from its servers.

Per container two sockets, made inside its network namespace and answered here, on the engine's event loop. Queries
that are not ours go out from the host's namespace, so servers on the host's loopback serve as well: each from a socket
of its own with a random id (RFC 5452), to one server after the other until one answers.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from hafen.network import dnswire
from hafen.network.dnswire import Malformed, Query
from hafen.network.relay import SCARCE

PORT = 53
PATIENCE = 2.0  # seconds for one server
MAX_PENDING = 256  # of one container; who asks more at once is told to try again
_BATCH = 64  # datagrams of one container before others have their turn
_TCP_IDLE = 10.0  # seconds
MAX_CONNECTIONS = 64  # of one container by TCP; the oldest goes for one more (RFC 7766, 6.2.3)
_REST = 1.0  # seconds until connections are accepted again for which there were no descriptors


Servers = Callable[[], Sequence[str]]


class Names(Protocol):
    """Who knows the names: the engine's networks."""

    def addresses(self, container_id: str, name: str) -> Sequence[str] | None:
        """Addresses of a name as this container sees it; None where it is none of ours."""

    def names(self, container_id: str, address: str) -> Sequence[str] | None:
        """Names of an address; None where it is none of ours."""


class Resolver:
    """Every container's resolver; loop thread only."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._stubs: dict[str, _Stub] = {}

    def serve(self, container_id: str, udp: socket.socket, tcp: socket.socket, servers: Servers) -> None:
        """Answer on these bound sockets, which are ours from now on. `servers` is asked for each query that is not
        ours; where it gives none, nothing is forwarded."""
        self.stop(container_id)
        self._stubs[container_id] = _Stub(container_id, self._names, udp, tcp, servers)

    def serves(self, container_id: str) -> bool:
        return container_id in self._stubs

    def stop(self, container_id: str) -> None:
        stub = self._stubs.pop(container_id, None)
        if stub is not None:
            stub.close()

    def close(self) -> None:
        for container_id in tuple(self._stubs):
            self.stop(container_id)


class _Stub:
    """One container's resolver."""

    def __init__(
        self, container_id: str, names: Names, udp: socket.socket, tcp: socket.socket, servers: Servers
    ) -> None:
        self._container_id = container_id
        self._names = names
        self._servers = servers
        self._udp = udp
        self._tcp = tcp
        self._forwards: set[_Forward] = set()
        self._connections: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._rest: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        udp.setblocking(False)
        tcp.setblocking(False)
        tcp.listen(16)
        self._loop.add_reader(udp, self._read)
        self._loop.add_reader(tcp, self._accept)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        for sock in (self._udp, self._tcp):
            self._loop.remove_reader(sock)
            sock.close()
        for forward in tuple(self._forwards):
            forward.give_up()
        for connection in tuple(self._connections):
            connection.cancel()

    def _resolve(self, query: Query) -> bytes | None:
        """The response to what is ours to answer, or None."""
        if query.klass != dnswire.IN:
            return None
        if query.type == dnswire.PTR:
            address = dnswire.reverse_address(query.name)
            found = None if address is None else self._names.names(self._container_id, address)
            return None if found is None else dnswire.names(query, found)
        known = self._names.addresses(self._container_id, query.name)
        if known is None:
            return None
        return dnswire.addresses(query, known)

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                data, client = self._udp.recvfrom(65535)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return  # an ICMP error of an earlier answer; the next datagram is waited for
            try:
                query = dnswire.parse_query(data)
            except Malformed:
                continue
            response = self._resolve(query)
            if response is not None:
                self._answer(query, response, client)
            elif len(self._forwards) >= MAX_PENDING:
                self._answer(query, dnswire.failure(query, dnswire.SERVFAIL), client)
            else:
                self._forwards.add(_Forward(self, query, data, client, self._servers()))

    def _answer(self, query: Query, response: bytes, client: tuple[str, int]) -> None:
        try:
            self._udp.sendto(dnswire.for_udp(query, response), client)
        except OSError:
            pass  # its socket is full or gone; it asks again

    def answered(self, forward: _Forward, response: bytes) -> None:
        self._forwards.discard(forward)
        self._answer(forward.query, response, forward.client)

    def forgotten(self, forward: _Forward) -> None:
        self._forwards.discard(forward)

    def _accept(self) -> None:
        try:
            connection, _ = self._tcp.accept()
        except OSError as error:
            if error.errno in SCARCE:  # who asked again at once would be told the same
                self._loop.remove_reader(self._tcp)
                self._rest = self._loop.call_later(_REST, self._loop.add_reader, self._tcp, self._accept)
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        connection.setblocking(False)
        task = self._loop.create_task(self._converse(connection), name=f"DNS by TCP for {self._container_id}")
        self._connections[task] = None
        task.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _converse(self, connection: socket.socket) -> None:
        """Queries by TCP, one after the other (RFC 7766)."""
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE):
                    data = await _read_framed(reader)
                    query = dnswire.parse_query(data)
                    response = self._resolve(query) or await self._forward_by_tcp(query, data)
                    writer.write(len(response).to_bytes(2, "big") + response)
                    await writer.drain()
        except (OSError, EOFError, Malformed, TimeoutError):
            pass  # it has said all it wanted, or nothing that makes sense
        finally:
            writer.close()

    async def _forward_by_tcp(self, query: Query, data: bytes) -> bytes:
        for server in self._servers():
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection(server, PORT)
                    try:
                        writer.write(len(data).to_bytes(2, "big") + data)
                        await writer.drain()
                        response = await _read_framed(reader)
                    finally:
                        writer.close()
            except (OSError, EOFError, TimeoutError):
                continue
            if dnswire.answers(response, data):
                return response
        return dnswire.failure(query, dnswire.SERVFAIL)


class _Forward:
    """A query on its way to the servers, one after the other."""

    def __init__(self, stub: _Stub, query: Query, data: bytes, client: tuple[str, int], servers: Sequence[str]) -> None:
        self.query = query
        self.client = client
        self._stub = stub
        self._data = data
        self._servers = list(servers)
        self._loop = asyncio.get_running_loop()
        self._sent = b""
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop.call_soon(self._next)  # not now: a failure at once would answer before we are known

    def give_up(self) -> None:
        self._close()
        self._servers.clear()
        self._stub.forgotten(self)

    def _next(self) -> None:
        """Ask the next server; with none left the client hears that it failed."""
        self._close()
        while self._servers:
            server = self._servers.pop(0)
            try:
                self._socket = _connected(server)
                self._sent = dnswire.with_id(self._data, secrets.randbits(16))
                self._socket.send(self._sent)
            except OSError:
                self._close()
                continue
            self._loop.add_reader(self._socket, self._received, self._socket)
            self._timer = self._loop.call_later(PATIENCE, self._next)
            return
        self._stub.answered(self, dnswire.failure(self.query, dnswire.SERVFAIL))

    def _received(self, sock: socket.socket) -> None:
        try:
            response = sock.recv(65535)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # nobody listens there
            self._next()
            return
        if not dnswire.answers(response, self._sent):
            return
        if response[3] & 0x0F in (dnswire.SERVFAIL, dnswire.REFUSED) and self._servers:
            self._next()
            return
        self._close()
        self._stub.answered(self, dnswire.with_id(response, self.query.id))

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None


def _connected(server: str) -> socket.socket:
    """A UDP socket to a server; its port is random. OSError where there is no way to it."""
    address, _, scope = server.partition("%")
    if ":" in address:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if ":" in address:
            made.connect((address, PORT, 0, socket.if_nametoindex(scope) if scope else 0))
        else:
            made.connect((address, PORT))
    except BaseException:
        made.close()
        raise
    return made


async def _read_framed(reader: asyncio.StreamReader) -> bytes:
    """One message with its length in front (RFC 1035, 4.2.2); EOFError at the end."""
    length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)
