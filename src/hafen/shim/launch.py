"""The shim's side of set-up: what it keeps of a process's streams, and asking a process of its own to make an exec."""

import os
from collections.abc import Callable

from hafen import errors
from hafen.shim import protocol, setup, stdio
from hafen.shim.fork import fork
from hafen.shim.loop import READ, Loop
from hafen.shim.reaper import Reaper

OnMade = Callable[[protocol.Message, list[int]], None]


class Streams:
    """Our ends of a process's pipes; none for a terminal, whose master comes later."""

    def __init__(self, outputs: list[tuple[int, int]], stdin: int) -> None:
        self.outputs = outputs
        self.stdin = stdin

    def close(self) -> None:
        protocol.close_all(descriptor for descriptor, _ in self.outputs)
        if self.stdin >= 0:
            os.close(self.stdin)


def set_up_message(terminal: bool, open_stdin: bool) -> tuple[protocol.Message, list[int], Streams]:
    """The beginning of a set-up request, the descriptors that go with it, and what stays here."""
    if terminal:
        return {"stdio": [-1, -1, -1]}, [], Streams([], -1)
    outputs, stdin, theirs = stdio.pipes(open_stdin)
    return {"stdio": [0, 1, 2]}, theirs, Streams(outputs, stdin)


def set_up_beside(
    loop: Loop, reaper: Reaper, message: protocol.Message, descriptors: list[int],
    done: OnMade, failed: Callable[[errors.HafenError], None],
) -> None:  # fmt: skip
    """In a forked process, so that nothing waits here; what it makes is our child. Closes the descriptors."""
    ours, theirs = protocol.pair()
    with theirs:
        reaper.expect()
        fork(lambda: setup.serve(theirs, message, descriptors), {theirs.fileno(), *descriptors})
    protocol.close_all(descriptors)

    def answered(_: int) -> None:
        received = protocol.receive(ours)
        loop.remove(ours.fileno())
        ours.close()
        if received is None:
            failed(errors.System("the process that sets containers up was killed"))
        elif "error" in received[0]:
            failed(errors.from_wire(received[0]))
        else:
            done(*received)
        reaper.expected()

    loop.add(ours.fileno(), READ, answered)
