"""Output cut into lines as Docker's copier cuts it; pure.

A line longer than 16 KiB comes in pieces, all with the time of the first; so does what is left without a newline at
the end. (moby daemon/logger/copier.go)
"""

import os

from hafen.values import NamedTuple

LONGEST = 16 << 10


class Piece(NamedTuple):
    """Which part of a long line: `line` names it, `ordinal` counts from 1."""

    line: str
    ordinal: int
    last: bool


class Line(NamedTuple):
    """`text` without its newline; `at` in ns since the epoch; `piece` None for a line that came whole."""

    at: int
    stream: int
    text: bytes
    piece: Piece | None


class Lines:
    """Of several streams."""

    def __init__(self) -> None:
        self._rest: dict[int, bytes] = {}
        self._pieces: dict[int, tuple[int, Piece]] = {}  # the piece that came last, and its line's time

    def feed(self, stream: int, data: bytes, at: int) -> list[Line]:
        """The lines that `data` completes."""
        *whole, rest = (self._rest.get(stream, b"") + data).split(b"\n")
        lines: list[Line] = []
        for text in whole:
            left = self._cut(stream, text, at, lines)
            lines.append(self._last(stream, left, at))
        self._rest[stream] = self._cut(stream, rest, at, lines)
        return lines

    def block(self, stream: int, data: bytes) -> bytes | None:
        """As `feed`, for who needs no more than the text of whole lines; None, and nothing done, where one is long."""
        if stream in self._pieces:
            return None
        data = self._rest.get(stream, b"") + data
        *whole, rest = data.split(b"\n")
        if max(map(len, whole), default=0) >= LONGEST or len(rest) >= LONGEST:
            return None
        self._rest[stream] = rest
        return data[: len(data) - len(rest)]

    @property
    def resting(self) -> bool:
        """Nothing is held back."""
        return not self._pieces and not any(self._rest.values())

    def finish(self, at: int) -> list[Line]:
        """What is left without a newline."""
        left = [(stream, rest) for stream, rest in self._rest.items() if rest]
        self._rest.clear()
        return [self._piece(stream, rest, at) for stream, rest in left]

    def _cut(self, stream: int, text: bytes, at: int, lines: list[Line]) -> bytes:
        while len(text) >= LONGEST:
            lines.append(self._piece(stream, text[:LONGEST], at))
            text = text[LONGEST:]
        return text

    def _piece(self, stream: int, text: bytes, at: int) -> Line:
        began, before = self._pieces.get(stream, (at, Piece(os.urandom(32).hex(), 0, False)))
        piece = before._replace(ordinal=before.ordinal + 1)
        self._pieces[stream] = (began, piece)
        return Line(began, stream, text, piece)

    def _last(self, stream: int, text: bytes, at: int) -> Line:
        if stream not in self._pieces:
            return Line(at, stream, text, None)
        began, before = self._pieces.pop(stream)
        return Line(began, stream, text, before._replace(ordinal=before.ordinal + 1, last=True))
