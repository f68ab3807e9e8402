"""Connect to an endpoint: a unix socket, TCP, TLS, or `system dial-stdio` at the other end of ssh."""

import os
import socket
from typing import TYPE_CHECKING, Protocol

from hafen.errors import HafenError, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from hafen.client.address import Endpoint, TlsFiles

CONNECT_TIMEOUT = 30.0


class Stream(Protocol):
    """A connected byte stream: the part of a socket that this client uses, also spoken by TLS."""

    def recv(self, size: int, /) -> bytes: ...
    def recv_into(self, buffer: memoryview | bytearray, /) -> int: ...
    def sendall(self, data: bytes | memoryview, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def dial(endpoint: "Endpoint") -> Stream:
    """Raises `Unavailable` whose `__cause__` is the OSError, so that the command line can say what to do."""
    try:
        if endpoint.scheme == "unix":
            return _unix(endpoint.target)
        if endpoint.scheme == "ssh":
            return _ssh(endpoint.target)
        plain = _tcp(endpoint.target)
        return _tls(plain, endpoint.target, endpoint.tls) if endpoint.tls else plain
    except HafenError:
        raise
    except OSError as error:
        if isinstance(error, PermissionError):
            text = f"permission denied while trying to connect to the engine at {endpoint.url}"
        elif isinstance(error, socket.gaierror):
            text = f"error during connect: {endpoint.url}: {error.strerror}"
        else:
            text = f"Cannot connect to the engine at {endpoint.url}. Is it running? ({error.strerror or error})"
        raise Unavailable(text) from error


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _tcp(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    if not port.isdigit():
        raise InvalidArgument(f"invalid port in tcp://{target}")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _tls(plain: socket.socket, target: str, files: "TlsFiles") -> Stream:
    from hafen.client.tls import connect  # `ssl` costs milliseconds that unix sockets need not pay

    try:
        return connect(plain, target.rpartition(":")[0].strip("[]"), files)
    except BaseException:
        plain.close()
        raise


def _ssh(url: str) -> socket.socket:
    """As Docker: the user's own ssh carries the connection, and the remote command proxies it: hafen, or docker where
    that is not there."""
    import shlex
    import subprocess
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if not parts.hostname or parts.password:
        raise InvalidArgument(f"ssh host must be ssh://[user@]host[:port] without a password: {url}")
    command = ["ssh", "-T", "-o", "ConnectTimeout=30"]
    command += ["-l", parts.username] if parts.username else []
    command += ["-p", str(parts.port)] if parts.port else []
    host = f"--host {shlex.quote(f'unix://{parts.path}')} " if parts.path.strip("/") else ""
    script = f'program=$(command -v hafen || echo docker); exec "$program" {host}system dial-stdio'
    command += ["--", parts.hostname, f"sh -c {shlex.quote(script)}"]  # one text for a login shell of any kind
    ours, theirs = socket.socketpair()
    with theirs:
        # A session of its own: the terminal's Ctrl-C is for the container, not for the carrier.
        # Not waited for: it ends when our end of the pair closes, and this process is short-lived.
        subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), env=os.environ, start_new_session=True)
    return ours
