"""`ps`, `images`, `network ls`, `volume ls`."""

import time
from collections.abc import Iterable
from datetime import datetime

from hafen.cli.command import Call, Command
from hafen.cli.formats import label_of, label_text, show
from hafen.cli.output import ago, ellipsis, human_size, quoted, short_id
from hafen.client import containers, images, networks, volumes
from hafen.client.engine import Document
from hafen.spec.evaluate import Row

_CONTAINER_HEADERS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "CreatedAt": "CREATED AT",
    "Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Size": "SIZE", "Labels": "LABELS",
    "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
}  # fmt: skip


def _containers(call: Call) -> int:
    flags = call.flags
    form = flags.text("format") or str(call.settings.get("psFormat") or "") * (not flags.on("quiet"))
    last = 1 if flags.on("latest") else flags.number("last", -1)
    sized = flags.on("size") or ".Size" in form or "json ." in form
    found = containers.listing(
        call.engine,
        all_states=flags.on("all") or last > 0,
        limit=max(last, 0),
        size=sized,
        filters=flags.values("filter"),
    )
    now = time.time()
    rows = (_container_row(item, now, truncate=not flags.on("no-trunc")) for item in found)
    default = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"] + (
        ["Size"] if flags.on("size") else []
    )
    show(rows, _CONTAINER_HEADERS, default, form, quiet="ID" if flags.on("quiet") else "", beforehand=True)
    return 0


def _container_row(item: Document, now: float, *, truncate: bool) -> Row:
    names = [name.lstrip("/") for name in item.get("Names") or []]
    if truncate:  # without the names that links gave it
        names = [name for name in names if "/" not in name] or names
    mounts = [mount.get("Name") or mount.get("Source") or "" for mount in item.get("Mounts") or []]
    settings = item.get("NetworkSettings") or {}
    return Row("*formatter.ContainerContext", {
        "ID": short_id(item["Id"]) if truncate else item["Id"],
        "Image": _image_name(item, truncate),
        "Command": quoted(ellipsis(item.get("Command", ""), 20) if truncate else item.get("Command", "")),
        "RunningFor": ago(now - item["Created"]),
        "CreatedAt": local_time(item["Created"]),
        "Status": item.get("Status", ""),
        "State": item.get("State", ""),
        "Ports": display_ports(item.get("Ports") or []),
        "Names": ",".join(names),
        "Size": _container_size(item),
        "Labels": label_text(item.get("Labels")),
        "Label": label_of(item.get("Labels")),
        "Mounts": ",".join(ellipsis(mount, 15) if truncate else mount for mount in mounts),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in item.get("Mounts") or [])),
        "Networks": ",".join(sorted(settings.get("Networks") or {})),
        "Platform": None,
    })  # fmt: skip


def _image_name(item: Document, truncate: bool) -> str:
    image = str(item.get("Image") or "")
    if not image:
        return "<no image>"
    if not truncate:
        return image
    if short_id(item.get("ImageID", "")) == short_id(image):
        return short_id(image)
    return image.partition("@sha256:")[0]


def _container_size(item: Document) -> str:
    own = human_size(item.get("SizeRw") or 0, 3)
    total = item.get("SizeRootFs") or 0
    return f"{own} (virtual {human_size(total, 3)})" if total else own


def local_time(seconds: float) -> str:
    """Go's time.Time in the local zone: `2026-11-20 18:54:02 +0000 UTC`."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %z %Z")


def display_ports(ports: Iterable[Document]) -> str:
    """`0.0.0.0:80->80/tcp, 443/tcp`; neighbouring ports of the same mapping become a range."""
    order = sorted(ports, key=lambda p: (p["PrivatePort"], p.get("IP") or "", p.get("PublicPort") or 0, p["Type"]))
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for port in order:
        private, public = port["PrivatePort"], port.get("PublicPort") or 0
        address = port.get("IP") or ""
        if public and public != private:
            mapped.append(f"{_host(address)}:{public}->{private}/{port['Type']}")
            continue
        key = (address if public else "", port["Type"])
        first, last = groups.get(key, (private, private - 1))
        if private == last:
            continue
        if private > last + 1:
            done.append(_group(key, first, last))
            first = private
        groups[key] = (first, private)
    done += [_group(key, first, last) for key, (first, last) in sorted(groups.items(), key=lambda g: (g[1], g[0][0]))]
    return ", ".join(done + mapped)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _group(key: tuple[str, str], first: int, last: int) -> str:
    address, protocol = key
    span = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{span}->{span}/{protocol}" if address else f"{span}/{protocol}"


_IMAGE_HEADERS = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT", "Size": "SIZE", "VirtualSize": "SIZE", "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
}  # fmt: skip


def _images(call: Call) -> int:
    flags = call.flags
    filters = flags.values("filter") + [f"reference={name}" for name in call.arguments]
    form = flags.text("format") or str(call.settings.get("imagesFormat") or "") * (not flags.on("quiet"))
    digests = flags.on("digests") or ".Digest" in form
    found = images.listing(call.engine, all_images=flags.on("all"), digests=digests, filters=filters)
    now = time.time()
    shown, truncate = flags.on("digests"), not flags.on("no-trunc")
    rows = [row for item in found for row in _image_rows(item, now, shown=shown, digests=digests, truncate=truncate)]
    default = ["Repository", "Tag", *(["Digest"] if flags.on("digests") else []), "ID", "CreatedSince", "Size"]
    show(rows, _IMAGE_HEADERS, default, form, quiet="ID" if flags.on("quiet") else "")
    return 0


def _image_rows(item: Document, now: float, *, shown: bool, digests: bool, truncate: bool) -> Iterable[Row]:
    """One for each tag, with its digest; one for each digest without a tag; one for an image without either."""
    tags: dict[str, list[str]] = {}
    for tag in item.get("RepoTags") or []:
        repository, _, name = tag.rpartition(":")
        tags.setdefault(repository, []).append(name)
    sums: dict[str, list[str]] = {}
    for digest in item.get("RepoDigests") or []:
        repository, _, name = digest.partition("@")
        sums.setdefault(repository, []).append(name)
    names: list[tuple[str, str, str]] = []
    for repository, words in tags.items():
        for word in words:
            for digest in sums.get(repository) or ["<none>"] if digests else ["<none>"]:
                names.append((repository, word, digest))
    for repository in sums.keys() - tags.keys():
        # docker: without --digests one line for them all, on which a template finds no digest either
        names += [(repository, "<none>", digest) for digest in (sums[repository] if shown else [""])]
    for repository, tag, digest in dict.fromkeys(names or [("<none>", "<none>", "<none>")]):
        yield Row("*formatter.imageContext", {
            "Repository": repository, "Tag": tag, "Digest": digest,
            "ID": short_id(item["Id"]) if truncate else item["Id"],
            "CreatedSince": ago(now - item["Created"]),
            "CreatedAt": local_time(item["Created"]),
            "Size": human_size(item["Size"], 3),
            "VirtualSize": human_size(item["Size"]),
            "SharedSize": _known_size(item.get("SharedSize", -1)),
            "UniqueSize": _known_size(item["Size"] - item["SharedSize"] if item.get("SharedSize", -1) >= 0 else -1),
            "Containers": "N/A" if item.get("Containers", -1) < 0 else str(item["Containers"]),
        })  # fmt: skip


def _known_size(size: int) -> str:
    return "N/A" if size < 0 else human_size(size, 3)


_NETWORK_HEADERS = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
}  # fmt: skip


def _networks(call: Call) -> int:
    truncate = not call.flags.on("no-trunc")
    form = call.flags.text("format") or str(call.settings.get("networksFormat") or "") * (not call.flags.on("quiet"))
    found = sorted(networks.listing(call.engine, call.flags.values("filter")), key=lambda item: natural(item["Name"]))
    rows = (
        Row("*network.networkContext", {
            "ID": short_id(item["Id"]) if truncate else item["Id"],
            "Name": item["Name"], "Driver": item["Driver"], "Scope": item["Scope"],
            "IPv4": _word(item.get("EnableIPv4", True)), "IPv6": _word(item.get("EnableIPv6")),
            "Internal": _word(item.get("Internal")),
            "Labels": label_text(item.get("Labels")), "Label": label_of(item.get("Labels")),
            "CreatedAt": go_time(item.get("Created", "")),
        })
        for item in found
    )  # fmt: skip
    show(rows, _NETWORK_HEADERS, ["ID", "Name", "Driver", "Scope"], form, quiet="ID" if call.flags.on("quiet") else "")
    return 0


def _word(value: object) -> str:
    return "true" if value else "false"


def natural(text: str) -> list[tuple[int, int | str]]:
    """docker sorts names with numbers in them as people do: `net2` before `net10`."""
    import re

    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|\D+", text)]


def go_time(text: str) -> str:
    """RFC 3339 as Go's time.Time prints it: `2026-11-20 18:54:02.123456789 +0000 UTC`."""
    day, _, clock = text.partition("T")
    if clock.endswith("Z"):
        return f"{day} {clock[:-1]} +0000 UTC"
    zone = clock[-6:].replace(":", "")
    return f"{day} {clock[:-6]} {zone} {'UTC' if zone == '+0000' else zone}" if clock else text


_VOLUME_HEADERS = {
    "Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
    "Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS",
}  # fmt: skip


def _volumes(call: Call) -> int:
    form = call.flags.text("format") or str(call.settings.get("volumesFormat") or "") * (not call.flags.on("quiet"))
    found = sorted(volumes.listing(call.engine, call.flags.values("filter")), key=lambda item: natural(item["Name"]))
    columns = ["Driver", "Name"]
    if call.flags.on("cluster"):  # Swarm's
        found = [item for item in found if item.get("ClusterVolume")]
        columns = ["Name", "Group", "Driver", "Availability", "Status"]
    rows = (volume_row(item) for item in found)
    show(rows, _VOLUME_HEADERS, columns, form, quiet="Name" if call.flags.on("quiet") else "")
    return 0


def volume_row(item: Document) -> Row:
    usage = item.get("UsageData") or {}
    return Row("*formatter.volumeContext", {
        "Name": item["Name"], "Driver": item["Driver"], "Scope": item.get("Scope", ""),
        "Mountpoint": item.get("Mountpoint", ""),
        "Labels": label_text(item.get("Labels")), "Label": label_of(item.get("Labels")),
        "Links": str(usage["RefCount"]) if usage else "N/A",
        "Size": human_size(usage["Size"]) if usage else "N/A",
        "Group": "N/A", "Availability": "N/A", "Status": "N/A",
    })  # fmt: skip


CONTAINERS = Command(
    _containers, "[OPTIONS]", "List containers",
    """
-a, --all             Show all containers (default shows just running)
-f, --filter filter   Filter output based on conditions provided
    --format string   @table
-n, --last int        Show n last created containers (includes all states) (default -1)
-l, --latest          Show the latest created container (includes all states)
    --no-trunc        Don't truncate output
-q, --quiet           Only display container IDs
-s, --size            Display total file sizes
""", most=0,
)  # fmt: skip
IMAGES = Command(
    _images, "[OPTIONS] [REPOSITORY[:TAG]]", "List images",
    """
-a, --all             Show all images (default hides intermediate images)
    --digests         Show digests
-f, --filter filter   Filter output based on conditions provided
    --format string   @table
    --no-trunc        Don't truncate output
-q, --quiet           Only show image IDs
""", most=1,
)  # fmt: skip
NETWORKS = Command(
    _networks, "[OPTIONS]", "List networks",
    """
-f, --filter filter   Provide filter values (e.g. "driver=bridge")
    --format string   @table
    --no-trunc        Do not truncate the output
-q, --quiet           Only display network IDs
""", most=0,
)  # fmt: skip
VOLUMES = Command(
    _volumes, "[OPTIONS]", "List volumes",
    """
    --cluster         (hidden)
-f, --filter filter   Provide filter values (e.g. "dangling=true")
    --format string   @table
-q, --quiet           Only display volume names
""", most=0,
)  # fmt: skip
