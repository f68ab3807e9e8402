"""What the remote drivers keep here, and their parts that no recording shows."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.logs import dial, journald
from hafen.logs.driver import LogFile, Source
from hafen.logs.fluentd import FluentdDriver, pack
from hafen.logs.gelf import GelfDriver, chunks
from hafen.logs.journald import JournaldDriver
from hafen.logs.lines import LONGEST, Line, Lines
from hafen.logs.options import cache_options, parse_duration, specific
from hafen.logs.syslog import SyslogDriver
from tests.suites.logs_suite import SECOND, LogsSuite, in_place

SOURCE = Source("c" * 64, {}, name="name", tag="tag")


class _Copy(LogsSuite):
    """The copy is the `local` driver's, with options of its own."""

    prefix = "cache-"


class TestSyslog(_Copy):
    driver = SyslogDriver()


class TestFluentd(_Copy):
    driver = FluentdDriver()


class TestGelf(_Copy):
    driver = GelfDriver()


class TestJournald(_Copy):
    driver = JournaldDriver()


def test_without_a_copy_nothing_is_kept(tmp_path: Path) -> None:
    options = {"cache-disabled": "true"}
    writer = SyslogDriver().writer(LogFile(str(tmp_path / "logs"), "abc"), options, {}, in_place)
    writer.write(1, b"line\n", SECOND)
    writer.close()
    assert not (tmp_path / "logs").exists()
    assert not SyslogDriver().readable(options)
    assert cache_options({"cache-max-size": "1k", "max-size": "2k"}) == {"max-size": "1k"}
    assert specific({"mode": "blocking", "cache-max-file": "2", "tag": "x"}) == {"tag": "x"}


@pytest.mark.parametrize("size", [0, 1, LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST])
@pytest.mark.parametrize("step", [1000, LONGEST, 1 << 20])
def test_lines_are_cut_the_same_however_they_come(size: int, step: int) -> None:
    data = b"a\n" + b"x" * size + b"\nb"
    lines = Lines()
    got = [line for at in range(0, len(data), step) for line in lines.feed(1, data[at : at + step], at)]
    assert not lines.resting
    got += lines.finish(99)
    pieces = [line for line in got[1:-1] if line.piece is not None]
    assert b"".join(line.text for line in got[1:-1]) == b"x" * size
    assert [line.piece.ordinal for line in pieces if line.piece] == list(range(1, len(pieces) + 1))
    assert [line.piece.last for line in pieces if line.piece] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    assert len({line.at for line in pieces}) <= 1
    assert max(len(line.text) for line in got) <= LONGEST


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s2", "1.2.3s", "-"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_duration(text)


def test_a_message_that_needs_too_many_chunks_is_left_out() -> None:
    assert len(chunks(b"x" * 1408 * 127, b"i" * 8)) == 128
    assert chunks(b"x" * 1408 * 128, b"i" * 8) == []


def test_messagepack_of_every_length() -> None:
    assert [len(pack("x" * size)) - size for size in (0, 31, 32, 255, 256, 65535, 65536)] == [1, 1, 2, 2, 3, 3, 5]
    assert pack({f"{number:02d}": "" for number in range(16)})[:3] == b"\xde\x00\x10"
    assert pack(1 << 31) == b"\xd3\x00\x00\x00\x00\x80\x00\x00\x00"


def test_fluentd_sends_again_what_was_not_acknowledged() -> None:
    end = socket.socket()
    end.bind(("127.0.0.1", 0))
    end.listen()
    messages = []

    def serve() -> None:
        with end.accept()[0] as connection:
            messages.append(connection.recv(4096))  # and says nothing
        with end.accept()[0] as connection:
            message = connection.recv(4096)
            messages.append(message)
            connection.sendall(b"\x81\xa3ack" + message[message.index(b"\xa5chunk") + 6 :])

    thread = threading.Thread(target=serve)
    thread.start()
    address = f"127.0.0.1:{end.getsockname()[1]}"
    options = {"fluentd-address": address, "fluentd-request-ack": "true", "fluentd-retry-wait": "10ms"}
    sender = FluentdDriver().sender(SOURCE, options)
    sender.send(Line(SECOND, 1, b"text", None))
    thread.join(10)
    sender.close()
    end.close()
    assert len(messages) == 2
    assert messages[0] == messages[1]


def test_journald_takes_what_no_datagram_holds_by_descriptor(tmp_path: Path) -> None:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.bind(str(tmp_path / "socket"))
    source = SOURCE._replace(attributes={"large": "v" * 400_000, "_under.score": "two\nlines"})
    sender = journald.JournaldSender(source, str(tmp_path / "socket"))
    sender.send(Line(SECOND, 2, b"text", None))
    data, descriptors, _, _ = socket.recv_fds(end, 1 << 20, 1)
    assert data == b""
    with open(descriptors[0], "rb") as file:
        file.seek(0)
        message = file.read()
    end.close()
    sender.close()
    assert message.startswith(b"PRIORITY=3\nMESSAGE=text\n")
    assert b"\nLARGE=" + b"v" * 400_000 + b"\n" in message
    assert b"UNDER_SCORE\n\x09\0\0\0\0\0\0\0two\nlines\n" in message


def test_tls_trusts_the_authority_that_it_is_given(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key", "-out", "cert"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    end = socket.socket()
    end.bind(("127.0.0.1", 0))
    end.listen()
    got: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            try:
                with context.wrap_socket(end.accept()[0], server_side=True) as connection:
                    while data := connection.recv(4096):
                        got.append(data)
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    options = {"syslog-address": f"tcp+tls://localhost:{end.getsockname()[1]}", "syslog-format": "rfc5424"}
    with pytest.raises(dial.Away, match=r"tls: .*certificate verify failed"):
        SyslogDriver().sender(SOURCE, options).open()
    sender = SyslogDriver().sender(SOURCE, {**options, "syslog-tls-ca-cert": str(tmp_path / "cert")})
    sender.open()
    sender.send(Line(SECOND, 1, b"secret", None))
    sender.close()
    thread.join(10)
    end.close()
    message = b"".join(got)
    count, rest = message.split(b" ", 1)
    assert int(count) == len(rest)  # RFC 5425
    assert rest.endswith(b" tag - secret\n")
