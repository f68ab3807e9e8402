"""Noise: whatever bytes come, the server goes on, answers nothing but refusals, and keeps nothing open."""

import asyncio
import logging
import os
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafen.engine.services import ExecStartOptions
from hafen.errors import NotFound
from tests.api.serving import ask, fake, request, serving
from tests.api.test_protocol import Creation, Listing

JSON = "application/json"

_PIECES = st.sampled_from(
    [
        b"GET ", b"POST ", b"PUT ", b"/containers/json", b"/v1.45/_ping", b"/containers/create", b"/v9.9.9/x",
        b"?a=%zz", b"?filters={", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: x\r\n", b"Content-Length: 5\r\n",
        b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: Upgrade\r\n",
        b"Upgrade: tcp\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Content-Type: application/json\r\n",
        b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"{}", b'{"Image":"a"}',
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0", b"\xff\xfe", b" folded\r\n", b"X: " + b"y" * 5000 + b"\r\n",
    ]
)  # fmt: skip
_NOISE = st.lists(_PIECES | st.binary(max_size=20), max_size=12).map(b"".join)
_MUTATED = st.builds(
    lambda text, place, piece: text[: place % len(text)] + piece + text[place % len(text) :],
    st.sampled_from(
        [
            request("GET", "/containers/json?all=1&limit=5"),
            request(
                "POST", "/containers/create?name=x", b'{"Image":"a","HostConfig":{}}', content_type="application/json"
            ),
            request("POST", "/exec/x/start", b"{}", content_type="application/json", upgrade="tcp"),
        ]
    ),
    st.integers(0, 500),
    st.binary(max_size=6) | _PIECES,
)


class NoContainer:
    """What a piece in the middle of a path may make of it."""

    async def start(self, ref: str, detach_keys: str | None = None) -> None:
        raise NotFound(f"No such container: {ref}")

    async def inspect(self, ref: str, size: bool = False) -> NoReturn:
        raise NotFound(f"No such container: {ref}")


class NoExec:
    async def start(self, exec_id: str, options: ExecStartOptions) -> None:
        raise NotFound(f"No such exec instance: {exec_id}")


async def statuses(path: str, data: bytes) -> list[int]:
    """The status codes that a server answers to some bytes and their end."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
    except (ConnectionError, BrokenPipeError):
        return []
    finally:
        writer.close()
    heads = [part for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    return [int(head[:3]) for head in heads]


async def feed(samples: list[bytes]) -> int:
    """How many answers had the status 500, as Docker's have for a few mistakes of clients."""
    failures = 0
    async with serving(
        fake(listing=Listing(), create=Creation(), exec=NoExec(), start=NoContainer(), inspect=NoContainer())
    ) as path:
        await ask(path, "GET", "/_ping")
        before = len(os.listdir("/proc/self/fd"))
        for data in samples:
            for status in await statuses(path, data):
                assert status in (100, 200, 201, 301, 400, 404, 413, 431, 500, 501, 505), (status, data)
                failures += status == 500
        assert (await ask(path, "GET", "/_ping")).status == 200
        async with asyncio.timeout(5):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
    return failures


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples=st.lists(_NOISE | _MUTATED, min_size=20, max_size=20))
def test_noise_is_refused_and_nothing_is_left(caplog: pytest.LogCaptureFixture, samples: list[bytes]) -> None:
    caplog.clear()
    failures = asyncio.run(feed(samples))
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == failures
    assert not any(record.exc_info for record in told)
