"""The OCI runtime command line, as containerd, podman and conformance suites drive runc's.

create, start, state, kill, delete, run, exec; and runc's list, ps, pause, resume, update, features, spec.
Errors go to stderr and, with `--log`, as runc's log lines to that file, where the caller looks for the reason.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence

from hafen.errors import HafenError, InvalidArgument, NotFound, NotImplemented
from hafen.runtime import commands
from hafen.runtime.argv import Arguments, Syntax, parse
from hafen.runtime.state import Store
from hafen.runtime.version import OCI_VERSION, VERSION
from hafen.values import NamedTuple

DEFAULT_ROOT = "/run/hafen/runtime"


class Command(NamedTuple):
    """`perform` returns the exit code; `failure` is the one for an error."""

    perform: Callable[[Store, Arguments], int]
    syntax: Syntax
    usage: str
    failure: int = 1
    rest_is_command: bool = False


_GLOBAL = Syntax(
    valued=frozenset(("root", "log", "log-format", "rootless", "criu")),
    switches=frozenset(("debug", "systemd-cgroup", "version", "help")),
    short={"v": "version", "h": "help"},
)
_CREATE = Syntax(
    valued=frozenset(("bundle", "console-socket", "pid-file", "preserve-fds")),
    switches=frozenset(("no-pivot", "no-new-keyring")),
    short={"b": "bundle"},
)
_RUN = _CREATE._replace(
    switches=_CREATE.switches | {"detach", "keep", "no-subreaper"}, short={"b": "bundle", "d": "detach"}
)
_EXEC = Syntax(
    valued=frozenset((
        "process", "console-socket", "pid-file", "cwd", "env", "user", "additional-gids", "cap", "preserve-fds",
        "apparmor", "process-label", "cgroup",
    )),
    switches=frozenset(("detach", "tty", "no-new-privs")),
    short={"p": "process", "d": "detach", "t": "tty", "e": "env", "u": "user", "g": "additional-gids", "c": "cap"},
)  # fmt: skip

COMMANDS: dict[str, Command] = {
    "create": Command(commands.create, _CREATE, "create [options] ID"),
    "start": Command(commands.start, Syntax(), "start ID"),
    "state": Command(commands.state, Syntax(), "state ID"),
    "kill": Command(
        commands.kill, Syntax(switches=frozenset(("all",)), short={"a": "all"}), "kill [--all] ID [SIGNAL]"
    ),
    "delete": Command(
        commands.delete, Syntax(switches=frozenset(("force",)), short={"f": "force"}), "delete [--force] ID"
    ),
    "run": Command(commands.run, _RUN, "run [options] ID"),
    "exec": Command(commands.execute, _EXEC, "exec [options] ID COMMAND [ARG...]", failure=255, rest_is_command=True),
    "list": Command(
        commands.list_containers,
        Syntax(valued=frozenset(("format",)), switches=frozenset(("quiet",)), short={"f": "format", "q": "quiet"}),
        "list [--format table|json] [--quiet]",
    ),
    "ps": Command(commands.ps, Syntax(valued=frozenset(("format",)), short={"f": "format"}), "ps [--format json] ID"),
    "pause": Command(commands.pause, Syntax(), "pause ID"),
    "resume": Command(commands.resume, Syntax(), "resume ID"),
    "update": Command(
        commands.update, Syntax(valued=frozenset(("resources",)), short={"r": "resources"}), "update -r FILE|- ID"
    ),
    "features": Command(commands.features, Syntax(), "features"),
    "spec": Command(
        commands.spec, Syntax(valued=frozenset(("bundle",)), short={"b": "bundle"}), "spec [--bundle DIRECTORY]"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    try:
        settings, rest = parse(sys.argv[1:] if argv is None else argv, _GLOBAL, until_positional=True)
    except InvalidArgument as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    if settings.on("version"):
        sys.stdout.write(f"hafen-runtime version {VERSION}\nspec: {OCI_VERSION}\n")
        return 0
    if settings.on("help") or not rest:
        usage = "\n".join(f"  {command.usage}" for command in COMMANDS.values())
        sys.stdout.write(
            f"usage: hafen-runtime [--root DIR] [--log FILE] [--log-format json|text] COMMAND\n\n{usage}\n"
        )
        return 0
    code = 1
    try:
        command = COMMANDS.get(rest[0])
        if command is None:
            raise NotFound(f"no such command: {rest[0]}")
        code = command.failure
        if settings.on("systemd-cgroup"):
            raise NotImplemented("--systemd-cgroup is not supported: cgroups are made without systemd")
        return command.perform(Store(settings.value("root", DEFAULT_ROOT)), _arguments(command, rest[1:]))
    except HafenError as error:
        _log(settings, error.message)
    except OSError as error:  # the boundary of the process: what a command did not expect of the kernel
        _log(settings, str(error))
    return code


def _arguments(command: Command, argv: Sequence[str]) -> Arguments:
    if not command.rest_is_command:
        return parse(argv, command.syntax)[0]
    arguments, rest = parse(argv, command.syntax, until_positional=True)
    return Arguments(arguments.options, tuple(word for place, word in enumerate(rest) if (place, word) != (1, "--")))


def _log(settings: Arguments, message: str) -> None:
    """runc's two formats; go-runc takes the last line of level "error" as the reason."""
    sys.stderr.write(f"{message}\n")
    path = settings.value("log")
    if not path:
        return
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if settings.value("log-format", "text") == "json":
        line = json.dumps({"level": "error", "msg": message, "time": when})
    else:
        line = f'time="{when}" level=error msg={json.dumps(message)}'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)
