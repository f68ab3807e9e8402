"""TERM and INT end the engine in order; HUP and USR1 are told in the log."""

from __future__ import annotations

import asyncio
import io
import logging
import signal

log = logging.getLogger(__name__)


def install(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """`stop` is set by the first TERM or INT."""

    def end(name: str) -> None:
        log.info("%s: stopping; containers keep running", name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, signal.Signals(number).name)
    loop.add_signal_handler(
        signal.SIGHUP, log.info, "SIGHUP: changes of the configuration need a restart of the engine"
    )
    loop.add_signal_handler(signal.SIGUSR1, dump_tasks)


def dump_tasks() -> None:
    """What every task waits for, into the log."""
    text = io.StringIO()
    for task in asyncio.all_tasks():
        task.print_stack(file=text)
    log.warning("SIGUSR1: tasks\n%s", text.getvalue())
