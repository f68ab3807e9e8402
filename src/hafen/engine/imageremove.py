"""Remove and prune images: what is untagged, what is deleted, and what forbids it (moby `image_delete.go`).

Each removal is one transaction: an engine that dies in it leaves the image as it was, or nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hafen.engine import imagelist, imageplatforms, imageusage
from hafen.engine.imagestore import HOST, Image, ImageStore
from hafen.errors import Conflict, Corrupt
from hafen.spec import reference
from hafen.spec.filters import Filters
from hafen.spec.platform import Platform
from hafen.spec.reference import Reference
from hafen.spec.wire.image import DeleteResponseItem, ImagePruneResponse

_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container made from an image."""

    container: str
    running: bool


Users = Callable[[str], Sequence[ImageUser]]
Records = list[DeleteResponseItem]


def remove(store: ImageStore, users: Users, ref: str, *, force: bool, prune: bool) -> Records:
    """Untag, and delete what then has no name. Conflict where something forbids it; see `_check_unused`. In a
    transaction."""
    try:
        image = store.find(ref)
    except Corrupt:
        image = store.damaged(store.identify(ref))
    records: Records = []
    names = _names(store, image)
    by_name = not image.hex.startswith(ref.removeprefix("sha256:"))
    _refuse_builtin(store, image, ref if by_name else None)
    single = len({name.repository for name in names}) <= 1 and sum(name.tag is not None for name in names) <= 1
    if by_name:
        name = reference.parse(ref).with_default_tag()
        user = next(iter(users(image.id)), None)
        if user is not None and not force and single:
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                f"{user.container[:12]} is using its referenced image {image.hex[:12]}"
            )
        _untag(store, image, [name], records)
        names = _names(store, image)
        for one in (image, *imageplatforms.others(store, image.id)):
            same = [other for other in _names(store, one) if other.repository == name.repository]
            if not name.digest and all(other.digest for other in same):
                # Digests of the repository are of no use to anybody without its tag.
                _untag(store, one, same, records)
        names = _names(store, image)
        if names:
            return records
    elif single:
        _check_unused(store, users, image, force, referenced=False)
        _untag(store, image, names, records)
    _delete(store, users, image, records, force=force, prune=prune, quiet=by_name)
    return records


def _names(store: ImageStore, image: Image) -> list[Reference]:
    return [*store.tags(image.id), *store.digests(image.id)]


def _refuse_builtin(store: ImageStore, image: Image, name: str | None) -> None:
    if image.id == store.builtin and (name is None or reference.parse(name).with_default_tag().familiar == HOST):
        raise Conflict(
            f"conflict: unable to delete {image.hex[:12]} (cannot be forced) - it is this machine's own root, which "
            "is always there and takes no space"
        )


def _untag(store: ImageStore, image: Image, names: Sequence[Reference], records: Records) -> None:
    for name in names:
        store.remove_reference(name)
        store.publish("untag", image.id, image.id, image)
        records.append(DeleteResponseItem(untagged=name.familiar))


def _check_unused(store: ImageStore, users: Users, image: Image, force: bool, *, referenced: bool) -> None:
    """Raise Conflict with the first reason why the image must stay; `force` overrides the soft ones."""
    using = users(image.id)
    running = next((user for user in using if user.running), None)
    stopped = next((user for user in using if not user.running), None)
    hard, reason = True, ""
    if store.children(image.id):
        reason = "image has dependent child images"
    elif running:
        reason = f"image is being used by running container {running.container[:12]}"
    elif not force and referenced and _names(store, image):
        hard, reason = False, "image is referenced in multiple repositories"
    elif not force and stopped:
        hard, reason = False, f"image is being used by stopped container {stopped.container[:12]}"
    if reason:
        how = "cannot be forced" if hard else "must be forced"
        raise Conflict(f"conflict: unable to delete {image.hex[:12]} ({how}) - {reason}")


def _delete(
    store: ImageStore, users: Users, image: Image, records: Records, *, force: bool, prune: bool, quiet: bool
) -> None:
    """Delete the image and, with `prune`, parents that then have neither names nor users."""
    try:
        _check_unused(store, users, image, force, referenced=True)
    except Conflict:
        if quiet:  # only what the client named is worth an error
            return
        raise
    _untag(store, image, _names(store, image), records)
    chain = [layer.chain_id for layer in store.chain(image.snapshot)]
    parts = imageplatforms.others(store, image.id)
    store.remove_image(image.id)
    store.tell("delete", image.id, {"name": image.id})
    records.append(DeleteResponseItem(deleted=image.id))
    gone = set(store.sweep())
    records += [DeleteResponseItem(deleted=chain_id) for chain_id in reversed(chain) if chain_id in gone]
    for part in parts:  # its other platforms, which nothing names any more
        if store.get(part.id) and not _names(store, part) and not imageplatforms.is_part(store, part.id):
            _delete(store, users, part, records, force=force, prune=prune, quiet=True)
    parent = store.get(image.parent) if prune and image.parent else None
    if parent is not None and parent.id != store.builtin:
        _delete(store, users, parent, records, force=False, prune=True, quiet=True)


def _named(store: ImageStore, image: Image) -> bool:
    return bool(_names(store, image)) or imageplatforms.is_part(store, image.id)


def remove_platforms(
    store: ImageStore, users: Users, ref: str, platforms: Sequence[Platform], *, force: bool
) -> Records:
    """Delete these platforms of a name; the name goes on standing for one that is left, if any is. In a transaction."""
    chosen = [imageplatforms.choose(store, ref, platform) for platform in platforms]
    records: Records = []
    for image in chosen:
        if store.get(image.id) is None:
            continue
        left = [other for other in imageplatforms.others(store, image.id) if other not in chosen]
        _check_unused(store, users, image, force, referenced=False)
        if not left:
            return [*records, *remove(store, users, ref, force=force, prune=True)]
        store.move_names(image.id, left[0].id)
        _delete(store, users, image, records, force=force, prune=False, quiet=False)
    return records


def prune(store: ImageStore, users: Users, filters: Filters) -> ImagePruneResponse:
    """Delete unused images: those without a name, or all with `dangling=false`. Filters: label, label!, until."""
    filters.check(_PRUNE_FILTERS)
    dangling = filters.flag("dangling", True)
    limit = imagelist.until(filters)
    records: Records = []
    before = imageusage.measure(store).total
    for image in store.all():
        labels = image.config.labels
        if image.id == store.builtin or users(image.id) or (dangling and _named(store, image)):
            continue
        if (limit is not None and image.created_at >= limit) or store.get(image.id) is None:
            continue
        if filters.matches_labels(labels) and not filters.excludes_labels(labels):
            with store.database.transaction():
                _delete(store, users, image, records, force=True, prune=True, quiet=True)
    reclaimed = max(0, before - imageusage.measure(store).total)
    store.tell("prune", "", {"reclaimed": str(reclaimed)})
    return ImagePruneResponse(images_deleted=records or None, space_reclaimed=reclaimed)
