"""Webhooks: who is told of pushed and deleted manifests and tags, over HTTP.

The event is written to the database in the transaction of the change that it tells of, and stays there until the
receiver has answered 2xx: it is delivered at least once, across restarts and power cuts. A failed delivery is tried
again after 1, 2, 4 ... 300 seconds, for a day; those behind it do not wait for it, so the order is not kept. A hook's
queue is bounded, and its oldest events give way.

The body is docker-registry's envelope with one event, https://distribution.github.io/distribution/about/notifications/.
With a secret, `X-Hub-Signature-256: sha256=<hex>` is the HMAC of the body, as GitHub and Gitea sign theirs.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException, HTTPMessage
from typing import IO, Final
from urllib.parse import urlsplit

from hafen.errors import InvalidArgument
from hafen.http.message import Headers
from hafen.registryd.address import Address
from hafen.registryd.rows import Notification, Rows

EVENTS: Final = frozenset(("push", "delete"))
CONTENT_TYPE: Final = "application/vnd.docker.distribution.events.v1+json"
MAX_QUEUE: Final = 10_000  # events of one hook
MAX_AGE: Final = 24 * 3600.0  # seconds
MAX_DELAY: Final = 300.0  # seconds
_TIMEOUT: Final = 5.0  # seconds of silence; the registry's end waits for it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hook:
    url: str
    events: frozenset[str] = EVENTS
    secret: bytes = field(default=b"", repr=False)

    @property
    def host(self) -> str:
        """For the log: a path or query may hold a token."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that made the change; without a user where nobody was asked for a name, without headers where it was
    the registry itself."""

    method: str
    headers: Headers
    user: str


@dataclass(frozen=True, slots=True)
class Target:
    """What an event is about. A deleted tag has no digest, size and media type; what is pushed by digest no tag."""

    repository: str
    digest: str = ""
    size: int = 0
    media_type: str = ""
    tag: str = ""


def parse(text: str, read: Callable[[str], str]) -> Hook:
    """URL[,events=push+delete][,secret-file=PATH]; `read` gives a file's text. InvalidArgument."""
    url, *options = text.split(",")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidArgument(f"a webhook is http://HOST/... or https://HOST/..., without a user's name: {url!r}")
    events, secret = EVENTS, b""
    for option in options:
        name, _, value = option.partition("=")
        if name == "events" and EVENTS.issuperset(value.split("+")):
            events = frozenset(value.split("+"))
        elif name == "secret-file" and value:
            secret = read(value).strip().encode()
            if not secret:
                raise InvalidArgument(f"{value} holds no secret")
        else:
            raise InvalidArgument(f"a webhook's options are events=push+delete and secret-file=FILE, not {option!r}")
    return Hook(url, events, secret)


class Webhooks:
    """Loop thread."""

    def __init__(self, rows: Rows, hooks: Sequence[Hook], address: Address) -> None:
        self._rows = rows
        self._hooks = {hook.url: hook for hook in hooks}
        self._wake = {url: asyncio.Event() for url in self._hooks}
        self._address = address
        self._source = {"addr": socket.gethostname(), "instanceID": str(uuid.uuid4())}
        self._opener = urllib.request.build_opener(_NoRedirect())
        rows.keep_notifications(list(self._hooks))

    def record(self, action: str, target: Target, origin: Origin) -> None:
        """Queue an event, as a part of the transaction that is open."""
        hooks = [hook for hook in self._hooks.values() if action in hook.events]
        if not hooks:
            return
        event = json.dumps(self._event(action, target, origin))
        for hook in hooks:
            dropped = self._rows.notify(hook.url, event, MAX_QUEUE, self._wake[hook.url].set)
            if dropped:
                log.warning("webhook %s: the queue is full, %d events were dropped", hook.host, dropped)

    def _event(self, action: str, target: Target, origin: Origin) -> dict[str, object]:
        about: dict[str, object] = {"repository": target.repository}
        if target.digest:
            about["digest"] = target.digest
            if base := self._address.base(origin.headers):
                about["url"] = f"{base}/v2/{target.repository}/manifests/{target.digest}"
        if target.media_type:
            about |= {"mediaType": target.media_type, "size": target.size, "length": target.size}
        if target.tag:
            about["tag"] = target.tag
        return {
            "id": str(uuid.uuid4()),
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "action": action,
            "target": about,
            "request": {
                "id": str(uuid.uuid4()), "host": origin.headers.get("host", ""), "method": origin.method,
                "useragent": origin.headers.get("user-agent", ""),
            },
            "actor": {"name": origin.user} if origin.user else {},
            "source": self._source,
        }  # fmt: skip

    async def run(self) -> None:
        """Deliver until cancelled. Each hook has a thread of its own, so a slow one holds up no other."""
        if not self._hooks:
            return
        executor = ThreadPoolExecutor(len(self._hooks), "webhook")
        try:
            async with asyncio.TaskGroup() as tasks:
                for hook in self._hooks.values():
                    tasks.create_task(self._deliver(hook, executor))
        finally:
            executor.shutdown(wait=False)

    async def _deliver(self, hook: Hook, executor: ThreadPoolExecutor) -> None:
        """A hook's loop. What fails here besides the receiver, a full disk for one, is tried again later too."""
        while True:
            try:
                await self._next(hook, executor)
            except Exception:
                log.exception("webhook %s failed", hook.host)
                await asyncio.sleep(MAX_DELAY)

    async def _next(self, hook: Hook, executor: ThreadPoolExecutor) -> None:
        """Wait until something may have to be delivered, and try one event."""
        self._wake[hook.url].clear()
        first = self._rows.next_notification(hook.url)
        delay = MAX_AGE if first is None else min(first.next_at - time.time(), MAX_DELAY)
        if first is None or delay > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake[hook.url].wait(), delay)
            return
        problem = await asyncio.get_running_loop().run_in_executor(executor, self._send, hook, first.event)
        self._settle(hook, first, problem)

    def _settle(self, hook: Hook, notification: Notification, problem: str) -> None:
        now = time.time()
        if not problem:
            self._rows.end_notification(notification.number)
        elif now - notification.created_at > MAX_AGE:
            self._rows.end_notification(notification.number)
            log.error("webhook %s: an event was not delivered within a day and is given up: %s", hook.host, problem)
        else:
            delay = min(2.0 ** min(notification.attempts, 30), MAX_DELAY)
            self._rows.postpone_notification(notification.number, now + delay)
            log.warning("webhook %s: %s; the next attempt is in %.0f seconds", hook.host, problem, delay)

    def _send(self, hook: Hook, event: str) -> str:
        """In a thread: what went wrong, empty where the receiver took it."""
        body = f'{{"events":[{event}]}}'.encode()
        headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "hafen-registry"}
        if hook.secret:
            headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(hook.secret, body, hashlib.sha256).hexdigest()
        try:
            with self._opener.open(urllib.request.Request(hook.url, body, headers), timeout=_TIMEOUT):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"status {error.code}"
        except (OSError, HTTPException) as error:
            return str(error) or type(error).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None
