"""TLS over a connected socket, with the half-close that attach and exec need and `ssl.SSLSocket` cannot do."""

import socket
import ssl
import threading
from typing import TYPE_CHECKING

from hafen.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from hafen.client.address import TlsFiles

RECORD = 1 << 18


def connect(plain: socket.socket, server_name: str, files: "TlsFiles") -> "TlsStream":
    """Shake hands; without `verify` the server's certificate is not checked, as with `docker --tls`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if files.ca:
            context.load_verify_locations(files.ca)
        elif files.verify:
            context.load_default_certs()
        if files.cert or files.key:
            context.load_cert_chain(files.cert, files.key)
    except OSError as error:
        raise InvalidArgument(f"unable to read the TLS files {files.ca} {files.cert} {files.key}: {error}") from error
    stream = TlsStream(plain, context, server_name)
    try:
        stream.handshake()
    except ssl.SSLError as error:
        raise Unavailable(f"error during connect: TLS: {error.reason or error}") from error
    return stream


class TlsStream:
    """A blocking `Stream` that keeps reading after its own direction was closed; one thread may send, one receive.

    OpenSSL's state is one for both directions and guarded by a lock that is never held while the network blocks.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._state = threading.Lock()
        self._sending = threading.Lock()

    def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return self._flush()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fill():
                    raise ssl.SSLError("the server closed the connection during the handshake") from None

    def recv(self, size: int, /) -> bytes:
        while True:
            try:
                with self._state:
                    return self._tls.read(size)
            except ssl.SSLWantReadError:
                if not self._fill():
                    return b""
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def recv_into(self, buffer: memoryview | bytearray, /) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes | memoryview, /) -> None:
        left = memoryview(data)
        while left:
            with self._state:
                written = self._tls.write(left)
            left = left[written:]
            self._flush()

    def shutdown(self, how: int, /) -> None:
        """close_notify towards the server; its own direction stays open (RFC 8446, section 6.1)."""
        if how == socket.SHUT_RD:
            return
        try:
            with self._state:
                self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's close_notify is not here yet, and need not be
        self._flush()

    def fileno(self) -> int:
        return self._plain.fileno()

    def close(self) -> None:
        self._plain.close()

    def _flush(self) -> None:
        with self._sending:
            with self._state:
                data = self._outgoing.read()
            if data:
                self._plain.sendall(data)

    def _fill(self) -> bool:
        data = self._plain.recv(RECORD)
        with self._state:
            if not data:
                self._incoming.write_eof()
                return False
            self._incoming.write(data)
        return True
