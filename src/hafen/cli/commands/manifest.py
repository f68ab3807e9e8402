"""`manifest inspect`: the registry is asked from here, without an engine, as docker does it."""

import asyncio
import base64
import json
import os
from typing import TYPE_CHECKING

from hafen.cli import credentials
from hafen.cli.command import Call, Command
from hafen.cli.output import out
from hafen.client.engine import Document
from hafen.errors import NotFound, System
from hafen.spec import image as documents
from hafen.spec.reference import Reference, parse

if TYPE_CHECKING:  # its HTTP library is imported when it is used
    from hafen.distribution.repository import ManifestData, Repository


def _inspect(call: Call) -> int:
    from hafen.distribution.auth import Credentials
    from hafen.distribution.endpoint import Rules
    from hafen.distribution.repository import open_repository

    name = parse(call.arguments[-1]).with_default_tag()
    kept = credentials.lookup(call.settings, credentials.server_of(name.repository))
    auth = Credentials(
        kept.get("username", ""), kept.get("password", ""), kept.get("identitytoken", ""), kept.get("registrytoken", "")
    )
    insecure = (name.domain,) if call.flags.on("insecure") else ()
    rules = Rules((), insecure, (os.path.expanduser("~/.docker/certs.d"), "/etc/docker/certs.d"))

    async def fetch() -> object:
        async with open_repository(name, auth, rules, "hafen") as repository:
            found = await repository.manifest(name.digest or name.tag or "")
            return await _detailed(repository, name, found) if call.flags.on("verbose") else json.loads(found.data)

    try:
        document = asyncio.run(fetch())
    except (NotFound, System):
        raise NotFound(f"no such manifest: {name.familiar}") from None
    out(json.dumps(document, indent="\t", ensure_ascii=False))
    return 0


async def _detailed(repository: "Repository", name: Reference, found: "ManifestData") -> object:
    """One document for an image, a list of them for an index."""
    if found.media_type not in documents.INDEXES:
        config = documents.read_image(await repository.small(documents.read_manifest(found.data).config))
        place = {"architecture": config.architecture, "os": config.os}
        if config.variant:
            place["variant"] = config.variant
        return _one(str(name), found, place)
    entries = json.loads(found.data)["manifests"]
    members = [(entry, await repository.manifest(entry["digest"])) for entry in entries]
    return [
        _one(f"{name.repository}@{member.digest}", member, entry.get("platform") or {}) for entry, member in members
    ]


def _one(name: str, found: "ManifestData", place: Document) -> Document:
    kind = "SchemaV2Manifest" if found.media_type == documents.DOCKER_MANIFEST else "OCIManifest"
    descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": len(found.data), "platform": place}
    raw = base64.b64encode(found.data).decode()
    return {"Ref": name, "Descriptor": descriptor, "Raw": raw, kind: json.loads(found.data)}


INSPECT = Command(
    _inspect, "[OPTIONS] [MANIFEST_LIST] MANIFEST", "Display an image manifest, or manifest list",
    """
    --insecure   Allow communication with an insecure registry
-v, --verbose    Output additional info including layers and platform
""", least=1, most=2,
)  # fmt: skip
