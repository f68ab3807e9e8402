"""Files that people edit while the registry runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from hafen.errors import InvalidArgument

INTERVAL: Final = 1.0  # seconds between two looks

T = TypeVar("T")

log = logging.getLogger(__name__)


def read(path: str) -> str:
    """A file's text; InvalidArgument where there is none to be had."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {error}") from error


class Watched(Generic[T]):
    """Call it for what the file says now. What makes no sense is told in the log, and what it said before counts.

    InvalidArgument where it makes no sense at first.
    """

    def __init__(self, path: str, parse: Callable[[str], T]) -> None:
        self._path = path
        self._parse = parse
        self._mark = self._look()  # before the reading: a change meanwhile is seen the next time
        self._value = parse(read(path))
        self._next = time.monotonic() + INTERVAL

    def __call__(self) -> T:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            mark = self._look()
            if mark != self._mark:
                self._mark = mark
                self._read_again()
        return self._value

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read_again(self) -> None:
        try:
            self._value = self._parse(read(self._path))
            log.info("%s is read again", self._path)
        except InvalidArgument as error:
            log.error("%s has changed and what it said before counts: %s", self._path, error.message)
