"""Look inside a container: logs, top, diff, port, export."""

import os
import sys
from collections.abc import Iterable

from hafen.cli import terminal
from hafen.cli.command import Call, Command
from hafen.cli.flags import moment
from hafen.cli.output import out
from hafen.cli.progress import ByteBar
from hafen.client import containers
from hafen.client.streams import Demultiplexer, write_all
from hafen.client.transport import Response
from hafen.errors import InvalidArgument, NotFound

_KINDS = {0: "C", 1: "A", 2: "D"}


def _logs(call: Call) -> int:
    flags = call.flags
    tty = bool(containers.inspect(call.engine, call.arguments[0])["Config"]["Tty"])
    response = containers.logs(call.engine, call.arguments[0], {
        "stdout": True, "stderr": True, "since": moment(flags, "since"), "until": moment(flags, "until"),
        "timestamps": flags.on("timestamps"), "follow": flags.on("follow"), "tail": flags.text("tail", "all"),
        "details": flags.on("details"),
    })  # fmt: skip
    sys.stdout.flush()
    if tty:
        for chunk in response:
            write_all(1, [chunk])
    else:
        _demultiplex(response)
    return 0


def _demultiplex(response: Response) -> None:
    frames, rest = Demultiplexer({1: 1, 2: 2}), b""
    for chunk in response:
        data = rest + chunk if rest else chunk
        left = frames.feed(memoryview(data))
        rest = data[len(data) - left :] if left else b""


def _top(call: Call) -> int:
    answer = containers.top(call.engine, call.arguments[0], " ".join(call.arguments[1:]))
    # docker pads every cell, the last too, and no less than twenty columns wide
    rows = [answer["Titles"], *(answer["Processes"] or [])]
    widths = [max(20, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]))]
    for row in rows:
        out("".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1])
    return 0


def _diff(call: Call) -> int:
    for change in containers.changes(call.engine, call.arguments[0]):
        out(f"{_KINDS.get(change['Kind'], '?')} {change['Path']}")
    return 0


def _port(call: Call) -> int:
    reference, *wanted = call.arguments
    document = containers.inspect(call.engine, reference)
    ports = (document.get("NetworkSettings") or {}).get("Ports") or {}
    if wanted:
        number, _, protocol = wanted[0].partition("/")
        if not number.isdigit():
            raise InvalidArgument(f"invalid port: '{number}'")
        key = f"{number}/{(protocol or 'tcp').lower()}"
        if not ports.get(key):
            raise NotFound(f"Error: No public port '{wanted[0]}' published for {reference}")
        lines = [_address(binding) for binding in ports[key]]
    else:
        lines = [f"{key} -> {_address(binding)}" for key in ports for binding in ports[key] or []]
        lines.sort(key=lambda line: (int(line.partition("/")[0]), line))
    for line in lines:
        out(line)
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"] or "0.0.0.0"
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def _export(call: Call) -> int:
    target = call.flags.text("output")
    if not target and terminal.is_terminal(1):
        raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    folder = os.path.dirname(target)
    if folder and not os.path.isdir(folder):
        reason = f"invalid output path: stat {folder}: no such file or directory"
        raise InvalidArgument(f"failed to export container: {reason}")
    write_response(containers.export(call.engine, call.arguments[0]), target, ByteBar("Exporting"))
    return 0


def write_response(response: Iterable[bytes], target: str, bar: ByteBar) -> None:
    """To standard output, or to a file that appears whole or not at all."""
    sys.stdout.flush()
    chunks = bar.over(response)
    if not target:
        for chunk in chunks:
            write_all(1, [chunk])
        return
    if os.path.exists(target) and not os.path.isfile(target):  # a device, a pipe
        with open(target, "wb", buffering=0) as special:
            for chunk in chunks:
                write_all(special.fileno(), [chunk])
        return
    partial = f"{target}.{os.getpid()}.partial"
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
            for chunk in chunks:
                write_all(file.fileno(), [chunk])
        os.replace(partial, target)
    except BaseException:
        try:
            os.unlink(partial)
        except FileNotFoundError:
            pass
        raise


LOGS = Command(
    _logs, "[OPTIONS] CONTAINER", "Fetch the logs of a container",
    """
    --details        Show extra details provided to logs
-f, --follow         Follow log output
    --since string   Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
-n, --tail string    Number of lines to show from the end of the logs (default "all")
-t, --timestamps     Show timestamps
    --until string   Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
""", least=1, most=1,
)  # fmt: skip
TOP = Command(
    _top, "CONTAINER [ps OPTIONS]", "Display the running processes of a container", least=1, interspersed=False
)
DIFF = Command(
    _diff, "CONTAINER", "Inspect changes to files or directories on a container's filesystem", least=1, most=1
)
PORT = Command(
    _port, "CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container",
    least=1, most=2,
)  # fmt: skip
EXPORT = Command(
    _export, "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive",
    "-o, --output string   Write to a file, instead of STDOUT", least=1, most=1,
)  # fmt: skip
