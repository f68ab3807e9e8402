"""TLS clients: the same answers, half-close included, and nobody without a certificate that we trust."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from hafen.api.app import Api
from hafen.api.routes.table import router
from hafen.engine.services import Services
from hafen.http.server import Server
from tests.api.serving import FakeSession, fake, request
from tests.api.test_hijack import UPGRADE, Attaching
from tests.api.test_protocol import Endless

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key, for both sides, trusted by both."""
    folder = tmp_path_factory.mktemp("tls")
    key, path = folder / "key.pem", folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", key, "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + key.read_text())
    return path


def contexts(path: Path, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(path))
    server.load_cert_chain(path)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(path))
    client.load_cert_chain(path)
    client.maximum_version = version
    return server, client


@asynccontextmanager
async def tls_serving(services: Services, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a TLS server."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with Server(Api(router(), services)) as server:
            await server.listen(sock, context)
            yield sock.getsockname()[1]


class TlsClient:
    """A blocking client that can half-close, which Python's SSLSocket cannot; for use in a thread."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise

    def _handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._move()
            else:
                return self._flush()

    def _flush(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def _move(self) -> None:
        self._flush()
        data = self.sock.recv(1 << 16)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def send_end(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            self._flush()

    def read(self) -> bytes:
        """Some bytes; empty at the end."""
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._move()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def read_all(self) -> bytes:
        found = b""
        while data := self.read():
            found += data
        return found

    def close(self) -> None:
        self.sock.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_tls_client_can_end_its_input_and_read_on(certificate: Path, version: ssl.TLSVersion) -> None:
    session = FakeSession(says=b"x" * 300_000)
    serving, trusting = contexts(certificate, version)

    def attach(port: int) -> bytes:
        client = TlsClient(port, trusting)
        client.send(request("POST", "/containers/x/attach?stream=1&stdin=1", **UPGRADE) + b"early ")
        client.send(b"late")
        client.send_end()
        try:
            return client.read_all()
        finally:
            client.close()

    async with tls_serving(fake(attach=Attaching(session)), serving) as port:
        head, _, stream = (await asyncio.to_thread(attach, port)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert stream == b"x" * 300_000 + b"bye\n"
    assert bytes(session.received) == b"early late"


async def test_a_tls_client_that_goes_ends_its_stream(certificate: Path) -> None:
    events = Endless()
    serving, trusting = contexts(certificate, ssl.TLSVersion.TLSv1_3)

    def listen_and_go(port: int) -> bytes:
        client = TlsClient(port, trusting)
        client.send(request("GET", "/events"))
        head = client.read()
        client.close()
        return head

    async with tls_serving(fake(events=events), serving) as port:
        assert (await asyncio.to_thread(listen_and_go, port)).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(events.ended.wait(), 5)


async def test_without_a_trusted_certificate_or_tls_nothing_is_answered(certificate: Path) -> None:
    serving, trusting = contexts(certificate, ssl.TLSVersion.TLSv1_3)
    nobody = ssl.create_default_context(cafile=str(certificate))

    def ask(port: int, context: ssl.SSLContext) -> bytes:
        try:
            with closing(TlsClient(port, context)) as client:
                client.send(request("GET", "/_ping", connection="close"))
                return client.read_all()
        except (ssl.SSLError, ConnectionError):
            return b""

    def ask_in_clear(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(request("GET", "/_ping"))
            return plain.recv(1 << 16)

    async with tls_serving(fake(), serving) as port:
        assert await asyncio.to_thread(ask, port, nobody) == b""
        assert b"HTTP/1.1" not in await asyncio.to_thread(ask_in_clear, port)
        assert (await asyncio.to_thread(ask, port, trusting)).endswith(b"\r\n\r\nOK")
