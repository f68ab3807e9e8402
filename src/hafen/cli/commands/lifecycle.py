"""Change containers' states: stop, restart, kill, pause, unpause, wait, rm, rename."""

import json
from collections.abc import Callable

from hafen.cli.command import Call, Command
from hafen.cli.output import err, out
from hafen.cli.report import report
from hafen.client import containers
from hafen.client.engine import Query
from hafen.errors import HafenError, InvalidArgument, NotFound, NotModified

CONTAINERS = "CONTAINER [CONTAINER...]"


def each(references: list[str], action: Callable[[str], object], *, excused: type[HafenError] | None = None) -> int:
    """Every one is tried; what went well is printed, what did not is reported and makes the exit code 1.

    An `excused` error is reported, and leaves the exit code alone.
    """
    code = 0
    for reference in references:
        try:
            action(reference)
        except NotModified:
            out(reference)
        except HafenError as error:
            report(error)
            if excused is None or not isinstance(error, excused):
                code = 1
        else:
            out(reference)
    return code


def _act(call: Call, action: str, query: Query | None = None) -> int:
    return each(call.arguments, lambda reference: containers.act(call.engine, reference, action, query))


def _stop(call: Call) -> int:
    return _act(call, "stop", _stop_query(call))


def _restart(call: Call) -> int:
    return _act(call, "restart", _stop_query(call))


def _stop_query(call: Call) -> Query:
    seconds = call.flags.number("timeout") if call.flags.changed("timeout") else None
    return {"t": seconds, "signal": call.flags.text("signal")}


def _kill(call: Call) -> int:
    return _act(call, "kill", {"signal": call.flags.text("signal")})


def _pause(call: Call) -> int:
    return _act(call, "pause")


def _unpause(call: Call) -> int:
    return _act(call, "unpause")


def _rename(call: Call) -> int:
    old, new = (name.strip() for name in call.arguments)
    if not (old and new):
        raise InvalidArgument("Error: Neither old nor new names may be empty")
    try:
        containers.act(call.engine, old, "rename", {"name": new})
    except HafenError as error:
        report(error)
        err(f"Error: failed to rename container named {old}")
        return 1
    return 0


def _remove(call: Call) -> int:
    force = call.flags.on("force")

    def remove(reference: str) -> None:
        name = reference.strip("/")
        if not name:
            raise InvalidArgument("Container name cannot be empty")
        containers.remove(call.engine, name, volumes=call.flags.on("volumes"), force=force, link=call.flags.on("link"))

    return each(call.arguments, remove, excused=NotFound if force else None)


def _wait(call: Call) -> int:
    code = 0
    for reference in call.arguments:
        try:
            out(str(json.loads(containers.wait(call.engine, reference).read())["StatusCode"]))
        except HafenError as error:
            report(error)
            code = 1
    return code


_STOP_FLAGS = """
-s, --signal string   Signal to send to the container
-t, --timeout int     Seconds to wait before killing the container
"""
_TIME = {"time": "timeout"}
STOP = Command(
    _stop, f"[OPTIONS] {CONTAINERS}", "Stop one or more running containers", _STOP_FLAGS, least=1, aliases=_TIME
)
RESTART = Command(
    _restart, f"[OPTIONS] {CONTAINERS}", "Restart one or more containers", _STOP_FLAGS, least=1, aliases=_TIME
)
KILL = Command(
    _kill, f"[OPTIONS] {CONTAINERS}", "Kill one or more running containers",
    "-s, --signal string   Signal to send to the container", least=1,
)  # fmt: skip
PAUSE = Command(_pause, CONTAINERS, "Pause all processes within one or more containers", least=1)
UNPAUSE = Command(_unpause, CONTAINERS, "Unpause all processes within one or more containers", least=1)
WAIT = Command(_wait, CONTAINERS, "Block until one or more containers stop, then print their exit codes", least=1)
RENAME = Command(_rename, "CONTAINER NEW_NAME", "Rename a container", least=2, most=2)
REMOVE = Command(
    _remove, f"[OPTIONS] {CONTAINERS}", "Remove one or more containers",
    """
-f, --force     Force the removal of a running container (uses SIGKILL)
-l, --link      Remove the specified link
-v, --volumes   Remove anonymous volumes associated with the container
""", least=1,
)  # fmt: skip
