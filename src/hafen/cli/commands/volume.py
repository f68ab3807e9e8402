"""`volume create` and `volume rm`."""

from hafen.cli.command import Call, Command
from hafen.cli.commands.lifecycle import each
from hafen.cli.flags import as_map
from hafen.cli.output import out
from hafen.client import volumes
from hafen.errors import InvalidArgument


def _create(call: Call) -> int:
    flags = call.flags
    name = call.arguments[0] if call.arguments else flags.text("name")
    if call.arguments and flags.text("name"):
        raise InvalidArgument(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    answer = volumes.create(call.engine, {
        "Name": name, "Driver": flags.text("driver", "local"), "DriverOpts": as_map(flags.values("opt")),
        "Labels": as_map(flags.values("label")),
    })  # fmt: skip
    out(str(answer["Name"]))
    return 0


def _remove(call: Call) -> int:
    force = call.flags.on("force")
    return each(call.arguments, lambda name: volumes.remove(call.engine, name, force=force))


CREATE = Command(
    _create, "[OPTIONS] [VOLUME]", "Create a volume",
    """
-d, --driver string   Specify volume driver name (default "local")
    --label list      Set metadata for a volume
    --name string     (hidden)
-o, --opt map         Set driver specific options (default map[])
""", most=1,
)  # fmt: skip
REMOVE = Command(
    _remove, "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes",
    "-f, --force   Force the removal of one or more volumes",
    least=1, description="Remove one or more volumes. You cannot remove a volume that is in use by a container.",
)  # fmt: skip
