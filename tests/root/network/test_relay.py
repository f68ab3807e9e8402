"""The relay's thread in rounds that go wrong: descriptors that change hands, and none left."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from hafen.network.relay import Relay, Target
from tests.harness.descriptors import few_descriptors
from tests.harness.netns import World

pytestmark = pytest.mark.root

PORT = 8080


@pytest.fixture
def container(world: World) -> Iterator[socket.socket]:
    """What listens where the relay leads to."""
    with socket.create_server(("127.0.0.1", 80)) as made:
        made.settimeout(10)
        yield made


@pytest.fixture
def relay(container: socket.socket) -> Iterator[Relay]:
    made = Relay()
    made.serve(socket.create_server(("127.0.0.1", PORT)), Target("127.0.0.1", 80))
    yield made
    made.close()


def pair(container: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client and the container's end of its connection, with the relay between them."""
    client = socket.create_connection(("127.0.0.1", PORT), 10)
    server, _ = container.accept()
    server.settimeout(10)
    check(client, server)
    return client, server


def check(client: socket.socket, server: socket.socket) -> None:
    for source, sink in ((client, server), (server, client)):
        source.sendall(b"x")
        assert sink.recv(1) == b"x"


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_descriptors_that_change_hands_within_a_round(container: socket.socket, relay: Relay) -> None:
    """One connection ends at both ends, and between the two the listener takes a client, which gets the descriptors
    that have just become free. The kernel reports in the order in which things happened."""
    client, server = pair(container)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(10)

    thread = relay._thread
    assert thread is not None
    thread.call(hold)
    assert held.wait(10)
    reset(client)
    late = socket.create_connection(("127.0.0.1", PORT), 10)
    reset(server)
    go_on.set()
    with late, container.accept()[0] as behind:
        behind.settimeout(10)
        check(late, behind)
    other, behind = pair(container)
    other.close()
    behind.close()


def test_a_relay_without_descriptors_waits_for_some(container: socket.socket, relay: Relay) -> None:
    with socket.socket() as client:
        client.settimeout(10)
        thread = relay._thread
        assert thread is not None
        clock = time.pthread_getcpuclockid(thread._thread.ident or 0)
        with few_descriptors(0):
            client.connect(("127.0.0.1", PORT))
            before = time.clock_gettime(clock)
            container.settimeout(0.5)
            with pytest.raises(TimeoutError):
                container.accept()
            assert time.clock_gettime(clock) - before < 0.1, "it asks again and again"
        container.settimeout(10)
        with container.accept()[0] as server:
            server.settimeout(10)
            check(client, server)


def test_a_connection_that_cannot_be_made_leaves_no_descriptors(container: socket.socket, relay: Relay) -> None:
    """There is room for the client, the way to the container, and one of the two pipes."""
    with socket.socket() as client:
        client.settimeout(10)
        before = sorted(os.listdir("/proc/self/fd"))
        with few_descriptors(4):
            client.connect(("127.0.0.1", PORT))
            assert client.recv(1) == b""
        container.accept()[0].close()
        assert sorted(os.listdir("/proc/self/fd")) == before
    client, server = pair(container)
    client.close()
    server.close()
