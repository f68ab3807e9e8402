"""Query parameters that a version did not know yet, or read otherwise: what the engine is asked for."""

import pytest

from hafen.engine.services import AttachOptions
from hafen.engine.volumerecords import Removal
from hafen.errors import NotFound
from hafen.spec.filters import Filters
from hafen.spec.wire.container import CreateRequest, CreateResponse
from hafen.spec.wire.image import ImageSummary
from hafen.spec.wire.volume import VolumePruneResponse
from tests.api.serving import ask, fake, serving


class Create:
    def __init__(self) -> None:
        self.platforms: list[str | None] = []

    async def create(self, name: str | None, config: CreateRequest, platform: str | None) -> CreateResponse:
        self.platforms.append(platform)
        return CreateResponse(id="c", warnings=["the engine's"])


async def test_platforms_and_warnings_of_create() -> None:
    create = Create()
    async with serving(fake(create=create)) as path:
        for minor, warnings in ((40, 1), (44, 2)):
            target = f"/v1.{minor}/containers/create?platform=linux/arm64"
            body = b'{"Image": "x", "MacAddress": "02:42:ac:11:00:09"}'
            answer = (await ask(path, "POST", target, body, content_type="application/json")).json()
            assert isinstance(answer, dict)
            assert len(answer["Warnings"]) == warnings
    assert create.platforms == [None, "linux/arm64"]


class Images:
    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], bool]] = []

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, manifests: bool) -> list[ImageSummary]:
        self.asked.append((filters.get("reference"), shared_size))
        return []


async def test_the_old_filter_of_images_and_their_shared_size() -> None:
    images = Images()
    async with serving(fake(images=images)) as path:
        for minor in (40, 41, 42):
            await ask(path, "GET", f"/v1.{minor}/images/json?filter=busy*&shared-size=1")
    assert images.asked == [(("busy*",), False), ((), False), ((), True)]


class Volumes:
    def __init__(self) -> None:
        self.asked: list[dict[str, tuple[str, ...]]] = []

    async def prune(self, filters: Filters, how: Removal) -> VolumePruneResponse:
        self.asked.append(dict(filters.fields))
        return VolumePruneResponse()


async def test_volumes_with_names_were_pruned() -> None:
    volumes = Volumes()
    async with serving(fake(volumes=volumes)) as path:
        for minor in (41, 42):
            await ask(path, "POST", f"/v1.{minor}/volumes/prune")
    assert volumes.asked == [{"all": ("true",)}, {}]


class Attach:
    def __init__(self) -> None:
        self.asked: list[AttachOptions] = []

    async def attach(self, container: str, options: AttachOptions) -> None:
        self.asked.append(options)
        raise NotFound("none")


@pytest.mark.parametrize(("minor", "streams"), [(41, (True, True, True)), (42, (False, True, False))])
async def test_a_websocket_was_all_streams(minor: int, streams: tuple[bool, ...]) -> None:
    attach = Attach()
    async with serving(fake(attach=attach)) as path:
        await ask(path, "GET", f"/v1.{minor}/containers/x/attach/ws?stdout=1&stream=1")
    (options,) = attach.asked
    assert (options.stdin, options.stdout, options.stderr) == streams
