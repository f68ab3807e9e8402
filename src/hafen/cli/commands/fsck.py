"""`system fsck`: the engine's store checked against itself, and mended."""

import json
import sys

from hafen.cli import credentials
from hafen.cli.command import Call, Command
from hafen.cli.output import human_size, out
from hafen.cli.progress import Progress
from hafen.client import system
from hafen.client.engine import Document
from hafen.errors import InvalidArgument, System


def _fsck(call: Call) -> int:
    flags, form = call.flags, call.flags.text("format")
    if form not in ("", "json"):
        raise InvalidArgument(f'invalid format "{form}": only json is known')
    if flags.on("dry-run") and not flags.on("repair"):
        raise InvalidArgument("--dry-run shows what --repair would do: it needs that flag")
    messages = system.fsck(
        call.engine,
        repair=flags.on("repair"),
        dry_run=flags.on("dry-run"),
        auths=credentials.all_header(call.settings) if flags.on("repair") else "",
    )
    report: Document | None = None
    progress = Progress(sys.stderr, quiet=not sys.stderr.isatty())
    for message in messages:
        if "Progress" in message:
            moved = message["Progress"]
            detail = {"current": moved["Current"], "total": moved["Total"]}
            progress.show([{"id": moved["Part"], "status": "Reading", "progressDetail": detail}])
        elif "Report" in message:
            report = message["Report"]
        elif not form:
            _line(message)
    if report is None:
        raise System("the engine ended before the check did")
    out(json.dumps(report, indent=4) if form else _summary(report))
    return 0 if report["Clean"] else 1


def _line(message: Document) -> None:
    found = message.get("Problem")
    if found:
        out(f"{found['Kind']} {found['Subject']}: {found['Detail']}")
        return
    repair = message["Repair"]
    if repair.get("Error"):
        out(f"not repaired: {repair['Kind']} {repair['Subject']}: {repair['Error']}")
    else:
        out(f"{'repaired' if repair['Done'] else 'to repair'}: {repair['Step']}")


def _summary(report: Document) -> str:
    names = ("blobs", "layers", "images", "containers", "volumes")
    counted = ", ".join(f"{report[name.capitalize()]} {name}" for name in names)
    problems, repairs = report["Problems"], report.get("Repairs") or []
    verdict = "nothing is wrong"
    if problems:
        verdict = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        if any(repair["Done"] for repair in repairs):
            verdict += f", {sum(repair['Done'] for repair in repairs)} repaired"
    return f"Checked {counted}, {human_size(report['Bytes'])}: {verdict}"


FSCK = Command(
    _fsck, "[OPTIONS]", "Check the engine's store, and repair it",
    """
    --dry-run         Show what --repair would do
    --format string   Print the report as "json"
    --repair          Remove what nobody needs, fetch again what is damaged
""", most=0,
    description="Verify every blob and layer of the engine's store and compare its rows with what is on disk. The\n"
    "exit code is 0 where nothing is wrong (any more), else 1.",
)  # fmt: skip
