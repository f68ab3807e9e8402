"""`/metrics`: counters of this process and what the database holds, in Prometheus's text format.

https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

from hafen.http.message import Answer, Body, Head, HijackReply, Reply
from hafen.registryd.collect import Collector
from hafen.registryd.rows import Rows

if TYPE_CHECKING:  # its HTTP library is imported where something is cached
    from hafen.registryd.cache import Cache

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"))  # others could be any number of words


class Metrics:
    """Counts requests. Loop thread."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._received = 0
        self._sent = 0

    def received(self, body: Body) -> Body:
        """The same body, whose bytes are counted as they are read."""
        return _Counted(body, self)

    def add_received(self, size: int) -> None:
        self._received += size

    def answered(self, head: Head, answer: Answer) -> None:
        """Bytes count as sent when the answer begins: whether all of a file went out is not known here."""
        if isinstance(answer, HijackReply):
            return
        self._requests[head.method if head.method in _METHODS else "other", answer.status] += 1
        self._sent += len(answer.body) if isinstance(answer, Reply) else answer.length or 0

    def page(self, rows: Rows, collector: Collector, cache: Cache | None) -> Reply:
        return Reply(200, "".join(self._lines(rows, collector, cache)).encode(), CONTENT_TYPE)

    def _lines(self, rows: Rows, collector: Collector, cache: Cache | None) -> Iterator[str]:
        yield _head("requests_total", "counter", "Requests answered, by method and status.")
        for (method, status), count in sorted(self._requests.items()):
            yield f'hafen_registry_requests_total{{method="{method}",code="{status}"}} {count}\n'
        totals = rows.totals()
        for name, kind, text, value in (
            ("received_bytes_total", "counter", "Bytes of request bodies.", self._received),
            ("sent_bytes_total", "counter", "Bytes of the bodies of answers that were begun.", self._sent),
            ("repositories", "gauge", "Repositories that hold a manifest.", totals.repositories),
            ("manifests", "gauge", "Manifests, once in each repository that has them.", totals.manifests),
            ("tags", "gauge", "Tags.", totals.tags),
            ("blobs", "gauge", "Blobs that a repository has, manifests aside.", totals.blobs),
            ("blob_bytes", "gauge", "Bytes of these blobs.", totals.blob_bytes),
            ("uploads", "gauge", "Uploads in progress.", totals.uploads),
            ("notifications", "gauge", "Notifications that wait for their webhook.", totals.notifications),
            ("collections_total", "counter", "Garbage collections that came to their end.", collector.collections),
            ("collections_failed_total", "counter", "Garbage collections that failed.", collector.failed),
            ("collected_blobs_total", "counter", "Blobs that garbage collection removed.", collector.removed),
            ("fetched_bytes_total", "counter", "Bytes of blobs of other registries.", cache.fetched if cache else 0),
            ("stale_total", "counter", "Tags given out that could not be revalidated.", cache.stale if cache else 0),
        ):
            yield f"{_head(name, kind, text)}hafen_registry_{name} {value}\n"


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP hafen_registry_{name} {text}\n# TYPE hafen_registry_{name} {kind}\n"


class _Counted:
    def __init__(self, body: Body, metrics: Metrics) -> None:
        self._body = body
        self._metrics = metrics

    @property
    def length(self) -> int | None:
        return self._body.length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            self._metrics.add_received(len(piece))
            yield piece

    async def read(self, limit: int) -> bytes:
        data = await self._body.read(limit)
        self._metrics.add_received(len(data))
        return data
