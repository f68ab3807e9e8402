"""HTTP as clients see it: framing, limits, pipelining, errors, clients that go away or do not read."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator

import pytest

from hafen.errors import Conflict, HafenError, NotModified, OutOfSpace, StartFailed
from hafen.spec.wire.container import ContainerSummary, CreateRequest, CreateResponse
from hafen.spec.wire.event import Event
from hafen.spec.wire.image import Progress
from tests.api.serving import ask, client, fake, request, serving

JSON = "application/json"


class Listing:
    async def list(self, **wanted: object) -> list[ContainerSummary]:
        return [ContainerSummary(id="a" * 64, names=["/one"])]


async def test_ping_has_the_headers_that_clients_negotiate_by() -> None:
    async with serving(fake()) as path:
        got = await ask(path, "GET", "/_ping")
        assert (got.status, got.body) == (200, b"OK")
        assert got.headers["api-version"] == "1.55"
        assert got.headers["ostype"] == "linux"
        assert got.headers["docker-experimental"] == "false"
        assert got.headers["swarm"] == "inactive"
        assert got.headers["builder-version"] == "1"
        assert got.headers["server"].startswith("Hafen/")
        head = await ask(path, "HEAD", "/_ping")
        assert (head.status, head.headers["content-length"]) == (200, "0")


@pytest.mark.parametrize(
    ("target", "moved"),
    [
        ("/v1.45/containers//json?all=1", "/v1.45/containers/json?all=1"),
        ("/containers/%2Fa/json", "/containers/a/json"),
        ("//_ping", "/_ping"),
        ("/containers/../_ping", "/_ping"),
        ("/containers/a%20b/%2e/json/", "/containers/a%20b/json/"),
        ("/..", "/"),
        ("//a%0d%0ab", "/a%0D%0Ab"),
    ],
)
async def test_a_path_that_is_not_clean_is_redirected(target: str, moved: str) -> None:
    async with serving(fake()) as path:
        got = await ask(path, "GET", target)
        assert (got.status, got.headers["location"], got.body) == (301, moved, b"")


async def test_options_of_every_path_are_an_empty_answer() -> None:
    async with serving(fake()) as path:
        for target in ("/v1.45/version", "/nosuch"):
            got = await ask(path, "OPTIONS", target)
            assert (got.status, got.body) == (200, b"")
        assert (await ask(path, "OPTIONS", "/v1.99/version")).status == 400


async def test_one_connection_serves_many_requests_in_order_also_pipelined() -> None:
    async with serving(fake(listing=Listing())) as path, client(path) as one:
        for _ in range(3):
            assert (await one.request("GET", "/containers/json")).status == 200
        one.send(request("GET", "/_ping") + request("GET", "/nowhere") + request("GET", "/v1.24/_ping"))
        assert [(await one.answer()).status for _ in range(3)] == [200, 404, 200]


async def test_a_head_that_comes_byte_by_byte_is_read() -> None:
    async with serving(fake()) as path, client(path) as one:
        for byte in request("GET", "/_ping"):
            one.send(bytes((byte,)))
            await one.writer.drain()
        assert (await one.answer()).status == 200


async def test_http_1_0_is_answered_and_closed() -> None:
    async with serving(fake()) as path, client(path) as one:
        one.send(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert (await one.answer()).headers["connection"] == "close"
        assert await one.reader.read() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /_ping HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (1 << 20), 431),
    ],
)
async def test_what_is_not_http_is_refused(data: bytes, status: int) -> None:
    async with serving(fake()) as path:
        async with client(path) as one:
            one.send(data)
            got = await one.answer()
            assert got.status == status
            assert got.message
            assert await one.reader.read() == b""
        assert (await ask(path, "GET", "/_ping")).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Host: other\r\n",
        b"X: a\0b\r\n",
        b"X: a\rb\r\n",
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    async with serving(fake()) as path, client(path) as one:
        one.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + head + b"\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await one.answer()).status in (400, 501)
        assert await one.reader.read() == b""


@pytest.mark.parametrize("size", [b"+5", b"0x5", b"-1", b"f" * 17, b"5 5"])
async def test_a_chunk_of_no_size_is_refused(size: bytes) -> None:
    async with serving(fake(create=Creation())) as path, client(path) as one:
        head = request("POST", "/containers/create", content_type=JSON, transfer_encoding="chunked")
        one.send(head + size + b"\r\nhello\r\n0\r\n\r\n")
        one.writer.write_eof()
        assert (await one.answer()).status == 400
        assert await one.reader.read() == b""


async def test_chunks_win_over_a_length_and_the_connection_ends() -> None:
    async with serving(fake(create=Creation())) as path, client(path) as one:
        head = request("POST", "/containers/create", content_type=JSON, transfer_encoding="chunked", content_length="4")
        one.send(head + b'd;x="y"\r\n{"Image":"a"}\r\n0\r\nTrailer: z\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n')
        assert (await one.answer()).status == 201
        assert await one.reader.read() == b""


async def test_a_target_may_be_a_whole_url() -> None:
    async with serving(fake()) as path:
        assert (await ask(path, "GET", "http://docker/_ping")).status == 200
        assert (await ask(path, "GET", "http://docker")).status == 404


class Creation:
    def __init__(self) -> None:
        self.requests: list[CreateRequest] = []

    async def create(self, name: str | None, config: CreateRequest, platform: str | None) -> CreateResponse:
        self.requests.append(config)
        return CreateResponse(id="c" * 64)


async def test_bodies_come_by_length_in_chunks_and_after_100_continue() -> None:
    creation = Creation()
    async with serving(fake(create=creation)) as path, client(path) as one:
        body = b'{"Image":"busybox","cmd":"true"}'
        assert (await one.request("POST", "/containers/create", body, content_type=JSON)).status == 201
        one.send(request("POST", "/containers/create", content_type=JSON, transfer_encoding="chunked"))
        for byte in body:
            one.send(b"1\r\n%c\r\n" % byte)
        one.send(b"0\r\n\r\n")
        assert (await one.answer()).status == 201
        one.send(
            request(
                "POST", "/containers/create", content_type=JSON, content_length=str(len(body)), expect="100-continue"
            )
        )
        assert (await one.head())[0] == 100
        one.send(body)
        assert (await one.answer()).status == 201
    assert [config.cmd for config in creation.requests] == [["true"]] * 3


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"{", JSON, "invalid JSON: unexpected EOF"),
        (b'{"Image":5}', JSON, "cannot unmarshal number into Go struct field CreateRequest.Image of type string"),
        (b"null", JSON, "config cannot be empty in order to create a container"),
        (b'{"Image":"a"} x', JSON, "unexpected content after JSON"),
        (b"", "", "invalid JSON: got EOF while reading request body"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b"[" * 100_000, JSON, "invalid JSON"),
        (b'{"Image":"' + b"x" * (17 << 20) + b'"}', JSON, "http: request body too large"),
    ],
)
async def test_a_bad_body_is_refused_in_docker_s_words(body: bytes, content_type: str, message: str) -> None:
    async with serving(fake(create=Creation())) as path:
        got = await ask(path, "POST", "/containers/create", body, **{"content_type": content_type} if body else {})
        assert got.status == 400
        assert message in str(got.message)


async def test_a_body_that_breaks_off_or_lies_is_refused() -> None:
    async with serving(fake(create=Creation())) as path:
        for rest in (b"5\r\n{", b"zz\r\n"):
            async with client(path) as one:
                one.send(request("POST", "/containers/create", content_type=JSON, transfer_encoding="chunked") + rest)
                one.writer.write_eof()
                assert (await one.answer()).status == 400
                assert await one.reader.read() == b""


async def test_a_body_nobody_wanted_is_skipped_or_the_connection_closed() -> None:
    async with serving(fake()) as path:
        async with client(path) as one:
            assert (await one.request("POST", "/nowhere", b"x" * 100_000)).status == 404
            assert (await one.request("GET", "/_ping")).status == 200
            one.send(request("PUT", "/nowhere", content_length="5", expect="100-continue"))
            assert (await one.answer()).headers["connection"] == "close"
            assert await one.reader.read() == b""
        async with client(path) as one:  # one that sends without end still reads its answer
            one.send(request("PUT", "/nowhere", content_length=str(1 << 40)))
            one.send(b"x" * (1 << 20))
            assert (await one.answer()).status == 404
            assert await one.reader.read() == b""


class Stopping:
    """Raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def stop(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotModified("already"), 304),
        (Conflict("busy"), 409),
        (OutOfSpace("full"), 500),
        (StartFailed("no such file", 127), 400),
        (StartFailed("not allowed", 128), 500),
        (HafenError("bare"), 500),
    ],
)
async def test_errors_have_docker_s_status_and_body(error: HafenError, status: int) -> None:
    async with serving(fake(stop=Stopping(error))) as path:
        got = await ask(path, "POST", "/containers/x/stop")
        assert got.status == status
        if status == 304:
            assert got.body == b""
        else:
            assert got.json() == {"message": error.message}


async def test_the_unexpected_is_500_with_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(fake(stop=Stopping(ZeroDivisionError("oh")))) as path:
        got = await ask(path, "POST", "/v1.45/containers/x/stop")
    assert (got.status, got.message) == (500, "ZeroDivisionError: oh")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


class Endless:
    """An event stream that nobody ends, with what became of it."""

    def __init__(self, event: Event | None = None) -> None:
        self.event = event
        self.sent = 0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def subscribe(self, *_: object) -> AsyncIterator[Event]:
        self.begun.set()
        try:
            while True:
                if self.event is None:
                    await asyncio.Event().wait()
                else:
                    await asyncio.sleep(0)
                    self.sent += 1
                    yield self.event
        finally:
            self.ended.set()


async def test_a_stream_s_head_comes_before_its_first_piece_and_a_client_that_goes_ends_it() -> None:
    events = Endless()
    async with serving(fake(events=events)) as path:
        async with client(path) as one:
            one.send(request("GET", "/events"))
            status, headers = await one.head()
            assert (status, headers["content-type"], headers["transfer-encoding"]) == (200, JSON, "chunked")
            assert not events.ended.is_set()
        await asyncio.wait_for(events.ended.wait(), 5)


async def test_a_unix_client_that_only_sends_no_more_still_gets_its_answer() -> None:
    events = Endless()
    async with serving(fake(events=events)) as path, client(path) as one:
        one.send(request("GET", "/events"))
        one.writer.write_eof()
        assert (await one.head())[0] == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events.ended.wait(), 0.3)
        one.close()
        await asyncio.wait_for(events.ended.wait(), 5)


async def test_a_client_that_does_not_read_holds_the_stream_back() -> None:
    events = Endless(Event(type="container", action="x" * 10_000))
    async with serving(fake(events=events)) as path, client(path) as one:
        one.writer.transport.pause_reading()  # type: ignore[attr-defined] # a stream's transport can be read
        one.send(request("GET", "/events"))
        await events.begun.wait()
        before = -1
        while events.sent != before:  # until it stands still
            before = events.sent
            await asyncio.sleep(0.05)
        assert events.sent < 200


async def test_the_server_s_end_ends_streams_at_once() -> None:
    events = Endless()
    async with asyncio.timeout(5):
        async with serving(fake(events=events), grace=60) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request("GET", "/events"))
            await reader.readuntil(b"\r\n\r\n")
        assert events.ended.is_set()
        assert await reader.read() == b""
        writer.close()


class Slow:
    """A verb that changes something and takes its time."""

    def __init__(self) -> None:
        self.begun, self.go, self.done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stop(self, *_: object) -> None:
        self.begun.set()
        await self.go.wait()
        self.done.set()


async def test_a_verb_that_changes_something_ends_though_its_client_went() -> None:
    slow = Slow()
    async with serving(fake(stop=slow)) as path:
        async with client(path) as one:
            one.send(request("POST", "/containers/x/stop"))
            await slow.begun.wait()
        slow.go.set()
        await asyncio.wait_for(slow.done.wait(), 5)


async def test_requests_in_progress_are_answered_when_the_server_ends() -> None:
    slow = Slow()
    async with asyncio.timeout(10), serving(fake(stop=slow), grace=5) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request("POST", "/containers/x/stop"))
        await slow.begun.wait()
        asyncio.get_running_loop().call_later(0.1, slow.go.set)
    assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
    writer.close()


class Loading:
    """Takes an archive as slowly as it is told, and answers with what it got."""

    def __init__(self) -> None:
        self.size = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def load(self, stream: AsyncIterator[bytes], quiet: bool, platform: object) -> AsyncIterator[Progress]:
        await self.go.wait()
        async for piece in stream:
            self.size += len(piece)
        yield Progress(stream=f"Loaded {self.size}")
        if self.error:
            raise self.error


async def test_an_upload_is_taken_only_as_fast_as_it_is_read() -> None:
    loading = Loading()
    async with serving(fake(images=loading)) as path, client(path) as one:
        size = 8 << 20
        one.send(request("POST", "/images/load", content_length=str(size)))
        one.send(bytes(size))
        await asyncio.sleep(0.2)
        assert one.writer.transport.get_write_buffer_size() > size // 2  # it is still on the client's side
        loading.go.set()
        assert (await one.answer()).body == f'{{"stream":"Loaded {size}"}}\r\n'.encode()


async def test_a_client_that_asks_first_is_told_to_go_on_before_a_stream_begins() -> None:
    loading = Loading()
    loading.go.set()
    async with serving(fake(images=loading)) as path, client(path) as one:
        one.send(request("POST", "/images/load", content_length="5", expect="100-continue"))
        assert (await one.head())[0] == 100
        one.send(b"bytes")
        assert (await one.answer()).body == b'{"stream":"Loaded 5"}\r\n'
        assert (await one.request("GET", "/_ping")).status == 200


async def test_an_error_while_an_image_loads_is_its_last_line() -> None:
    loading = Loading()
    loading.go.set()
    loading.error = Conflict("no")
    async with serving(fake(images=loading)) as path:
        got = await ask(path, "POST", "/images/load", b"x")
        assert got.status == 200
        assert got.body.endswith(b'{"errorDetail":{"message":"no"},"error":"no"}\r\n')
        bad = request("POST", "/images/load", transfer_encoding="chunked") + b"zz\r\n"
        async with client(path) as one:
            one.send(bad)
            refused = await one.answer()
            assert refused.status == 200
            assert b'"errorDetail":{"message":"invalid request body' in refused.body


async def test_a_stream_that_fails_ends_without_its_last_chunk(caplog: pytest.LogCaptureFixture) -> None:
    class Exporting:
        async def export(self, ref: str) -> AsyncIterator[bytes]:
            async def chunks() -> AsyncIterator[bytes]:
                yield b"part"
                raise OutOfSpace("gone")

            return chunks()

    async with serving(fake(copy=Exporting())) as path, client(path) as one:
        one.send(request("GET", "/containers/x/export"))
        assert (await one.head())[1]["content-type"] == "application/x-tar"
        assert await one.reader.read() == b"4\r\npart\r\n"
    assert "gone" in caplog.text


async def test_nothing_is_left_open_by_clients_that_come_and_go() -> None:
    async with serving(fake(listing=Listing())) as path:
        await ask(path, "GET", "/_ping")
        before = len(os.listdir("/proc/self/fd"))
        for data in (b"", b"GET", request("GET", "/containers/json"), b"\0" * 100, request("GET", "/x", b"abc")[:-1]):
            for _ in range(20):
                async with client(path) as one:
                    one.send(data)
        async with asyncio.timeout(5):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)  # until the server has seen them go
