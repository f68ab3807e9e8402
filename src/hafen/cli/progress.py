"""The engine's progress documents as bars on a terminal, as plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from hafen.cli.output import human_size
from hafen.client.engine import Document
from hafen.errors import System

WIDTH = 50
REDRAW_SECONDS = 0.05


class Progress:
    """Lines by id, each redrawn in its place. Without a terminal a line is printed when its status changes."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._quiet = quiet
        self._lines: dict[str, str] = {}
        self._drawn = 0
        self._last = 0.0
        self.aux: list[Document] = []

    def show(self, documents: Iterable[Document]) -> None:
        """All of them; one that tells an error ends it."""
        try:
            for document in documents:
                self._one(document)
        finally:
            self._draw(final=True)

    def _one(self, document: Document) -> None:
        problem = (document.get("errorDetail") or {}).get("message") or document.get("error")
        if problem:
            raise System(str(problem))
        if "aux" in document:
            self.aux.append(document["aux"])
            return
        text = str(document.get("stream") or document.get("status") or "").rstrip("\n")
        if self._quiet or not text:
            return
        identifier = str(document.get("id") or "")
        detail = document.get("progressDetail") or {}
        if not identifier:
            self._print(text)
            return
        line = f"{identifier}: {text}"
        if self._live:
            self._lines[identifier] = f"{line} {bar(detail)}".rstrip() if detail else line
            self._draw()
        elif self._lines.get(identifier) != line:
            self._lines[identifier] = line
            if not detail:  # moving numbers are for terminals
                self._print(line)

    def _print(self, text: str) -> None:
        """A line that stays: the moving ones are drawn again below it."""
        self._erase()
        self._stream.write(text + "\n")
        self._stream.flush()
        if self._live:
            self._draw(final=True)

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self, *, final: bool = False) -> None:
        now = time.monotonic()
        if not self._live or not self._lines or (not final and now - self._last < REDRAW_SECONDS):
            return
        self._last = now
        self._erase()
        columns, rows = os.get_terminal_size(self._stream.fileno())
        columns, rows = columns or 80, rows or 24  # a terminal that nobody told its size says 0
        shown = list(self._lines.values())[-(rows - 1) :]
        self._stream.write("".join(line[: columns - 1] + "\n" for line in shown))
        self._drawn = len(shown)
        self._stream.flush()


def bar(detail: Document) -> str:
    """`[=====>    ]  1.2MB/4.5MB`, or the size alone where the total is not known."""
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if detail.get("units") and total:
        return f"{current}/{total} {detail['units']}"
    if total <= 0:
        return human_size(current) if current else ""
    filled = min(WIDTH, current * WIDTH // total)
    line = "=" * filled + (">" if filled < WIDTH else "")
    return f"[{line:{WIDTH}}] {human_size(min(current, total)):>8}/{human_size(total)}"


class ByteBar:
    """One bar over bytes that pass through us (load, import, save, cp); silent without a terminal."""

    def __init__(self, label: str, total: int = 0) -> None:
        self._label = label
        self._total = total
        self.seen = 0
        self._last = 0.0
        self._live = sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"

    def over(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        try:
            for chunk in chunks:
                yield chunk
                self.add(len(chunk))
        finally:
            self.clear()

    def add(self, count: int) -> None:
        self.seen += count
        now = time.monotonic()
        if self._live and now - self._last > REDRAW_SECONDS:
            self._last = now
            sys.stderr.write(f"\r\x1b[K{self._label} {bar({'current': self.seen, 'total': self._total})}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._live and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
