"""`exec`."""

import os

from hafen.cli import terminal
from hafen.cli.command import Call, Command
from hafen.cli.output import err
from hafen.cli.runflags import VALIDATORS
from hafen.cli.runspec import environment
from hafen.cli.session import Streams, carry, check_terminal, detach_keys, signalling
from hafen.client import containers


def _exec(call: Call) -> int:
    flags = call.flags
    detach, tty, interactive = flags.on("detach"), flags.on("tty"), flags.on("interactive")
    streams = Streams(interactive and not detach, not detach, not detach, tty)
    check_terminal(streams)
    keys = detach_keys(flags.text("detach-keys"), call.settings)
    container, *command = call.arguments
    height, width = terminal.size()
    size = [height, width] if tty and (height or width) else None
    exec_id = containers.exec_create(call.engine, container, {
        "User": flags.text("user"), "Privileged": flags.on("privileged"), "Tty": tty, "ConsoleSize": size,
        "AttachStdin": streams.stdin, "AttachStdout": streams.stdout, "AttachStderr": streams.stderr,
        "DetachKeys": keys, "Env": environment(flags, os.environ), "WorkingDir": flags.text("workdir"), "Cmd": command,
    })  # fmt: skip
    if detach:
        containers.exec_start(call.engine, exec_id, {"Detach": True, "Tty": tty})
        return 0
    connection = containers.exec_attach(call.engine, exec_id, {"Detach": False, "Tty": tty, "ConsoleSize": size})
    with signalling(call.engine) as signals:
        detached = carry(
            connection, streams, keys=keys, forward=None,
            resize=lambda height, width: containers.exec_resize(signals, exec_id, height, width),
        )  # fmt: skip
    if detached:
        err("read escape sequence")
        return 1
    return int(containers.exec_inspect(call.engine, exec_id).get("ExitCode") or 0)


EXEC = Command(
    _exec, "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container",
    """
-d, --detach               Detached mode: run command in the background
    --detach-keys string   Override the key sequence for detaching a container
-e, --env list             Set environment variables
    --env-file list        Read in a file of environment variables
-i, --interactive          Keep STDIN open even if not attached
    --privileged           Give extended privileges to the command
-t, --tty                  Allocate a pseudo-TTY
-u, --user string          Username or UID (format: "<name|uid>[:<group|gid>]")
-w, --workdir string       Working directory inside the container
""", least=2, interspersed=False, validators=VALIDATORS,
)  # fmt: skip
