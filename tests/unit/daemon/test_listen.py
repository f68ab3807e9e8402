"""Sockets: who may use them, what is replaced, what systemd hands over."""

import os
import socket
import stat
from pathlib import Path

import pytest

from hafen.daemon import listen
from hafen.daemon.config import DaemonConfig
from hafen.errors import Conflict, InvalidArgument
from hafen.http.sockets import tcp_socket

GROUP = str(os.getegid())


@pytest.fixture(autouse=True)
def _own_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is root's to give; everything else holds for anyone."""
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "chown", lambda *_: None)


def test_a_socket_is_for_its_group_alone(tmp_path: Path) -> None:
    with listen.unix_socket(str(tmp_path / "made/e.sock"), GROUP):
        status = (tmp_path / "made/e.sock").stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert os.listdir(tmp_path / "made") == ["e.sock"]


def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "e.sock")
    listen.unix_socket(path, GROUP).close()
    with listen.unix_socket(path, GROUP) as second:
        second.listen()
        with pytest.raises(Conflict, match="another engine does"):
            listen.unix_socket(path, GROUP)


def test_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Conflict, match="something else than a socket"):
        listen.unix_socket(str(tmp_path / "file"), GROUP)
    assert (tmp_path / "file").read_text() == "precious"


def test_unknown_group(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="group no-such-group does not exist"):
        listen.unix_socket(str(tmp_path / "e.sock"), "no-such-group")


def test_tcp() -> None:
    with tcp_socket("127.0.0.1:0") as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InvalidArgument, match="needs a port"):
            tcp_socket("127.0.0.1")
        assert sock.family == socket.AF_INET


def test_nothing_is_taken_that_was_meant_for_another_process() -> None:
    assert listen.activated({}) == []
    assert listen.activated({"LISTEN_PID": "1", "LISTEN_FDS": "3"}) == []


def test_fd_without_a_socket(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no socket was handed over"):
        list(listen.sockets(DaemonConfig(hosts=("fd://",)), {}))


def test_missing_certificates() -> None:
    with pytest.raises(InvalidArgument, match="TLS certificates cannot be used"):
        listen.tls_context(DaemonConfig(tls=True, tls_cert="/absent", tls_key="/absent"))
