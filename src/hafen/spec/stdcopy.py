"""Docker's 8-byte multiplexed stdio frame, encoded and decoded without I/O.

A frame is the stream (0 stdin, 1 stdout, 2 stderr, 3 system error), three zero bytes, the payload's length as a
big-endian 32 bit number, and the payload (Engine API, "Stream format" of ContainerAttach).
"""

import struct
from collections.abc import Iterator

from hafen.errors import Corrupt

STDIN = 0
STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3
HEADER_SIZE = 8

_HEADER = struct.Struct(">BxxxI")


def header(stream: int, length: int) -> bytes:
    """The 8 bytes before a payload of `length` bytes."""
    return _HEADER.pack(stream, length)


def frame(stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(stream, len(payload)) + payload


class Decoder:
    """Feed bytes as they come, get (stream, piece of payload) as early as possible: a frame may come in pieces."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Corrupt where a header cannot be one."""
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                yield self._stream, piece
                continue
            missing = HEADER_SIZE - len(self._head)
            self._head += data[position : position + missing]
            position += missing
            if len(self._head) == HEADER_SIZE:
                self._stream, self._left = _HEADER.unpack(self._head)
                if self._stream > SYSTEM_ERROR or any(self._head[1:4]):
                    raise Corrupt(f"not a header of the multiplexed stream: {self._head.hex()}")
                self._head = b""

    @property
    def complete(self) -> bool:
        """Whether the stream may end here."""
        return not self._left and not self._head
