"""Images: look up, list, inspect, tag, remove and prune; load, save, import, commit and bootstrap are beside it.

Texts and order of events are Docker's (moby `daemon/images`): clients match on them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

import msgspec

from hafen.engine import artifacts, bootstrap, imageimport, imagelist, imageload, imageplatforms, imageremove, imagesave
from hafen.engine.imageremove import ImageUser, Users
from hafen.engine.imagestore import Image, ImageStore
from hafen.errors import NotImplemented, System
from hafen.spec import reference, units
from hafen.spec.filters import NO_FILTERS, Filters
from hafen.spec.platform import Platform
from hafen.spec.wire import image as wire
from hafen.spec.wire.image import DeleteResponseItem, HistoryItem, ImageInspect, ImageSummary, Progress
from hafen.storage.snapshot import shown_driver

__all__ = ["Image", "ImageStore", "ImageUser", "Images"]

log = logging.getLogger(__name__)

Referrers = list[wire.ImageReferrer]
Attestations = list[wire.AttestationStatement]
Manifests = list[wire.ManifestSummary]
Summaries = list[ImageSummary]
Removed = list[DeleteResponseItem]
History = list[HistoryItem]


class Images:
    """All image verbs; loop thread only. `users` tells the containers made from an image id."""

    def __init__(self, store: ImageStore, users: Users) -> None:
        self.store = store
        self._users = users

    def recover(self, data_root: str, run_root: str) -> None:
        """On start, when the containers' snapshots are known: drop what a crash left, and see to the `host` image,
        which must not show the engine's own directories."""
        self.store.recover()
        try:
            imageimport.ensure_host(self.store, data_root, run_root)
        except (NotImplemented, System, OSError) as error:
            log.warning("there is no host image: %s", error)  # all others work without it

    def close(self) -> None:
        """On an orderly end: the host image's mask goes, unless a container still needs it."""
        builtin = None if self.store.builtin is None else self.store.get(self.store.builtin)
        if builtin is not None and builtin.snapshot is not None:
            imageimport.close_host(self.store, builtin.snapshot)

    def resolve(self, ref: str, platform: Platform | None = None) -> Image:
        """By id, prefix, name, tag or digest; NotFound "No such image: x:latest"."""
        return imageplatforms.choose(self.store, ref, platform)

    def named(self, ref: str) -> frozenset[str]:
        """Ids of all images that a name stands for: one for each platform."""
        image = self.resolve(ref)
        return frozenset((image.id, *(other.id for other in imageplatforms.others(self.store, image.id))))

    # -- look at

    async def list(
        self, all: bool = False, filters: Filters = NO_FILTERS, shared_size: bool = False, manifests: bool = False
    ) -> Summaries:
        """Newest first. Filters: before, dangling, label, reference, since, until."""
        found = imagelist.summaries(self.store, all=all, filters=filters, shared_size=shared_size)
        if not manifests:
            return found
        return [msgspec.structs.replace(one, manifests=self._manifests(self.resolve(one.id))) for one in found]

    def _manifests(self, image: Image) -> Manifests:
        return imageplatforms.summaries(
            self.store, image, lambda identity: [user.container for user in self._users(identity)]
        )

    async def inspect(self, ref: str, platform: Platform | None = None, manifests: bool = False) -> ImageInspect:
        image = imageplatforms.choose(self.store, ref, platform)
        document = image.document
        return ImageInspect(
            id=image.id,
            repo_tags=[tag.familiar for tag in self.store.tags(image.id)],
            repo_digests=[name.familiar for name in self.store.digests(image.id)],
            parent=image.parent or "",
            comment=document.comment or (document.history[-1].comment if document.history else ""),
            created=units.format_timestamp(int(image.created_at * 1e9))
            if image.id == self.store.builtin
            else document.created,
            docker_version=document.docker_version,
            author=document.author,
            config=document.config,
            architecture=document.architecture,
            variant=document.variant,
            os=document.os,
            os_version=document.os_version,
            size=image.size,
            graph_driver=self._graph_driver(image),
            root_fs=wire.RootFs(type="layers", layers=list(document.rootfs.diff_ids)),
            metadata=_metadata(image),
            manifests=self._manifests(image) if manifests else None,
        )

    def _graph_driver(self, image: Image) -> wire.GraphDriver:
        snapshots = self.store.snapshots
        # Clients show this and compare its name; the data is for people who look around.
        if image.snapshot is None or not snapshots.has(image.snapshot):
            return wire.GraphDriver(data=None, name=shown_driver(snapshots.name))
        own, *below = snapshots.layer_directories(image.snapshot)
        data = {"UpperDir": own}
        if below:
            data["LowerDir"] = ":".join(below)
        return wire.GraphDriver(data=data, name=shown_driver(snapshots.name))

    async def history(self, ref: str, platform: Platform | None = None) -> History:
        return imagelist.history(self.store, imageplatforms.choose(self.store, ref, platform))

    async def referrers(self, ref: str, platform: Platform | None = None) -> Referrers:
        """What is kept about the image: signatures, SBOMs, attestations."""
        return artifacts.shown(self.store, imageplatforms.choose(self.store, ref, platform))

    async def attestations(
        self, ref: str, platform: Platform | None, kinds: Sequence[str], statements: bool
    ) -> Attestations:
        """The in-toto statements about the image for this machine, or for a platform."""
        image = imageplatforms.choose(self.store, ref, platform)
        return artifacts.statements(self.store, image, kinds, statements)

    # -- tag and remove

    async def tag(self, ref: str, repo: str, tag: str | None = None) -> None:
        """Give an image another name. InvalidArgument, NotFound; Conflict for `host:latest`."""
        image = self.resolve(ref)
        name = reference.parse_repository(repo, tag or "")
        with self.store.database.transaction():
            self.store.set_tag(name, image.id)
        self.store.publish("tag", image.id, name.familiar)

    async def remove(
        self, ref: str, force: bool = False, noprune: bool = False, platforms: Sequence[Platform] = ()
    ) -> Removed:
        """Untag, and delete what then has no name; with `platforms`, these of it alone. Conflict where it is in use.

        All of it happens or nothing.
        """
        with self.store.database.transaction():
            if platforms:
                return imageremove.remove_platforms(self.store, self._users, ref, platforms, force=force)
            return imageremove.remove(self.store, self._users, ref, force=force, prune=not noprune)

    async def prune(self, filters: Filters = NO_FILTERS) -> wire.ImagePruneResponse:
        """Delete unused images: untagged ones, or all with `dangling=false`."""
        return imageremove.prune(self.store, self._users, filters)

    # -- bring in and give out

    def load(
        self, stream: AsyncIterator[bytes], quiet: bool = False, platform: Platform | None = None
    ) -> AsyncIterator[Progress]:
        """Images of a docker-archive or an OCI layout, plain or compressed; all their platforms, or one of them."""
        return imageload.load(self.store, stream, quiet, platform)

    def save(self, refs: Sequence[str], platform: Platform | None = None) -> AsyncIterator[bytes]:
        """Images with all they need as one archive, all platforms that are here, or one of them. NotFound and Conflict
        come before the first byte."""
        return imagesave.save(self.store, refs, platform)

    def import_(
        self,
        stream: AsyncIterator[bytes],
        repo: str | None = None,
        tag: str | None = None,
        message: str | None = None,
        changes: Sequence[str] = (),
        platform: str | None = None,
    ) -> AsyncIterator[Progress]:
        """A root file system's tar as an image of one layer."""
        return imageimport.import_tar(self.store, stream, repo, tag, message, changes, platform)

    async def commit(self, request: imageimport.CommitRequest) -> str:
        """A container's changes as an image on top of its own; the new id."""
        return await imageimport.commit(self.store, request)

    def bootstrap(self, name: str, mirror: str | None = None) -> AsyncIterator[Progress]:
        """A distribution's base system from its signed package archive, as an image: `debian:bookworm`."""
        return bootstrap.bootstrap(self.store, name, mirror)


def _metadata(image: Image) -> wire.ImageMetadata:
    if not image.tagged_at:
        return wire.ImageMetadata()
    return wire.ImageMetadata(last_tag_time=units.format_timestamp(int(image.tagged_at * 1e9)))
