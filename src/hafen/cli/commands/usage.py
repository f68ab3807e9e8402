"""`system df`."""

import time
from collections.abc import Iterable

from hafen.cli.command import Call, Command
from hafen.cli.formats import show
from hafen.cli.output import ago, human_size, out, short_id
from hafen.client import system
from hafen.client.engine import Document
from hafen.errors import InvalidArgument
from hafen.spec.evaluate import Row

_HEADERS = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"
}  # fmt: skip


def _df(call: Call) -> int:
    form = call.flags.text("format")
    if call.flags.on("verbose") and form:
        raise InvalidArgument("the verbose and format options conflict: the verbose table has no template")
    usage = system.disk_usage(call.engine)
    if call.flags.on("verbose"):
        _verbose(usage)
        return 0
    rows = [_images(usage), _containers(usage), _volumes(usage), _cache(usage), *_registry(usage)]
    show(rows, _HEADERS, list(_HEADERS), form)
    return 0


def _row(kind: str, total: int, active: int, size: int, free: int, *, share: bool = True) -> Row:
    text = human_size(free) + (f" ({free * 100 // size}%)" if size > 0 and share else "")
    return Row("*formatter.diskUsageContext", {
        "Type": kind, "TotalCount": str(total), "Active": str(active), "Size": human_size(size), "Reclaimable": text,
    })  # fmt: skip


def _images(usage: Document) -> Row:
    images = usage.get("Images") or []
    used = sum(item["Size"] - max(item.get("SharedSize", 0), 0) for item in images if (item.get("Containers") or 0) > 0)
    size = usage.get("LayersSize") or 0
    active = sum((item.get("Containers") or 0) > 0 for item in images)
    return _row("Images", len(images), active, size, max(size - used, 0))


def _containers(usage: Document) -> Row:
    items = usage.get("Containers") or []
    running = [item for item in items if item["State"] in ("running", "paused", "restarting")]
    size = sum(item.get("SizeRw") or 0 for item in items)
    free = sum(item.get("SizeRw") or 0 for item in items if item not in running)
    return _row("Containers", len(items), len(running), size, free)


def _known(item: Document) -> Document:
    return item.get("UsageData") or {"Size": 0, "RefCount": 0}


def _volumes(usage: Document) -> Row:
    items = usage.get("Volumes") or []
    size = sum(max(_known(item)["Size"], 0) for item in items)
    free = sum(max(_known(item)["Size"], 0) for item in items if _known(item)["RefCount"] == 0)
    return _row("Local Volumes", len(items), sum(_known(item)["RefCount"] > 0 for item in items), size, free)


def _cache(usage: Document) -> Row:
    items = usage.get("BuildCache") or []
    size = sum(item["Size"] for item in items if not item.get("Shared"))
    free = sum(item["Size"] for item in items if not item.get("Shared") and not item["InUse"])
    return _row("Build Cache", len(items), sum(item["InUse"] for item in items), size, free, share=False)


def _registry(usage: Document) -> list[Row]:
    """Blobs that only the registry inside of the engine has, where it has any; its own rules say what goes."""
    blobs = usage.get("RegistryUsage")
    if not blobs:
        return []
    return [_row("Registry Blobs", blobs["TotalCount"], blobs["TotalCount"], blobs["TotalSize"], 0)]


def _verbose(usage: Document) -> None:
    out("Images space usage:\n")
    headers = ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS")
    _print(headers, (_image(item) for item in usage.get("Images") or []))
    out("\nContainers space usage:\n")
    headers = ("CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES")
    _print(headers, (_container(item) for item in usage.get("Containers") or []))
    out("\nLocal Volumes space usage:\n")
    _print(("VOLUME NAME", "LINKS", "SIZE"), (
        (item["Name"], str(_known(item)["RefCount"]), human_size(_known(item)["Size"]))
        for item in usage.get("Volumes") or []
    ))  # fmt: skip
    out(f"\nBuild cache usage: {_cache(usage)['Size']}\n")
    for row in _registry(usage):
        out(f"Registry blobs usage: {row['Size']}\n")


def _print(headers: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    names = {name: name for name in headers}
    show((Row("", dict(zip(headers, row, strict=True))) for row in rows), names, headers, "")


def _image(item: Document) -> tuple[str, ...]:
    repository, _, tag = ((item.get("RepoTags") or ["<none>:<none>"])[0]).rpartition(":")
    shared = max(item.get("SharedSize", 0), 0)
    return (
        repository, tag, short_id(item["Id"]), ago(time.time() - item["Created"]), human_size(item["Size"], 3),
        human_size(shared, 3), human_size(item["Size"] - shared, 3), str(item.get("Containers") or 0),
    )  # fmt: skip


def _container(item: Document) -> tuple[str, ...]:
    from hafen.cli.output import ellipsis, quoted

    local = sum(mount.get("Driver") == "local" for mount in item.get("Mounts") or [])
    return (
        short_id(item["Id"]), item["Image"], quoted(ellipsis(item["Command"], 20)), str(local),
        human_size(item.get("SizeRw") or 0, 3), ago(time.time() - item["Created"]), item["Status"],
        ",".join(name.lstrip("/") for name in item["Names"]),
    )  # fmt: skip


DF = Command(
    _df, "[OPTIONS]", "Show disk usage",
    "    --format string   @table\n-v, --verbose         Show detailed information on space usage", most=0,
)  # fmt: skip
