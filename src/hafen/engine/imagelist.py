"""The list of images with its filters, and an image's history, as Docker shapes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from hafen.engine import imageplatforms
from hafen.engine.imagestore import Image, ImageStore, timestamp
from hafen.errors import InvalidArgument, System
from hafen.spec import digest as digests
from hafen.spec import reference, units
from hafen.spec.filters import Filters
from hafen.spec.wire.image import HistoryItem, ImageSummary

_FILTERS = frozenset(("before", "dangling", "label", "label!", "reference", "since", "until"))


def until(filters: Filters) -> float | None:
    """The `until` filter as seconds since the epoch."""
    try:
        text = filters.until()
        return None if text is None else units.parse_timestamp(text, time.time_ns()) / 1e9
    except InvalidArgument as error:
        raise System(error.message) from error  # 500, as Docker


def summaries(store: ImageStore, *, all: bool, filters: Filters, shared_size: bool) -> list[ImageSummary]:
    """Newest first. Without `all` (or `dangling`), images that only others are built on are left out."""
    filters.check(_FILTERS)
    wanted = _predicate(store, filters)
    dangling = filters.flag("dangling", False) if "dangling" in filters else None
    shared = _shared(store) if shared_size else None
    found = []
    for image in store.all():
        if not wanted(image):
            continue
        tags = store.tags(image.id)
        names = store.digests(image.id)
        if "reference" in filters:
            tags = [tag for tag in tags if any(reference.matches(text, tag) for text in filters.get("reference"))]
            names = [name for name in names if any(reference.matches(text, name) for text in filters.get("reference"))]
            if not tags and not names:
                continue
        if not tags and not names:
            if (not all and store.children(image.id)) or dangling is False or imageplatforms.is_part(store, image.id):
                continue
        elif dangling:
            continue
        found.append(
            ImageSummary(
                created=int(image.created_at),
                id=image.id,
                labels=image.config.labels or None,
                parent_id=image.parent or "",
                repo_digests=[name.familiar for name in names],
                repo_tags=[tag.familiar for tag in tags],
                shared_size=-1 if shared is None else sum(shared.get(key, 0) for key in _chains(image)),
                size=image.size,
            )
        )
    return found


def _predicate(store: ImageStore, filters: Filters) -> Callable[[Image], bool]:
    before = min((store.find(ref).created_at for ref in filters.get("before")), default=None)
    since = max((store.find(ref).created_at for ref in filters.get("since")), default=None)
    limit = until(filters)

    def wanted(image: Image) -> bool:
        return (
            (before is None or image.created_at < before)
            and (since is None or image.created_at > since)
            and (limit is None or image.created_at < limit)
            and filters.matches_labels(image.config.labels)
            and not filters.excludes_labels(image.config.labels)
        )

    return wanted


def _chains(image: Image) -> list[str]:
    return list(digests.chain_ids(image.document.rootfs.diff_ids))


def _shared(store: ImageStore) -> dict[str, int]:
    """Sizes of the layers that more than one image has."""
    counts = Counter(chain for image in store.all() for chain in _chains(image))
    rows = store.database.query("SELECT chain_id, size FROM layers")
    return {str(chain): int(str(size)) for chain, size in rows if counts[str(chain)] > 1}


def history(store: ImageStore, image: Image) -> list[HistoryItem]:
    """Newest first. Only images made here have ids for their steps; the rest is "<missing>"."""
    layers = iter(store.chain(image.snapshot))
    items = []
    for step in image.document.history:
        layer = None if step.empty_layer else next(layers, None)
        items.append(
            HistoryItem(
                comment=step.comment,
                created=int(timestamp(step.created)),
                created_by=step.created_by,
                size=layer.size if layer else 0,
            )
        )
    items.reverse()
    named = []
    current: Image | None = image
    for item in items:
        if current is None:
            named.append(item)
            continue
        tags = [tag.familiar for tag in store.tags(current.id)]
        named.append(
            HistoryItem(
                comment=item.comment,
                created=item.created,
                created_by=item.created_by,
                id=current.id,
                size=item.size,
                tags=tags or None,
            )
        )
        current = store.get(current.parent) if current.parent else None
    return named
