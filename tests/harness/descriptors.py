"""A process that is short of descriptors."""

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """This process may open so many more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    with ExitStack() as undo:
        while (gap := os.dup(0)) < top:
            undo.callback(os.close, gap)
        os.close(gap)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + free, before[1]))
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        yield
