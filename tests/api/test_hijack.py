"""Attach and exec: the connection becomes the session's, whatever the client's way of asking."""

import asyncio
import json

import pytest

from hafen.engine.services import AttachOptions, ExecStartOptions
from hafen.errors import NotFound
from tests.api.serving import FakeSession, ask, client, fake, request, serving

UPGRADE = {"connection": "Upgrade", "upgrade": "tcp"}


class Attaching:
    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.options: AttachOptions | None = None

    async def attach(self, ref: str, options: AttachOptions) -> FakeSession:
        if ref == "none":
            raise NotFound("No such container: none")
        self.options = options
        return self.session


class Execs:
    def __init__(self, session: FakeSession) -> None:
        self.session = session

    async def start(self, exec_id: str, options: ExecStartOptions) -> FakeSession | None:
        return None if options.detach else self.session


@pytest.mark.parametrize(
    ("version", "tty", "upgrade", "content_type"),
    [
        ("1.55", False, True, "multiplexed-stream"),
        ("1.42", False, True, "multiplexed-stream"),
        ("1.41", False, True, "raw-stream"),
        ("1.55", True, True, "raw-stream"),
        ("1.55", False, False, "raw-stream"),
    ],
)
async def test_the_head_depends_on_version_terminal_and_upgrade(
    version: str, tty: bool, upgrade: bool, content_type: str
) -> None:
    session = FakeSession(tty=tty)
    async with serving(fake(attach=Attaching(session))) as path, client(path) as one:
        one.send(request("POST", f"/v{version}/containers/x/attach?stream=1&stdout=1", **(UPGRADE if upgrade else {})))
        status, headers = await one.head()
        assert status == (101 if upgrade else 200)
        assert headers["content-type"] == f"application/vnd.docker.{content_type}"
        assert (headers.get("upgrade"), headers.get("connection")) == (("tcp", "Upgrade") if upgrade else (None, None))
        assert "content-length" not in headers
        assert "transfer-encoding" not in headers
        assert await one.reader.readexactly(6) == b"ready\n"
        one.writer.write_eof()  # half close: the answer still comes
        assert await one.reader.read() == b"bye\n"


@pytest.mark.parametrize("upgrade", [True, False])
async def test_bytes_behind_the_head_in_the_same_segment_belong_to_the_session(upgrade: bool) -> None:
    session = FakeSession()
    attaching = Attaching(session)
    async with serving(fake(attach=attaching)) as path, client(path) as one:
        target = "/containers/x/attach?stream=1&stdin=1&stderr=True&stdout=no&detachKeys=ctrl-a"
        one.send(request("POST", target, **(UPGRADE if upgrade else {})) + b"early ")
        await one.head()
        one.send(b"late")
        one.writer.write_eof()
        await asyncio.wait_for(session.ended.wait(), 5)
        assert bytes(session.received) == b"early late"
    assert attaching.options == AttachOptions(
        stdin=True, stdout=False, stderr=True, stream=True, logs=False, detach_keys="ctrl-a"
    )


async def test_exec_starts_with_its_body_and_what_follows_it() -> None:
    session = FakeSession()
    async with serving(fake(exec=Execs(session))) as path, client(path) as one:
        body = json.dumps({"Detach": False, "Tty": False}).encode()
        one.send(request("POST", "/exec/e/start", body, content_type="application/json", **UPGRADE) + b"stdin")
        one.writer.write_eof()
        assert (await one.head())[0] == 101
        assert await one.reader.read() == b"ready\nbye\n"
        assert bytes(session.received) == b"stdin"


async def test_a_detached_exec_is_answered_and_the_connection_kept() -> None:
    async with serving(fake(exec=Execs(FakeSession()))) as path, client(path) as one:
        for _ in range(2):
            got = await one.request("POST", "/exec/e/start", b'{"Detach":true}', content_type="application/json")
            assert (got.status, got.body) == (200, b"")


async def test_errors_before_the_hijack_are_plain_text() -> None:
    async with serving(fake(attach=Attaching(FakeSession()))) as path:
        got = await ask(path, "POST", "/containers/none/attach", **UPGRADE)
        assert (got.status, got.body) == (404, b"No such container: none\r\n")


async def test_a_broken_body_before_the_hijack_is_refused() -> None:
    session = FakeSession()
    async with serving(fake(attach=Attaching(session))) as path, client(path) as one:
        one.send(request("POST", "/containers/x/attach", transfer_encoding="chunked") + b"zz\r\n")
        assert (await one.answer()).status == 400
        assert session.abandoned.is_set()


async def test_a_client_gone_while_an_exec_is_started_abandons_the_session() -> None:
    class Late(Execs):
        async def start(self, exec_id: str, options: ExecStartOptions) -> FakeSession | None:
            one.close()
            await one.writer.wait_closed()
            await asyncio.sleep(0.1)  # the server sees it go meanwhile
            return await super().start(exec_id, options)

    session = FakeSession()
    async with serving(fake(exec=Late(session))) as path, client(path) as one:
        one.send(request("POST", "/exec/e/start", b"{}", content_type="application/json", **UPGRADE))
        await asyncio.wait_for(session.abandoned.wait(), 5)


async def test_a_client_gone_before_the_hijack_abandons_the_session() -> None:
    class Late(Attaching):
        async def attach(self, ref: str, options: AttachOptions) -> FakeSession:
            one.close()
            await one.writer.wait_closed()
            return await super().attach(ref, options)

    session = FakeSession()
    async with serving(fake(attach=Late(session))) as path, client(path) as one:
        body = request("POST", "/containers/x/attach", content_length="10")  # never sent
        one.send(body)
        await asyncio.wait_for(session.abandoned.wait(), 5)
