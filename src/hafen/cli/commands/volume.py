"""`volume create`, `volume rm` and `volume update`."""

from hafen.cli.command import Call, Command
from hafen.cli.commands.lifecycle import each
from hafen.cli.flags import as_map
from hafen.cli.output import out
from hafen.client import volumes
from hafen.client.engine import Document
from hafen.errors import InvalidArgument

# Of Swarm's cluster volumes; the engine says that it is no manager.
_CLUSTER = (
    "availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing", "topology-preferred",
    "topology-required", "type",
)  # fmt: skip


def _create(call: Call) -> int:
    flags = call.flags
    name = call.arguments[0] if call.arguments else flags.text("name")
    if call.arguments and flags.text("name"):
        raise InvalidArgument(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    body: Document = {
        "Name": name, "Driver": flags.text("driver", "local"), "DriverOpts": as_map(flags.values("opt")) or None,
        "Labels": as_map(flags.values("label")) or None,
    }  # fmt: skip
    if any(flags.changed(flag) for flag in _CLUSTER):
        body["ClusterVolumeSpec"] = {"Group": flags.text("group")}
    out(str(volumes.create(call.engine, body)["Name"]))
    return 0


def _remove(call: Call) -> int:
    flags = call.flags
    how = volumes.Removal(flags.on("force"), flags.on("force-protected"), flags.on("dry-run"))
    if how.dry_run:
        out("Would remove:")
    return each(call.arguments, lambda name: volumes.remove(call.engine, name, how))


def _update(call: Call) -> int:
    if not volumes.inspect(call.engine, call.arguments[0]).get("ClusterVolume"):
        raise InvalidArgument("can only update cluster volumes")
    raise InvalidArgument("cluster volumes are not known: there is no swarm")


CREATE = Command(
    _create, "[OPTIONS] [VOLUME]", "Create a volume",
    """
    --availability string       (hidden)
-d, --driver string             Specify volume driver name (default "local")
    --group string              (hidden)
    --label list                Set metadata for a volume
    --limit-bytes bytes         (hidden)
    --name string               (hidden)
-o, --opt map                   Set driver specific options (default map[])
    --required-bytes bytes      (hidden)
    --scope string              (hidden)
    --secret map                (hidden)
    --sharing string            (hidden)
    --topology-preferred list   (hidden)
    --topology-required list    (hidden)
    --type string               (hidden)
""", most=1,
)  # fmt: skip
REMOVE = Command(
    _remove, "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes",
    """
    --dry-run           Only tell what would be removed
-f, --force             Force the removal of one or more volumes
    --force-protected   Remove volumes with the label hafen.protect, too
""",
    least=1, description="Remove one or more volumes. You cannot remove a volume that is in use by a container.",
)  # fmt: skip
UPDATE = Command(
    _update, "[OPTIONS] [VOLUME]", "Update a volume (cluster volumes only)",
    "    --availability string   (hidden)", least=1, most=1,
)  # fmt: skip
