"""The HTTP client against a server that says exactly what a test wants, byte by byte."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hafen import errors
from hafen.client.address import Endpoint
from hafen.client.engine import Engine, filters_query, segment

Serve = Callable[..., Engine]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(answer, answer, ...)`: each connection gets its answers, one for each request; requests are recorded."""
    listeners = []
    servers: list[threading.Thread] = []
    engines: list[Engine] = []
    recorded: list[bytes] = []

    def start(*connections: list[bytes]) -> Engine:
        path = str(tmp_path / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listeners.append(listener)

        def run() -> None:
            for answers in connections:
                try:
                    peer = listener.accept()[0]
                except OSError:  # the test is over and wanted fewer connections
                    return
                with peer:
                    for answer in answers:
                        data = b""
                        while not complete(data):
                            piece = peer.recv(65536)
                            if not piece:
                                return
                            data += piece
                        recorded.append(data)
                        peer.sendall(answer)

        server = threading.Thread(target=run)
        server.start()
        servers.append(server)
        engine = Engine(Endpoint("unix", path))
        engines.append(engine)
        engine.recorded = recorded  # type: ignore[attr-defined]  # for the tests to look at
        return engine

    yield start
    for engine in engines:
        engine.close()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
    for server in servers:
        server.join(10)
    for listener in listeners:
        listener.close()


def complete(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    return len(body) >= (length[0] if length else 0)


def answer(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), len(body), extra, body)


def test_json_both_ways_on_one_connection(serve: Serve) -> None:
    engine = serve([answer(b'{"a": 1}'), answer(b'{"b": 2}', "201 Created")])
    assert engine.get("/x", {"all": True, "none": None, "no": False, "many": ["a b", "c&d"]}) == {"a": 1}
    assert engine.post("/y", None, {"q": "ä"}) == {"b": 2}
    first, second = engine.recorded  # type: ignore[attr-defined]  # put there by `serve`
    assert first.startswith(b"GET /x?all=1&many=a%20b&many=c%26d HTTP/1.1\r\n")
    assert b"Content-Length" not in first
    assert second.endswith(b'{"q": "\\u00e4"}')


def test_a_body_in_chunks_with_trailers(serve: Serve) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n[1,\r\n2\r\n2]\r\n0\r\nT: 1\r\n\r\n"
    engine = serve([chunked, answer(b"3")])
    assert engine.get("/") == [1, 2]
    assert engine.get("/") == 3


def test_a_body_until_the_connection_closes(serve: Serve) -> None:
    engine = serve([b"HTTP/1.1 200 OK\r\n\r\n[1]"], [answer(b"2")])
    assert engine.get("/") == [1]


def test_a_head_in_the_smallest_pieces_and_interim_answers(serve: Serve) -> None:
    engine = serve([b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"7")])
    assert engine.get("/") == 7


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("304 Not Modified", errors.NotModified),
        ("400 Bad Request", errors.InvalidArgument),
        ("404 Not Found", errors.NotFound),
        ("409 Conflict", errors.Conflict),
        ("500 Oops", errors.System),
        ("501 Not Implemented", errors.NotImplemented),
        ("503 Away", errors.Unavailable),
        ("418 Teapot", errors.System),
    ],
)
def test_a_status_is_an_error(serve: Serve, status: str, error: type[errors.HafenError]) -> None:
    body = b"" if status.startswith("304") else b'{"message": "no"}'
    engine = serve([answer(body, status)])
    with pytest.raises(error) as caught:
        engine.get("/")
    assert type(caught.value) is error
    if body:
        assert caught.value.message == "Error response from daemon: no"


def test_an_error_that_is_not_json_is_shown_as_it_is(serve: Serve) -> None:
    engine = serve([answer(b"page not found\n", "404 Not Found")])
    with pytest.raises(errors.NotFound, match="page not found"):
        engine.get("/")


def test_a_kept_connection_that_the_engine_closed_is_replaced(serve: Serve) -> None:
    engine = serve([answer(b"1")], [answer(b"2")])
    assert engine.get("/") == 1
    assert engine.get("/") == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"SSH-2.0-x\r\n\r\n"])
def test_an_engine_that_breaks_off_is_unavailable(serve: Serve, said: bytes) -> None:
    with pytest.raises(errors.Unavailable):
        serve([said]).call("GET", "/").read()


def test_a_refused_upload_tells_why(serve: Serve) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(1 << 16)

    engine = serve([answer(b'{"message": "too much"}', "400 Bad Request")])
    with pytest.raises(errors.InvalidArgument, match="too much"):
        engine.call("PUT", "/", stream=endless())


def test_nothing_listens(tmp_path: Path) -> None:
    asked: list[str] = []

    def when_absent(endpoint: Endpoint, error: errors.Unavailable) -> bool:
        asked.append(endpoint.target)
        assert isinstance(error.__cause__, FileNotFoundError)
        return False

    engine = Engine(Endpoint("unix", str(tmp_path / "nosuch")), when_absent)
    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="Cannot connect"):
            engine.get("/")
    assert asked == [str(tmp_path / "nosuch")]


def test_documents_come_as_they_are_complete(serve: Serve) -> None:
    text = '{"a":1}\r\n{"b":"ä"}{"c":[3]}\n'.encode()
    parts = [text[:5], text[5:17], text[17:18], text[18:]]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    engine = serve([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body])
    assert list(engine.documents(engine.call("GET", "/"))) == [{"a": 1}, {"b": "ä"}, {"c": [3]}]


def test_hijack_keeps_what_came_with_the_head(serve: Serve) -> None:
    head = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\nrest"
    taken = serve([head]).hijack("/attach")
    assert (taken.prefix, taken.multiplexed) == (b"rest", True)
    taken.close()


def test_filters_and_names() -> None:
    assert filters_query([]) == ""
    assert filters_query(["label=a=b", "label=c", "Status = up"]) == (
        '{"label": {"a=b": true, "c": true}, "status": {"up": true}}'
    )
    assert segment("host:5000/a b@sha256:x") == "host:5000/a%20b@sha256:x"
