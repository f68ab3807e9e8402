"""What an image archive says it holds: manifest.json of a docker-archive, index.json of an OCI layout; no I/O."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

import msgspec

from hafen.engine.imageimport import Staged
from hafen.errors import Corrupt, InvalidArgument
from hafen.spec import digest as digests
from hafen.spec import image as documents
from hafen.spec import platform as platforms
from hafen.spec import reference
from hafen.spec.digest import Digest
from hafen.spec.reference import Reference
from hafen.spec.wire.image import Descriptor, Platform

_BLOBS = "blobs/"


class ArchiveItem(msgspec.Struct, frozen=True, rename={"config": "Config", "tags": "RepoTags", "layers": "Layers"}):
    """One image of manifest.json: paths within the archive."""

    config: str
    layers: list[str] | None = None
    tags: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that the archive declares, by members of it."""

    config: str
    layers: tuple[str, ...] | None  # None: by the diff ids of the configuration
    names: tuple[Reference, ...]
    index: str | None = None  # that it is one platform of


@dataclass(slots=True)
class Contents:
    """What one pass over the archive found, by normalised member name."""

    documents: dict[str, bytes] = field(default_factory=dict)
    staged: dict[str, Staged] = field(default_factory=dict)
    known: dict[str, Digest] = field(default_factory=dict)  # layers that the store has: only verified
    blobs: dict[str, Digest] = field(default_factory=dict)  # compressed layers as they came
    links: dict[str, str] = field(default_factory=dict)

    def member(self, name: str) -> str:
        """Where a name leads, through the symbolic links that old archives share layers with."""
        for _ in range(8):
            target = self.links.get(name)
            if target is None:
                return name
            name = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), target)).lstrip("/")
        raise Corrupt(f"image archive: {name!r} is a loop of symbolic links")

    def document(self, name: str) -> bytes:
        data = self.documents.get(self.member(name))
        if data is None:
            raise Corrupt(f"image archive: {name} is missing")
        return data

    def has(self, name: str) -> bool:
        return self.member(name) in self.documents

    def layer(self, name: str) -> Staged | Digest | None:
        place = self.member(name)
        return self.staged.get(place) or self.known.get(place)

    def is_empty(self, name: str) -> bool:
        """Whether this is a file of no bytes, and no layer so far: as one it is an archive of nothing."""
        return self.layer(name) is None and self.documents.get(self.member(name)) == b""


def digest_of(name: str) -> Digest | None:
    """The digest in `blobs/sha256/<hex>`."""
    if not name.startswith(_BLOBS):
        return None
    try:
        return digests.parse(name.removeprefix(_BLOBS).replace("/", ":", 1))
    except InvalidArgument as error:
        raise Corrupt(f"image archive: {name!r} is not named by a digest") from error


def declared(contents: Contents, machine: platforms.Platform, only: platforms.Platform | None) -> list[Wanted]:
    """What the archive says it holds: manifest.json, or an OCI layout's index.json, which alone tells of several
    platforms. `only` one of them: the rest is left out."""
    if "manifest.json" in contents.documents and not _of_several_platforms(contents):
        try:
            items = msgspec.json.decode(contents.documents["manifest.json"], type=list[ArchiveItem])
        except msgspec.DecodeError as error:
            raise Corrupt(f"image archive: invalid manifest.json: {error}") from error
        return [
            Wanted(
                posixpath.normpath(item.config),
                tuple(posixpath.normpath(path) for path in item.layers or ()),
                tuple(_name(tag) for tag in item.tags or ()),
            )
            for item in items
        ]
    if "index.json" in contents.documents:
        index = documents.read_index(contents.documents["index.json"])
        found = [wanted for entry in index.manifests for wanted in _from_layout(contents, entry, machine, only)]
        if found:
            return found
        raise Corrupt(f"image archive: no image in it is for {only or machine}")
    if "repositories" in contents.documents:
        raise Corrupt("image archive: it is of the format before Docker 1.10, which is not supported")
    raise InvalidArgument("invalid image archive: neither manifest.json nor index.json is in it")


def _name(text: str) -> Reference:
    try:
        return reference.parse(text).with_default_tag()
    except InvalidArgument as error:
        raise Corrupt(f"image archive: invalid tag {text!r}: {error}") from error


def _blob(descriptor: Descriptor) -> str:
    return _BLOBS + descriptor.digest.replace(":", "/", 1)


def _of_several_platforms(contents: Contents) -> bool:
    data = contents.documents.get("index.json")
    return data is not None and any(one.media_type in documents.INDEXES for one in documents.read_index(data).manifests)


def _from_layout(
    contents: Contents, entry: Descriptor, machine: platforms.Platform, only: platforms.Platform | None
) -> list[Wanted]:
    """The images an index entry leads to; of several platforms, the one that this machine runs best has the names."""
    names: tuple[Reference, ...] = ()
    full = entry.annotations.get("io.containerd.image.name")
    short = entry.annotations.get("org.opencontainers.image.ref.name", "")
    if full or "/" in short or ":" in short:
        names = (_name(full or short),)
    if entry.media_type in documents.INDEXES:
        index = documents.read_index(contents.document(_blob(entry)))
        best = best_for(index.manifests, only or machine)
        if only is not None:
            return [] if best is None else [_manifest(contents, best, names)]
        there = [one for one in index.manifests if contents.has(_blob(one)) and one.platform != _UNKNOWN]
        best = best if best in there else next(iter(there), None)
        return [_manifest(contents, one, names if one is best else (), _blob(entry)) for one in there]
    if entry.media_type in documents.MANIFESTS:
        return [_manifest(contents, entry, names)]
    return []


def best_for(entries: list[Descriptor], machine: platforms.Platform) -> Descriptor | None:
    """The manifest of an index that this machine runs best."""
    for wanted in platforms.preference(machine):
        for entry in entries:
            place = entry.platform
            if place is None or entry.media_type not in documents.MANIFESTS:
                continue
            if (place.os, place.architecture) == (wanted.os, wanted.architecture) and (
                not wanted.variant or place.variant in ("", wanted.variant)
            ):
                return entry
    unnamed = [entry for entry in entries if entry.platform is None and entry.media_type in documents.MANIFESTS]
    return unnamed[0] if unnamed else None


_UNKNOWN = Platform(architecture="unknown", os="unknown")  # BuildKit's mark of what is no image


def _manifest(contents: Contents, entry: Descriptor, names: tuple[Reference, ...], index: str | None = None) -> Wanted:
    manifest = documents.read_manifest(contents.document(_blob(entry)))
    for layer in manifest.layers:
        if not documents.is_layer(layer.media_type):
            raise Corrupt(f"image archive: a layer of unknown type {layer.media_type!r}")
    return Wanted(_blob(manifest.config), tuple(_blob(layer) for layer in manifest.layers), names, index)
