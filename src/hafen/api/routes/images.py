"""/images/*, /commit and /distribution/*."""

from __future__ import annotations

from typing import Final

from hafen.api import registryauth
from hafen.api.message import Answer, JsonReply, Reply, Request, StreamReply
from hafen.api.router import Route
from hafen.api.stream import JSON, TAR, begun, progress
from hafen.engine.services import Services
from hafen.errors import InvalidArgument, NotImplemented
from hafen.spec.filters import Filters
from hafen.spec.platform import Platform
from hafen.spec.wire.container import ContainerConfig


async def list_all(request: Request, services: Services) -> Answer:
    query = request.query
    filters = query.filters()
    if request.version < (1, 41) and query.text("filter"):  # a pattern of names, from before there were filters
        filters = Filters({**filters.fields, "reference": (*filters.get("reference"), query.text("filter"))})
    shared_size = request.version >= (1, 42) and query.flag("shared-size")
    manifests = request.version >= (1, 47) and query.flag("manifests")
    found = await services.images.list(
        all=query.flag("all"), filters=filters, shared_size=shared_size, manifests=manifests
    )
    return JsonReply(found)


async def inspect(request: Request, services: Services) -> Answer:
    query = request.query
    manifests = request.version >= (1, 48) and query.flag("manifests")
    platform = query.platform() if request.version >= (1, 49) else None
    if manifests and platform:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    return JsonReply(await services.images.inspect(request.params["name"], platform=platform, manifests=manifests))


async def history(request: Request, services: Services) -> Answer:
    return JsonReply(await services.images.history(request.params["name"], _platform(request)))


def _platform(request: Request) -> Platform | None:
    """That of history, load and save."""
    return request.query.platform() if request.version >= (1, 48) else None


async def attestations(request: Request, services: Services) -> Answer:
    query = request.query
    found = await services.images.attestations(
        request.params["name"], query.platform(), query.all("type"), query.flag("statement")
    )
    return JsonReply(found)


async def referrers(request: Request, services: Services) -> Answer:
    """Ours alone: signatures, SBOMs and attestations that are kept about an image."""
    return JsonReply(await services.images.referrers(request.params["name"], request.query.platform()))


async def create(request: Request, services: Services) -> Answer:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    query = request.query
    if query.text("fromImage"):
        pulled = services.registry.pull(
            query.text("fromImage"), query.text("tag"), query.text("platform"), registryauth.lenient(request.headers)
        )
        return StreamReply(await begun(progress(pulled, request.version)), JSON)
    if query.text("fromSrc") != "-":
        raise NotImplemented("importing an image from a URL is not implemented by this engine; send it as the body")
    messages = services.images.import_(
        aiter(request.body),
        repo=query.text("repo"),
        tag=query.text("tag"),
        message=query.text("message"),
        changes=query.all("changes"),
        platform=query.text("platform"),
    )
    return StreamReply(await begun(progress(messages, request.version)), JSON)


async def bootstrap(request: Request, services: Services) -> Answer:
    """Ours alone: a distribution's base system from its signed package archive."""
    query = request.query
    messages = services.images.bootstrap(query.text("name"), query.text("mirror") or None)
    return StreamReply(await begun(progress(messages, request.version)), JSON)


async def load(request: Request, services: Services) -> Answer:
    quiet = request.query.flag("quiet", True)
    messages = services.images.load(aiter(request.body), quiet=quiet, platform=_platform(request))
    return StreamReply(progress(messages, request.version, begun=True), JSON)  # Docker, too, says 200 to garbage


async def save_one(request: Request, services: Services) -> Answer:
    return StreamReply(await begun(services.images.save((request.params["name"],), _platform(request))), TAR)


async def save(request: Request, services: Services) -> Answer:
    names = request.query.all("names")
    if not names:
        raise InvalidArgument("no image names given")
    return StreamReply(await begun(services.images.save(names, _platform(request))), TAR)


async def tag(request: Request, services: Services) -> Answer:
    query = request.query
    if not query.text("repo"):
        return Reply(200)  # Docker does nothing then
    await services.images.tag(request.params["name"], query.text("repo"), query.text("tag"))
    return Reply(201)


async def remove(request: Request, services: Services) -> Answer:
    query = request.query
    platforms = query.platforms("platforms") if request.version >= (1, 50) else ()
    removed = await services.images.remove(
        request.params["name"], force=query.flag("force"), noprune=query.flag("noprune"), platforms=platforms
    )
    return JsonReply(removed)


async def prune(request: Request, services: Services) -> Answer:
    return JsonReply(await services.images.prune(request.query.filters()))


async def push(request: Request, services: Services) -> Answer:
    messages = services.registry.push(
        request.params["name"], request.query.text("tag"), await registryauth.of_push(request),
        request.query.platform() if request.version >= (1, 46) else None, request.query.flag("referrers"),
    )  # fmt: skip
    return StreamReply(await begun(progress(messages, request.version)), JSON)


async def search(request: Request, services: Services) -> Answer:
    query = request.query
    auth = registryauth.lenient(request.headers)
    try:
        limit = query.integer("limit")
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid limit specified: {error}") from error
    return JsonReply(await services.registry.search(query.text("term"), limit, query.filters(), auth))


async def distribution(request: Request, services: Services) -> Answer:
    auth = registryauth.lenient(request.headers)
    return JsonReply(await services.registry.inspect(request.params["name"], auth))


async def commit(request: Request, services: Services) -> Answer:
    query = request.query
    pause = query.flag("pause", True)
    config = await request.json(ContainerConfig) if request.body.length != 0 else None
    created = await services.commit.commit(
        query.text("container"),
        repo=query.text("repo") or None,
        tag=query.text("tag") or None,
        comment=query.text("comment"),
        author=query.text("author"),
        pause=pause,
        changes=query.all("changes"),
        config=config,
    )
    return JsonReply(created, 201)


ROUTES: Final = (
    Route("GET", "/images/json", list_all),
    Route("GET", "/images/search", search),
    Route("GET", "/images/get", save),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("POST", "/images/bootstrap", bootstrap),
    Route("POST", "/images/prune", prune, finish=True),
    Route("POST", "/commit", commit, finish=True),
    Route("GET", "/images/{name:path}/json", inspect),
    Route("GET", "/images/{name:path}/history", history),
    Route("GET", "/images/{name:path}/get", save_one),
    Route("GET", "/images/{name:path}/attestations", attestations, since=(1, 55)),
    Route("GET", "/images/{name:path}/referrers", referrers),
    Route("POST", "/images/{name:path}/tag", tag, finish=True),
    Route("POST", "/images/{name:path}/push", push),
    Route("DELETE", "/images/{name:path}", remove, finish=True),
    Route("GET", "/distribution/{name:path}/json", distribution, since=(1, 30)),
)
