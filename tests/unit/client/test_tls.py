"""TLS with the half-close that `docker exec -i` needs, against the standard library's own server."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.client.address import Endpoint, TlsFiles
from hafen.client.dial import dial
from hafen.errors import InvalidArgument, Unavailable

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")

SIZE = 3_000_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem",
         "-out", "cert.pem"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    return directory


@pytest.fixture
def server(files: Path) -> Iterator[str]:
    """Reads to the end of input, then answers with what it got: a reader that never sees the end never answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as peer:
                data = b""
                while piece := peer.recv(65536):
                    data += piece
                peer.sendall(data)
        except OSError:
            pass  # the client did not trust us

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)
    listener.close()


def test_half_close(server: str, files: Path) -> None:
    stream = dial(Endpoint("tcp", server, TlsFiles(str(files / "cert.pem"), "", "", verify=True)))
    sent = bytes(range(256)) * (SIZE // 256)
    stream.sendall(sent)
    stream.shutdown(socket.SHUT_WR)
    got = b""
    while piece := stream.recv(1 << 18):
        got += piece
    stream.close()
    assert got == sent


def test_a_stranger_is_refused_unless_told_otherwise(server: str, files: Path) -> None:
    with pytest.raises(Unavailable, match="TLS"):
        dial(Endpoint("tcp", server, TlsFiles("", "", "", verify=True)))


def test_files_that_are_not_there(server: str, files: Path) -> None:
    with pytest.raises(InvalidArgument, match="nosuch"):
        dial(Endpoint("tcp", server, TlsFiles("/nosuch", "", "", verify=True)))
