"""What refers to a manifest: signatures, SBOMs and the like, asked of the referrers API or found by its tag scheme.

distribution-spec 1.1, "Listing Referrers" and "Unavailable Referrers API". Asked once: what is missing because a
registry was busy is no reason to fail, or to wait.
"""

from __future__ import annotations

from hafen.distribution.repository import Repository, following
from hafen.distribution.transport import MANIFEST_LIMIT, Target, read
from hafen.distribution.upload import Uploader
from hafen.errors import Unavailable
from hafen.spec import image as documents
from hafen.spec.digest import Digest
from hafen.spec.wire.image import Descriptor

_PAGES = 20


def tag_of(digest: Digest) -> str:
    """The tag under which registries without the API keep the index of what refers to a manifest."""
    return digest.replace(":", "-", 1)


async def listed(repository: Repository, digest: Digest) -> list[Descriptor]:
    """Descriptors of all manifests that refer to this one; none where the registry knows of none. Unavailable, System
    and Corrupt as its answer is."""
    found = await _asked(repository, digest)
    if found is None:
        found = await _tagged(repository, digest)
    return found


async def _asked(repository: Repository, digest: Digest) -> list[Descriptor] | None:
    """None where the registry has no such API."""
    found: list[Descriptor] = []
    query = ""
    for _ in range(_PAGES):
        target = Target("GET", repository.url(f"referrers/{digest}{query}"), repository.scope)
        async with repository.transport.request(repository.endpoint, target) as response:
            if response.status in (400, 404, 405):
                return None
            if response.status != 200:
                raise Unavailable(f'Get "{target.url}": received unexpected HTTP status: {response.status}')
            found += documents.read_index(await read(response, MANIFEST_LIMIT)).manifests
            query = following(response.headers.get("Link", ""))
            query = f"?{query}" if query else ""
        if not query:
            break
    return found


async def _tagged(repository: Repository, digest: Digest) -> list[Descriptor]:
    url = repository.url(f"manifests/{tag_of(digest)}")
    target = Target("GET", url, repository.scope, {"Accept": documents.OCI_INDEX})
    async with repository.transport.request(repository.endpoint, target) as response:
        if response.status != 200:
            return []
        return documents.read_index(await read(response, MANIFEST_LIMIT)).manifests


async def announce(repository: Repository, subject: Digest, artifact: Descriptor) -> None:
    """After an artifact was pushed: where the registry has no referrers API, put it into the tag scheme's index."""
    if await _asked(repository, subject) is not None:
        return
    known = [one for one in await _tagged(repository, subject) if one.digest != artifact.digest]
    index = documents.encode(documents.Index(media_type=documents.OCI_INDEX, manifests=[*known, artifact]))
    await Uploader(repository).manifest(tag_of(subject), documents.OCI_INDEX, index)
