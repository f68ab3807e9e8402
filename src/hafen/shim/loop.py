"""The shim's event loop: descriptors, timers, and nothing else.

Level triggered (epoll(7)). One thread; a callback that raises ends the loop, as nothing can be trusted then.
"""

import heapq
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR  # always reported, also with a mask of 0

OnReady = Callable[[int], None]


class Timer:
    """A call that is due at `at` (time.monotonic) unless it is cancelled."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: "Timer") -> bool:
        return self.at < other.at


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, OnReady] = {}
        self._timers: list[Timer] = []
        self._running = True
        self.events = 0  # how many there were: whether anything goes on

    def add(self, descriptor: int, mask: int, call: OnReady) -> None:
        self._epoll.register(descriptor, mask)
        self._calls[descriptor] = call

    def change(self, descriptor: int, mask: int) -> None:
        self._epoll.modify(descriptor, mask)

    def remove(self, descriptor: int) -> None:
        """Before the descriptor is closed: epoll watches the open file, which another process may hold open."""
        if self._calls.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Until `stop`."""
        while self._running:
            for descriptor, mask in self._epoll.poll(self._timeout()):
                call = self._calls.get(descriptor)  # None: removed by an earlier call of this round
                if call is not None:
                    self.events += 1
                    call(mask)
            self._expire()

    def stop(self) -> None:
        self._running = False

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0].at - time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].at <= now:
            call = heapq.heappop(self._timers).call
            if call is not None:
                call()
