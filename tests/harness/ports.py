"""Ports for servers of the tests."""

import random
import socket


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens, below those that the kernel gives to clients' sockets (32768 on),
    so that nobody gets it before the server that it is for, or while that is restarted.
    """
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
