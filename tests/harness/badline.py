"""A line to a registry that fails at random, from a seed that is printed: for `upstream.Proxy`."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.harness.upstream import Exchange, Proxy


class BadLine:
    """While it is `bad`, `share` of the requests suffer one of: cut in either direction, an answer that never comes,
    wrong bytes in either direction, 429 and 503 with and without Retry-After, delays. `done` counts them by kind."""

    def __init__(self, seed: int, share: float = 0.3) -> None:
        print(f"the bad line's seed: {seed}")
        self.share = share
        self.bad = True
        self.done: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._requests: dict[str, Callable[[Exchange], bool]] = {
            "upload cut": self._cut_request,
            "upload spoilt": self._spoil_request,
        }
        self._answers: dict[str, Callable[[Exchange], bool]] = {
            "answer cut": self._cut_answer,
            "answer spoilt": self._spoil_answer,
            "answer lost": self._lose,
            "429": self._busy,
            "503": self._away,
            "delayed": self._delay,
        }

    def to(self, target: str) -> Proxy:
        """A proxy over this line to HOST:PORT."""
        return Proxy(target, self._after, self._before)

    def _before(self, exchange: Exchange) -> None:
        if exchange.method == "PATCH":
            self._perhaps(exchange, self._requests)

    def _after(self, exchange: Exchange) -> None:
        self._perhaps(exchange, self._answers)

    def _perhaps(self, exchange: Exchange, kinds: dict[str, Callable[[Exchange], bool]]) -> None:
        with self._lock:
            if not self.bad or self._chance.random() > self.share:
                return
            kind = self._chance.choice(list(kinds))
            if kinds[kind](exchange):
                self.done[kind] += 1

    def _cut_request(self, exchange: Exchange) -> bool:
        exchange.arrives = self._chance.randrange(len(exchange.request_body) + 1)
        return True

    def _spoil_request(self, exchange: Exchange) -> bool:
        exchange.request_body = self._spoilt(exchange.request_body)
        return True

    def _cut_answer(self, exchange: Exchange) -> bool:
        exchange.cut = self._chance.randrange(len(exchange.body)) if exchange.body else None
        return bool(exchange.body)

    def _spoil_answer(self, exchange: Exchange) -> bool:
        if "/blobs/sha256:" not in exchange.path or exchange.method != "GET":
            return False  # other answers have no digest to tell it by
        exchange.body = self._spoilt(exchange.body)
        return True

    def _lose(self, exchange: Exchange) -> bool:
        exchange.lost = True
        return True

    def _busy(self, exchange: Exchange) -> bool:
        return self._turned_away(exchange, 429)

    def _away(self, exchange: Exchange) -> bool:
        return self._turned_away(exchange, 503)

    def _turned_away(self, exchange: Exchange, status: int) -> bool:
        exchange.status, exchange.body = status, b""
        exchange.headers = [("Retry-After", "0")] if self._chance.random() < 0.5 else []
        return True

    def _delay(self, _: Exchange) -> bool:
        time.sleep(self._chance.uniform(0, 0.1))  # the fault itself; it holds up the others too
        return True

    def _spoilt(self, data: bytes) -> bytes:
        if not data:
            return data
        place = self._chance.randrange(len(data))
        return data[:place] + bytes((data[place] ^ 0xFF,)) + data[place + 1 :]
