"""`tag`, `rmi`, `history`."""

import time
from datetime import datetime

from hafen.cli.command import Call, Command
from hafen.cli.commands.listing import local_time
from hafen.cli.formats import show
from hafen.cli.output import ago, ellipsis, human_size, out, short_id
from hafen.cli.report import report
from hafen.client import images
from hafen.client.engine import Document
from hafen.errors import HafenError, InvalidArgument, NotFound
from hafen.spec.digest import is_hex
from hafen.spec.evaluate import Row
from hafen.spec.reference import Reference, parse


def _tag(call: Call) -> int:
    source, target = call.arguments
    for name in (source, target):
        if not is_hex(name, 64):
            parsed(name)
    if "@" in target:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    new = parsed(target).with_default_tag()
    images.tag(call.engine, source, new.repository, new.tag or "")
    return 0


def parsed(name: str) -> Reference:
    try:
        return parse(name)
    except InvalidArgument as error:
        raise InvalidArgument(f'Error parsing reference: "{name}" is not a valid repository/tag: {error}') from None


def _remove(call: Call) -> int:
    force, failed = call.flags.on("force"), False
    for reference in call.arguments:
        try:
            removed = images.remove(
                call.engine, reference, force=force, no_prune=call.flags.on("no-prune"),
                chosen=[one for text in call.flags.values("platform") for one in text.split(",")],
            )  # fmt: skip
        except HafenError as error:
            report(error)
            failed = failed or not (force and isinstance(error, NotFound))
            continue
        for item in removed:
            out(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}")
    return 1 if failed else 0


_HEADERS = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
    "Comment": "COMMENT",
}  # fmt: skip


def _history(call: Call) -> int:
    flags = call.flags
    truncate, human = not flags.on("no-trunc"), flags.on("human", True)
    now = time.time()
    items = images.history(call.engine, call.arguments[0], platform=flags.text("platform"))
    rows = [_history_row(item, now, truncate, human) for item in items]
    default = ["ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment"]
    show(rows, _HEADERS, default, flags.text("format"), quiet="ID" if flags.on("quiet") else "")
    return 0


def _history_row(item: Document, now: float, truncate: bool, human: bool) -> Row:
    created_by = item["CreatedBy"].replace("\t", " ")
    created_at = datetime.fromtimestamp(item["Created"]).astimezone().isoformat() if item["Created"] > 0 else ""
    if created_at.endswith("+00:00"):
        created_at = created_at[:-6] + "Z"
    comment = item.get("Comment") or ""
    return Row("*formatter.historyContext", {
        "ID": short_id(item["Id"]) if truncate else item["Id"],
        "CreatedSince": (ago(now - item["Created"]) if item["Created"] > 0 else "N/A") if human else created_at,
        "CreatedAt": created_at or local_time(item["Created"]),
        "CreatedBy": ellipsis(created_by, 45) if truncate else created_by,
        "Size": human_size(item["Size"], 3) if human else str(item["Size"]),
        "Comment": comment,
    })  # fmt: skip


_REFERRER_HEADERS = {
    "ArtifactType": "ARTIFACT TYPE", "Digest": "DIGEST", "Subject": "ABOUT", "Repository": "REPOSITORY", "Size": "SIZE",
}  # fmt: skip


def _referrers(call: Call) -> int:
    flags = call.flags
    truncate = not flags.on("no-trunc")
    rows = [
        Row("*image.referrerContext", {
            "ArtifactType": item["ArtifactType"],
            "Digest": short_id(item["Digest"]) if truncate else item["Digest"],
            "Subject": short_id(item["Subject"]) if truncate else item["Subject"],
            "Repository": item["Repository"],
            "Size": human_size(item["Size"], 3),
            "Annotations": item.get("Annotations") or {},
        })
        for item in images.referrers(call.engine, call.arguments[0], platform=flags.text("platform"))
    ]  # fmt: skip
    show(rows, _REFERRER_HEADERS, list(_REFERRER_HEADERS), flags.text("format"),
         quiet="Digest" if flags.on("quiet") else "")  # fmt: skip
    return 0


REFERRERS = Command(
    _referrers, "[OPTIONS] IMAGE", "List signatures, SBOMs and attestations about an image",
    """
    --format string     @table
    --no-trunc          Don't truncate output
    --platform string   What is about the given platform of the image
-q, --quiet             Only show digests
""", least=1, most=1,
    description="Lists what referred to the image in its registry when it was pulled, and is kept with it.",
)  # fmt: skip
TAG = Command(
    _tag, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    least=2, most=2,
)  # fmt: skip
REMOVE = Command(
    _remove, "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images",
    """
-f, --force              Force removal of the image
    --no-prune           Do not delete untagged parents
    --platform strings   Remove only the given platform variant, such as linux/amd64
""", least=1,
)  # fmt: skip
HISTORY = Command(
    _history, "[OPTIONS] IMAGE", "Show the history of an image",
    """
    --format string   @table
-H, --human           Print sizes and dates in human readable format (default true)
    --no-trunc        Don't truncate output
    --platform string   Show history for the given platform, such as linux/amd64
-q, --quiet           Only show image IDs
""", least=1, most=1,
)  # fmt: skip
