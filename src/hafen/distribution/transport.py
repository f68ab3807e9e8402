"""HTTP to registries: requests with authorization, redirects, and errors in the words of Docker's client.

A connection that fails is `Unavailable`: trying again can help. What a registry answers is the caller's to judge.
Credentials and tokens go to the host they are for, never along with a redirect to another one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDict

from hafen.distribution import proxy, tls
from hafen.distribution.auth import Authorizer, Credentials
from hafen.distribution.endpoint import Endpoint, Rules, insecure
from hafen.errors import Corrupt, HafenError, System, Unavailable

MANIFEST_LIMIT = 4 << 20  # distribution-spec: registries refuse larger ones
_REDIRECTS = 5
_LAST_PORT = 65535
_BUFFER = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)

Body = bytes | AsyncIterable[bytes] | None
Response = aiohttp.ClientResponse


@dataclass(frozen=True, slots=True)
class Target:
    """One request: `scope` is what its token must allow (`repository:a/b:pull`)."""

    method: str
    url: str
    scope: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = None
    follow: bool = True


class Unreachable(Unavailable):
    """There is no connection at all: for the first request that is the answer."""


class Transport:
    """Connections and tokens of one operation; `async with`."""

    def __init__(self, rules: Rules, credentials: Credentials, agent: str, *, offline: bool = False) -> None:
        self._rules = rules
        self._agent = agent
        self._authorizer = Authorizer(credentials, self._plain, offline)
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}

    async def __aenter__(self) -> Transport:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_TIMEOUT,
            read_bufsize=_BUFFER,
            connector=aiohttp.TCPConnector(limit=0),
            headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def refresh_token(self) -> str:
        """What a token service gave in place of a password, where `offline` asked for it."""
        return self._authorizer.refresh_token

    @asynccontextmanager
    async def request(self, endpoint: Endpoint, target: Target) -> AsyncIterator[Response]:
        """The answer, whatever its status, with the body unread. A 401 that credentials can help is helped once."""
        authorization = await self._authorizer.header(endpoint, target.scope)
        response = await self._follow(endpoint, target, authorization)
        try:
            if response.status == 401 and not isinstance(target.body, AsyncIterable):
                challenges = response.headers.getall("WWW-Authenticate", [])
                if await self._authorizer.challenged(
                    endpoint, f'{target.method.title()} "{target.url}"', target.scope, challenges, authorization
                ):
                    response.release()
                    again = await self._authorizer.header(endpoint, target.scope)
                    response = await self._follow(endpoint, target, again)
            yield response
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    @asynccontextmanager
    async def ping(self, endpoint: Endpoint, target: Target) -> AsyncIterator[Response]:
        """An answer without authorization; what it asks for is remembered."""
        response = await self._follow(endpoint, target, None)
        try:
            if response.status == 401:
                self._authorizer.remember(endpoint, response.headers.getall("WWW-Authenticate", []))
            yield response
        finally:
            response.close()

    async def _follow(self, endpoint: Endpoint, target: Target, authorization: str | None) -> Response:
        url, origin = target.url, _origin(target.url)
        headers = CIMultiDict(target.headers)
        for _ in range(_REDIRECTS):
            if authorization is not None and _origin(url) == origin == endpoint.origin:
                headers["Authorization"] = authorization
            else:
                headers.popall("Authorization", None)
            response = await self._send(target.method, url, headers, target.body, endpoint)
            if not target.follow or response.status not in (301, 302, 303, 307, 308):
                return response
            location = response.headers.get("Location", "")
            response.close()
            url = _redirected(target.method, url, location, endpoint)
        raise System(f'{target.method.title()} "{target.url}": stopped after {_REDIRECTS} redirects')

    async def _plain(self, method: str, url: str, headers: Mapping[str, str], form: bytes | None) -> tuple[int, bytes]:
        """A request to a token service: its status and body."""
        endpoint = Endpoint(_origin(url), not insecure(urlsplit(url).netloc, self._rules))
        target = Target(method, url, headers=headers, body=form, follow=method == "GET")
        response = await self._follow(endpoint, target, headers.get("Authorization"))
        try:
            return response.status, await read(response, MANIFEST_LIMIT)
        finally:
            response.close()

    async def _send(self, method: str, url: str, headers: CIMultiDict[str], body: Body, endpoint: Endpoint) -> Response:
        host = urlsplit(url).netloc
        there = endpoint if host == endpoint.host else Endpoint(_origin(url), not insecure(host, self._rules))
        key = (host, there.verify, there.authorities, there.clients)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = tls.context(
                host, there.verify, self._rules.certificates, there.authorities, there.clients
            )
        with worded(method, url):
            return await self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=context,
                proxy=proxy.of(url, os.environ),
            )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def resolved(url: str, location: str) -> str | None:
    """Where a `Location` leads from a URL; None where that is no place that speaks HTTP."""
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
    except ValueError:
        return None
    return target if location and parts.scheme in ("http", "https") and parts.netloc else None


def _redirected(method: str, url: str, location: str, endpoint: Endpoint) -> str:
    target = resolved(url, location)
    if target is None:
        raise System(f'{method.title()} "{url}": invalid redirect to {location!r}')
    if target.startswith("http:") and url.startswith("https:") and endpoint.verify:
        raise System(f'{method.title()} "{url}": refused a redirect from HTTPS to {target}')
    return target


class worded:
    """Failures below become `Unavailable`, or `System` where trying again cannot help."""

    def __init__(self, method: str, url: str) -> None:
        self._what = f'{method.title()} "{url}"'
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, HafenError | asyncio.CancelledError):
            return
        if isinstance(error, aiohttp.ClientError | OSError | asyncio.TimeoutError | UnicodeError):
            raise _failure(self._what, self._url, error) from error


def _failure(what: str, url: str, error: BaseException) -> HafenError:
    host = urlsplit(url).netloc
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(cause, ssl.SSLError):
        return System(f"{what}: {tls.describe(cause, host)}")
    port = host.rpartition(":")[2]
    if isinstance(error, aiohttp.InvalidURL) and port.isdigit() and int(port[:9]) > _LAST_PORT:
        return System(f"{what}: dial tcp: address {port}: invalid port")
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):  # a label of more than 63 characters is in no DNS
        return Unreachable(f"{what}: dial tcp: lookup {urlsplit(url).hostname}: no such host")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unreachable(f"{what}: dial tcp {host}: i/o timeout")
    if isinstance(error, TimeoutError):
        return Unavailable(f"{what}: net/http: request canceled (Client.Timeout exceeded while awaiting headers)")
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, socket.gaierror):
            return Unreachable(f"{what}: dial tcp: lookup {urlsplit(url).hostname}: no such host")
        reason = os.strerror(error.os_error.errno or errno.EIO).lower()
        where = host if urlsplit(url).port else f"{host}:{443 if url.startswith('https') else 80}"
        return Unreachable(f"{what}: dial tcp {where}: connect: {reason}")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return Unavailable(f"{what}: unexpected EOF")
    return Unavailable(f"{what}: {str(error).lower() or type(error).__name__}")


async def read(response: Response, limit: int) -> bytes:
    """A small body; Corrupt where it is longer."""
    data = b""
    with worded(response.method, str(response.url)):
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > limit:
                raise Corrupt(f"{response.method} {response.url}: the answer is longer than {limit} bytes")
    return data


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct, frozen=True):
    errors: list[_Problem] = []
    details: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that a registry answered. `code` is the specification's (`MANIFEST_UNKNOWN`), empty where it gave none;
    `text` is how Docker's client words it."""

    status: int
    code: str
    text: str


_BARE = {
    401: ("UNAUTHORIZED", "authentication required"),
    403: ("DENIED", "requested access to the resource is denied"),
}


async def refusal(response: Response) -> Refusal:
    """Read the error of a response whose status is one."""
    try:
        data = await read(response, 1 << 20)
        problems = msgspec.json.decode(data, type=_Problems).errors
    except (msgspec.DecodeError, HafenError):
        problems = []
    if problems:
        code = problems[0].code
        text = f"{code.lower().replace('_', ' ')}: {problems[0].message or code.lower().replace('_', ' ')}"
        return Refusal(response.status, code, text)
    code, message = _BARE.get(response.status, ("", ""))
    if code:
        return Refusal(response.status, code, f"{code.lower()}: {message}")
    what = f"{response.status} {response.reason or ''}".strip()
    return Refusal(response.status, "", f"received unexpected HTTP status: {what}")
