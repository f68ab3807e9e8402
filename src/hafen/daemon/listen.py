"""Unix, TCP, TLS and systemd-activated sockets."""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hafen.daemon.config import DaemonConfig
from hafen.errors import Conflict, InvalidArgument, System
from hafen.http.sockets import server_context, tcp_socket

if TYPE_CHECKING:
    import ssl

_FIRST_ACTIVATED = 3  # sd_listen_fds(3)
_GROUPS = ("hafen", "docker")


def activated(environment: Mapping[str, str]) -> list[socket.socket]:
    """Sockets that systemd opened for this process (sd_listen_fds(3))."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    found = []
    for descriptor in range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(environment.get("LISTEN_FDS", "0"))):
        os.set_inheritable(descriptor, False)
        found.append(socket.socket(fileno=descriptor))
    return found


def sockets(config: DaemonConfig, environment: Mapping[str, str]) -> Iterator[tuple[socket.socket, bool]]:
    """Bound sockets, each with whether it is to speak TLS. Sockets handed over by systemd come in place of `fd://`,
    and of the default where no address was given."""
    handed = activated(environment)
    if handed and not config.hosts:
        yield from ((sock, False) for sock in handed)
        addresses = config.addresses[1:]
    else:
        addresses = config.addresses
    for address in addresses:
        scheme, _, rest = address.partition("://")
        if scheme == "unix":
            yield unix_socket(rest, config.group), False
        elif scheme == "tcp":
            yield tcp_socket(rest), config.tls or config.tls_verify
        elif not handed:
            raise InvalidArgument("fd:// was asked for, and no socket was handed over (LISTEN_FDS)")
        else:
            yield from ((sock, False) for sock in handed)


def unix_socket(path: str, group: str) -> socket.socket:
    """A socket at `path`, mode 0660, of the group that may have root here. One that nobody listens on is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _clear(path)
        # A name of its own until owner and mode are right: there is no moment at which others could connect.
        temporary = f"{path}.{os.getpid()}"
        sock.bind(temporary)
        os.chown(temporary, 0, _group_id(group))
        os.chmod(temporary, 0o660)
        os.rename(temporary, path)
    except OSError as error:
        sock.close()
        raise System(f"cannot listen on {path}: {os.strerror(error.errno or 0)}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _clear(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"cannot listen on {path}: something else than a socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise Conflict(f"cannot listen on {path}: another engine does")


def _group_id(name: str) -> int:
    for candidate in (name,) if name else _GROUPS:
        try:
            return grp.getgrnam(candidate).gr_gid
        except KeyError:
            if candidate.isdecimal():
                return int(candidate)
            if name:
                raise InvalidArgument(f"group {name} does not exist") from None
    return 0


def tls_context(config: DaemonConfig) -> ssl.SSLContext:
    """Server side; with --tlsverify clients need a certificate of the given authority."""
    return server_context(config.tls_cert, config.tls_key, config.tls_ca if config.tls_verify else "")
