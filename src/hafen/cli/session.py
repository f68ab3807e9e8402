"""Carry an attached container or exec: terminal, resize, signals, streams; shared by run, start, attach and exec."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import NamedTuple

from hafen.cli import terminal
from hafen.client.engine import Engine, Hijacked
from hafen.client.streams import Session
from hafen.errors import InvalidArgument


class Streams(NamedTuple):
    """Which of our descriptors take part, and whether the container has a terminal."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def check_terminal(streams: Streams) -> None:
    if streams.stdin and streams.tty and not terminal.is_terminal(0):
        raise InvalidArgument("the input device is not a TTY")


def detach_keys(given: str, settings: Mapping[str, object]) -> str:
    """--detach-keys, then `detachKeys` of the configuration file."""
    return given or str(settings.get("detachKeys") or "")


def carry(
    connection: Hijacked,
    streams: Streams,
    *,
    keys: str,
    resize: Callable[[int, int], None] | None,
    forward: Callable[[str], None] | None,
    begin: Callable[[], None] | None = None,
) -> bool:
    """Until the streams end; True when the user detached. `begin` starts what produces them."""
    session = Session(
        connection,
        stdin=0 if streams.stdin else None,
        stdout=1 if streams.stdout else None,
        stderr=2 if streams.stderr else None,
        tty=streams.tty,
        detach_keys=terminal.parse_detach_keys(keys),
    )
    with ExitStack() as scope:
        scope.callback(connection.close)
        if streams.tty and streams.stdin:
            scope.enter_context(terminal.raw(0))
        if forward and not streams.tty:
            scope.enter_context(terminal.proxied(forward))
        if begin:
            begin()
        if resize and streams.tty and terminal.is_terminal(1):
            scope.enter_context(terminal.resized(resize))
        session.run()
    return session.detached


def signalling(engine: Engine) -> Engine:
    """An engine of its own for signal handlers: they interrupt whatever call the main one is in the middle of."""
    return Engine(engine.endpoint)
