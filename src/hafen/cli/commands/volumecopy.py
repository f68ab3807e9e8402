"""`volume export`, `import`, `clone`, `snapshot` and `restore`: ours, Docker has none of them."""

import os

from hafen.cli import terminal
from hafen.cli.command import Call, Command
from hafen.cli.commands.archive import input_file
from hafen.cli.commands.inside import write_response
from hafen.cli.commands.lifecycle import each
from hafen.cli.formats import show
from hafen.cli.output import out
from hafen.cli.progress import ByteBar
from hafen.client import volumes
from hafen.client.transport import file_body
from hafen.errors import InvalidArgument
from hafen.spec.evaluate import Row

_HEADERS = {"Name": "SNAPSHOT", "Volume": "VOLUME", "CreatedAt": "CREATED AT"}


def _export(call: Call) -> int:
    target = call.flags.text("output")
    if not target and terminal.is_terminal(1):
        raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if target and not os.path.isdir(os.path.dirname(os.path.abspath(target))):
        raise InvalidArgument(f"failed to export volume: there is no directory {os.path.dirname(target)}")
    response = volumes.export(call.engine, call.arguments[0], live=call.flags.on("live"))
    write_response(response, target, ByteBar("Exporting"))
    return 0


def _import(call: Call) -> int:
    source = call.flags.text("input")
    if not source and terminal.is_terminal(0):
        raise InvalidArgument("requested import from stdin, but stdin is empty")
    with input_file(source) as (file, size):
        body = ByteBar("Sending", size).over(file_body(file))
        out(str(volumes.import_(call.engine, call.arguments[0], body, call.flags.values("label"))["Name"]))
    return 0


def _clone(call: Call) -> int:
    source, target = call.arguments
    flags = call.flags
    made = volumes.clone(
        call.engine,
        source,
        target,
        snapshot=flags.text("snapshot"),
        live=flags.on("live"),
        labels=flags.values("label"),
    )
    out(str(made["Name"]))
    return 0


def _snapshot(call: Call) -> int:
    action, volume, *names = call.arguments
    if action == "create" and len(names) < 2:
        made = volumes.snapshot(call.engine, volume, names[0] if names else "", live=call.flags.on("live"))
        out(str(made["Name"]))
        return 0
    if action in ("ls", "list") and not names:
        rows = (Row("*volume.snapshotContext", item) for item in volumes.snapshots(call.engine, volume))
        quiet = "Name" if call.flags.on("quiet") else ""
        show(rows, _HEADERS, ["Name", "Volume", "CreatedAt"], call.flags.text("format"), quiet=quiet)
        return 0
    if action in ("rm", "remove") and names:
        return each(names, lambda name: volumes.remove_snapshot(call.engine, volume, name))
    raise InvalidArgument("say one of: snapshot create VOLUME [SNAPSHOT], ls VOLUME, rm VOLUME SNAPSHOT [SNAPSHOT...]")


def _restore(call: Call) -> int:
    volume, snapshot = call.arguments
    volumes.restore(call.engine, volume, snapshot)
    out(volume)
    return 0


_LIVE = "    --live            Do not pause the containers that write to it\n"
EXPORT = Command(
    _export, "[OPTIONS] VOLUME", "Export a volume as a tar archive",
    _LIVE + "-o, --output string   Write to a file, instead of STDOUT", least=1, most=1,
)  # fmt: skip
IMPORT = Command(
    _import, "[OPTIONS] VOLUME", "Make a volume from a tar archive",
    "-i, --input string   Read from a file, instead of STDIN\n    --label list     Set metadata for the volume",
    least=1, most=1,
)  # fmt: skip
CLONE = Command(
    _clone, "[OPTIONS] VOLUME NEW_VOLUME", "Make a volume with what another one has",
    "    --label list        Set metadata for the new volume\n" + _LIVE
    + "    --snapshot string   Take what this snapshot of the volume has", least=2, most=2,
)  # fmt: skip
SNAPSHOT = Command(
    _snapshot, "[OPTIONS] create|ls|rm VOLUME [SNAPSHOT...]", "Keep what a volume has now, list and remove that",
    "    --format string   @table\n" + _LIVE + "-q, --quiet           Only display names", least=2,
)  # fmt: skip
RESTORE = Command(
    _restore, "VOLUME SNAPSHOT", "Give a volume back what it had when the snapshot was made", least=2, most=2
)
