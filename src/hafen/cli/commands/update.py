"""`update`."""

from hafen.cli.command import Call, Command
from hafen.cli.commands.lifecycle import each
from hafen.cli.output import err
from hafen.cli.runflags import SHARED
from hafen.cli.runspec import RESOURCE_NUMBERS, restart_policy
from hafen.client import containers
from hafen.client.engine import Document

_WORDS = ("cpuset-cpus", "cpuset-mems")


def _update(call: Call) -> int:
    flags = call.flags
    body: Document = {key: flags.number(name) for name, key in RESOURCE_NUMBERS.items() if name in _NAMES}
    body.update(CpusetCpus=flags.text("cpuset-cpus"), CpusetMems=flags.text("cpuset-mems"))
    if flags.changed("pids-limit"):
        body["PidsLimit"] = flags.number("pids-limit")
    if flags.changed("restart"):
        body["RestartPolicy"] = restart_policy(flags.text("restart"))
    if not any(flags.changed(name) for name in _NAMES):
        err("you must provide one or more flags when using this command")
        return 1

    def update(reference: str) -> None:
        for warning in containers.update(call.engine, reference, body).get("Warnings") or []:
            err(warning)

    return each(call.arguments, update)


_NAMES = frozenset(
    (*_WORDS, "blkio-weight", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares", "cpus",
     "memory", "memory-reservation", "memory-swap", "pids-limit", "restart")
)  # fmt: skip
_FLAGS = "\n".join(line for line in SHARED.splitlines() if line.partition("--")[2].partition(" ")[0] in _NAMES)
UPDATE = Command(
    _update, "[OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers",
    _FLAGS.replace(' (default "no")', ""), least=1,
)  # fmt: skip
