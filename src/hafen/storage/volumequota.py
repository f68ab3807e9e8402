"""Sizes of local volumes: a project quota for each, where the file system enforces them.

Projects are numbered from `_FIRST` on, so that they are not those that an administrator, or Docker, gives out; a new
one is one more than the highest among the volumes there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hafen.errors import InvalidArgument
from hafen.kernel import quota

_FIRST = 0x48460000


def limit(path: str, size: int, others: Iterable[str]) -> None:
    """What is below `path`, an empty directory, may take `size` bytes; `others` are the directories that may have
    projects already. InvalidArgument, with Docker's text, where the file system has no such quotas."""
    with _opened(path) as directory:
        if not quota.is_enforced(directory):
            raise InvalidArgument("quota size requested but no quota support")
        number = quota.project(directory)
        if not number:
            number = max((_project(other) for other in others), default=0)
            number = max(number + 1, _FIRST)
            quota.set_project(directory, number)
        quota.set_limit(directory, number, size)


def is_supported(path: str) -> bool:
    with _opened(path) as directory:
        return quota.is_enforced(directory)


def release(path: str) -> None:
    """The directory goes: its number may come again, and has no limit then."""
    number = _project(path)
    if number >= _FIRST:
        with _opened(path) as directory:
            quota.set_limit(directory, number, 0)


def _project(path: str) -> int:
    try:
        with _opened(path) as directory:
            return quota.project(directory)
    except OSError:  # it is gone, or its file system knows no projects
        return 0


@contextmanager
def _opened(path: str) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)
