"""`prune` of containers, images, networks, volumes, and of all of them."""

import sys

from hafen.cli.command import Call, Command
from hafen.cli.output import human_size, out
from hafen.client import containers, images, networks, system, volumes
from hafen.client.engine import Document
from hafen.errors import InvalidArgument, NotFound, NotImplemented


def agreed(call: Call, warning: str) -> bool:
    if call.flags.on("force"):
        return True
    sys.stdout.write(f"{warning} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _section(title: str, lines: list[str]) -> None:
    if lines:
        out(title)
        for line in lines:
            out(line)
        out()


def _image_lines(answer: Document) -> list[str]:
    return [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in answer.get("ImagesDeleted") or []
    ]


def _containers(call: Call) -> int:
    if not agreed(call, "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?"):
        return 0
    answer = containers.prune(call.engine, call.flags.values("filter"))
    _section("Deleted Containers:", answer.get("ContainersDeleted") or [])
    out(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _images(call: Call) -> int:
    everything = call.flags.on("all")
    kind = "images without at least one container associated to them" if everything else "dangling images"
    if not agreed(call, f"WARNING! This will remove all {kind}.\nAre you sure you want to continue?"):
        return 0
    filters = [f"dangling={'false' if everything else 'true'}", *call.flags.values("filter")]
    answer = images.prune(call.engine, filters)
    _section("Deleted Images:", _image_lines(answer))
    out(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _networks(call: Call) -> int:
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if not agreed(call, f"{warning}\nAre you sure you want to continue?"):
        return 0
    answer = networks.prune(call.engine, call.flags.values("filter"))
    _section("Deleted Networks:", answer.get("NetworksDeleted") or [])
    return 0


def _volumes(call: Call) -> int:
    everything = call.flags.on("all")
    kind = "local volumes" if everything else "anonymous local volumes"
    warning = f"WARNING! This will remove {'all ' if everything else ''}{kind} not used by at least one container."
    how = volumes.Removal(protected=call.flags.on("force-protected"), dry_run=call.flags.on("dry-run"))
    if not how.dry_run and not agreed(call, f"{warning}\nAre you sure you want to continue?"):
        return 0
    answer = volumes.prune(call.engine, [*(["all=true"] if everything else []), *call.flags.values("filter")], how)
    _section("Would delete:" if how.dry_run else "Deleted Volumes:", answer.get("VolumesDeleted") or [])
    what = "Would reclaim" if how.dry_run else "Total reclaimed space"
    out(f"{what}: {human_size(answer.get('SpaceReclaimed') or 0)}")
    return 0


def _system(call: Call) -> int:
    flags = call.flags
    items = ["all stopped containers", "all networks not used by at least one container"]
    items += ["all anonymous volumes not used by at least one container"] if flags.on("volumes") else []
    items.append(
        "all images without at least one container associated to them" if flags.on("all") else "all dangling images"
    )
    items.append("all build cache" if flags.on("all") else "unused build cache")
    warning = "WARNING! This will remove:\n" + "".join(f"  - {item}\n" for item in items)
    filters = flags.values("filter")
    if flags.on("volumes") and any(item.startswith("until=") for item in filters):
        raise InvalidArgument('ERROR: The "until" filter is not supported with "--volumes"')
    if filters:
        warning += "\n  Items to be pruned will be filtered with:\n" + "".join(f"  - {item}\n" for item in filters)
    if not agreed(call, f"{warning}\nAre you sure you want to continue?"):
        return 0
    reclaimed = 0
    answer = containers.prune(call.engine, filters)
    _section("Deleted Containers:", answer.get("ContainersDeleted") or [])
    reclaimed += answer.get("SpaceReclaimed") or 0
    answer = networks.prune(call.engine, filters)
    _section("Deleted Networks:", answer.get("NetworksDeleted") or [])
    if flags.on("volumes"):
        answer = volumes.prune(call.engine, filters)
        _section("Deleted Volumes:", answer.get("VolumesDeleted") or [])
        reclaimed += answer.get("SpaceReclaimed") or 0
    answer = images.prune(call.engine, [f"dangling={'false' if flags.on('all') else 'true'}", *filters])
    _section("Deleted Images:", _image_lines(answer))
    reclaimed += answer.get("SpaceReclaimed") or 0
    try:
        answer = system.build_prune(call.engine, {"all": flags.on("all")})
        _section("Deleted build cache objects:", answer.get("CachesDeleted") or [])
        reclaimed += answer.get("SpaceReclaimed") or 0
    except (NotFound, NotImplemented):
        pass  # an engine that does not build has no cache
    out(f"Total reclaimed space: {human_size(reclaimed)}")
    return 0


_FORCE = "-f, --force           Do not prompt for confirmation\n"
_UNTIL = '    --filter filter   Provide filter values (e.g. "until=<timestamp>")\n'
CONTAINERS = Command(_containers, "[OPTIONS]", "Remove all stopped containers", _UNTIL + _FORCE, most=0)
IMAGES = Command(
    _images, "[OPTIONS]", "Remove unused images",
    "-a, --all             Remove all unused images, not just dangling ones\n" + _UNTIL + _FORCE, most=0,
)  # fmt: skip
NETWORKS = Command(_networks, "[OPTIONS]", "Remove all unused networks", _UNTIL + _FORCE, most=0)
VOLUMES = Command(
    _volumes, "[OPTIONS]", "Remove unused local volumes",
    "-a, --all             Remove all unused volumes, not just anonymous ones\n"
    "    --dry-run         Only tell what would be removed\n"
    '    --filter filter   Provide filter values (e.g. "label=<label>")\n' + _FORCE
    + "    --force-protected   Remove volumes with the label hafen.protect, too", most=0,
)  # fmt: skip
SYSTEM = Command(
    _system, "[OPTIONS]", "Remove unused data",
    "-a, --all             Remove all unused images not just dangling ones\n"
    '    --filter filter   Provide filter values (e.g. "label=<key>=<value>")\n' + _FORCE
    + "    --volumes         Prune anonymous volumes", most=0,
)  # fmt: skip
