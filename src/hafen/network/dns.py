"""The embedded resolver at 127.0.0.11: names of the container's networks from us, everything else from its servers.

Per container two sockets, made inside its network namespace and answered here, on the engine's event loop. Queries
that are not ours go to one server after the other until one answers, each from a socket of its own (`dnsservers`) with
a random id (RFC 5452).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from hafen.errors import HafenError
from hafen.network import dnswire
from hafen.network.dnsservers import MakeSockets, Server, ServerSockets, address_of
from hafen.network.dnswire import Malformed, Query
from hafen.network.relay import SCARCE

PATIENCE = 2.0  # seconds for one server
MAX_PENDING = 256  # of one container; who asks more at once is told to try again
_BATCH = 64  # datagrams of one container before others have their turn
_TCP_IDLE = 10.0  # seconds
MAX_CONNECTIONS = 64  # of one container by TCP; the oldest goes for one more (RFC 7766, 6.2.3)
_REST = 1.0  # seconds until connections are accepted again for which there were no descriptors


Servers = Callable[[], Sequence[Server]]


class Names(Protocol):
    """Who knows the names: the engine's networks."""

    def addresses(self, container_id: str, name: str) -> Sequence[str] | None:
        """Addresses of a name as this container sees it; None where it is none of ours."""

    def names(self, container_id: str, address: str) -> Sequence[str] | None:
        """Names of an address; None where it is none of ours."""


class Resolver:
    """Every container's resolver; loop thread only. `make_sockets` makes those inside a container's namespace."""

    def __init__(self, names: Names, make_sockets: MakeSockets) -> None:
        self._names = names
        self._make_sockets = make_sockets
        self._stubs: dict[str, _Stub] = {}

    def serve(self, container_id: str, udp: socket.socket, tcp: socket.socket, servers: Servers) -> None:
        """Answer on these bound sockets, which are ours from now on. `servers` is asked for each query that is not
        ours; where it gives none, nothing is forwarded."""
        self.stop(container_id)
        self._stubs[container_id] = _Stub(
            container_id, self._names, udp, tcp, servers, ServerSockets(udp, self._make_sockets)
        )

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
        self, container_id: str, names: Names, udp: socket.socket, tcp: socket.socket, servers: Servers,
        server_sockets: ServerSockets,
    ) -> None:  # fmt: skip
        self._container_id = container_id
        self._names = names
        self._servers = servers
        self._server_sockets = server_sockets
        self._udp = udp
        self._tcp = tcp
        self._forwards: set[asyncio.Task[None]] = set()
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
        for task in (*self._forwards, *self._connections):
            task.cancel()
        self._server_sockets.close()

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
                forward = self._loop.create_task(self._forward(query, data, client), name="a forwarded DNS query")
                self._forwards.add(forward)
                forward.add_done_callback(self._forwards.discard)

    def _answer(self, query: Query, response: bytes, client: tuple[str, int]) -> None:
        try:
            self._udp.sendto(dnswire.for_udp(query, response), client)
        except OSError:
            pass  # its socket is full or gone; it asks again

    async def _forward(self, query: Query, data: bytes, client: tuple[str, int]) -> None:
        """Ask the servers; with none left the client hears that it failed."""
        servers = list(self._servers())
        while servers:
            server = servers.pop(0)
            try:
                async with asyncio.timeout(PATIENCE):
                    response = await self._ask(server, data)
            except (OSError, TimeoutError, HafenError):
                continue
            if response[3] & 0x0F in (dnswire.SERVFAIL, dnswire.REFUSED) and servers:
                continue
            self._answer(query, dnswire.with_id(response, query.id), client)
            return
        self._answer(query, dnswire.failure(query, dnswire.SERVFAIL), client)

    async def _ask(self, server: Server, data: bytes) -> bytes:
        with await self._server_sockets.take(server, socket.SOCK_DGRAM) as through:
            through.connect(address_of(server, through))
            sent = dnswire.with_id(data, secrets.randbits(16))
            through.send(sent)
            while True:
                response = await self._loop.sock_recv(through, 65535)
                if dnswire.answers(response, sent):
                    return response

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
                    response = await self._ask_by_tcp(server, data)
            except (OSError, EOFError, TimeoutError, HafenError):
                continue
            if dnswire.answers(response, data):
                return response
        return dnswire.failure(query, dnswire.SERVFAIL)

    async def _ask_by_tcp(self, server: Server, data: bytes) -> bytes:
        with await self._server_sockets.take(server, socket.SOCK_STREAM) as through:
            await self._loop.sock_connect(through, address_of(server, through))
            await self._loop.sock_sendall(through, len(data).to_bytes(2, "big") + data)
            return await self._receive_framed(through)

    async def _receive_framed(self, through: socket.socket) -> bytes:
        length = int.from_bytes(await self._receive(through, 2), "big")
        return await self._receive(through, length)

    async def _receive(self, through: socket.socket, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = await self._loop.sock_recv(through, count - len(received))
            if not more:
                raise EOFError
            received += more
        return received


async def _read_framed(reader: asyncio.StreamReader) -> bytes:
    """One message with its length in front (RFC 1035, 4.2.2); EOFError at the end."""
    length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)
