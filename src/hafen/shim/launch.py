"""The shim's side of set-up: what it keeps of a process's streams, and making an exec while it goes on."""

import os
from collections.abc import Callable

from hafen import errors
from hafen.runtime import join
from hafen.shim import protocol, setup, stdio
from hafen.shim.fork import fork
from hafen.shim.loop import READ, Loop
from hafen.shim.reaper import Reaper

OnMade = Callable[[protocol.Message, list[int]], None]
OnFailed = Callable[[errors.HafenError], None]


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
    done: OnMade, failed: OnFailed,
) -> None:  # fmt: skip
    """Make an exec, or another runtime's container, while the loop goes on; it is our child. Closes the descriptors."""
    reaper.expect()

    def made(answer: protocol.Message, made: list[int]) -> None:
        done(answer, made)
        reaper.expected()

    def refused(error: errors.HafenError) -> None:
        failed(error)
        reaper.expected()

    try:
        if "exec" in message and message["container"]["runtime"] == "hafen":
            _follow(loop, setup.begin_exec(message, descriptors), made, refused)
        else:
            _ask(loop, message, descriptors, made, refused)
    except errors.HafenError as error:
        refused(error)
    except OSError as error:
        refused(errors.System(str(error)))
    finally:
        protocol.close_all(descriptors)


def _follow(loop: Loop, joining: join.Joining, done: OnMade, failed: OnFailed) -> None:
    """Let a process of ours join the container."""
    conversation = joining.fileno()

    def said(_: int) -> None:
        loop.remove(conversation)
        try:
            running = joining.advance()
        except errors.HafenError as error:
            failed(error)
            return
        if running is None:
            loop.add(conversation, READ, said)
        else:
            done(*setup.told(running))

    loop.add(conversation, READ, said)


def _ask(loop: Loop, message: protocol.Message, descriptors: list[int], done: OnMade, failed: OnFailed) -> None:
    """Have another process call another runtime, which can take its time."""
    ours, theirs = protocol.pair()
    with theirs:
        fork(lambda: setup.serve(theirs, message, descriptors), {theirs.fileno(), *descriptors})

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

    loop.add(ours.fileno(), READ, answered)
