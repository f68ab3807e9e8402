"""`docker search`: the search of Docker Hub and registries like it, else the catalogue of a registry.

https://docs.docker.com/reference/cli/docker/search/; `GET /v1/search` is all that is left of the first registry API.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Endpoint, Rules, endpoints
from hafen.distribution.lookup import looked_up
from hafen.distribution.repository import following, reachable
from hafen.distribution.transport import Target, Transport, Unreachable, read, refusal
from hafen.errors import Corrupt, InvalidArgument, System
from hafen.spec.reference import DEFAULT_DOMAIN
from hafen.spec.wire.image import SearchResult

_HUB = Endpoint("https://index.docker.io/v1")
_LIMIT = 16 << 20
_PAGES = 100  # of a catalogue, a thousand names each


class _Found(msgspec.Struct, frozen=True):
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False
    name: str = ""
    description: str | None = ""


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Found] | None = None


class _Catalogue(msgspec.Struct, frozen=True):
    repositories: list[str] | None = None


async def search(domain: str, term: str, limit: int, credentials: Credentials, rules: Rules) -> list[SearchResult]:
    """At most `limit` repositories of a registry whose names have `term` in them."""
    rules = await looked_up(domain, rules)
    async with Transport(rules, credentials, "hafen") as transport:
        if domain == DEFAULT_DOMAIN:
            found = await _index(transport, _HUB, f"{_HUB.base}/search", term, limit)
        else:
            candidates = [one for one in endpoints(domain, rules) if not one.mirror]
            try:
                endpoint = (await reachable(transport, candidates))[-1]
            except Unreachable as error:
                raise InvalidArgument(_unreachable(domain, candidates, error.message)) from error
            found = await _index(transport, endpoint, f"{endpoint.origin}/v1/search", term, limit)
            if found is None:
                found = await _catalogue(transport, endpoint, domain, term, limit)
    if found is None:
        raise System("Unexpected status code 404")
    return found


def _unreachable(domain: str, candidates: list[Endpoint], message: str) -> str:
    """Docker's words, which name every attempt (moby `registry/endpoint_v1.go`)."""
    reason = message.partition('": ')[2]
    attempts = [f'{url} attempt: Get "{url.lower()}://{domain}/v1/_ping": {reason}' for url in ("HTTPS", "HTTP")]
    if len(candidates) < len(attempts):
        return f'invalid registry endpoint https://{domain}/v1/: Get "https://{domain}/v1/_ping": {reason}'
    return f'invalid registry endpoint "http://{domain}/v1/". {". ".join(attempts)}'


async def _index(
    transport: Transport, endpoint: Endpoint, url: str, term: str, limit: int
) -> list[SearchResult] | None:
    target = Target("GET", f"{url}?q={quote(term)}&n={limit}")
    async with transport.request(endpoint, target) as response:
        if response.status == 404:
            return None
        if response.status != 200:
            raise System(f"Unexpected status code {response.status}")
        try:
            answer = msgspec.json.decode(await read(response, _LIMIT), type=_Answer)
        except msgspec.DecodeError as error:
            raise Corrupt(f"error decoding registry search results: {error}") from error
    return [
        SearchResult(
            star_count=one.star_count,
            is_official=one.is_official,
            is_automated=one.is_automated,
            name=one.name,
            description=one.description or "",
        )
        for one in (answer.results or [])[:limit]
    ]


async def _catalogue(
    transport: Transport, endpoint: Endpoint, domain: str, term: str, limit: int
) -> list[SearchResult]:
    found: list[SearchResult] = []
    query = "n=1000"
    for _ in range(_PAGES):
        target = Target("GET", f"{endpoint.base}/_catalog?{query}", ("registry:catalog:*",))
        async with transport.request(endpoint, target) as response:
            if response.status != 200:
                raise System((await refusal(response)).text)
            try:
                page = msgspec.json.decode(await read(response, _LIMIT), type=_Catalogue).repositories or []
            except msgspec.DecodeError as error:
                raise Corrupt(f"error decoding registry search results: {error}") from error
            query = following(response.headers.get("Link", ""))
        found += [SearchResult(name=f"{domain}/{name}") for name in page if term in name]
        if not query or not page or len(found) >= limit:
            break
    return found[:limit]
