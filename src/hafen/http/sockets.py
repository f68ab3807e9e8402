"""What a server listens on: TCP sockets, and the TLS context in front of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from hafen.errors import InvalidArgument, System

if TYPE_CHECKING:
    import ssl


# tcp(7): after a minute of silence the client is asked whether it is still there, four times in another minute.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


def tcp_socket(address: str) -> socket.socket:
    """A socket at `host:port`; [..] around IPv6. Clients that vanish without a word are noticed: what is accepted has
    the options of what listens."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise InvalidArgument(f"tcp://{address} needs a port")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or else asyncio sets no TCP_NODELAY, and a file waits 40 ms behind its head for an ACK.
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.bind((host or "127.0.0.1", int(port)))
    except OSError as error:
        sock.close()
        raise System(f"cannot listen on tcp://{address}: {error.strerror}") from error
    return sock


def server_context(certificate: str, key: str, authority: str = "") -> ssl.SSLContext:
    """Server side of TLS; with an authority, clients need a certificate of it. All three are paths of PEM files."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if authority:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"TLS certificates cannot be used: {error}") from error
    return context
