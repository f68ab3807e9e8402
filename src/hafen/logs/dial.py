"""Connect to where logs are sent: blocking sockets, with the texts of Go's net package where that fails."""

import os
import socket

from hafen.errors import InvalidArgument
from hafen.logs.options import split_port
from hafen.values import NamedTuple

_PATIENCE = 10.0  # seconds


class TLS(NamedTuple):
    """Files with PEM; "" for the host's authorities, and for no certificate of ours."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


class Away(OSError):
    """Nobody is there; `str` is Go's text."""

    def __str__(self) -> str:
        return str(self.args[0])


def dial(network: str, address: str, tls: TLS | None = None) -> socket.socket:
    """`network` is tcp, udp, unix or unixgram; `address` host:port or a path. Away, or InvalidArgument for files."""
    if network in ("unix", "unixgram"):
        kind = socket.SOCK_STREAM if network == "unix" else socket.SOCK_DGRAM
        return _connect(socket.AF_UNIX, kind, address, f"dial {network} {address}")
    host, port = split_port(address)
    kind = socket.SOCK_DGRAM if network == "udp" else socket.SOCK_STREAM
    context = None if tls is None else _context(tls)
    try:
        found = socket.getaddrinfo(host or "localhost", port, type=kind)
    except (socket.gaierror, UnicodeError):
        raise Away(f"dial {network}: lookup {host}: no such host") from None
    failure: OSError = Away(f"dial {network}: lookup {host}: no such host")
    for family, _, _, _, where in found:
        try:
            made = _connect(family, kind, where, f"dial {network} {_shown(where)}")
        except OSError as error:
            failure = error
            continue
        if context is None:
            return made
        made.settimeout(_PATIENCE)
        try:
            secured: socket.socket = context.wrap_socket(made, server_hostname=host)
        except OSError as error:
            made.close()
            raise Away(f"tls: {error}") from None
        secured.settimeout(None)
        return secured
    raise failure


def _connect(family: int, kind: int, where: "str | tuple[object, ...]", shown: str) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(_PATIENCE)
        made.connect(where)
        made.settimeout(None)
    except TimeoutError:
        made.close()
        raise Away(f"{shown}: i/o timeout") from None
    except OSError as error:
        made.close()
        raise Away(f"{shown}: connect: {os.strerror(error.errno or 0).lower()}") from None
    return made


def _context(tls: TLS):  # type: ignore[no-untyped-def]  # ssl is imported only where it is used: 20 ms
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
    except OSError as error:
        reason = f"open {tls.ca}: {os.strerror(error.errno).lower()}" if error.errno else str(error)
        raise InvalidArgument(f'could not read CA certificate "{tls.ca}": {reason}') from None
    try:
        if tls.certificate or tls.key:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise InvalidArgument(f"could not load X509 key pair: {error}") from None
    return context


def _shown(where: "tuple[object, ...]") -> str:
    host = str(where[0])
    return f"[{host}]:{where[1]}" if ":" in host else f"{host}:{where[1]}"
